"""The scores against hand-counted drawings, the official scorer, brute force and SciPy; the metric for `evaluate`."""

import doctest
import gc
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

import efp_hf.metrics
from efp_hf.metrics import (
    accuracy,
    bootstrap_interval,
    boundary_f1,
    confusion_counts,
    dice,
    hausdorff95,
    jaccard,
    paired_bootstrap_interval,
    pooled_scores,
    scores,
    sensitivity,
    specificity,
    summarize,
    threshold_jaccard,
)

PACKAGE = Path(efp_hf.metrics.__file__).parents[1]
FOLDER = PACKAGE / "metrics" / "lesion_segmentation"


def draw(*rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


MASK = draw(
    "....",
    ".##.",
    ".##.",
    "...#",
)
TRUTH = draw(
    ".#..",
    ".##.",
    ".##.",
    ".#..",
)
EMPTY, FULL = np.zeros((4, 4), dtype=bool), np.ones((4, 4), dtype=bool)


# Counts


def test_counts_are_true_positives_false_positives_false_negatives_true_negatives():
    counts = confusion_counts(MASK, TRUTH)
    assert counts.tolist() == [4, 1, 2, 9]
    assert counts.dtype == np.int64


def test_swapping_mask_and_truth_swaps_false_positives_and_false_negatives():
    assert confusion_counts(TRUTH, MASK).tolist() == [4, 2, 1, 9]


def test_grey_128_is_skin_and_129_lesion():
    greys = np.array([[0, 127, 128], [129, 130, 255]], dtype=np.uint8)
    everything = np.ones((2, 3), dtype=bool)
    assert confusion_counts(greys, everything).tolist() == [3, 0, 3, 0]
    assert confusion_counts(everything, greys).tolist() == [3, 3, 0, 0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_grey_masks_of_any_integer_type_count_as_boolean_ones(dtype):
    grey_mask, grey_truth = (mask.astype(dtype) * 255 for mask in (MASK, TRUTH))
    assert confusion_counts(grey_mask, grey_truth).tolist() == confusion_counts(MASK, TRUTH).tolist()


def test_integers_of_only_0_and_1_are_labels():
    for dtype in (np.uint8, np.int64):
        for mask in (MASK, FULL, EMPTY):
            assert confusion_counts(mask.astype(dtype), TRUTH).tolist() == confusion_counts(mask, TRUTH).tolist()
            assert confusion_counts(TRUTH, mask.astype(dtype)).tolist() == confusion_counts(TRUTH, mask).tolist()


def test_a_mask_of_only_0_is_empty_whatever_its_type():
    assert confusion_counts(EMPTY.astype(np.uint8), TRUTH).tolist() == [0, 0, 6, 10]


def test_another_size_than_the_truth_is_refused_with_both_sizes():
    with pytest.raises(ValueError, match=r"mask is 767×1022, truth 768×1024\. A mask must have the size of its truth"):
        confusion_counts(np.zeros((767, 1022), dtype=bool), np.zeros((768, 1024), dtype=bool))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((4, 4), 0.7), "got float64. Cut probabilities first"),
        (np.full((4, 4), 65535), r"grey 0\.\.255, got 65535\.\.65535"),
        (np.full((4, 4), -1), r"grey 0\.\.255, got -1\.\.-1"),
        (np.ones((1, 4, 4), dtype=bool), r"one mask \(height, width\), got shape \(1, 4, 4\)"),
        (np.ones((0, 4), dtype=bool), r"one mask \(height, width\), got shape \(0, 4\)"),
    ],
)
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        confusion_counts(mask, TRUTH)


# Overlap


def test_scores_of_the_drawing_are_the_counted_fractions():
    counts = confusion_counts(MASK, TRUTH)
    assert jaccard(counts) == 4 / 7
    assert dice(counts) == 8 / 11
    assert sensitivity(counts) == 4 / 6
    assert specificity(counts) == 9 / 10
    assert accuracy(counts) == 13 / 16
    assert threshold_jaccard(counts) == 0
    assert threshold_jaccard(counts, threshold=0.5) == 4 / 7


