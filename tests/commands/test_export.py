import errno

import pytest
from conftest import REPOSITORY


def test_folder_for_the_hub_has_code_and_card_and_predicts(efp, tmp_path):
    ran = efp("export", "--to", "hub", "--checkpoint", "efp-isic-nano")
    assert ran.code == 0 and ran.out.startswith("exports/efp-isic-nano-hub: ")
    written = {path.name for path in (tmp_path / "exports" / "efp-isic-nano-hub").iterdir()}
    assert {"modeling_efp.py", "configuration_efp.py", "loss_efp.py", "image_processing_efp.py"} <= written
    assert {"model.safetensors", "config.json", "preprocessor_config.json", "README.md"} <= written
    photo = REPOSITORY / "examples" / "synthetic_1.jpg"
    assert efp("predict", photo, "--checkpoint", "exports/efp-isic-nano-hub").code == 0
    again = efp("export", "--to", "hub", "--checkpoint", "efp-isic-nano")
    assert again.code == 2 and "exports/efp-isic-nano-hub is there" in again.err
    assert efp("export", "--to", "hub", "--checkpoint", "efp-isic-nano", "--overwrite").code == 0


def test_overwriting_an_export_loses_no_other_file(efp, tmp_path, tiny_checkpoint):
    arguments = ("export", "--to", "hub", "--checkpoint", tiny_checkpoint, "--output")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")  # such as a folder that is mounted, it cannot be replaced itself
    assert efp(*arguments, "link").code == 0
    (tmp_path / "real" / "README.md").write_text("my own")
    (tmp_path / "real" / "model.onnx").touch()
    assert efp(*arguments, "link", "--overwrite").code == 0
    assert (tmp_path / "real" / "README.md").read_text() == "my own"
    assert not (tmp_path / "real" / "model.onnx").exists()
    (tmp_path / "real" / "photo.jpg").touch()
    ran = efp(*arguments, "link", "--overwrite")
    assert ran.code == 2 and "link is no exported model and is not overwritten (it holds photo.jpg)." in ran.err
    assert (tmp_path / "real" / "photo.jpg").exists()


def test_export_into_the_current_folder(efp, tmp_path, tiny_checkpoint, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert efp("export", "--to", "hub", "--checkpoint", tiny_checkpoint, "--output", ".").code == 0
    assert (tmp_path / "here" / "model.safetensors").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--to", "openvino", "--int8"), "`--int8` needs training images. Pass --data."),
        (("--to", "onnx", "--data", "images"), "`--data` must be used with --int8"),
        (("--to", "onnx", "--calibration-images", "9"), "`--calibration-images` must be used with --int8"),
        (("--to", "hub", "--half"), "`--half` and `--int8` must be used with a runtime, got --to hub"),
        (("--to", "coreml"), "invalid choice: 'coreml'"),
    ],
)
def test_export_refuses_what_does_not_fit_together(efp, tmp_path, arguments, words):
    ran = efp("export", *arguments)
    assert ran.code == 2 and words in ran.err
    assert not (tmp_path / "exports").exists()


def test_export_that_cannot_be_written_has_broken_off(efp, monkeypatch, tiny_checkpoint):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("efp_hf.inference.export.save_for_hub", full)
    ran = efp("export", "--to", "hub", "--checkpoint", tiny_checkpoint)
    assert ran.code == 1 and ran.err == "efp export: [Errno 28] No space left on device\n"
