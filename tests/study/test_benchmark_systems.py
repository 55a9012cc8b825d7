"""The systems in every runtime."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import tiny_model

from efp_hf import EFPImageProcessor
from efp_hf.study.benchmark import systems
from efp_hf.study.benchmark.job import job_candidates
from efp_hf.study.benchmark.model import model_candidates
from efp_hf.study.benchmark.systems import (
    EFP,
    EXPORTING_MODULES,
    NUM_CALIBRATION_IMAGES,
    SEGFORMER,
    UNET,
    code_version,
    export_once,
    ready_model,
)


@pytest.mark.slow
def test_export_is_made_once_for_the_same_weights(tiny_checkpoint, tmp_path, monkeypatch):
    made = []

    def write_manifest(model, processor, folder, to, images):
        made.append((folder.name, to, processor.size["height"], images and len(images)))
        folder.mkdir()
        (folder / "export.json").write_text("{}")

    monkeypatch.setattr(systems, "export_model", write_manifest)
    for _ in range(2):
        for system, runtime in ((EFP, "onnx"), (EFP, "onnx int8"), (UNET, "onnx")):
            export_once(system, runtime, tiny_checkpoint, tmp_path)
    code, digest = code_version(), systems.weights_digest(tiny_checkpoint)
    expected = [
        (f"efp-{code}-{digest}-onnx", "onnx", 32, None),
        (f"efp-{code}-{digest}-onnx-int8", "onnx", 32, NUM_CALIBRATION_IMAGES),
        (f"u-net-{code}-onnx", "onnx", 256, None),
    ]
    assert made == expected
    export = SimpleNamespace(__file__=tmp_path / "export.py")
    export.__file__.write_bytes(Path(systems.export.__file__).read_bytes())
    modules = [export if module is systems.export else module for module in EXPORTING_MODULES]
    monkeypatch.setattr(systems, "EXPORTING_MODULES", modules)
    assert code_version() == code
    export.__file__.write_text("other code")
    export_once(UNET, "onnx", tiny_checkpoint, tmp_path)
    assert len(made) == 4 and made[3][0] != expected[2][0]


def test_openvino_computes_in_the_precision_of_its_name(tmp_path):
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("needs a processor that computes in bfloat16")
    tiny_model(use_cross_scale=False).save_pretrained(tmp_path / "tiny")  # traced in half the time
    EFPImageProcessor().save_pretrained(tmp_path / "tiny")
    for runtime, precision in (("openvino", "f32"), ("openvino bf16", "bf16")):
        model = ready_model(EFP, runtime, tmp_path / "tiny", tmp_path / "exports", threads=1)
        compiled = model.runners["model"].compiled_model
        assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == precision
        assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
        del model, compiled  # before the next is loaded: see test_bf16_is_near_and_only_where_it_is_asked_for


def test_missing_package_leaves_its_candidates_out_by_name(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("efp_hf.extras.find_spec", lambda name: None if name == "openvino" else object())
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    candidates, left_out = model_candidates(
        (EFP, SEGFORMER, UNET), ("torch", "openvino"), tiny_checkpoint, tmp_path, threads=1
    )
    assert set(candidates) == {(EFP, "torch"), (SEGFORMER, "torch")}
    assert set(left_out) == {(UNET, "torch"), (EFP, "openvino"), (SEGFORMER, "openvino"), (UNET, "openvino")}
    assert "needs openvino of efp-hf[export]: pip install" in left_out[EFP, "openvino"]
    assert "efp-hf[bench]" in left_out[UNET, "torch"]
    jobs, left_out = job_candidates(("torch", "openvino"), tiny_checkpoint, tmp_path)
    assert set(jobs) == {(EFP, "torch"), (SEGFORMER, "pipeline")} and set(left_out) == {(EFP, "openvino")}
