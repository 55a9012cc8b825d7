import shutil

import pytest
from conftest import tiny_model

from efp_hf import EFPImageProcessor
from efp_hf.inference.checkpoint import load_checkpoint
from efp_hf.inference.export import export_model
from efp_hf.publishing.folders import write_space_folder
from efp_hf.publishing.trial import model_failures, space_failures

pytestmark = pytest.mark.slow


def test_folder_loads_with_and_without_the_package(model_folder):
    assert model_failures(model_folder) == []
    path = model_folder / "modeling_efp.py"
    path.write_text(f"import efp_hf.inference\n{path.read_text()}")
    (failure,) = model_failures(model_folder)
    assert failure.startswith("without the package: it does not load (") and "efp_hf" in failure


def test_weights_that_do_not_load_are_named_in_both_ways(model_folder):
    (model_folder / "model.safetensors").write_bytes(b"x" * 100)
    assert [failure.split(":")[0] for failure in model_failures(model_folder)] == [
        "with the package",
        "without the package",
    ]


def test_export_of_other_weights_is_refused(model_folder, mine):
    pytest.importorskip("onnxruntime")
    export_model(*load_checkpoint(mine), model_folder / "onnx", "onnx")
    assert model_failures(model_folder) == []
    shutil.rmtree(model_folder / "onnx")
    model = tiny_model()
    processor = EFPImageProcessor.from_pretrained(mine)
    export_model(model, processor, model_folder / "onnx", "onnx")
    (failure,) = model_failures(model_folder)
    assert failure.startswith("onnx: its probabilities must be the checkpoint's, got 0.")


def test_space_answers_from_its_folder_alone(mine, tmp_path):
    pytest.importorskip("gradio")
    folder = tmp_path / "space"
    write_space_folder(mine, folder, "me/mine")
    before = sorted(folder.rglob("*"))
    assert space_failures(folder) == []
    assert sorted(folder.rglob("*")) == before
    (folder / "efp_hf" / "page" / "theme.py").unlink()
    (failure,) = space_failures(folder)
    assert failure.startswith("app.py: the page does not answer (")
    assert "No module named 'efp_hf.page.theme'" in failure
