"""`scripts/measure.py`."""

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
from efp_hf.inference.checkpoint import load_checkpoint, weights_digest
from efp_hf.metrics import confusion_counts, jaccard
from efp_hf.metrics.calibration import NUM_BINS, calibration_error, count_bins, pixel_probabilities
from efp_hf.metrics.evaluation import model_masks, segment_rows
from efp_hf.study.robustness import CHANGES

SCRIPT = REPOSITORY / "scripts" / "measure.py"


@pytest.fixture
def measure(synthetic_root, tmp_path, monkeypatch):
    """Runs the script on the drawn images; its rows lie in `tmp_path`."""

    def run(what: str, *arguments) -> None:
        options = ["--data", synthetic_root, "--results", tmp_path, *arguments]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), what, *map(str, options)])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run


def rows_of(path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_trust_appends_a_row_with_the_summary(measure, tiny_checkpoint, synthetic_root, tmp_path, capsys):
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "tiny")
    EFPImageProcessor.from_pretrained(checkpoint, jaccard_temperature=0.7).save_pretrained(checkpoint)
    measure("trust", "--checkpoint", checkpoint, "--split", "validation")
    dataset = load_isic(synthetic_root, max_side=None)["validation"]
    model, processor = load_checkpoint(checkpoint)
    results_of_rows = [result for _, result, _ in segment_rows(dataset, model, processor)]
    expected = [expected_jaccard(result["probabilities"], result["segmentation"], 0.7) for result in results_of_rows]
    real = [jaccard(confusion_counts(mask, truth)) for _, mask, truth in model_masks(dataset, model, processor)]
    pairs = list(pixel_probabilities(dataset, model, processor))
    bins = sum(count_bins(probabilities, truth) for probabilities, truth in pairs)
    (row,) = rows_of(tmp_path / "trust.csv")
    assert row["jaccard_temperature"] == "0.7"
    assert (row["split"], row["images"], row["checkpoint"]) == ("validation", str(len(dataset)), "tiny")
    assert float(row["mean_expected"]) == pytest.approx(np.mean(expected), abs=1e-5)
    assert float(row["mean_real"]) == pytest.approx(np.mean(real), abs=1e-5)
    assert float(row["calibration_error"]) == pytest.approx(calibration_error(bins), abs=1e-5)
    assert row["border_calibration_error"] != row["calibration_error"]
    reliability = rows_of(tmp_path / "reliability.csv")
    assert [row["pixels_of"] for row in reliability] == ["all"] * NUM_BINS + ["border"] * NUM_BINS
    assert [int(row["pixels"]) for row in reliability[:NUM_BINS]] == bins[:, 0].tolist()
    assert f"{len(dataset)} images" in capsys.readouterr().out
    assert row["command"].startswith("python")


@pytest.mark.parametrize("what", ["trust", "robustness"])
def test_missing_checkpoint_is_named(what, measure, tmp_path):
    with pytest.raises(SystemExit, match="no checkpoint there"):
        measure(what, "--checkpoint", tmp_path / "none")
    assert not list(tmp_path.glob("*.csv"))


@pytest.mark.slow
def test_robustness_has_a_row_a_change_and_begins_with_the_plain_score(
    measure, tiny_checkpoint, synthetic_root, tmp_path
):
    shutil.copy(REPOSITORY / "results" / "robustness.csv", tmp_path)
    measure("robustness", "--checkpoint", tiny_checkpoint)
    rows = rows_of(tmp_path / "robustness.csv")[-len(CHANGES) :]
    assert [row["change"] for row in rows] == list(CHANGES)
    test = load_isic(synthetic_root)["test"]
    counts = [confusion_counts(mask, truth) for _, mask, truth in model_masks(test, *load_checkpoint(tiny_checkpoint))]
    assert float(rows[0]["jaccard"]) == pytest.approx(jaccard(np.array(counts)).mean(), abs=1e-6)
    assert len({row["jaccard"] for row in rows}) > 5


def test_runtimes_compare_the_first_images_with_the_checkpoint(measure, tiny_checkpoint, tmp_path):
    exported = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    measure("runtimes", "--checkpoint", tiny_checkpoint, "--images", 2, "--split", "test", exported)
    (row,) = rows_of(tmp_path / "runtimes.csv")
    assert (row["exported"], row["runtime"], row["images"], row["split"]) == ("copy", "torch", "2", "test")
    assert row["weights"] == weights_digest(tiny_checkpoint) and float(row["jaccard_between"]) == 1


def test_rows_fit_below_those_that_are_there(measure, tiny_checkpoint, tmp_path):
    for name in ("trust", "reliability", "runtimes"):
        shutil.copy(REPOSITORY / "results" / f"{name}.csv", tmp_path)
    measure("trust", "--checkpoint", tiny_checkpoint)
    measure("runtimes", "--checkpoint", tiny_checkpoint, "--images", 1, tiny_checkpoint)
    rows = rows_of(tmp_path / "trust.csv")
    assert rows[-1]["weights"] == weights_digest(tiny_checkpoint) and len(rows) > 1
