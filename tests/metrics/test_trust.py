"""The expected Jaccard against drawn probabilities, and the notes on images with one thing wrong."""

import csv
import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from efp_hf import EFPImageProcessor
from efp_hf.data.folders import load_isic
from efp_hf.image_processing_efp import expected_jaccard
from efp_hf.inference.checkpoint import load_checkpoint
from efp_hf.lesion.notes import (
    CUT_FROM,
    MAX_BRIGHTNESS,
    MAX_BURNT_OUT,
    MIN_BRIGHTNESS,
    MIN_CONTRAST,
    MIN_LESION_SHARE,
    MIN_SHARPNESS,
    image_features,
    image_notes,
    reduce,
)
from efp_hf.metrics import confusion_counts, jaccard
from efp_hf.metrics.calibration import NUM_BINS, calibration_error, count_bins, pixel_probabilities
from efp_hf.metrics.evaluation import model_masks, segment_rows
from efp_hf.metrics.trust import failure_auc, rank_correlation, summarize_trust

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "measure_trust.py"
SKIN, LESION = (205, 165, 145), (125, 80, 65)


# The expected Jaccard


def test_expected_jaccard_is_expected_overlap_over_expected_union():
    probabilities = np.array([[0.9, 0.6], [0.3, 0.1]])
    mask = np.array([[True, True], [False, False]])
    assert expected_jaccard(probabilities, mask) == pytest.approx(1.5 / 2.4)


def test_certain_probabilities_give_the_jaccard_itself():
    rng = np.random.default_rng(0)
    mask, truth = rng.random((2, 30, 40)) < 0.4
    assert expected_jaccard(truth.astype(float), mask) == pytest.approx(jaccard(confusion_counts(mask, truth)))


@pytest.mark.parametrize("sharpness", [2, 6])
def test_expected_jaccard_is_the_mean_over_truths_drawn_pixel_by_pixel(sharpness):
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[-1:1:12j, -1:1:12j]
    probabilities = 1 / (1 + np.exp(-sharpness * (0.7 - np.hypot(rows, columns))))
    mask = probabilities > 0.5
    truths = rng.random((20_000, 12, 12)) < probabilities
    overlaps, unions = (truths & mask).sum((1, 2)), (truths | mask).sum((1, 2))
    assert expected_jaccard(probabilities, mask) == pytest.approx(np.mean(overlaps / unions), abs=0.005)


def test_mask_of_the_same_probabilities_has_less_to_expect_where_it_is_wrong():
    probabilities = np.full((10, 10), 0.1)
    probabilities[:5] = 0.9
    right, shifted = probabilities > 0.5, np.roll(probabilities > 0.5, 2, axis=0)
    assert expected_jaccard(probabilities, right) > 0.8 > 0.5 > expected_jaccard(probabilities, shifted)


@pytest.mark.parametrize("times", [1, 3])
def test_expected_jaccard_does_not_depend_on_the_size_of_the_image(times):
    probabilities = np.kron(np.random.default_rng(0).random((8, 8)), np.ones((times, times)))
    assert expected_jaccard(probabilities, probabilities > 0.6) == pytest.approx(
        expected_jaccard(probabilities[::times, ::times], probabilities[::times, ::times] > 0.6)
    )
    nothing = np.zeros(probabilities.shape, dtype=bool)
    assert expected_jaccard(0.3 * probabilities, nothing) == pytest.approx(1 - 0.3 * probabilities.max())


def test_empty_mask_is_right_as_far_as_there_is_no_lesion():
    nothing = np.zeros((2, 2), dtype=bool)
    assert expected_jaccard(np.zeros((2, 2)), nothing) == 1
    assert expected_jaccard(np.array([[0.1, 0.4], [0.0, 0.2]]), nothing) == pytest.approx(0.6)
    assert expected_jaccard(np.ones((2, 2)), nothing) == 0


def test_sum_over_many_pixels_of_float32_is_exact():
    probabilities = np.full((3000, 2000), 0.1, dtype=np.float32)
    mask = np.zeros(probabilities.shape, dtype=bool)
    mask[0, 0] = True
    expected = 0.1 / (1 + 0.1 * (mask.size - 1))
    assert expected_jaccard(probabilities, mask) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan])
def test_values_that_are_no_probabilities_are_refused(value):
    probabilities = np.full((4, 4), 0.5)
    probabilities[1, 2] = value
    with pytest.raises(ValueError, match=r"`probabilities` must be in \[0, 1\], got .* Turn logits into"):
        expected_jaccard(probabilities, probabilities > 0.4)


@pytest.mark.parametrize("temperature", [0, -1.0, np.nan, np.inf])
def test_impossible_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match=f"`temperature` must be a finite number above 0, got {temperature}"):
        expected_jaccard(np.full((4, 4), 0.6), np.ones((4, 4), dtype=bool), temperature)


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 4)])
def test_probabilities_of_another_shape_are_refused(shape):
    message = f"`probabilities` must have the shape of the mask, got {shape} for (4, 4)."
    with pytest.raises(ValueError, match=re.escape(message)):
        expected_jaccard(np.zeros(shape), np.ones((4, 4), dtype=bool))


