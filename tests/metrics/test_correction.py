"""How fast a mask becomes right under clicks."""

import numpy as np
import pytest

from efp_hf.metrics.correction import BOX_JITTERS, MAX_CLICKS, click_jaccards, number_of_clicks, summarize_corrections


class Annotated:
    """In the place of a `Correction`: each click on the lesion paints its column right."""

    size = (20, 40)

    def __init__(self, truth):
        self.truth, self.asked = truth, []

    def segment(self, points=(), box=None, target_size=None):
        import torch

        self.asked.append(tuple(points))
        mask = np.zeros_like(self.truth)
        for x, _, _ in points:
            column = int(x * self.truth.shape[1] / self.size[1])
            mask[:, column] = self.truth[:, column]
        return {"segmentation": torch.from_numpy(mask)}


def test_j_rises_click_by_click_and_stays_when_the_mask_is_right():
    truth = np.zeros((10, 20), bool)
    truth[2:6, 5] = truth[1:9, 8] = True
    annotated = Annotated(truth)
    jaccards = click_jaccards(annotated, truth, max_clicks=5)
    assert jaccards == pytest.approx([0, 8 / 12, 1, 1, 1, 1])
    assert len(annotated.asked) == 3
    x, y, label = annotated.asked[-1][0]
    assert (x, label) == (17, 1) and 2 < y < 18  # the middle of column 8, in the photo's pixels


def test_noc_is_the_first_click_that_reaches_the_target():
    assert number_of_clicks([0.95, 0.5, 0.86, 0.9], 0.85) == 2  # the mask before any click does not count
    assert number_of_clicks([0.1] * (MAX_CLICKS + 1), 0.85) == MAX_CLICKS


def test_summary_has_a_row_a_kind_of_prompts_and_a_row_a_target():
    clicks = [0.6, 0.82, 0.88, *[0.92] * (MAX_CLICKS - 2)]
    worse = [0.4, *[0.7] * MAX_CLICKS]
    rows = [
        {"image_id": "a", "clicks": clicks, "clicks_anywhere": worse, "boxes": [0.9, 0.8, 0.7][: len(BOX_JITTERS)]},
        {"image_id": "b", "clicks": worse, "clicks_anywhere": worse, "boxes": [0.5] * len(BOX_JITTERS)},
    ]
    prompts, numbers = summarize_corrections(rows)
    by_name = {(row["prompts"], row["place"]): row for row in prompts}
    one = by_name["1 clicks", "in the middle"]
    assert one["jaccard"] == pytest.approx(0.76) and one["failure_rate"] == 0
    assert one["dice"] == pytest.approx((2 * 0.82 / 1.82 + 1.4 / 1.7) / 2, abs=1e-6)
    assert by_name["0 clicks", "in the middle"]["failure_rate"] == 1
    assert by_name["box", "0% off"]["jaccard"] == pytest.approx(0.7)
    noc = {(row["target"], row["place"]): row for row in numbers}
    assert noc[0.85, "in the middle"]["clicks"] == (2 + MAX_CLICKS) / 2 and noc[0.85, "in the middle"]["never"] == 0.5
