"""The simulated annotator."""

import numpy as np

from efp_hf.training.annotator import lesion_box, next_click


def draw(*rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


TRUTH = draw(
    "..........",
    ".#####....",
    ".#####....",
    ".#####..#.",
    "..........",
)


def test_the_first_click_lies_in_the_middle_of_the_largest_missing_region():
    assert next_click(np.zeros_like(TRUTH), TRUTH) == (3.5, 2.5, 1) or next_click(np.zeros_like(TRUTH), TRUTH)[1:] == (
        2.5,
        1,
    )


def test_skin_taken_for_lesion_gets_a_click_on_skin():
    mask = TRUTH.copy()
    mask[4, 2:9] = True
    x, y, label = next_click(mask, TRUTH)
    assert (y, label) == (4.5, 0) and 2 < x < 9


def test_the_larger_of_both_errors_is_corrected_first():
    mask = TRUTH.copy()
    mask[3, 8] = False  # one pixel missing
    mask[0, :3] = True  # three too many
    assert next_click(mask, TRUTH)[2] == 0
    mask[0, :3] = False
    assert next_click(mask, TRUTH) == (8.5, 3.5, 1)


def test_a_click_anywhere_stays_in_the_region():
    random = np.random.default_rng(0)
    clicks = {next_click(np.zeros_like(TRUTH), TRUTH, random) for _ in range(60)}
    assert len(clicks) > 8
    assert all(TRUTH[int(y), int(x)] and x < 6 and label == 1 for x, y, label in clicks)


def test_a_right_mask_gets_no_click():
    assert next_click(TRUTH, TRUTH) is None


def test_the_box_is_half_open_and_jitter_stays_in_the_image():
    assert lesion_box(TRUTH) == [1, 1, 9, 4]
    assert lesion_box(np.zeros_like(TRUTH)) is None
    random = np.random.default_rng(0)
    boxes = np.array([lesion_box(TRUTH, random, 0.1) for _ in range(50)])
    assert (np.abs(boxes - [1, 1, 9, 4]) <= [0.8, 0.3, 0.8, 0.3]).all() and boxes.std(0).min() > 0.05
    full = np.ones((4, 5), bool)
    boxes = np.array([lesion_box(full, random, 0.1) for _ in range(20)])
    assert boxes.min() >= 0 and (boxes[:, 2] <= 5).all() and (boxes[:, 3] <= 4).all()


def test_the_box_of_a_single_pixel_keeps_an_area():
    dot = np.zeros((9, 9), bool)
    dot[8, 8] = True
    left, top, right, bottom = lesion_box(dot, np.random.default_rng(0), 0.1)
    assert right - left >= 1 and bottom - top >= 1