def test_two_empty_masks_agree_and_one_empty_mask_fails():
    both, mask_only, truth_only = (confusion_counts(*pair) for pair in ((EMPTY, EMPTY), (EMPTY, TRUTH), (MASK, EMPTY)))
    for score in (jaccard, dice, threshold_jaccard):
        assert (score(both), score(mask_only), score(truth_only)) == (1, 0, 0)


def test_sensitivity_without_lesion_and_specificity_without_skin_are_1():
    assert sensitivity(confusion_counts(MASK, EMPTY)) == 1
    assert specificity(confusion_counts(MASK, EMPTY)) == 11 / 16
    assert specificity(confusion_counts(MASK, FULL)) == 1
    assert sensitivity(confusion_counts(MASK, FULL)) == 5 / 16


def test_threshold_jaccard_counts_a_mask_that_is_exactly_at_the_threshold():
    at, below = [13, 3, 4, 0], [1299, 300, 401, 0]
    assert threshold_jaccard([at, below]).tolist() == [13 / 20, 0]


@pytest.mark.parametrize("score", [jaccard, dice, sensitivity, specificity, accuracy, threshold_jaccard])
def test_scores_of_many_counts_are_the_scores_of_each(score):
    counts = np.random.default_rng(0).integers(0, 3, size=(5, 7, 4))
    values = score(counts)
    assert values.shape == (5, 7)
    assert all(values[index] == score(counts[index]) for index in np.ndindex(5, 7))


def test_counts_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"`counts` must be \(\.\.\., 4\), got shape \(3,\)"):
        jaccard([1, 2, 3])


SHAPE = (24, 32)


def official_cases() -> list[tuple[np.ndarray, np.ndarray]]:
    """Grey masks and truths, among them every edge case of the official scorer."""
    rng = np.random.default_rng(0)
    empty, full = np.zeros(SHAPE, dtype=np.uint8), np.full(SHAPE, 255, dtype=np.uint8)
    lesion, larger, other = empty.copy(), empty.copy(), empty.copy()
    lesion[5:15, 8:21] = 255  # 10 × 13 pixels
    larger[5:15, 8:28] = 255  # 10 × 20: a Jaccard of exactly 0.65
    other[10:20, 15:30] = 255
    greys = rng.integers(2, 256, size=SHAPE, dtype=np.uint8)
    around_the_cut = rng.integers(128, 130, size=SHAPE, dtype=np.uint8)
    return [
        (lesion, empty),
        (empty, empty),
        (empty, lesion),
        (full, full),
        (lesion, full),
        (full, lesion),
        (lesion, larger),
        (lesion, other),
        (greys, lesion),
        (lesion, greys),
        (around_the_cut, lesion),
        (np.full(SHAPE, 128, dtype=np.uint8), np.full(SHAPE, 129, dtype=np.uint8)),
        (rng.integers(0, 256, size=(17, 40), dtype=np.uint8), rng.integers(0, 256, size=(17, 40), dtype=np.uint8)),
    ]


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # the scorer's use of pandas
def test_all_six_scores_are_those_of_the_official_scorer(tmp_path):
    segmentation = pytest.importorskip("isic_challenge_scoring.segmentation")
    masks_folder, truths_folder = tmp_path / "masks", tmp_path / "truths"
    masks_folder.mkdir()
    truths_folder.mkdir()
    cases = official_cases()
    for number, (mask, truth) in enumerate(cases):
        Image.fromarray(mask).save(masks_folder / f"ISIC_{number:07d}.png")
        Image.fromarray(truth).save(truths_folder / f"ISIC_{number:07d}_segmentation.png")

    counts = np.stack([confusion_counts(mask, truth) for mask, truth in cases])
    summary = summarize(counts, num_resamples=1)
    official = segmentation.SegmentationScore.from_dir(truths_folder, masks_folder).macro_average
    assert set(official.index) == {score.__name__ for score in OFFICIAL_SCORES}
    for name, value in official.items():
        assert summary[name] == pytest.approx(value, abs=1e-12), name

    pairs = segmentation.iter_image_pairs(truths_folder, masks_folder)
    for image_counts, pair in zip(counts, pairs, strict=True):
        official = segmentation.SegmentationScore([pair]).macro_average
        for score in OFFICIAL_SCORES:
            assert score(image_counts) == pytest.approx(official[score.__name__], abs=1e-12), pair.image_id


