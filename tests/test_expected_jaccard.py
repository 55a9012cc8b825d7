"""The expected Jaccard against drawn probabilities."""

import numpy as np
import pytest
import torch

from efp_hf import image_processing_efp
from efp_hf.metrics import confusion_counts, jaccard


def expected_jaccard(probabilities: np.ndarray, mask: np.ndarray, temperature: float = 1.0) -> float:
    return image_processing_efp.expected_jaccard(torch.as_tensor(probabilities), torch.as_tensor(mask), temperature)


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


@pytest.mark.parametrize("temperature", [0, -1.0, np.nan, np.inf])
def test_impossible_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match=f"`temperature` must be a finite number above 0, got {temperature}"):
        expected_jaccard(np.full((4, 4), 0.6), np.ones((4, 4), dtype=bool), temperature)
