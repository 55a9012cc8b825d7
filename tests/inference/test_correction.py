"""A photo and the clicks on it, one after another."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_prompted_model

from efp_hf import EFPImageProcessor
from efp_hf.data.synthetic import draw_lesion
from efp_hf.inference.checkpoint import segment
from efp_hf.inference.correction import GROWTH, Correction, box_pixels, fill_box

PROCESSOR = EFPImageProcessor(size={"height": 32, "width": 64})
CLICKS = [(30.0, 20.0, 1), (70.0, 50.0, 0), (10.0, 10.0, 1)]


@pytest.fixture
def model():
    return tiny_prompted_model()


@pytest.fixture
def image():
    return draw_lesion(0, 60, 80)[0]


def test_without_prompts_it_is_the_automatic_mask(model, image):
    (expected,) = segment([image], model, PROCESSOR)
    found = Correction(image, model, PROCESSOR).segment()
    assert torch.equal(found["probabilities"], expected["probabilities"])
    assert found["expected_jaccard"] == expected["expected_jaccard"]


@torch.inference_mode()
def test_each_click_sees_the_mask_of_those_before(model, image):
    correction = Correction(image, model, PROCESSOR)
    scale = torch.tensor([64 / 80, 32 / 60])
    pixel_values = PROCESSOR(image, return_tensors="pt")["pixel_values"]
    box = (5.0, 6.0, 70.0, 55.0)
    prompts = {"input_boxes": torch.tensor([box]) * scale.repeat(2)}
    logits = model(pixel_values, **prompts).logits
    torch.testing.assert_close(correction.step([], box).logits, logits)
    for number in range(1, 4):
        clicks = torch.tensor([CLICKS[:number]])
        prompts |= {"input_points": clicks[..., :2] * scale, "input_labels": clicks[..., 2].long()}
        logits = model(pixel_values, **prompts, input_masks=logits[:, 1:]).logits
        torch.testing.assert_close(correction.step(CLICKS[:number], box).logits, logits)


def cone(size: int = 64) -> torch.Tensor:
    """Logits of skin and lesion; the lesion's probability falls from the middle to the border."""
    steps = torch.arange(size) + 0.5 - size / 2
    distance = (steps[:, None] ** 2 + steps**2).sqrt()
    return torch.stack([torch.zeros(size, size), 4 - distance / 4])[None]


@pytest.mark.parametrize("threshold", [0.5, 0.3])
@pytest.mark.parametrize("radius", [10, 16, 20])
def test_a_mask_fills_its_box(radius, threshold):
    logits, box = cone(), (32 - radius, 32 - radius, 32 + radius, 32 + radius)
    moved = fill_box(logits, box, threshold)
    shift = (moved - logits)[0, 1][box_pixels(box, GROWTH)]
    assert torch.equal(moved[:, 0], logits[:, 0]) and shift.max() - shift.min() < 1e-5
    mask = moved.softmax(1)[0, 1] > threshold
    assert abs(mask.any(0).sum() / 2 - radius) <= 3
    before = logits.softmax(1)[0, 1] > threshold
    assert abs(mask.any(0).sum() / 2 - radius) <= abs(before.any(0).sum() / 2 - radius)


def test_a_mask_that_fills_its_box_stays():
    logits, box = cone(), (16, 16, 48, 48)
    inside = (0, 1, *box_pixels(box, GROWTH))
    assert torch.equal(fill_box(logits, box, 0.5)[inside], logits[inside])