OFFICIAL_SCORES = (accuracy, sensitivity, specificity, jaccard, threshold_jaccard, dice)


# Pooled


def test_mean_iou_is_the_mean_of_lesion_and_background_and_not_the_lesions():
    pooled = pooled_scores([confusion_counts(MASK, TRUTH)])
    assert pooled["pooled_iou"] == 4 / 7
    assert pooled["pooled_background_iou"] == 9 / 12
    assert pooled["pooled_mean_iou"] == (4 / 7 + 9 / 12) / 2
    assert pooled["pooled_dice"] == 8 / 11


def test_pooled_scores_are_of_all_pixels_and_the_mean_is_over_images():
    large, missed = [90, 0, 10, 900], [0, 0, 1, 15]
    summary = summarize([large, missed], num_resamples=1)
    assert summary["pooled_iou"] == 90 / 101
    assert summary["pooled_dice"] == 180 / 191
    assert summary["pooled_mean_iou"] == (90 / 101 + 915 / 926) / 2
    assert summary["jaccard"] == (90 / 100 + 0) / 2
    assert summary["dice"] == (180 / 190 + 0) / 2


# Boundary


def test_hausdorff_distance_of_two_pixels_is_their_distance_over_the_diagonal():
    mask, truth = np.zeros((6, 8), dtype=bool), np.zeros((6, 8), dtype=bool)
    mask[1, 2] = truth[4, 6] = True
    assert hausdorff95(mask, truth) == 5 / 10


def line_and_outlier() -> tuple[np.ndarray, np.ndarray]:
    """A line of 10 pixels, and the same with an eleventh pixel at a distance of 4. The diagonal is 50."""
    line = np.zeros((30, 40), dtype=bool)
    line[20, 10:20] = True
    with_outlier = line.copy()
    with_outlier[24, 10] = True
    return with_outlier, line


def test_hausdorff95_is_the_95th_percentile_of_the_worse_direction():
    with_outlier, line = line_and_outlier()
    # 11 distances, ten of 0 and one of 4: the percentile lies half-way between the last two.
    assert hausdorff95(with_outlier, line) == pytest.approx(2 / 50, abs=1e-15)
    assert hausdorff95(line, with_outlier) == hausdorff95(with_outlier, line)


def test_boundary_f1_weighs_stray_pixels_by_precision_and_missed_ones_by_recall():
    with_outlier, line = line_and_outlier()
    assert boundary_f1(with_outlier, line) == pytest.approx(2 * (10 / 11) / (10 / 11 + 1), abs=1e-15)
    assert boundary_f1(line, with_outlier) == boundary_f1(with_outlier, line)


def test_boundary_f1_counts_a_pixel_exactly_at_the_tolerance():
    with_outlier, line = line_and_outlier()
    assert boundary_f1(with_outlier, line, tolerance=4 / 50) == 1
    assert boundary_f1(with_outlier, line, tolerance=3.99 / 50) < 1


def test_boundary_scores_of_empty_masks_are_decided():
    assert (hausdorff95(EMPTY, EMPTY), boundary_f1(EMPTY, EMPTY)) == (0, 1)
    for pair in ((EMPTY, TRUTH), (MASK, EMPTY)):
        assert (hausdorff95(*pair), boundary_f1(*pair)) == (1, 0)


def test_boundaries_far_apart_have_a_boundary_f1_of_0():
    mask, truth = np.zeros((40, 40), dtype=bool), np.zeros((40, 40), dtype=bool)
    mask[2:5, 2:5] = truth[30:35, 30:35] = True
    assert boundary_f1(mask, truth) == 0


