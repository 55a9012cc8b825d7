"""Libraries that score the same masks."""

import numpy as np
import pytest

from efp_hf.metrics import confusion_counts, jaccard
from efp_hf.study.benchmark.job import NUM_PHOTOS
from efp_hf.study.benchmark.metrics import (
    MEAN_IOU,
    draw_mask_pairs,
    metric_candidates,
    metric_rows,
    score_overlap,
    score_overlap_and_boundary,
)


def test_scores_are_those_of_the_metrics():
    pairs = draw_mask_pairs(NUM_PHOTOS + 1, 64)
    assert pairs[0] is pairs[NUM_PHOTOS] and 0 < pairs[0][1].mean() < 1
    expected = jaccard(np.array([confusion_counts(mask, truth) for mask, truth in pairs])).mean()
    assert 0 < expected < 1
    assert score_overlap(pairs)["jaccard"] == pytest.approx(expected)
    assert {"jaccard", "hd95", "boundary_f1"} <= set(score_overlap_and_boundary(pairs))


def test_mean_iou_that_cannot_be_loaded_is_left_out_in_a_row_that_says_so(tmp_path):
    candidates, left_out = metric_candidates([], str(tmp_path / "mean_iou"))
    assert list(candidates) == ["efp_hf", "efp_hf with boundary"] and list(left_out) == [MEAN_IOU]
    rows = metric_rows({"efp_hf": [2.0]}, left_out, num_masks=1000, size=1024)
    assert rows[1]["scorer"] == MEAN_IOU and rows[1]["note"].startswith("left out: FileNotFoundError")
    assert rows[0]["over_mean_iou"] == rows[1]["median_s"] == "" and list(rows[0]) == list(rows[1])
    assert metric_rows({"efp_hf": [2.0], MEAN_IOU: [80.0]}, {}, 1000, 1024)[0]["over_mean_iou"] == 40