def reach(mask: torch.Tensor) -> tuple[int, int, int, int]:
    """Left, top, right, bottom."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return columns[0].item(), rows[0].item(), columns[-1].item() + 1, rows[-1].item() + 1


@pytest.mark.parametrize("threshold", [1e-6, 0.5, 0.98])
def test_a_mask_reaches_a_tenth_of_the_box_beyond_it_and_to_clicks(threshold):
    logits, box = cone(), (20, 22, 40, 32)
    logits[:, 1] += 40  # lesion everywhere
    assert reach(fill_box(logits, box, threshold).softmax(1)[0, 1] > threshold) == (18, 21, 42, 33)
    clicked = fill_box(logits, box, threshold, [(30, 25), (50, 28)]).softmax(1)[0, 1] > threshold
    assert reach(clicked) == (17, 21, 53, 33)


@pytest.mark.parametrize("threshold", [0.5, 0.02])
def test_a_box_on_skin_has_an_empty_mask(threshold):
    assert not (fill_box(cone(), (0, 0, 6, 6), threshold).softmax(1)[0, 1] > threshold).any()


def test_lesion_beside_a_box_alone_is_no_mask():
    logits = torch.zeros(1, 2, 64, 64)
    logits[:, 1] = -9.0
    logits[:, 1, 20:40, 40:42] = 9.0
    box = (20, 20, 40, 40)  # grown by 2 pixels it holds the lesion
    assert not (fill_box(logits, box, 0.5).softmax(1)[0, 1] > 0.5).any()
    clicked = fill_box(logits, box, 0.5, [(41, 30)]).softmax(1)[0, 1] > 0.5
    assert reach(clicked) == (40, 20, 42, 40)


def test_lesion_clicks_extend_a_box_in_pixels_of_the_photo(model, image):
    correction, box = Correction(image, model, PROCESSOR), (10.0, 10.0, 60.0, 50.0)
    scaled = (8.0, 10 * 32 / 60, 48.0, 50 * 32 / 60)
    logits = cone()[..., 16:48, :]
    wanted = fill_box(logits, scaled, 0.5, [(76 * 64 / 80, 52 * 32 / 60)])
    assert not torch.equal(wanted, fill_box(logits, scaled, 0.5))
    torch.testing.assert_close(correction.fill(logits, [(5.0, 5.0, 0), (76.0, 52.0, 1)], box), wanted)


def test_arrays_are_clicks_and_box(model, image):
    correction = Correction(image, model, PROCESSOR)
    wanted = correction.segment(CLICKS[:2], (10.0, 10.0, 60.0, 50.0))
    found = correction.segment(np.array(CLICKS[:2]), np.array([10.0, 10.0, 60.0, 50.0]))
    assert torch.equal(found["probabilities"], wanted["probabilities"])
    with pytest.raises(ValueError, match="must be of"):
        correction.segment(np.ones((1, 2)))


def test_a_box_is_filled_from_the_threshold_that_is_given(model, image):
    correction, box = Correction(image, model, PROCESSOR), (10.0, 10.0, 60.0, 50.0)
    correction.step([], box).logits = cone()[..., 16:48, :]
    scaled = (8.0, 10 * 32 / 60, 48.0, 50 * 32 / 60)
    for threshold in (0.02, 0.98):
        wanted = fill_box(cone()[..., 16:48, :], scaled, threshold)
        torch.testing.assert_close(correction.outputs((), box, threshold).logits, wanted)
        found = correction.segment((), box, threshold=threshold)
        assert torch.equal(found["segmentation"], found["probabilities"] > threshold)
    with pytest.raises(ValueError, match="`threshold` must be a probability"):
        correction.outputs((), box, 1.5)


def test_six_hundred_clicks_are_no_recursion(model, image):
    model.forward = lambda **_: SimpleNamespace(logits=torch.zeros(1, 2, 1, 1))
    correction = Correction(image, model, PROCESSOR)
    clicks = [(x % 80, 5.0, x % 2) for x in range(600)]
    correction.outputs(clicks)
    assert len(correction.steps) == 601


def test_what_was_asked_before_costs_nothing(model, image):
    correction = Correction(image, model, PROCESSOR)
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    correction.outputs(CLICKS)
    assert len(calls) == 4  # nothing, and each click
    correction.outputs(CLICKS[:2])
    correction.outputs()
    assert len(calls) == 4
    correction.outputs([*CLICKS[:2], (20.0, 20.0, 0)])
    assert len(calls) == 5


def test_a_reduced_copy_counts_the_pixels_of_the_photo(model, image):
    small = image.resize((40, 30))
    points = [(x / 2, y / 2, label) for x, y, label in CLICKS]
    expected = Correction(small, model, PROCESSOR).outputs(points).logits
    found = Correction(small, model, PROCESSOR, size=(60, 80))
    torch.testing.assert_close(found.outputs(CLICKS).logits, expected)
    assert found.segment(CLICKS)["segmentation"].shape == (60, 80)


@pytest.mark.parametrize("point", [(30, 20), (30, 20, 0.7), (30, 20, -10), 5, ("a", 45, 1), (1, [2], 1)])
def test_a_click_that_is_none_is_named(model, image, point):
    with pytest.raises(ValueError, match=r"must be of \(x, y, label\).* got " + re.escape(repr(point))):
        Correction(image, model, PROCESSOR).segment([point])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"points": [(81, 20, 1)]}, r"`points` must lie in the photo of 80×60 pixels, got \(81, 20\)"),
        ({"points": [(float("nan"), 20, 1)]}, r"must be of \(x, y, label\).* got \(nan, 20, 1\)"),
        ({"box": (5, 5, 5, 9)}, r"photo of 80×60 pixels, with an area, got \(5, 5, 5, 9\). Give two opposite corners"),
        ({"box": (20, 15, 20, 15)}, r"with an area, got \(20, 15, 20, 15\)"),
        ({"box": (20, 15, 60)}, r"`box` must be \(left, top, right, bottom\) .* got \(20, 15, 60\)"),
        ({"box": "all"}, "`box` must be .* got 'all'"),
        ({"box": (5, 5, 81, 9)}, r"got \(5, 5, 81, 9\)"),
    ],
)
def test_prompts_that_cannot_be_are_named_in_pixels_of_the_photo(model, image, prompts, message):
    with pytest.raises(ValueError, match=message):
        Correction(image, model, PROCESSOR).outputs(**prompts)


def test_a_file_name_is_no_image(model):
    with pytest.raises(ValueError, match="`image` must be a PIL image, got 'photo.jpg'. Open a file"):
        Correction("photo.jpg", model, PROCESSOR)


def test_nothing_is_not_expected_to_be_right_where_a_person_says_that_there_is_something(model, image):
    model.prompted_decoder.classifier.bias.data.fill_(-50)
    correction = Correction(image, model, PROCESSOR)
    for prompts, expected in (
        ({"box": (5, 5, 40, 40)}, 0),
        ({"points": [(10, 10, 1)]}, 0),
        ({"points": [(10, 10, 0)]}, 1),
    ):
        found = correction.segment(**prompts)
        assert not found["segmentation"].any() and found["expected_jaccard"] == pytest.approx(expected, abs=1e-3)


def test_with_clicks_all_regions_stay(model, image):
    processor = EFPImageProcessor(size={"height": 32, "width": 64}, largest_region=True)
    found = Correction(image, model, processor).segment(CLICKS)
    assert torch.equal(found["segmentation"], found["probabilities"] > 0.5)


@pytest.mark.parametrize("width", [302, 2000, 6000])
@pytest.mark.parametrize("size", [(192, 192), (192, 256)])
@torch.inference_mode()
def test_the_border_of_a_photo_is_in_the_input(model, image, width, size):
    processor = EFPImageProcessor(size={"height": size[0], "width": size[1]})
    height = width - 1
    correction = Correction(image, model, processor, size=(height, width))
    embeddings, before = correction.embeddings, correction.outputs().logits[:, 1:]
    unclicked = model(image_embeddings=embeddings, input_masks=before).logits[0, 1]
    unboxed = model(image_embeddings=embeddings, input_boxes=torch.full((1, 4), -10.0)).logits[0, 1]
    for x, y in [(width, height), (width - 0.01, height - 0.01), (width - 1, height - 1), (0, 0), (width, 0)]:
        difference = (correction.outputs([(x, y, 1)]).logits[0, 1] - unclicked).abs()
        row, column = divmod(int(difference.argmax()), size[1])
        assert (row > size[0] / 2, column > size[1] / 2) == (y > 0, x > 0), (x, y)  # it acts where it is
    for box in [(0, 0, width, height), (width - 1, height - 1, width, height), (0, 0, 1, 1)]:
        assert not torch.equal(correction.outputs(box=box).logits[0, 1], unboxed), box


def test_the_expected_jaccard_of_prompts_has_its_own_temperature(model, image):
    surer = EFPImageProcessor(size={"height": 32, "width": 64}, prompted_jaccard_temperature=3.0)
    plain, own = (Correction(image, model, processor) for processor in (PROCESSOR, surer))
    assert own.segment()["expected_jaccard"] == plain.segment()["expected_jaccard"]
    for given in ({"points": CLICKS[:1]}, {"box": (5, 6, 70, 55)}):
        one, other = plain.segment(**given), own.segment(**given)
        assert torch.equal(one["segmentation"], other["segmentation"])
        assert one["expected_jaccard"] != other["expected_jaccard"]