def test_boundary_is_the_rim_of_the_lesion_and_the_edge_of_the_image_is_skin():
    def rim(lesion):
        drawn = np.zeros_like(lesion)
        drawn[tuple(scores.boundary_points(lesion).T)] = True
        return drawn

    assert (rim(FULL) == draw("####", "#..#", "#..#", "####")).all()
    # Skin that touches a pixel only at its corner leaves the pixel inside.
    notched = draw(".....", ".####", ".####", ".####", "..###")
    assert (rim(notched) == draw(".....", ".####", ".#..#", ".#..#", "..###")).all()


def brute_force_boundary(lesion: np.ndarray) -> np.ndarray:
    height, width = lesion.shape
    points = []
    for row, column in np.argwhere(lesion):
        neighbours = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        if not all(0 <= y < height and 0 <= x < width and lesion[y, x] for y, x in neighbours):
            points.append((row, column))
    return np.array(points)


@pytest.mark.parametrize("seed", range(10))
def test_boundary_scores_are_those_of_all_pairs_of_boundary_pixels(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(5, 14, size=2)
    mask, truth = rng.random((2, height, width)) < rng.uniform(0.3, 0.9, size=(2, 1, 1))
    diagonal = np.hypot(height, width)
    distances = np.linalg.norm(brute_force_boundary(mask)[:, None] - brute_force_boundary(truth)[None], axis=-1)
    to_truth, to_mask = distances.min(1), distances.min(0)

    expected = max(np.percentile(to_truth, 95), np.percentile(to_mask, 95)) / diagonal
    assert hausdorff95(mask, truth) == pytest.approx(expected, abs=1e-12)
    tolerance = 1.2 / diagonal
    precision, recall = (to_truth <= 1.2).mean(), (to_mask <= 1.2).mean()
    expected = 2 * precision * recall / (precision + recall)
    assert boundary_f1(mask, truth, tolerance) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 50), (41, 7)])
def test_skin_around_both_lesions_does_not_change_the_distance_in_pixels(top, left):
    rng = np.random.default_rng(1)
    mask, truth = rng.random((2, 9, 11)) < 0.4
    mask[:, :3] = False  # the two bounding boxes differ
    framed_mask, framed_truth = (
        np.pad(lesion, ((top, 50 - 9 - top), (left, 70 - 11 - left))) for lesion in (mask, truth)
    )
    expected = hausdorff95(mask, truth) * np.hypot(9, 11)
    assert expected > 1
    assert hausdorff95(framed_mask, framed_truth) * np.hypot(50, 70) == pytest.approx(expected, abs=1e-12)
    expected = boundary_f1(mask, truth, 1 / np.hypot(9, 11) + 1e-9)
    assert 0 < expected < 1
    assert boundary_f1(framed_mask, framed_truth, 1 / np.hypot(50, 70) + 1e-9) == expected


def test_boundary_scores_refuse_what_the_counts_refuse():
    for score in (hausdorff95, boundary_f1):
        with pytest.raises(ValueError, match="mask is 4×4, truth 4×5"):
            score(MASK, np.ones((4, 5), dtype=bool))
        with pytest.raises(ValueError, match="`mask` must be boolean or grey 0..255, got float64"):
            score(MASK.astype(float), TRUTH)


def test_a_tolerance_in_pixels_is_refused():
    with pytest.raises(ValueError, match="`tolerance` must be a share of the diagonal between 0 and 1, got 2"):
        boundary_f1(MASK, TRUTH, tolerance=2)


# Intervals


def skewed_values(num_images: int) -> np.ndarray:
    return np.random.default_rng(7).beta(8, 2, size=num_images)


def test_interval_is_the_same_on_every_call_and_another_with_another_seed():
    values = skewed_values(50)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)


