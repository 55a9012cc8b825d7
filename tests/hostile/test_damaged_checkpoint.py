"""Every field of a checkpoint × wrong values, and damaged weights: one sentence with the folder and the field, or no
effect at all."""

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import tiny_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation

from efp_hf import EFPConfig, EFPForSegmentation, EFPImageProcessor
from efp_hf.commands import main
from efp_hf.data.synthetic import draw_lesion
from efp_hf.inference.checkpoint import load_checkpoint, segment
from efp_hf.inference.runtimes import check_outputs

MISSING = object()
VALUES = {
    "missing": MISSING,
    "null": None,
    "word": "banana",
    "empty": "",
    "digits": "3",
    "true": True,
    "zero": 0,
    "half": 0.5,
    "negative": -1,
    "huge": 10**9,
    "beyond": 10**30,
    "infinite": math.inf,
    "nan": math.nan,
    "list": [1, 2],
    "no_list": [],
    "nested": [[1], {"a": [2]}],
    "dict": {"a": 1},
    "no_dict": {},
}
BACKBONE = {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [4, 6, 8, 10], "depths": [1, 1, 1, 1]}
BACKBONE |= {"layer_type": "basic", "out_features": ["stage1", "stage2", "stage3", "stage4"]}

# the values of each field of EFP's own that are right, or "missing" where it has a default; all others are refused
RIGHT = {
    "config.json": {
        "num_channels": "missing",
        "backbone_config": "missing null",
        "hidden_sizes": "",
        "depths": "",
        "pyramid_size": "",
        "head_size": "",
        "use_cross_scale": "missing true",
        "cross_scale_kernel_size": "",
        "use_spatial_attention": "missing true",
        "attention_kernel_size": "missing",
        "hidden_act": "missing",
        "dice_weight": "missing zero half huge beyond",
        "bce_weight": "missing zero half huge beyond",
        "dice_smoothing": "missing half",
        "semantic_loss_ignore_index": "missing zero negative huge beyond",
        "temperature": "missing half",
        "id2label": "missing null",
        "label2id": "missing null dict no_dict",
        "num_labels": "missing",
        "model_type": "missing",
        "dtype": "missing null",
    },
    "preprocessor_config.json": {
        "do_convert_rgb": "missing true",
        "do_resize": "missing true",
        "size": "list",
        "resample": "missing zero",
        "do_rescale": "missing true",
        "rescale_factor": "missing half",
        "do_normalize": "missing true",
        "image_mean": "missing zero half",
        "image_std": "missing half",
        "threshold": "missing half",
        "largest_region": "missing true",
        "jaccard_temperature": "missing half",
        "do_center_crop": "missing null",
        "crop_size": "missing null list",
        "do_pad": "missing null",
        "pad_size": "missing null list",
    },
}
# fields of Transformers: refused, or without an effect on the masks
TOLERATED = {
    "config.json": [
        *("architectures", "transformers_version", "output_hidden_states", "output_attentions", "return_dict"),
        *("problem_type", "chunk_size_feed_forward", "is_encoder_decoder", "auto_map", "_name_or_path", "torch_dtype"),
        *("attn_implementation", "quantization_config", "name_or_path", "per_layer_config", "unknown_field"),
        *("global_context_size", "zero_init_scores", "to_dict", "_check", "sub_configs", "base_model_tp_plan"),
        *("configuration_files", "gguf_file", "rope_parameters", "layer_types", "device", "tie_word_embeddings"),
    ],
    "preprocessor_config.json": [
        *("image_processor_type", "processor_class", "auto_map", "data_format", "input_data_format", "device"),
        *("return_tensors", "disable_grouping", "default_to_square", "image_seq_length", "do_reduce_labels"),
        *("unknown_field", "preprocess", "_set_attributes", "to_dict", "model_input_names", "valid_kwargs"),
        *("feature_extractor_type", "config", "backend"),
    ],
}
BACKBONE_FIELDS = [*BACKBONE, "num_channels", "out_indices", "hidden_act", "downsample_in_first_stage"]


FAST = ("word", "null", "nan", "huge")
WEIGHTS = "model.safetensors"


def cases() -> Iterator[tuple[str, str, str, bool | None]]:
    """File, field, value and whether it is right; None where only the masks matter."""
    for file, fields in RIGHT.items():
        yield from ((file, field, label, label in right.split()) for field, right in fields.items() for label in VALUES)
    others = {**TOLERATED, "backbone_config": BACKBONE_FIELDS}
    yield from ((file, field, label, None) for file, fields in others.items() for field in fields for label in VALUES)


