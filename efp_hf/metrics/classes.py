"""
Scores of labels of several classes: each class against all else, as the lesion is, and their mean.

An image counts for a class where the class is in its truth or in what was found: most images do not hold most classes,
and a class that is rightly not found would hide the errors of the images that hold it.
"""

import numpy as np

from ..data.labels import IGNORED
from .scores import NUM_RESAMPLES, dice, jaccard, pooled_scores

MEAN = "mean of the classes"
MICRO, MEAN_OF_LABELS = "micro-average", "mean of the labels"  # rows of labels that overlap
SCORES = {"jaccard": jaccard, "dice": dice}


def class_counts(labels: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """
    TP, FP, FN, TN of each of the classes 1..K, int64 `(num_classes, 4)`; pixels whose truth is `IGNORED` are in none.

    Args:
        labels: what was found, integers 0..K, `(height, width)`.
        truth: the same of the expert, or `IGNORED`.

    Raises:
        ValueError: labels of different sizes, or of more classes.
    """
    if labels.shape != truth.shape or truth.ndim != 2:
        raise ValueError(
            f"`labels` must be (height, width) of their truth, got shape {labels.shape} for {truth.shape}. "
            "Resize the probabilities, not the truth."
        )
    valid = truth != IGNORED
    found = labels[valid]
    if found.size and found.max() > num_classes:
        raise ValueError(f"`labels` must hold 0..{num_classes}, got {found.max()}. Write the masks again.")
    pairs = truth[valid].astype(np.int64) * (num_classes + 1) + found
    table = np.bincount(pairs, minlength=(num_classes + 1) ** 2).reshape(num_classes + 1, num_classes + 1)
    hits = np.diag(table)[1:]
    missed, false = table.sum(1)[1:] - hits, table.sum(0)[1:] - hits
    return np.stack([hits, false, missed, table.sum() - hits - false - missed], axis=1)


def class_scores(counts: np.ndarray, score=jaccard) -> np.ndarray:
    """A score of each image and class, `(num_images, num_classes)` of `(…, 4)`; NaN where an image has none of it."""
    has_class = counts[..., :3].any(-1)
    return np.where(has_class, score(counts), np.nan)


def nan_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """The mean of what is there; NaN, without a warning, where nothing is."""
    is_there = np.isfinite(values)
    sums, numbers = np.where(is_there, values, 0).sum(axis), is_there.sum(axis)
    return np.where(numbers > 0, sums / np.maximum(numbers, 1), np.nan)


def mean_of_classes(values: np.ndarray) -> float:
    """The mean of the classes' means over their images, of [`class_scores`]."""
    return float(nan_mean(nan_mean(values)))


def summarize_classes(
    counts: np.ndarray,
    classes: tuple[str, ...],
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[dict[str, float | str]]:
    """
    A row a class, and one of their mean, which is named `MEAN`.

    Args:
        counts: of [`class_counts`], stacked: `(num_images, num_classes, 4)`.
        classes: their names.
        num_resamples: of the bootstrap over images, as `confidence` and `seed`.

    Returns:
        For each `class`: `class_images`, in which it is or was found; `jaccard` and `dice`, means over these, with
        their intervals as `_low` and `_high`; and `pooled_iou`, of all pixels as if they were one image. A class
        without images has no scores (NaN) and is not part of the mean.

    Raises:
        ValueError: no image.
    """
    if counts.ndim != 3 or not len(counts):
        raise ValueError(f"`counts` must be (num_images, num_classes, 4) of at least one image, got {counts.shape}.")
    names = [*classes, MEAN]
    rows = [{"class": name} for name in names]
    numbers = [*counts[..., :3].any(-1).sum(0).tolist(), len(counts)]
    for row, number in zip(rows, numbers, strict=True):
        row["class_images"] = number
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=num_resamples)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    for name, score in SCORES.items():
        values = class_scores(counts, score)
        means = nan_mean(values)
        has_class = np.isfinite(values).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):  # a draw without an image of the class
            resampled = (drawn @ np.nan_to_num(values)) / (drawn @ has_class)
        of_all = zip(rows, [*means, nan_mean(means)], [*resampled.T, nan_mean(resampled, 1)], strict=True)
        for row, value, draws in of_all:
            draws = draws[np.isfinite(draws)]
            low, high = np.quantile(draws, tails).tolist() if len(draws) else (np.nan, np.nan)
            row |= {name: float(value), f"{name}_low": low, f"{name}_high": high}
    pooled = [pooled_scores(of_class)["pooled_iou"] for of_class in np.moveaxis(counts, 1, 0)]
    pooled = [value if number else np.nan for value, number in zip(pooled, numbers, strict=False)]
    for row, value in zip(rows, [*pooled, nan_mean(np.array(pooled))], strict=True):
        row["pooled_iou"] = float(value)
    return rows
