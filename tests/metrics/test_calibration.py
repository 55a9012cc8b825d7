import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from efp_hf.metrics.calibration import (
    BORDER_BAND,
    JACCARD_TEMPERATURES,
    NUM_BINS,
    border_band,
    calibration_error,
    count_bins,
    fit_temperature,
    grid_jaccard_temperatures,
)


def drawn_lesion(side: int = 64) -> np.ndarray:
    truth = np.zeros((side, side), dtype=bool)
    truth[:, side // 2 :] = True
    return truth


def test_band_lies_on_both_sides_of_the_border():
    truth = drawn_lesion()
    width = int(BORDER_BAND * np.hypot(64, 64))
    columns = np.flatnonzero(border_band(truth)[10])
    assert width == 2
    assert columns.tolist() == [30, 31, 32, 33]


@pytest.mark.parametrize("value", [True, False])
def test_mask_without_a_border_has_no_band(value):
    assert not border_band(np.full((8, 8), value)).any()


def test_bins_count_pixels_probabilities_and_lesion():
    probabilities, truth = np.array([[0.0, 0.01, 1.0, 0.99]]), np.array([[False, True, True, True]])
    bins = count_bins(probabilities, truth)
    assert bins.shape == (NUM_BINS, 3)
    assert bins[0].tolist() == [2, pytest.approx(0.01), 1]
    assert bins[-1].tolist() == [2, pytest.approx(1.99), 2]
    assert bins[1:-1].sum() == 0


def test_calibration_error_of_a_drawing():
    """Four pixels at 0.9, of which two are lesion: 0.4 off. With four right ones at 0: half of it."""
    wrong = count_bins(np.full((1, 4), 0.9), np.array([[True, True, False, False]]))
    right = count_bins(np.zeros((1, 4)), np.zeros((1, 4), dtype=bool))
    assert calibration_error(wrong) == pytest.approx(0.4)
    assert calibration_error(wrong + right) == pytest.approx(0.2)


def overconfident_pairs(temperature: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Probabilities whose logits are `temperature` times too large, with truths drawn from the right ones."""
    random = np.random.default_rng(0)
    pairs = []
    for _ in range(20):
        truth = drawn_lesion()
        right = np.where(border_band(truth), random.uniform(0.1, 0.9, truth.shape), truth * 0.98 + 0.01)
        drawn = np.where(border_band(truth), random.random(truth.shape) < right, truth)
        pairs.append((expit(logit(right) * temperature), drawn))
    return pairs


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_fit_finds_the_temperature(temperature, monkeypatch):
    # the drawn truths have borders everywhere: the band is taken from the lesion that they were drawn around
    band = border_band(drawn_lesion())
    monkeypatch.setattr("efp_hf.metrics.calibration.border_band", lambda truth: band)
    assert fit_temperature(iter(overconfident_pairs(temperature))) == pytest.approx(temperature, rel=0.1)


def test_fit_looks_at_the_band_alone():
    """Sure and wrong pixels far from the border do not change the temperature."""
    probabilities = np.where(drawn_lesion(), 0.7, 0.3)
    expected = fit_temperature(iter([(probabilities, drawn_lesion())]))
    probabilities[:, :8] = 0.999
    assert fit_temperature(iter([(probabilities, drawn_lesion())])) == expected


def test_fit_without_a_border_is_refused():
    with pytest.raises(ValueError, match="must have a mask with a border"):
        fit_temperature(iter([(np.full((8, 8), 0.5), np.zeros((8, 8), dtype=bool))]))


def test_jaccard_temperature_is_that_of_the_truths():
    """Truths drawn from surer probabilities than those that are given: their logits divided by 0.6."""
    rng = np.random.default_rng(0)
    rows = []
    for radius in rng.uniform(0.2, 0.8, 40):
        grid = np.mgrid[-1:1:64j, -1:1:64j]
        logits = 6 * (radius - np.hypot(*grid)) * rng.uniform(0.3, 1.5)
        probabilities = torch.from_numpy(expit(logits))
        result = {"probabilities": probabilities, "segmentation": probabilities > 0.5}
        rows.append(("", result, rng.random(logits.shape) < expit(logits / 0.6)))
    found = grid_jaccard_temperatures(rows)
    assert list(found) == list(JACCARD_TEMPERATURES)
    best = min(found, key=lambda temperature: found[temperature]["jaccard_error"])
    assert best == pytest.approx(0.6, abs=0.051)
    assert found[best]["mean_expected"] == pytest.approx(found[best]["mean_real"], abs=0.01)
    assert found[1.0]["jaccard_error"] > 3 * found[best]["jaccard_error"]
