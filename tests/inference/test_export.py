import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, tiny_model
from datasets import Dataset
from PIL import Image
from timm.layers.conv2d_same import Conv2dSame
from transformers import TimmBackboneConfig

from efp_hf import EFPImageProcessor
from efp_hf.__main__ import main
from efp_hf.data.pairs import FEATURES
from efp_hf.data.synthetic import draw_lesion
from efp_hf.inference.checkpoint import load_checkpoint, segment
from efp_hf.inference.export import (
    ChunkedPooling,
    SamePaddingConv,
    export_model,
    has_exact_halves,
    write_poolings_for_onnx,
)
from efp_hf.inference.runtimes import load_exported, require_packages, runtime_of
from efp_hf.metrics.evaluation import grid_jaccards
from efp_hf.modeling_efp import EFPChannelPooling, EFPScore
from efp_hf.training.prompts import without_prompt_encoder

SHIPPED = REPOSITORY / "efp_hf" / "checkpoints" / "efp-isic"
RUNTIMES = ("onnx", "openvino")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """
    A tiny checkpoint whose numbers are none of the defaults, with a threshold that some pixels pass. It has the plain
    pyramid, which is traced in half the time; the whole network is in the slow tests.
    """
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    model = tiny_model(use_cross_scale=False, temperature=1.7)
    for score in (module for module in model.modules() if isinstance(module, EFPScore)):
        torch.nn.init.kaiming_normal_(score.weight, mode="fan_out")  # masks that int8 can keep
    processor = EFPImageProcessor(size={"height": 40, "width": 56})
    probabilities = segment([draw_lesion(0, 60, 80)[0]], model, processor)[0]["probabilities"]
    processor.threshold = round(float(probabilities.quantile(0.7)), 6)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """Format → folder."""
    folders = {runtime: tmp_path_factory.mktemp("exported") / runtime for runtime in RUNTIMES}
    for runtime, folder in folders.items():
        export_model(*load_checkpoint(checkpoint), folder, runtime)
    return folders


def noise(*shape) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


# What is exported


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_logits_are_those_of_pytorch_at_every_size_and_batch(checkpoint, exported, runtime):
    model, _ = load_checkpoint(checkpoint)
    other, _ = load_checkpoint(exported[runtime])
    for shape in ((1, 3, 64, 64), (8, 3, 32, 48), (1, 3, 97, 131), (3, 3, 33, 40), (1, 3, 256, 192)):
        pixel_values = noise(*shape)
        with torch.inference_mode():
            logits = model(pixel_values=pixel_values).logits
        assert other(pixel_values=pixel_values).logits.shape == logits.shape
        torch.testing.assert_close(other(pixel_values=pixel_values).logits, logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_masks_are_those_of_pytorch_at_the_size_of_each_image(checkpoint, exported, runtime):
    images = [draw_lesion(seed, *size)[0] for seed, size in enumerate([(60, 80), (33, 47), (101, 64)])]
    expected = segment(images, *load_checkpoint(checkpoint))
    found = segment(images, *load_checkpoint(exported[runtime]))
    for image, mine, theirs in zip(images, found, expected, strict=True):
        assert mine["segmentation"].shape == image.size[::-1]
        assert 0 < theirs["segmentation"].float().mean() < 1
        assert (mine["segmentation"] != theirs["segmentation"]).float().mean() < 1e-3
        torch.testing.assert_close(mine["probabilities"], theirs["probabilities"], rtol=0, atol=1e-4)


def test_bf16_is_near_and_only_where_it_is_asked_for(checkpoint, exported):
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("needs a processor that computes in bfloat16")
    pixel_values = noise(2, 3, 64, 64)
    # one model after the other: of two at a time, the second would give back the first one's freed signal stack
    # (OpenVINO 2026.4), and the next signal that Python handles would end the process
    exact = load_checkpoint(exported["openvino"])[0](pixel_values=pixel_values).logits
    rounded = load_checkpoint(exported["openvino"], bf16=True)[0](pixel_values=pixel_values).logits
    assert 1e-4 < (exact - rounded).abs().max() < 0.05 * exact.abs().max()


def test_bf16_is_refused_where_it_cannot_be_had(checkpoint, exported, monkeypatch):
    for folder, found in ((exported["onnx"], "one for onnx"), (checkpoint, "a checkpoint")):
        with pytest.raises(
            ValueError, match=f"{folder.name}: `bf16` must be used with a folder of OpenVINO, got {found}"
        ):
            load_checkpoint(folder, bf16=True)
    monkeypatch.setattr("openvino.Core.get_property", lambda self, device, name: ["FP32"])
    with pytest.raises(ValueError, match="`bf16` needs a processor that computes in bfloat16"):
        load_checkpoint(exported["openvino"], bf16=True)


def test_graph_of_onnx_is_without_the_lines_that_made_it(exported):
    graph = (exported["onnx"] / "model.onnx").read_bytes()
    assert b"modeling_efp.py" not in graph and b"fusion.refinement" in graph


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_exported_folder_holds_configuration_and_processor_but_no_other_weights(checkpoint, exported, runtime):
    model, processor = load_checkpoint(exported[runtime], runtime)
    assert runtime_of(exported[runtime]) == runtime and runtime_of(checkpoint) == "torch"
    assert (model.dtype, model.device, model.config.temperature) == (torch.float32, torch.device("cpu"), 1.7)
    assert processor.to_dict() == load_checkpoint(checkpoint)[1].to_dict()
    assert not list(exported[runtime].glob("*.safetensors"))
    assert [path.name for path in exported[runtime].parent.iterdir()] == [runtime]


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 2), (5, 2), (3, 1), (4, 3), (2, 2)])
def test_traceable_convolution_pads_as_timm_does(kernel_size, stride):
    convolution = Conv2dSame(4, 4, kernel_size, stride, groups=2)
    for height, width in ((2, 5), (4, 3), (1, 6)):
        feature_map = noise(2, 4, stride * height, stride * width)
        torch.testing.assert_close(SamePaddingConv(convolution)(feature_map), convolution(feature_map), rtol=0, atol=0)


