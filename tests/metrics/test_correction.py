"""How fast a mask becomes right under clicks."""

import cv2
import numpy as np
import pytest
from conftest import tiny_model
from PIL import Image

from efp_hf import EFPImageProcessor
from efp_hf.data.synthetic import draw_lesion
from efp_hf.metrics import correction
from efp_hf.metrics.correction import (
    GRABCUT_SIDE,
    MAX_CLICKS,
    click_scores,
    correct_images,
    grabcut_mask,
    jaccard_of,
    number_of_clicks,
    summarize_corrections,
)
from efp_hf.training.annotator import lesion_box


class Annotated:
    """In the place of a `Correction`: each click on the lesion paints its column right."""

    def __init__(self, truth):
        self.truth, self.asked = truth, []

    def segment(self, points=(), box=None):
        import torch

        self.asked.append(tuple(points))
        mask = np.zeros_like(self.truth)
        for x, _, _ in points:
            mask[:, int(x)] = self.truth[:, int(x)]
        return {"segmentation": torch.from_numpy(mask), "expected_jaccard": len(points) / 10}


def test_j_rises_click_by_click_and_stays_when_the_mask_is_right():
    truth = np.zeros((10, 20), bool)
    truth[2:6, 5] = truth[1:9, 8] = True
    annotated = Annotated(truth)
    jaccards, expected = click_scores(annotated, truth, max_clicks=5).T
    assert jaccards == pytest.approx([0, 8 / 12, 1, 1, 1, 1]) and expected == pytest.approx([0, 0.1, *[0.2] * 4])
    assert len(annotated.asked) == 3
    x, y, label = annotated.asked[-1][0]
    assert (x, label) == (8.5, 1) and 1 < y < 9  # the middle of column 8


def test_clicks_end_where_no_number_asks_for_more():
    truth = np.zeros((20, 40), bool)
    truth[:, :38] = True
    annotated = Annotated(truth)
    jaccards, _ = click_scores(annotated, truth, max_clicks=38).T  # a column of 38 a click
    assert len(annotated.asked) == 36 and jaccards[34:].tolist() == pytest.approx([34 / 38, *[35 / 38] * 4])


def test_noc_is_the_first_click_that_reaches_the_target():
    assert number_of_clicks([0.95, 0.5, 0.86, 0.9], 0.85) == 2  # the mask before any click does not count
    assert number_of_clicks([0.1] * (MAX_CLICKS + 1), 0.85) == MAX_CLICKS


def test_summary_has_a_row_a_kind_of_prompts_and_a_row_a_target():
    clicks = [0.6, 0.82, 0.88, *[0.92] * (MAX_CLICKS - 2)]
    worse = [0.4, *[0.7] * MAX_CLICKS]
    jaccards = [
        {"clicks": clicks, "clicks_anywhere": worse, "boxes": [0.9, 0.8, 0.7], "grabcut": [0.2] * 3},
        {"clicks": worse, "clicks_anywhere": worse, "boxes": [0.5] * 3, "grabcut": [0.8, 0.6, 0.4]},
    ]
    rows = [{name: [(j, j + 0.01) for j in values] for name, values in image.items()} for image in jaccards]
    prompts, numbers = summarize_corrections(rows)
    by_name = {(row["prompts"], row["place"]): row for row in prompts}
    one = by_name["1 clicks", "in the middle"]
    assert one["jaccard"] == pytest.approx(0.76) and one["failure_rate"] == 0
    assert one["dice"] == pytest.approx((2 * 0.82 / 1.82 + 1.4 / 1.7) / 2, abs=1e-6)
    assert one["expected_jaccard"] == pytest.approx(0.77)
    assert by_name["0 clicks", "in the middle"]["failure_rate"] == 1
    assert by_name["box", "0% off"]["jaccard"] == pytest.approx(0.7)
    grabcut = by_name["box, GrabCut", "10% off"]
    assert grabcut["jaccard"] == pytest.approx(0.3) and grabcut["failure_rate"] == 1
    noc = {(row["target"], row["place"]): row for row in numbers}
    assert noc[0.85, "in the middle"]["clicks"] == (2 + MAX_CLICKS) / 2 and noc[0.85, "in the middle"]["never"] == 0.5


@pytest.fixture(scope="module")
def lesion():
    """A drawn photo, its mask, and the box around the lesion."""
    image, mask = draw_lesion(0, 90, 120)
    truth = np.asarray(mask) > 128
    return image, truth, tuple(lesion_box(truth))


def test_grabcut_finds_the_lesion_in_its_box(lesion):
    image, truth, box = lesion
    found = grabcut_mask(image, box, truth.shape)
    assert jaccard_of(found, truth) > 0.8
    left, top, right, bottom = (int(side) for side in box)
    outside = found.copy()
    outside[top:bottom, left:right] = False
    assert not outside.any()
    cv2.setRNGSeed(5)
    assert np.array_equal(grabcut_mask(image, box, truth.shape), found)  # whatever was drawn before


def test_grabcut_of_a_large_photo_is_that_of_its_reduced_copy(lesion):
    image, truth, box = lesion
    factor = 2 * GRABCUT_SIDE // 120 + 1
    size = (90 * factor, 120 * factor)
    found = grabcut_mask(image.resize(size[::-1]), tuple(side * factor for side in box), size)
    assert found.shape == size
    assert jaccard_of(found[factor // 2 :: factor, factor // 2 :: factor], truth) > 0.8


def test_grabcut_without_skin_is_its_box_and_without_a_box_empty(lesion):
    image, truth, _ = lesion
    assert grabcut_mask(image, (0.4, 0, 120, 89.2), truth.shape).all()
    assert not grabcut_mask(image, None, truth.shape).any()
    grabcut_mask(image, (0, 0, 119, 90), truth.shape)  # one column of skin is enough
    assert grabcut_mask(image, (60.2, 45.3, 61.2, 46.3), truth.shape).sum() <= 4


def test_model_and_grabcut_are_given_the_same_boxes(lesion, monkeypatch):
    image, truth, box = lesion
    row = {"image_id": "a", "image": image, "mask": Image.fromarray(truth)}
    model = tiny_model(prompt_size=4)
    seen = {"model": [], "grabcut": []}
    segment = correction.Correction.segment

    def watched(self, points=(), box=None, **kwargs):
        seen["model"] += [box] if box is not None else []
        return segment(self, points, box, **kwargs)

    monkeypatch.setattr(correction, "MAX_CLICKS", 1)
    monkeypatch.setattr(correction.Correction, "segment", watched)
    monkeypatch.setattr(
        correction, "grabcut_mask", lambda image, box, size: seen["grabcut"].append(box) or np.zeros(size, bool)
    )
    processor = EFPImageProcessor(size={"height": 32, "width": 32})
    (scores,) = correct_images([row], model, processor)
    assert len(seen["model"]) == 3 and seen["model"] == seen["grabcut"]
    assert seen["model"][0] == list(box) and seen["model"][1] != seen["model"][2]
    assert [j for j, _ in scores["grabcut"]] == [0, 0, 0] and len(scores["boxes"]) == 3
    list(correct_images([row], model, processor))
    assert seen["model"][3:] == seen["model"][:3]  # drawn anew, the same
