import pytest
from conftest import tiny_model
from safetensors.torch import save_model

from efp_hf import EFPImageProcessor
from efp_hf.inference.export import export_model
from efp_hf.publishing.folders import write_model_folder, write_space_folder
from efp_hf.publishing.trial import model_failures, space_failures

pytestmark = pytest.mark.slow


def test_folder_loads_with_and_without_the_package_and_its_export_is_of_its_weights(mine, tmp_path):
    pytest.importorskip("onnxruntime")
    folder, processor = tmp_path / "model", EFPImageProcessor.from_pretrained(mine)
    model, other = (tiny_model(use_cross_scale=False) for _ in range(2))  # the plain pyramid is traced in half the time
    write_model_folder(mine, model, processor, folder, "me/mine")
    export_model(model, processor, folder / "onnx", "onnx")
    assert model_failures(folder) == []
    save_model(other, folder / "model.safetensors", {"format": "pt"})
    path = folder / "modeling_efp.py"
    path.write_text(f"import efp_hf.inference\n{path.read_text()}")
    code, weights = model_failures(folder)
    assert code.startswith("without the package: it does not load (") and "efp_hf" in code
    assert weights.startswith("onnx: its probabilities must be the checkpoint's, got 0.")


def test_weights_that_do_not_load_are_named_in_both_ways(model_folder):
    (model_folder / "model.safetensors").write_bytes(b"x" * 100)
    assert [failure.split(":")[0] for failure in model_failures(model_folder)] == [
        "with the package",
        "without the package",
    ]


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