def test_averages_lose_their_ceil_mode_only_where_every_level_is_half_of_the_one_before():
    for last_stages, expected in (((1, 2, 3, 4), True), ((2, 3, 4), False)):  # strides 4 to 32, and 8 to 64
        backbone = TimmBackboneConfig(
            backbone="tf_efficientnet_lite0", out_indices=last_stages, use_pretrained_backbone=False
        )
        model = tiny_model(backbone_config=backbone)
        write_poolings_for_onnx(model)
        assert has_exact_halves(model) == expected and model.decoder.pyramid.ceil_mode != expected


@pytest.mark.parametrize("channels", [64, 20, 7])
def test_pooling_in_chunks_is_the_pooling_of_the_model(channels):
    feature_map = noise(2, channels, 5, 6)
    torch.testing.assert_close(ChunkedPooling()(feature_map), EFPChannelPooling()(feature_map))


def test_export_leaves_the_model_as_it_was(checkpoint, tmp_path):
    model, processor = load_checkpoint(checkpoint)
    with pytest.raises(OSError):
        export_model(model, processor, tmp_path / "x", "onnx", unreadable_images())
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in model.parameters())


# Folders


def unreadable_images():
    yield draw_lesion(0, 40, 60)[0]
    raise OSError("the second image is damaged")


def test_error_leaves_no_half_written_folder(checkpoint, tmp_path):
    with pytest.raises(OSError, match="the second image is damaged"):
        export_model(*load_checkpoint(checkpoint), tmp_path / "new", "onnx", unreadable_images())
    assert list(tmp_path.iterdir()) == []


def test_folder_is_overwritten_only_if_asked_and_exported(checkpoint, exported, tmp_path):
    loaded = load_checkpoint(checkpoint)
    old = shutil.copytree(exported["onnx"], tmp_path / "old")
    with pytest.raises(FileExistsError, match="old is there. Choose another folder, or pass --overwrite"):
        export_model(*loaded, old, "onnx")
    with pytest.raises(OSError, match="the second image is damaged"):
        export_model(*loaded, old, "onnx", unreadable_images(), overwrite=True)
    assert sorted(path.name for path in old.iterdir()) == sorted(path.name for path in exported["onnx"].iterdir())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="mine is no exported model and is not overwritten"):
        export_model(*loaded, tmp_path / "mine", "onnx", overwrite=True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_damaged_or_incomplete_export_is_an_error(exported, tmp_path):
    folder = shutil.copytree(exported["onnx"], tmp_path / "damaged")
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged: the exported model is damaged"):
        load_checkpoint(folder)
    (folder / "model.onnx").unlink()
    with pytest.raises(OSError, match="model.onnx"):
        load_checkpoint(folder)


# What is refused


def test_another_runtime_than_the_folders_is_refused(checkpoint, exported):
    with pytest.raises(ValueError, match="the runtime must be the folder's own, torch, got 'onnx'"):
        load_checkpoint(checkpoint, runtime="onnx")
    with pytest.raises(ValueError, match="the runtime must be the folder's own, openvino, got 'torch'"):
        load_checkpoint(exported["openvino"], runtime="torch")


def test_impossible_exports_are_refused(checkpoint, tmp_path):
    loaded = load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="`to` must be one of onnx, openvino, executorch, got 'coreml'"):
        export_model(*loaded, tmp_path / "x", "coreml")
    with pytest.raises(ValueError, match="`half` must not be given with int8"):
        export_model(*loaded, tmp_path / "x", "onnx", [draw_lesion(0, 40, 60)[0]], half=True)


def test_missing_package_is_named_with_the_extra_that_brings_it():
    require_packages(("torch",), "This")
    with pytest.raises(ImportError, match=r"This needs no_such_runtime of efp-hf\[export\]: pip install"):
        require_packages(("torch", "no_such_runtime"), "This")


