"""`scripts/measure_trust.py`."""

import csv
import runpy
import shutil
import sys

import numpy as np
import pytest
from conftest import REPOSITORY

from efp_hf import EFPImageProcessor
from efp_hf.data.folders import load_isic
from efp_hf.image_processing_efp import expected_jaccard
from efp_hf.inference.checkpoint import load_checkpoint
from efp_hf.metrics import confusion_counts, jaccard
from efp_hf.metrics.calibration import NUM_BINS, calibration_error, count_bins, pixel_probabilities
from efp_hf.metrics.evaluation import model_masks, segment_rows

SCRIPT = REPOSITORY / "scripts" / "measure_trust.py"


def test_script_appends_a_row_with_the_summary(tiny_checkpoint, synthetic_root, tmp_path, monkeypatch, capsys):
    results, checkpoint = tmp_path / "trust.csv", shutil.copytree(tiny_checkpoint, tmp_path / "tiny")
    EFPImageProcessor.from_pretrained(checkpoint, jaccard_temperature=0.7).save_pretrained(checkpoint)
    arguments = ["--data", str(synthetic_root), "--checkpoint", str(checkpoint), "--results", str(results)]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments, "--split", "validation"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    dataset = load_isic(synthetic_root, max_side=None)["validation"]
    model, processor = load_checkpoint(checkpoint)
    results_of_rows = [result for _, result, _ in segment_rows(dataset, model, processor)]
    expected = [expected_jaccard(result["probabilities"], result["segmentation"], 0.7) for result in results_of_rows]
    real = [jaccard(confusion_counts(mask, truth)) for _, mask, truth in model_masks(dataset, model, processor)]
    pairs = list(pixel_probabilities(dataset, model, processor))
    bins = sum(count_bins(probabilities, truth) for probabilities, truth in pairs)
    with results.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["jaccard_temperature"] == "0.7"
    assert (row["split"], row["images"], row["checkpoint"]) == ("validation", str(len(dataset)), "tiny")
    assert float(row["mean_expected"]) == pytest.approx(np.mean(expected), abs=1e-5)
    assert float(row["mean_real"]) == pytest.approx(np.mean(real), abs=1e-5)
    assert float(row["calibration_error"]) == pytest.approx(calibration_error(bins), abs=1e-5)
    assert row["border_calibration_error"] != row["calibration_error"]
    with results.with_name("reliability.csv").open(newline="") as file:
        reliability = list(csv.DictReader(file))
    assert [row["pixels_of"] for row in reliability] == ["all"] * NUM_BINS + ["border"] * NUM_BINS
    assert [int(row["pixels"]) for row in reliability[:NUM_BINS]] == bins[:, 0].tolist()
    assert f"{len(dataset)} images" in capsys.readouterr().out
    assert row["command"].startswith("python")


def test_script_names_a_missing_checkpoint(synthetic_root, tmp_path, monkeypatch):
    arguments = ["--data", str(synthetic_root), "--checkpoint", str(tmp_path / "none")]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments, "--results", str(tmp_path / "trust.csv")])
    with pytest.raises(SystemExit, match="no checkpoint there"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert not (tmp_path / "trust.csv").exists()