def test_interval_holds_the_mean_and_narrows_with_more_images_and_less_confidence():
    few, many = skewed_values(25), skewed_values(400)
    low, high = bootstrap_interval(few)
    many_low, many_high = bootstrap_interval(many)
    less_low, less_high = bootstrap_interval(few, confidence=0.8)
    assert low < less_low < few.mean() < less_high < high
    assert many_low < many.mean() < many_high
    assert many_high - many_low < 0.5 * (high - low)


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_interval_is_scipys(confidence):
    values = skewed_values(40)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, confidence_level=confidence, method="percentile", rng=3
    ).confidence_interval
    assert bootstrap_interval(values, confidence=confidence) == pytest.approx(tuple(expected), abs=0.002)


def test_interval_does_not_depend_on_how_many_draws_are_held_at_once(monkeypatch):
    values = skewed_values(33)
    expected = bootstrap_interval(values, num_resamples=500)
    for chunk_size in (1, 100, 1000):
        monkeypatch.setattr(scores, "CHUNK_SIZE", chunk_size)
        assert bootstrap_interval(values, num_resamples=500) == expected


def test_interval_of_one_image_or_of_equal_ones_is_a_point():
    assert bootstrap_interval([0.5]) == (0.5, 0.5)
    assert bootstrap_interval([0.25] * 8) == (0.25, 0.25)


def test_paired_interval_shows_a_difference_that_separate_intervals_hide():
    values = np.random.default_rng(0).uniform(0.4, 1, size=60)
    better = values + np.random.default_rng(1).normal(0.02, 0.02, size=60)
    low, high = paired_bootstrap_interval(better, values)
    assert 0 < low < np.mean(better - values) < high
    assert bootstrap_interval(better)[0] < bootstrap_interval(values)[1]
    worse_low, worse_high = paired_bootstrap_interval(values, better)
    assert (worse_low, worse_high) == pytest.approx((-high, -low), abs=0.001)


def test_paired_interval_of_equal_scores_is_0():
    values = skewed_values(10)
    assert paired_bootstrap_interval(values, values) == (0, 0)


def test_intervals_refuse_what_has_no_mean():
    for values in ([], [[0.5, 0.5]], [0.5, np.nan]):
        with pytest.raises(ValueError, match="`values` must be one finite number an image"):
            bootstrap_interval(values)
    with pytest.raises(ValueError, match="`confidence` must be between 0 and 1, got 95"):
        bootstrap_interval([0.5], confidence=95)
    with pytest.raises(ValueError, match="`num_resamples` must be at least 1, got 0"):
        bootstrap_interval([0.5], num_resamples=0)
    with pytest.raises(ValueError, match=r"of the same images as `values`, got shapes \(1,\) and \(2,\)"):
        paired_bootstrap_interval([0.5, 0.6], [0.5])


# Summary


def counts_of_jaccards(hundredths: list[int]) -> np.ndarray:
    return np.array([[hits, 0, 100 - hits, 50] for hits in hundredths])


def test_summary_has_every_definition_under_its_own_name():
    summary = summarize([confusion_counts(MASK, TRUTH)], hd95s=[0.1], boundary_f1s=[0.9], num_resamples=10)
    with_intervals = ["jaccard", "threshold_jaccard", "dice", "sensitivity", "specificity"]
    assert set(summary) == {
        *with_intervals,
        *(f"{name}_low" for name in with_intervals),
        *(f"{name}_high" for name in with_intervals),
        *("accuracy", "failure_rate", "worst_decile_jaccard"),
        *("pooled_iou", "pooled_dice", "pooled_background_iou", "pooled_mean_iou"),
        *("hd95", "boundary_f1"),
    }
    assert all(type(value) is float for value in summary.values())