# Notes


def draw(
    height: int = 256,
    width: int = 340,
    radius: float = 60,
    centre: tuple[float, float] = (0.5, 0.5),
    skin: tuple = SKIN,
    lesion: tuple = LESION,
) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of a disk on skin, with a grain; the radius is in pixels of an image of 256."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    scale = min(height, width) / 256
    mask = np.hypot(rows - centre[0] * height, columns - centre[1] * width) < radius * scale
    cells = Image.fromarray(rng.normal(0, 8, (100, 100)).astype(np.float32))  # the same grain at any size
    grain = np.asarray(cells.resize((width, height), Image.Resampling.BICUBIC))
    image = np.where(mask[..., None], lesion, skin) + grain[..., None]
    return np.clip(np.round(image), 0, 255).astype(np.uint8), mask


def notes(image: np.ndarray, mask: np.ndarray, probability: float = 0.95) -> list[str]:
    return image_notes(image, mask, np.where(mask, probability, 0.02))


def test_plain_image_has_no_notes():
    assert notes(*draw()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"skin": (70, 50, 40), "lesion": (20, 12, 8)}, "under-exposed, or the skin is darker"),
        ({"skin": (245, 238, 235)}, "over-exposed"),
        ({"lesion": (203, 164, 143)}, "hardly differs in colour"),
        ({"centre": (0.5, 0.05)}, "cut by the image's border"),
        ({"radius": 5}, r"very small: 0\.\d\d% of the image"),
    ],
)
def test_image_with_one_thing_wrong_has_that_one_note(changes, words):
    found = notes(*draw(**changes))
    assert len(found) == 1
    assert re.search(words, found[0])


def test_blurred_image_is_called_blurred():
    image, mask = draw()
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(3)))
    assert notes(blurred, mask) == ["The image is blurred: it shows less detail than nearly all training images."]


def test_burnt_out_patch_is_over_exposed():
    image, mask = draw()
    image[:40, :60] = 255
    assert ["over-exposed" in note for note in notes(image, mask)] == [True]


def test_bright_red_skin_is_not_burnt_out():
    assert notes(*draw(skin=(255, 200, 190))) == []


def test_dark_corners_do_not_make_an_image_dark():
    image, mask = draw()
    rows, columns = np.mgrid[-1:1:256j, -1:1:340j]
    image[np.hypot(rows, columns) > 1.05] = 0
    assert notes(image, mask) == []


def test_no_lesion_is_said_with_the_highest_probability_and_nothing_of_its_shape():
    image, mask = draw()
    probabilities = np.where(mask, 0.31, 0.02)
    found = image_notes(image, np.zeros_like(mask), probabilities)
    assert found == ["No lesion was found: the highest probability is 0.31."]


def test_second_region_is_counted_and_a_speck_is_not():
    image, mask = draw()
    mask[10:13, 10:13] = image[10:13, 10:13, 0] > 0
    assert notes(image, mask) == []
    mask[10:30, 10:30] = True
    assert ["2 separate regions" in note for note in notes(image, mask)] == [True]


def test_lesion_over_the_whole_image_is_cut_and_has_no_skin_to_compare_with():
    image, mask = draw()
    everything = np.ones_like(mask)
    assert ["cut by" in note for note in notes(image, everything)] == [True]
    assert image_features(image, everything)["contrast"] is None


def test_mask_that_only_touches_the_border_is_not_cut():
    image, mask = draw(centre=(60 / 256, 0.5))
    mask[0, 168:172] = True
    assert mask[0].any()
    assert notes(image, mask) == []


def test_each_note_comes_beyond_its_threshold():
    image, mask = draw()
    plain = image_features(image, mask)
    assert plain["sharpness"] > MIN_SHARPNESS and plain["contrast"] > MIN_CONTRAST
    assert MIN_BRIGHTNESS < plain["brightness"] < MAX_BRIGHTNESS
    assert plain["burnt_out"] < MAX_BURNT_OUT and plain["border"] < CUT_FROM
    assert plain["lesion_share"] == mask.mean() > MIN_LESION_SHARE


def test_contrast_is_the_distance_in_cielab_from_the_skin_nearby():
    image, mask = draw(skin=(119, 119, 119), lesion=(0, 0, 0))
    image[mask], image[~mask] = 0, 119
    assert image_features(image, mask)["contrast"] == pytest.approx(50, abs=0.5)  # grey 119 has L* = 50
    image[:, :90] = 255  # far from the lesion
    assert image_features(image, mask)["contrast"] == pytest.approx(50, abs=0.5)