@pytest.mark.skipif(find_spec("executorch") is not None, reason="executorch is installed")
def test_executorch_has_an_extra_of_its_own(checkpoint, tmp_path):
    with pytest.raises(ImportError, match=r"needs executorch of efp-hf\[executorch\]: pip install"):
        export_model(*load_checkpoint(checkpoint), tmp_path / "x", "executorch")


def test_mask_of_another_size_than_its_image_is_not_scored(checkpoint):
    image, mask = Image.new("RGB", (60, 40)), Image.new("L", (60, 41))
    dataset = Dataset.from_dict({"image_id": ["a"], "image": [image], "mask": [mask]}, features=FEATURES)
    with pytest.raises(ValueError, match="a: image is 40×60, mask 41×60. A mask must have the size of its image."):
        grid_jaccards(dataset, *load_checkpoint(checkpoint), [0.5])


# Slow


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [*RUNTIMES, "executorch"])
def test_int8_keeps_most_of_each_mask(checkpoint, runtime, tmp_path):
    packages = {"onnx": "onnxruntime", "openvino": "nncf", "executorch": "executorch"}
    if find_spec(packages[runtime]) is None:
        pytest.skip(f"{packages[runtime]} is not installed")
    model, processor = load_checkpoint(checkpoint)
    images = [draw_lesion(seed, 60, 80)[0] for seed in range(8)]
    export_model(model, processor, tmp_path / runtime, runtime, images)
    found = segment(images, *load_checkpoint(tmp_path / runtime))
    for mine, theirs in zip(found, segment(images, model, processor), strict=True):
        assert (mine["segmentation"] != theirs["segmentation"]).float().mean() < 0.1
        assert not torch.equal(mine["probabilities"], theirs["probabilities"])


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_half_has_weights_of_two_bytes_and_predicts_in_a_fresh_process(checkpoint, runtime, tmp_path):
    export_model(*load_checkpoint(checkpoint), tmp_path / runtime, runtime, half=True)
    example = REPOSITORY / "examples" / "synthetic_1.jpg"
    half, full = (
        segment([Image.open(example)], *load_checkpoint(folder))[0] for folder in (tmp_path / runtime, checkpoint)
    )
    torch.testing.assert_close(half["probabilities"], full["probabilities"], rtol=0, atol=5e-3)
    weights = "model.onnx.data" if runtime == "onnx" else "openvino_model.bin"
    sizes = [path.stat().st_size for path in (tmp_path / runtime / weights, checkpoint / "model.safetensors")]
    assert sizes[0] < 0.7 * sizes[1]

    predict = ["predict", example, "--checkpoint", tmp_path / runtime, "--runtime", runtime, "--output"]
    assert main([*map(str, predict), str(tmp_path / "here")]) == 0
    subprocess.run([sys.executable, "-m", "efp_hf", *predict, tmp_path / "fresh"], check=True, cwd=tmp_path)
    here, fresh = (
        np.asarray(Image.open(tmp_path / folder / "synthetic_1_segmentation.png")) for folder in ("here", "fresh")
    )
    assert (here != fresh).mean() < 1e-3 < (here > 0).mean() < 1


@pytest.mark.slow
@pytest.mark.skipif(find_spec("executorch") is None, reason="executorch is not installed")
def test_executorch_gives_the_logits_of_pytorch(checkpoint, tmp_path):
    _, processor = load_checkpoint(checkpoint)
    model = tiny_model()
    export_model(model, processor, tmp_path / "x", "executorch")
    for shape in ((1, 3, 40, 56), (8, 3, 33, 47)):
        with torch.inference_mode():
            logits = model(pixel_values=noise(*shape)).logits
        torch.testing.assert_close(
            load_exported(tmp_path / "x")(pixel_values=noise(*shape)).logits, logits, atol=1e-4, rtol=0
        )


@pytest.mark.slow
@pytest.mark.skipif(not SHIPPED.is_dir(), reason="no checkpoint in this clone")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_shipped_checkpoint_is_the_same_in_every_runtime(runtime, tmp_path):
    model, processor = load_checkpoint(SHIPPED)
    if runtime == "onnx":  # the graphs of a correction take three times as long; one runtime makes them here
        model = without_prompt_encoder(model).eval()
    loaded = model, processor
    export_model(*loaded, tmp_path / runtime, runtime)
    images = [Image.open(path) for path in sorted((REPOSITORY / "examples").glob("*.jpg"))]
    found, expected = (segment(images, *pair) for pair in (load_checkpoint(tmp_path / runtime), loaded))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine["probabilities"], theirs["probabilities"], rtol=0, atol=1e-4)
    with torch.inference_mode():
        logits = loaded[0](pixel_values=noise(2, 3, 97, 131)).logits
    torch.testing.assert_close(
        load_exported(tmp_path / runtime)(pixel_values=noise(2, 3, 97, 131)).logits, logits, rtol=0, atol=1e-4
    )
