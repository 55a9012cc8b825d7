import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import tiny_model
from safetensors.torch import load_file, save_file

import efp_hf
from efp_hf import EFPForSegmentation, EFPImageProcessor
from efp_hf.inference.checkpoint import SHIPPED_CHECKPOINTS, find_checkpoint, load_checkpoint, weights_digest


def test_shipped_checkpoints_are_found_by_their_names_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert SHIPPED_CHECKPOINTS == ("efp-isic", "efp-isic-nano", "efp-isic-structures")
    for name in SHIPPED_CHECKPOINTS:
        folder = Path(efp_hf.__file__).parent / "checkpoints" / name
        assert Path(find_checkpoint(name)) == folder
        assert weights_digest(name) == weights_digest(folder) != ""
    assert load_checkpoint("efp-isic-nano")[0].config.pyramid_size == 64


def test_folder_comes_before_the_hub(tmp_path, monkeypatch, tiny_checkpoint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody" / "efp").symlink_to(tiny_checkpoint)
    assert find_checkpoint("somebody/efp") == "somebody/efp"
    assert load_checkpoint("somebody/efp")[0].config.pyramid_size == 6
    assert find_checkpoint("somebody-else/efp") == "somebody-else/efp"  # of the Hub


@pytest.mark.parametrize(
    "name", ["nowhere", "./nowhere", "/nowhere/efp", "~/nowhere", "a/b/c", "checkpoints/efp-isic", "runs/no", "a/", ""]
)
def test_path_that_is_not_there_is_an_error_that_names_the_shipped_ones(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(FileNotFoundError, match=f"^{name}: no checkpoint there .* {', '.join(SHIPPED_CHECKPOINTS)}.$"):
        find_checkpoint(name)


@pytest.mark.parametrize(
    "fields",
    [
        {"do_center_crop": True, "crop_size": {"height": 16, "width": 16}},
        {"do_pad": True, "pad_size": {"height": 64, "width": 64}},
        {"size": {"shortest_edge": 32}},
    ],
)
def test_processor_that_does_not_show_the_whole_image_is_refused(tmp_path, tiny_checkpoint, fields):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    with pytest.raises(ValueError, match="copy: preprocessor_config.json: the whole image must be resized to a height"):
        load_checkpoint(folder)


def test_model_of_other_than_three_colours_is_refused(tmp_path, tiny_checkpoint):
    tiny_model(num_channels=1).save_pretrained(tmp_path)
    shutil.copy(tiny_checkpoint / "preprocessor_config.json", tmp_path)
    with pytest.raises(ValueError, match="the model must take the three colours of an image here, got 1"):
        load_checkpoint(tmp_path)


def test_checkpoint_that_takes_prompts_has_a_size_that_its_encoder_keeps(tmp_path):
    tiny_model(prompt_size=4).save_pretrained(tmp_path)
    EFPImageProcessor(size={"height": 64, "width": 200}).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"preprocessor_config.json: The input size .* multiple of 32, got 64×200"):
        load_checkpoint(tmp_path)


def test_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint there \\(no config.json\\)"):
        load_checkpoint(tmp_path)


def test_weights_that_are_stored_in_half_precision_load_as_float32(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    save_file(halved, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = EFPForSegmentation.from_pretrained(tmp_path)
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.float32}
    name = "decoder.classifier.weight"
    assert torch.equal(loaded.state_dict()[name], weights[name].half().float())