CASES = list(cases())


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """One with the paper's encoder for the fields of both files, and one with a backbone for those of the backbone."""
    folders = {}
    for file, options in {"config.json": {}, "backbone_config": {"backbone_config": dict(BACKBONE)}}.items():
        torch.manual_seed(0)
        folders[file] = tmp_path_factory.mktemp("checkpoints") / "tiny"
        tiny_model(**options).save_pretrained(folders[file])
        EFPImageProcessor(size={"height": 32, "width": 32}, threshold=0.45).save_pretrained(folders[file])
    return folders | {"preprocessor_config.json": folders["config.json"]}


def predict(folder: Path) -> torch.Tensor:
    return segment([draw_lesion(3, 40, 50)[0]], *load_checkpoint(folder))[0]["probabilities"]


def is_sentence(error: Exception, folder: Path, words: str) -> bool:
    """One line of the two classes that commands print, with the folder first and the field or the weights in it."""
    message = str(error)
    return (
        isinstance(error, (ValueError, OSError))
        and message.startswith(f"{folder}: ")
        and "\n" not in message
        and len(message) < 1000
        and bool(re.search(words, message))
    )


def fault(checkpoints: dict[str, Path], work: Path, file: str, field: str, label: str, right: bool | None) -> str:
    """What is wrong with how a damaged field is met, or an empty string."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(checkpoints[file], work)
    path = work / ("config.json" if file == "backbone_config" else file)
    whole = json.loads(path.read_text())
    fields = whole["backbone_config"] if file == "backbone_config" else whole
    fields.pop(field, None)
    if VALUES[label] is not MISSING:
        fields[field] = VALUES[label]
    path.write_text(json.dumps(whole))
    try:
        probabilities = predict(work)
    except Exception as error:
        # where the sizes are another network's, it is a weight that is named; Transformers reads the last one itself
        words = f"{field}|{file}|[0-9]+ weights " if right is None else f"{field}|[0-9]+ weights "
        if right or not is_sentence(error, work, words):
            return f"{type(error).__name__}: {error}"
        return ""
    if right is False:
        return "no error"
    is_same = torch.equal(probabilities, predict(checkpoints[file]))
    return "other masks and no error" if right is None and not is_same else ""


def faults(checkpoints, work: Path, chosen: list[tuple]) -> list[str]:
    met = {case: fault(checkpoints, work, *case) for case in chosen}
    return [f"{' '.join(case[:3])}: {words}" for case, words in met.items() if words]


def test_wrong_value_of_a_field_is_one_sentence_with_folder_and_field(checkpoints, tmp_path):
    chosen = [case for number, case in enumerate(c for c in CASES if c[2] in FAST) if number % 30 == 0]
    assert faults(checkpoints, tmp_path / "work", chosen) == []


@pytest.mark.slow
@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "backbone_config"])
def test_every_wrong_value_of_every_field_is_one_sentence_with_folder_and_field(checkpoints, tmp_path, file):
    assert faults(checkpoints, tmp_path / "work", [case for case in CASES if case[0] == file]) == []


# whole files: bytes in the place of one of the three


def damage_weights(change: Callable[[dict], dict | None]) -> Callable[[Path], None]:
    def damage(folder: Path):
        weights = load_file(folder / WEIGHTS)
        save_file(change(weights) or weights, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def set_first(name: str, value: float) -> Callable[[Path], None]:
    def change(weights):
        weights[name].view(-1)[0] = value

    return damage_weights(change)


def replace(file: str, make: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(make((folder / file).read_bytes()))


def make_folder(file: str) -> Callable[[Path], None]:
    def damage(folder: Path):
        (folder / file).unlink()
        (folder / file).mkdir()

    return damage


def in_shards(damage: Callable[[Path], None]) -> Callable[[Path], None]:
    def damage_shards(folder: Path):
        model = EFPForSegmentation.from_pretrained(folder)
        (folder / WEIGHTS).unlink()
        model.save_pretrained(folder, max_shard_size="5KB")
        damage(folder)

    return damage_shards


def save_pickle(folder: Path):
    class Code:
        def __reduce__(self):
            return (os.mkdir, (str(folder / "run"),))

    (folder / WEIGHTS).unlink()
    torch.save(Code(), folder / "pytorch_model.bin")


NORM = "encoder.blocks.1.layers.0.1"
INDEX = f"{WEIGHTS}.index.json"
DAMAGE = {
    **{f"weights_cut_{n}": (replace(WEIGHTS, lambda old, n=n: old[:n]), "the weights are damaged") for n in (0, 9, -1)},
    "weights_random": (replace(WEIGHTS, lambda old: bytes(range(256)) * 20), "the weights are damaged"),
    "weights_longer": (replace(WEIGHTS, lambda old: old + b"abc"), "the weights are damaged"),
    "weights_folder": (make_folder(WEIGHTS), WEIGHTS),
    "weights_gone": (lambda folder: (folder / WEIGHTS).unlink(), WEIGHTS),
    "pickle": (save_pickle, WEIGHTS),
    **{
        f"{name}_{value}": (set_first(name, value), f"`{name}` must (be finite|not be negative)")
        for name, values in {
            "decoder.classifier.weight": (math.nan, math.inf),
            "decoder.attention.0.convolution.bias": (math.nan, -math.inf),
            f"{NORM}.weight": (math.nan, math.inf),
            f"{NORM}.running_mean": (math.nan, math.inf),
            f"{NORM}.running_var": (math.nan, math.inf, -0.1),
        }.items()
        for value in values
    },
    **{
        f"dtype_{dtype}": (damage_weights(lambda old, dtype=dtype: {k: v.to(dtype) for k, v in old.items()}), kind)
        for dtype, kind in {torch.int64: "got I64", torch.bool: "got BOOL", torch.complex64: "got C64"}.items()
    },
    "weight_missing": (
        damage_weights(lambda old: {k: v for k, v in old.items() if k != "decoder.classifier.bias"}),
        "1 weights of the model are not in the checkpoint, decoder.classifier.bias",
    ),
    "weight_left_over": (
        damage_weights(lambda old: {**old, "other": torch.zeros(1)}),
        "1 weights of the checkpoint are not in the model, other",
    ),
    "weight_shape": (
        damage_weights(lambda old: {**old, "decoder.classifier.bias": torch.zeros(5)}),
        "1 weights have another shape than the configuration says, decoder.classifier.bias",
    ),
    "shard_gone": (in_shards(lambda folder: sorted(folder.glob("model-*"))[1].unlink()), "model-00002-of"),
    "shard_cut": (in_shards(lambda folder: sorted(folder.glob("model-*"))[1].write_bytes(b"")), "weights are damaged"),
    **{
        f"index_{content}": (in_shards(lambda folder, c=content: (folder / INDEX).write_text(c)), "weights: ")
        for content in (
            "",
            "{",
            "[]",
            "{}",
            '{"metadata": {}, "weight_map": null}',
            '{"metadata": {}, "weight_map": {"a": 3}}',
        )
    },
    **{
        f"{file}_{name}": (replace(file, lambda old, content=content: content), file)
        for file in ("config.json", "preprocessor_config.json")
        for name, content in {
            "empty": b"",
            "broken": b"{",
            "list": b"[]",
            "null": b"null",
            "number": b"3",
            "utf16": '{"a": 1}'.encode("utf-16"),
            "latin": b'{"a": "\xe9"}',
            "nul": b"\0" * 100,
            "deep": b"[" * 100_000,
        }.items()
    },
    "config.json_no_fields": (replace("config.json", lambda old: b"{}"), "[0-9]+ weights"),
    "preprocessor_config.json_no_fields": (replace("preprocessor_config.json", lambda old: b"{}"), "`size` must be"),
    "preprocessor_config.json_folder": (make_folder("preprocessor_config.json"), "preprocessor_config.json"),
    "config.json_folder": (make_folder("config.json"), "no checkpoint there"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_file_is_one_sentence_that_names_it(checkpoints, tmp_path, name):
    damage, words = DAMAGE[name]
    folder = shutil.copytree(checkpoints["config.json"], tmp_path / "work")
    damage(folder)
    with pytest.raises((ValueError, OSError)) as raised:
        load_checkpoint(folder)
    assert is_sentence(raised.value, folder, words), raised.value
    assert not (folder / "run").exists()


def test_weights_of_other_floating_point_numbers_load(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["config.json"], tmp_path / "work")
    damage_weights(lambda old: {name: weight.to(torch.float16) for name, weight in old.items()})(folder)
    assert torch.allclose(predict(folder), predict(checkpoints["config.json"]), atol=1e-2)


def test_network_that_asks_for_more_memory_than_any_is_refused_before_it_gets_it(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["config.json"], tmp_path / "work")
    fields = json.loads((folder / "config.json").read_text())
    fields |= {"pyramid_size": 8192, "cross_scale_kernel_size": 8191}
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"at most 1,000,000,000 parameters, got [0-9,]{15,}"):
        EFPForSegmentation.from_pretrained(folder)


def test_contradictory_numbers_of_labels_are_refused(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["config.json"], tmp_path / "work")
    fields = json.loads((folder / "config.json").read_text()) | {"num_labels": 3}
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="`num_labels` must be that of `id2label`, 2, got 3"):
        EFPConfig.from_pretrained(folder)


@pytest.mark.parametrize(
    "load",
    [EFPConfig, EFPForSegmentation, AutoConfig, AutoModelForSemanticSegmentation],
    ids=lambda load: load.__name__,
)
def test_classes_of_transformers_say_the_same_of_the_configuration(checkpoints, tmp_path, load):
    folder = shutil.copytree(checkpoints["config.json"], tmp_path / "work")
    (folder / "config.json").write_text(
        (folder / "config.json").read_text().replace('"head_size": 6', '"head_size": 0')
    )
    with pytest.raises(ValueError, match=f"^{folder}: config.json: `head_size` must be positive, got 0.$"):
        load.from_pretrained(folder)


@pytest.mark.parametrize("load", [EFPImageProcessor, AutoImageProcessor], ids=lambda load: load.__name__)
def test_classes_of_transformers_say_the_same_of_the_processor(checkpoints, tmp_path, load):
    folder = shutil.copytree(checkpoints["config.json"], tmp_path / "work")
    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace("0.229", "NaN"))
    with pytest.raises(ValueError, match=f"^{folder}: preprocessor_config.json: `image_std` must be from 0.001 to 255"):
        load.from_pretrained(folder)


@pytest.mark.parametrize("change", [{"size": 10**6}, {"image_mean": [0.5, 0.5]}, {"image_std": -1}, {"resample": 7}])
def test_processor_with_impossible_numbers_is_refused_where_it_is_made(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"`{name}` must be "):
        EFPImageProcessor(**change)


def test_whole_numbers_are_taken_for_floating_point_ones():
    processor = EFPImageProcessor(rescale_factor=1, image_mean=[0, 0, 0], image_std=1, jaccard_temperature=1)
    assert processor.rescale_factor == 1 and tuple(processor.image_mean) == (0, 0, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_exported_model_whose_logits_are_not_finite_is_refused(value):
    model = tiny_model()
    model.decoder.classifier.bias.data[0] = value
    with pytest.raises(ValueError, match="its logits must be finite"):
        check_outputs(model)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"export_format": []}', '{"export_format": "coreml"}'])
def test_damaged_manifest_of_an_export_is_one_sentence(checkpoints, tmp_path, content):
    folder = shutil.copytree(checkpoints["config.json"], tmp_path / "work")
    (folder / "export.json").write_text(content)
    with pytest.raises(ValueError) as raised:
        load_checkpoint(folder)
    assert is_sentence(raised.value, folder, "export.json")


COMMANDS = {
    "predict": ["photo.png", "--output", "masks"],
    "score": ["--data", "data"],
    "calibrate": ["--data", "data", "--allow-few-images"],
    "export": ["--to", "onnx", "--output", "exported"],
    "train": ["--data", "data", "--output", "trained"],
    "app": [],
}


@pytest.mark.parametrize(
    "command", ["predict", *(pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS if name != "predict")]
)
def test_every_command_refuses_a_damaged_checkpoint_in_one_line(
    checkpoints, synthetic_root, tmp_path, monkeypatch, capsys, command
):
    monkeypatch.chdir(tmp_path)
    draw_lesion(0, 32, 32)[0].save("photo.png")
    Path("data").symlink_to(synthetic_root)
    folder = shutil.copytree(checkpoints["config.json"], tmp_path / "work")
    set_first("decoder.classifier.bias", math.nan)(folder)
    before = set(tmp_path.iterdir())
    assert main([command, *COMMANDS[command], "--checkpoint", str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"efp {command}: {folder}: weights: `decoder.classifier.bias` must be finite")
    assert said.count("\n") == 1
    assert set(tmp_path.iterdir()) == before
