"""Are the probabilities right: reliability over pixels, and the temperatures that make them and their Jaccard so."""

from collections.abc import Iterable, Iterator

import numpy as np
from scipy import ndimage, optimize
from scipy.special import expit, log_softmax, logit
from transformers.image_processing_utils import BatchFeature

from ..data.labels import IGNORED
from ..extras import needing
from ..image_processing_efp import MIN_PROBABILITY, EFPImageProcessor, expected_jaccard
from ..modeling_efp import EFPForSegmentation
from . import confusion_counts, jaccard
from .evaluation import segment_rows

with needing("train", __name__):
    from datasets import Dataset

NUM_BINS = 15
BORDER_BAND = 0.03  # of the image's diagonal, to both sides of the true border: where a mask is uncertain
TEMPERATURES = (0.2, 10.0)  # searched between these
JACCARD_TEMPERATURES = tuple(step / 20 for step in range(8, 51))  # those that are tried: 0.4, 0.45 … 2.5


def border_band(truth: np.ndarray) -> np.ndarray:
    """The pixels of a boolean mask that are near its border, `BORDER_BAND`; none where it has no border."""
    if truth.all() or not truth.any():
        return np.zeros(truth.shape, dtype=bool)
    distance = np.where(truth, ndimage.distance_transform_edt(truth), ndimage.distance_transform_edt(~truth))
    return distance <= BORDER_BAND * np.hypot(*truth.shape)


def pixel_probabilities(
    dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor, batch_size: int = 8
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(probabilities, truth) of each row, `(height, width)` of the truth; NaN where pixels of one class are ignored."""
    for _, result, truth in segment_rows(dataset, model, processor, batch_size):
        probabilities = result["probabilities"].cpu().numpy()
        yield np.where(result["ignored"], np.nan, probabilities) if "ignored" in result else probabilities, truth


def fit_class_temperature(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> float:
    """
    As [`fit_temperature`], of several classes: of the soft-max, near the border of any of them.

    Args:
        pairs: probabilities of each label, `(num_labels, height, width)`, and the true labels, `(height, width)`.
    """
    logits, labels = [], []
    for probabilities, truth in pairs:
        classes = [label for label in np.unique(truth) if label not in (0, IGNORED)]
        bands = [border_band(truth == label) for label in classes]
        band = np.logical_or.reduce([*bands, np.zeros(truth.shape, bool)]) & (truth != IGNORED)
        logits.append(np.log(np.clip(probabilities[:, band].astype(np.float64), MIN_PROBABILITY, 1)).T)
        labels.append(truth[band])
    logits, labels = np.concatenate(logits), np.concatenate(labels).astype(int)
    if not len(logits):
        raise ValueError("`pairs` must have a mask with a border: there is nothing to fit a temperature to.")

    def cross_entropy(log_temperature: float) -> float:
        found = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(found[np.arange(len(labels)), labels].mean())

    found = optimize.minimize_scalar(cross_entropy, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def count_bins(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """
    For each of `NUM_BINS` equal bins of probability: how many pixels, the sum of their probabilities, and how many of
    them are lesion. `(NUM_BINS, 3)`, float64.
    """
    probabilities, truth = probabilities.ravel().astype(np.float64), truth.ravel()
    bins = np.minimum((probabilities * NUM_BINS).astype(int), NUM_BINS - 1)
    return np.stack(
        [np.bincount(bins, weights, minlength=NUM_BINS) for weights in (None, probabilities, truth)], axis=1
    )


def calibration_error(bins: np.ndarray) -> float:
    """
    Expected calibration error (Naeini et al. 2015): the mean over pixels of the distance between a bin's mean
    probability and its share of lesion. Takes a sum of [`count_bins`].
    """
    num_pixels, probability, lesion = bins.T
    return float(np.abs(probability - lesion).sum() / num_pixels.sum())


def fit_temperature(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> float:
    """
    The temperature by which logits have to be divided (Guo et al. 2017) so that the pixels near the true borders have
    the smallest cross-entropy. The pixels far from it are sure and right, and would hide the uncertain ones.

    Args:
        pairs: of [`pixel_probabilities`].

    Raises:
        ValueError: no mask has a border.
    """
    logits, lesion = [], []
    for probabilities, truth in pairs:
        band = border_band(truth) & np.isfinite(probabilities)
        logits.append(logit(np.clip(probabilities[band].astype(np.float64), MIN_PROBABILITY, 1 - MIN_PROBABILITY)))
        lesion.append(truth[band])
    logits, lesion = np.concatenate(logits), np.concatenate(lesion)
    if not len(logits):
        raise ValueError("`pairs` must have a mask with a border: there is nothing to fit a temperature to.")

    def cross_entropy(log_temperature: float) -> float:
        probabilities = expit(np.where(lesion, logits, -logits) / np.exp(log_temperature))
        return -float(np.log(probabilities).mean())

    found = optimize.minimize_scalar(cross_entropy, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def grid_jaccard_temperatures(
    rows: Iterable[tuple[str, BatchFeature, np.ndarray]],
) -> dict[float, dict[str, float]]:
    """
    For each of `JACCARD_TEMPERATURES` how far the expected Jaccards of masks are from the real ones with it: their root
    mean square difference `jaccard_error`, and the means of both, `mean_expected` and `mean_real`.

    Args:
        rows: of [`segment_rows`], or [`prompted_rows`].
    """
    expected, real = [], []
    for _, result, truth in rows:
        mask = result["segmentation"]
        real.append(float(jaccard(confusion_counts(mask.cpu().numpy(), truth))))
        expected.append([expected_jaccard(result["probabilities"], mask, value) for value in JACCARD_TEMPERATURES])
    expected, real = np.array(expected), np.array(real)
    errors = np.sqrt(np.mean((expected - real[:, None]) ** 2, axis=0))
    return {
        temperature: {"jaccard_error": float(error), "mean_expected": float(mean), "mean_real": float(real.mean())}
        for temperature, error, mean in zip(JACCARD_TEMPERATURES, errors, expected.mean(axis=0), strict=True)
    }
