"""Scores of several classes, on drawings small enough to count."""

import numpy as np
import pytest

from efp_hf.metrics import confusion_counts, jaccard
from efp_hf.metrics.classes import MEAN, class_counts, class_scores, mean_of_classes, summarize_classes

FOUND = np.array([[1, 1, 0, 2], [1, 0, 0, 2]])
TRUTH = np.array([[1, 1, 1, 2], [0, 0, 255, 1]])


def test_counts_leave_out_what_nobody_drew():
    # class 1: hits 2, false 1 (lower left), missed 2; class 2: hit 1, false 1; class 3: none
    assert class_counts(FOUND, TRUTH, 3).tolist() == [[2, 1, 2, 2], [1, 1, 0, 5], [0, 0, 0, 7]]


def test_each_class_is_counted_as_a_lesion_is():
    generator = np.random.default_rng(0)
    found, truth = generator.integers(0, 4, (2, 9, 11))
    for label, counts in enumerate(class_counts(found, truth, 3), start=1):
        assert counts.tolist() == confusion_counts(found == label, truth == label).tolist()


def test_image_without_a_class_has_no_score_of_it():
    values = class_scores(np.stack([class_counts(FOUND, TRUTH, 3), class_counts(TRUTH, TRUTH, 3)]))
    assert values[0, 0] == 2 / 5 and values[0, 1] == 1 / 2 and values[1, :2].tolist() == [1, 1]
    assert np.isnan(values[:, 2]).all()
    assert mean_of_classes(values) == pytest.approx(((2 / 5 + 1) / 2 + (1 / 2 + 1) / 2) / 2)


def test_false_alarm_in_an_image_without_the_class_counts_nought():
    assert class_scores(class_counts(np.full((2, 2), 2), np.zeros((2, 2), int), 2)[None])[0, 1] == 0


def test_rows_are_the_classes_and_their_mean():
    counts = np.stack([class_counts(FOUND, TRUTH, 3), class_counts(TRUTH, TRUTH, 3)])
    rows = summarize_classes(counts, ("a", "b", "c"), num_resamples=200)
    assert [row["class"] for row in rows] == ["a", "b", "c", MEAN]
    assert [row["class_images"] for row in rows] == [2, 2, 0, 2]
    assert rows[0]["jaccard"] == pytest.approx(7 / 10) and rows[1]["jaccard"] == pytest.approx(3 / 4)
    assert rows[3]["jaccard"] == pytest.approx((7 / 10 + 3 / 4) / 2)
    assert rows[0]["dice"] == pytest.approx((4 / 7 + 1) / 2)
    assert rows[0]["pooled_iou"] == pytest.approx((2 + 4) / (5 + 4)) and np.isnan(rows[2]["pooled_iou"])
    assert rows[0]["jaccard_low"] == pytest.approx(2 / 5) and rows[0]["jaccard_high"] == 1
    assert np.isnan([rows[2][name] for name in ("jaccard", "jaccard_low", "dice_high")]).all()


def test_interval_of_a_class_is_the_bootstrap_of_its_images():
    generator = np.random.default_rng(1)
    counts = np.stack([class_counts(*generator.integers(0, 3, (2, 6, 6)), 2) for _ in range(30)])
    rows = summarize_classes(counts, ("a", "b"))
    from efp_hf.metrics import bootstrap_interval

    expected = bootstrap_interval(jaccard(counts[:, 0]))
    assert (rows[0]["jaccard_low"], rows[0]["jaccard_high"]) == pytest.approx(expected, abs=2e-3)
    assert rows[2]["jaccard_low"] < rows[2]["jaccard"] < rows[2]["jaccard_high"]


def test_other_sizes_and_no_image_are_refused():
    with pytest.raises(ValueError, match=r"must be \(height, width\) of their truth, got shape \(2, 4\) for \(2, 3\)"):
        class_counts(FOUND, TRUTH[:, :3], 3)
    with pytest.raises(ValueError, match="at least one image"):
        summarize_classes(np.zeros((0, 3, 4)), ("a", "b", "c"))


def test_labels_of_more_classes_are_refused():
    with pytest.raises(ValueError, match=r"`labels` must hold 0..2, got 255. Write the masks again."):
        class_counts(np.array([[255, 1]]), np.array([[0, 1]]), 2)
