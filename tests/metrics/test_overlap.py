import numpy as np
import pytest
from PIL import Image

from efp_hf.lesion.structures import MASK_NAME, STRUCTURES
from efp_hf.metrics.classes import MEAN_OF_LABELS, MICRO
from efp_hf.metrics.overlap import (
    aucs,
    best_thresholds,
    label_counts,
    normalized,
    overlap_score,
    pooled_dice,
    pooled_jaccard,
    summarize_labels,
)

NAMES = ("network", "streaks")


def draw(*rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


TRUTHS = np.stack([draw("##..", "##.."), draw("....", "....")])
FOUND = np.stack([draw(".##.", ".##."), draw("....", "...#")])  # 2 hit, 2 false, 2 missed; 1 false
LARGE = np.stack([np.ones((20, 20), bool), np.zeros((20, 20), bool)])  # found as it is


def summarized(counts: np.ndarray, **arguments) -> dict[str, dict]:
    rows = summarize_labels(counts, NAMES, num_resamples=200, **arguments)
    return {row["label"]: row for row in rows}


COUNTS = np.stack([label_counts(FOUND, TRUTHS), label_counts(LARGE, LARGE)])


def test_each_image_weighs_as_its_share_and_not_by_its_pixels():
    rows = summarized(COUNTS)
    assert rows["network"]["jaccard"] == pytest.approx((2 / 8 + 1) / (6 / 8 + 1))  # of pixels it would be 402 / 406
    assert rows["streaks"]["jaccard"] == 0
    assert rows[MICRO]["jaccard"] == pytest.approx((2 / 8 + 1) / (6 / 8 + 1 + 1 / 8))
    assert rows[MEAN_OF_LABELS]["jaccard"] == pytest.approx((2 / 8 + 1) / (6 / 8 + 1) / 2)
    assert rows["network"]["dice"] == pytest.approx(2 * (2 / 8 + 1) / (2 * (2 / 8 + 1) + 4 / 8))


def test_the_mean_of_images_leaves_out_those_in_which_a_structure_neither_is_nor_was_found():
    rows = summarized(COUNTS)
    assert rows["network"]["image_jaccard"] == pytest.approx((2 / 6 + 1) / 2)
    assert rows["streaks"]["image_jaccard"] == 0
    assert (rows["network"]["images_with_it"], rows["streaks"]["images_with_it"], rows[MICRO]["images_with_it"]) == (
        2,
        0,
        2,
    )


def test_a_structure_that_is_nowhere_and_found_nowhere_is_right():
    nothing = np.array([0.0, 0, 0, 1])
    assert pooled_jaccard(nothing) == pooled_dice(nothing) == 1


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order():
    presences, is_there = np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False])
    assert aucs(presences, is_there, np.ones((1, 4))).tolist() == [pytest.approx((2 + 1.5) / 4)]
    assert aucs(presences, is_there, np.array([[1, 0, 3, 1]])).tolist() == [1]
    assert np.isnan(aucs(presences, np.ones(4, bool), np.ones((1, 4)))).all()


def test_the_area_under_the_curve_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    presences, is_there = random.integers(0, 9, 60) / 9, random.random(60) < 0.3
    weights = random.integers(0, 4, (3, 60))
    expected = [metrics.roc_auc_score(is_there, presences, sample_weight=drawn) for drawn in weights]
    assert aucs(presences, is_there, weights) == pytest.approx(expected)


def test_intervals_hold_the_score_and_narrow_with_more_images():
    random = np.random.default_rng(1)
    truths = (random.random((40, 2, 6, 6)) < 0.3) & (random.random((40, 2, 1, 1)) < 0.7)
    found = truths ^ (random.random(truths.shape) < 0.2)
    counts = np.stack([label_counts(*pair) for pair in zip(found, truths, strict=True)])
    presences = found.mean((2, 3)) + 0.1 * random.random((40, 2))
    few, many = summarized(counts, presences=presences), summarized(np.tile(counts, (4, 1, 1)))
    for row in (*few.values(), *many.values()):
        assert row["jaccard_low"] < row["jaccard"] < row["jaccard_high"]
    assert few["network"]["auc_low"] < few["network"]["auc"] < few["network"]["auc_high"]
    widths = [rows[MICRO]["jaccard_high"] - rows[MICRO]["jaccard_low"] for rows in (few, many)]
    assert widths[1] < 0.7 * widths[0]


def test_a_rare_label_moves_to_the_threshold_where_it_spoils_the_micro_average_less():
    frequent = [[50, 10, 10, 130], [40, 40, 20, 100]]
    rare = [[2, 18, 0, 180], [0, 0, 2, 198]]  # alone 0.1 is better than nothing
    counts = np.array([[[frequent[0], rare[0]], [frequent[0], rare[1]], [frequent[1], rare[1]]]])
    thresholds, shares = best_thresholds(counts, (0.2, 0.5, 0.7))
    assert thresholds == [0.2, 0.5]
    assert shares == pytest.approx(np.array([frequent[0], rare[1]]) / 200)
    assert overlap_score(shares) == pytest.approx((50 / 72 + (50 / 70 + 0) / 2) / 2)
    assert overlap_score(shares) > overlap_score(np.array([frequent[0], rare[0]]) / 200)


def test_counts_of_another_number_of_structures_are_refused():
    with pytest.raises(
        ValueError, match=r"`counts` must be \(num_images, 5, 4\) of at least one image, got \(2, 2, 4\)"
    ):
        summarize_labels(COUNTS, STRUCTURES)


def test_scores_are_those_of_the_official_scorer(tmp_path):
    task2 = pytest.importorskip("isic_challenge_scoring.task2")
    random = np.random.default_rng(2)
    (tmp_path / "truths").mkdir()
    (tmp_path / "found").mkdir()
    counts = []
    for number, size in enumerate([(6, 9), (20, 12), (7, 7), (11, 5)]):
        truths = random.random((len(STRUCTURES), *size)) < np.array([0.5, 0.3, 0.0, 0.6, 0.1])[:, None, None]
        truths[:3] &= number % 2 == 0  # absent from half of the images
        found = (truths ^ (random.random(truths.shape) < 0.2)) & (random.random((len(STRUCTURES), 1, 1)) < 0.8)
        found[2] = False  # nowhere, and found nowhere
        counts.append(label_counts(found, truths))
        for folder, masks in (("truths", truths), ("found", found)):
            for name, mask in zip(STRUCTURES, masks, strict=True):
                path = tmp_path / folder / MASK_NAME.format(f"ISIC_000000{number}", name)
                Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    official = task2.score(tmp_path / "truths", tmp_path / "found")
    rows = {row["label"]: row for row in summarize_labels(np.array(counts), STRUCTURES, num_resamples=10)}
    for name in (*STRUCTURES, MICRO):
        of_name = official[name.replace("-", "_")]
        assert rows[name]["jaccard"] == pytest.approx(of_name["jaccard"], abs=1e-12)
        assert rows[name]["dice"] == pytest.approx(of_name["dice"], abs=1e-12)
    assert rows["negative_network"]["jaccard"] == 1
    assert normalized(np.array(counts)).sum((0, 1)).sum() == pytest.approx(len(counts) * len(STRUCTURES))