@pytest.mark.parametrize("size", [(512, 680), (1024, 1360), (1360, 1024)])
def test_features_do_not_depend_on_the_size_of_the_image(size):
    small = image_features(*draw(*(length * 256 // min(size) for length in size)))
    large = image_features(*draw(*size))
    assert large["sharpness"] == pytest.approx(small["sharpness"], rel=0.1)
    assert large["brightness"] == pytest.approx(small["brightness"], abs=1)
    assert large["lesion_share"] == pytest.approx(small["lesion_share"], rel=0.02)
    assert large["contrast"] == pytest.approx(small["contrast"], rel=0.05)
    assert large["regions"] == small["regions"] == 1


def test_small_sharp_image_is_judged_at_the_reduced_size_too():
    image, mask = draw(64, 85)
    assert image_features(image, mask)["contrast"] == pytest.approx(image_features(*draw())["contrast"], rel=0.1)


def test_lesion_of_one_pixel_in_a_large_image_is_very_small():
    image, mask = draw(1024, 1360, radius=0)
    mask[500, 600] = True
    assert [note.split(":")[0] for note in notes(image, mask)] == ["The lesion is very small"]


def test_notes_refuse_an_image_of_another_size():
    image, mask = draw()
    with pytest.raises(ValueError, match=r"image is 256×339, mask 256×340\. A mask must have the size of its image"):
        notes(image[:, 1:], mask)


# How well the estimate works


REAL = np.array([0.9, 0.8, 0.7, 0.6, 0.2])
EXPECTED = np.array([0.95, 0.7, 0.9, 0.8, 0.3])


def test_rank_correlation_is_spearmans():
    # ranks 5 4 3 2 1 and 5 2 4 3 1: 1 - 6 · Σd² / (n(n² - 1)), with Σd² = 0 + 4 + 1 + 1 + 0
    assert rank_correlation(EXPECTED, REAL) == pytest.approx(1 - 6 * 6 / (5 * 24))


def test_failure_auc_is_the_share_of_pairs_in_the_right_order():
    # failures expect 0.8 and 0.3, successes 0.95, 0.7 and 0.9: five of six pairs
    assert failure_auc(EXPECTED, REAL) == pytest.approx(5 / 6)
    assert failure_auc(1 - EXPECTED, REAL) == pytest.approx(1 / 6)


def test_ties_count_half():
    assert failure_auc(np.array([0.5, 0.5, 0.9]), np.array([0.3, 0.8, 0.9])) == pytest.approx(1.5 / 2)


def test_jaccard_at_the_threshold_is_a_success():
    assert failure_auc(np.array([0.4, 0.9]), np.array([0.649, 0.65])) == 1
    assert summarize_trust(np.array([0.4, 0.9]), np.array([0.649, 0.65]))["failures"] == 1


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_computed_is_none():
    assert failure_auc(EXPECTED, REAL + 1) is None
    assert failure_auc(EXPECTED, REAL - 1) is None
    assert rank_correlation(np.full(5, 0.7), REAL) is None
    assert rank_correlation(EXPECTED[:1], REAL[:1]) is None


def test_summary_holds_both_means():
    summary = summarize_trust(EXPECTED, REAL)
    assert summary["mean_expected"] == pytest.approx(3.65 / 5)
    assert summary["mean_real"] == pytest.approx(3.2 / 5)
    assert summary["failures"] == 2
    assert summary["rank_correlation"] == rank_correlation(EXPECTED, REAL)
    assert summary["failure_auc"] == failure_auc(EXPECTED, REAL)


@pytest.mark.parametrize(("expected", "real"), [([], []), ([0.5], [0.5, 0.6]), ([[0.5]], [[0.5]])])
def test_pairs_that_are_not_one_an_image_are_refused(expected, real):
    with pytest.raises(ValueError, match="`expected` and `real` must be one number an image, got shapes"):
        summarize_trust(expected, real)


def test_script_appends_a_row_with_the_summary(tiny_checkpoint, synthetic_root, tmp_path, monkeypatch, capsys):
    results, checkpoint = tmp_path / "trust.csv", shutil.copytree(tiny_checkpoint, tmp_path / "tiny")
    EFPImageProcessor.from_pretrained(checkpoint, jaccard_temperature=0.7).save_pretrained(checkpoint)
    arguments = ["--data", str(synthetic_root), "--checkpoint", str(checkpoint), "--results", str(results)]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments, "--split", "validation"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    dataset = load_isic(synthetic_root, max_side=None)["validation"]
    model, processor = load_checkpoint(checkpoint)
    results_of_rows = [result for _, result, _ in segment_rows(dataset, model, processor)]
    expected = [
        expected_jaccard(result["probabilities"].numpy(), result["segmentation"].numpy().astype(bool), 0.7)
        for result in results_of_rows
    ]
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


def test_trust_of_a_strip_is_quick_and_small():
    """Enlarged to 256 pixels of height this strip would have two billion pixels."""
    image, mask = np.zeros((1, 30_000, 3), np.uint8), np.zeros((1, 30_000), bool)
    assert reduce(image, mask)[1].shape == (1, 1024)
