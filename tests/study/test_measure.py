"""`scripts/measure.py`."""

import csv
import runpy
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from PIL import Image
from skimage.color import rgb2lab

from efp_hf import EFPImageProcessor
from efp_hf.data.folders import load_isic
from efp_hf.image_processing_efp import expected_jaccard
from efp_hf.inference.checkpoint import load_checkpoint, weights_digest
from efp_hf.metrics import confusion_counts, jaccard
from efp_hf.metrics.calibration import NUM_BINS, calibration_error, count_bins, pixel_probabilities
from efp_hf.metrics.evaluation import model_masks, segment_rows
from efp_hf.study.attention import area_under_curve
from efp_hf.study.comparison import COUNTS
from efp_hf.study.images import images_path, skin_ita
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


def test_images_are_scored_each_by_itself(measure, tiny_checkpoint, synthetic_root, tmp_path):
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "tiny")
    measure("images", "--checkpoint", checkpoint, "--split", "validation")
    dataset = load_isic(synthetic_root, max_side=None)["validation"]
    model, processor = load_checkpoint(checkpoint)
    (row,) = rows_of(tmp_path / "images.csv")
    images = rows_of(images_path(tmp_path, row["weights"], "validation"))
    assert row["weights"] == weights_digest(checkpoint) and row["images"] == str(len(images))
    for (image_id, mask, truth), image in zip(model_masks(dataset, model, processor), images, strict=True):
        counts = [int(image[name]) for name in COUNTS]
        assert image["image_id"] == image_id and counts == confusion_counts(mask, truth).tolist()
        assert float(image["lesion_share"]) == pytest.approx(truth.mean(), abs=1e-4)
    scores = [jaccard(np.array([int(image[name]) for name in COUNTS])) for image in images]
    assert float(row["jaccard"]) == pytest.approx(np.mean(scores), abs=1e-6)


def test_ita_is_the_angle_of_the_skin_around_the_lesion():
    mask = np.zeros((64, 64), bool)
    mask[24:40, 24:40] = True
    image = np.full((64, 64, 3), (230, 190, 160), np.uint8)
    lightness, _, yellow = rgb2lab(image)[0, 0]
    image[mask] = 0  # the lesion itself does not count
    assert skin_ita(image, mask) == pytest.approx(np.degrees(np.arctan((lightness - 50) / yellow)))
    assert skin_ita(np.full_like(image, (90, 60, 40)), mask) < skin_ita(image, mask)
    assert skin_ita(image, np.zeros_like(mask)) is skin_ita(image, np.ones_like(mask)) is None


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


def test_attention_gives_the_areas_and_what_j_is_without_them(measure, tiny_checkpoint, synthetic_root, tmp_path):
    shutil.copy(REPOSITORY / "results" / "attention.csv", tmp_path)
    measure("attention", "--checkpoint", tiny_checkpoint)
    row = rows_of(tmp_path / "attention.csv")[-1]
    assert (row["run"], row["weights"]) == (tiny_checkpoint.name, weights_digest(tiny_checkpoint))
    validation = load_isic(synthetic_root)["validation"]
    model, processor = load_checkpoint(tiny_checkpoint)
    expected = np.mean([jaccard(confusion_counts(*pair)) for _, *pair in model_masks(validation, model, processor)])
    assert float(row["jaccard"]) == pytest.approx(expected, abs=1e-4)
    assert all(0 <= float(row[f"area_{level}"]) <= 1 for level in (1, 2))
    for attention in model.decoder.attention:  # a map that is the same everywhere, without a hook
        torch.nn.init.zeros_(attention.convolution.weight)
        torch.nn.init.constant_(attention.convolution.bias, 0.3)
    (flat := tmp_path / "flat").mkdir()
    model.save_pretrained(flat)
    processor.save_pretrained(flat)
    measure("attention", "--checkpoint", flat)
    row = rows_of(tmp_path / "attention.csv")[-1]
    assert float(row["area_1"]) == pytest.approx(0.5, abs=0.01)
    assert row["jaccard"] == row["jaccard_of_mean_attention"]


def test_an_area_is_the_share_of_pairs_that_are_in_order():
    values, lesion = np.array([0.9, 0.4, 0.6, 0.1]), np.array([True, True, False, False])
    assert area_under_curve(values, lesion) == 0.75


def test_native_images_are_compared_with_their_copies(measure, tiny_checkpoint, synthetic_root, tmp_path):
    """The "native" ones are the copies themselves, doubled: only rounding is left."""
    validation = load_isic(synthetic_root)["validation"]
    for row in validation.select(range(2)):
        for kind, name in (("image", "images"), ("mask", "masks")):
            (folder := tmp_path / "native" / name).mkdir(parents=True, exist_ok=True)
            doubled = row[kind].resize([2 * side for side in row[kind].size], Image.Resampling.NEAREST)
            doubled.save(folder / f"{row['image_id']}.png")
    other = load_isic(synthetic_root)["train"][0]  # not of the split that is asked for
    other["image"].save(tmp_path / "native" / "images" / f"{other['image_id']}.png")
    other["mask"].save(tmp_path / "native" / "masks" / f"{other['image_id']}.png")
    measure("native", tmp_path / "native", "--checkpoint", tiny_checkpoint)
    (row,) = rows_of(tmp_path / "native.csv")
    assert row["images"] == "2" and row["split"] == "validation"
    assert float(row["jaccard_of_truths"]) == float(row["jaccard_of_rounding"]) == 1
    model, processor = load_checkpoint(tiny_checkpoint)
    chosen = validation.select(range(2))
    expected = np.mean([jaccard(confusion_counts(*pair)) for _, *pair in model_masks(chosen, model, processor)])
    assert float(row["jaccard_copies"]) == pytest.approx(expected, abs=1e-6)