def test_summary_means_are_over_images_and_bounded_by_the_interval_of_their_own_values():
    counts = np.array([[4, 1, 2, 9], [8, 0, 2, 6], [13, 3, 4, 0], [5, 5, 0, 6]])
    summary = summarize(counts, confidence=0.9, seed=4, num_resamples=200)
    for score in (jaccard, threshold_jaccard, dice, sensitivity, specificity):
        name = score.__name__
        assert summary[name] == score(counts).mean()
        assert (summary[f"{name}_low"], summary[f"{name}_high"]) == bootstrap_interval(score(counts), 200, 0.9, 4)
    assert summary["jaccard"] == pytest.approx((4 / 7 + 8 / 10 + 13 / 20 + 5 / 10) / 4)
    assert summary["threshold_jaccard"] == pytest.approx((0 + 8 / 10 + 13 / 20 + 0) / 4)
    assert summary["accuracy"] == pytest.approx((13 / 16 + 14 / 16 + 13 / 20 + 11 / 16) / 4)


def test_failure_rate_counts_images_below_the_threshold_and_not_at_it():
    assert summarize(counts_of_jaccards([64, 65, 66, 0]), num_resamples=1)["failure_rate"] == 2 / 4


def test_worst_decile_is_the_mean_of_the_worst_tenth_and_of_one_image_at_least():
    twenty = counts_of_jaccards([90] * 9 + [10] + [80] * 9 + [30])
    assert summarize(twenty, num_resamples=1)["worst_decile_jaccard"] == pytest.approx((0.1 + 0.3) / 2)
    assert summarize(counts_of_jaccards([90, 40, 80]), num_resamples=1)["worst_decile_jaccard"] == 0.4


def test_boundary_scores_are_in_the_summary_only_where_given():
    counts = counts_of_jaccards([90, 80])
    assert summarize(counts, hd95s=[0.1, 0.3], num_resamples=1)["hd95"] == 0.2
    assert not {"hd95", "boundary_f1"} & set(summarize(counts, num_resamples=1))
    with pytest.raises(ValueError, match=r"`boundary_f1s` must be one number an image, got shape \(3,\) for 2 images"):
        summarize(counts, boundary_f1s=[1, 1, 1])


def test_a_summary_of_nothing_is_refused():
    for counts in (np.zeros((0, 4), dtype=np.int64), [], [1, 2, 3, 4]):
        for function in (summarize, pooled_scores):
            with pytest.raises(ValueError, match=r"`counts` must be \(num_images, 4\) of at least one image"):
                function(counts)


def test_metrics_import_neither_evaluate_nor_datasets_nor_scipy():
    heavy = "{'evaluate', 'datasets', 'scipy', 'skimage', 'torch'}"
    code = f"import sys; sys.path.insert(0, {str(PACKAGE)!r}); import metrics; print({heavy} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "set()"


# The metric for `evaluate`


@pytest.fixture
def metric(tmp_path):
    pytest.importorskip("evaluate")
    from efp_hf.metrics.lesion_segmentation.lesion_segmentation import LesionSegmentation

    return LesionSegmentation(cache_dir=str(tmp_path))


@pytest.fixture
def masks_and_truths() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Five masks and truths, each pair of its own size."""
    rng = np.random.default_rng(2)
    sizes = rng.integers(5, 20, size=(5, 2))
    return [rng.random(size) < 0.6 for size in sizes], [rng.random(size) < 0.7 for size in sizes]


def test_loaded_from_its_folder_the_metric_gives_the_summary(tmp_path, masks_and_truths):
    evaluate = pytest.importorskip("evaluate")
    metric = evaluate.load(str(FOLDER), cache_dir=str(tmp_path))
    assert isinstance(metric, evaluate.Metric)
    assert metric.name == "lesion_segmentation"
    masks, truths = masks_and_truths
    counts = [confusion_counts(mask, truth) for mask, truth in zip(masks, truths, strict=True)]
    assert metric.compute(predictions=masks, references=truths) == summarize(counts)


def test_made_directly_the_metric_gives_the_summary_with_its_options(metric, masks_and_truths):
    masks, truths = masks_and_truths
    counts = [confusion_counts(mask, truth) for mask, truth in zip(masks, truths, strict=True)]
    options = {"num_resamples": 50, "confidence": 0.5, "seed": 9}
    assert metric.compute(predictions=masks, references=truths, **options) == summarize(counts, **options)


def test_two_batches_and_single_masks_give_what_one_call_gives(metric, masks_and_truths):
    masks, truths = masks_and_truths
    expected = metric.compute(predictions=masks, references=truths, num_resamples=50)

    metric.add_batch(predictions=masks[:2], references=truths[:2])
    metric.add_batch(predictions=masks[2:], references=truths[2:])
    assert len(metric) == 5
    assert metric.compute(num_resamples=50) == expected

    for mask, truth in zip(masks, truths, strict=True):
        metric.add(prediction=mask, reference=truth)
    assert metric.compute(num_resamples=50) == expected


def test_masks_added_before_count_together_with_those_of_the_call(metric):
    metric.add(prediction=MASK, reference=TRUTH)
    assert metric.compute(predictions=[TRUTH], references=[TRUTH])["jaccard"] == (4 / 7 + 1) / 2


def test_compute_forgets_what_it_has_scored(metric):
    metric.compute(predictions=[EMPTY], references=[TRUTH])
    assert len(metric) == 0
    assert metric.compute(predictions=[TRUTH], references=[TRUTH])["jaccard"] == 1


def test_metric_kept_in_memory_gives_the_same(tmp_path):
    pytest.importorskip("evaluate")
    from efp_hf.metrics.lesion_segmentation.lesion_segmentation import LesionSegmentation

    metric = LesionSegmentation(cache_dir=str(tmp_path), keep_in_memory=True)
    for _ in range(2):
        assert metric.compute(predictions=[MASK], references=[TRUTH])["jaccard"] == 4 / 7


def test_metric_can_be_combined(metric):
    evaluate = pytest.importorskip("evaluate")
    combined = evaluate.combine([metric])
    combined.add_batch(predictions=[MASK], references=[TRUTH])
    assert combined.compute()["specificity"] == 9 / 10


def test_masks_may_be_nested_lists_and_batches_arrays(metric):
    metric.add_batch(predictions=[MASK.tolist()], references=[TRUTH.tolist()])
    metric.add_batch(predictions=np.stack([MASK, FULL]), references=np.stack([TRUTH, FULL]))
    assert metric.compute()["jaccard"] == pytest.approx((4 / 7 + 4 / 7 + 1) / 3)


def test_pixels_are_not_kept(metric):
    mask, truth = MASK.copy(), TRUTH.copy()
    metric.add_batch(predictions=[mask], references=[truth])
    kept = weakref.ref(mask)
    del mask
    gc.collect()
    assert kept() is None
    metric.compute()


def test_computing_with_nothing_added_is_refused_and_harms_nothing(metric):
    for inputs in ({}, {"predictions": [], "references": []}):
        with pytest.raises(ValueError, match=r"There is nothing to score\. Call `add` or `add_batch`"):
            metric.compute(**inputs)
    assert metric.compute(predictions=[MASK], references=[TRUTH])["jaccard"] == 4 / 7


def test_a_refused_batch_names_its_mask_and_adds_nothing(metric):
    metric.add(prediction=TRUTH, reference=TRUTH)
    with pytest.raises(ValueError, match="Mask 1 of the batch: mask is 4×4, truth 2×3"):
        metric.add_batch(predictions=[MASK, MASK], references=[TRUTH, np.ones((2, 3), dtype=bool)])
    assert metric.compute()["jaccard"] == 1


def test_predictions_without_as_many_references_are_refused(metric):
    with pytest.raises(ValueError, match="`references` must be one truth a prediction, got 1 for 2"):
        metric.add_batch(predictions=[MASK, MASK], references=[TRUTH])
    with pytest.raises(ValueError, match="`predictions` and `references` must both be given"):
        metric.compute(predictions=[MASK])


def test_example_of_the_metric_is_true(metric, monkeypatch):
    evaluate = pytest.importorskip("evaluate")
    monkeypatch.chdir(PACKAGE.parent)
    names = {"metric": metric, "evaluate": evaluate}
    example = doctest.DocTestParser().get_doctest(metric.inputs_description, names, "metric", None, 0)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
