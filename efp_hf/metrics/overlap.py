"""
Scores of labels that overlap: the official ones of ISIC 2018, Task 2, and whether a label is there at all.

The official score of a label is one Jaccard of all images: each image's counts are shares of its pixels, so that a
large photo weighs as much as a small one, and are added up. The micro-average adds up the labels, too. Edge cases are
those of the challenge's scorer (isic-challenge-scoring 5.6.0).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from transformers.image_processing_utils import BatchFeature

from ..data.files import as_boolean_mask, read_mask
from ..data.overlap import label_names
from ..data.pairs import stacked
from ..extras import needing
from ..image_processing_efp import EFPImageProcessor, check_sizes
from ..inference.checkpoint import segment_one_by_one
from ..inference.prediction_table import mask_paths
from ..modeling_efp import EFPForSegmentation
from .classes import MEAN_OF_LABELS, MICRO, class_scores, nan_mean
from .scores import NUM_RESAMPLES, confusion_counts

with needing("train", __name__):
    from datasets import Dataset

SCORES = ("jaccard", "dice", "image_jaccard", "auc")  # those with an interval
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)  # tried


def label_counts(masks: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """TP, FP, FN, TN of each label, int64 `(num_labels, 4)`, of masks and truths `(num_labels, height, width)`."""
    return np.stack([confusion_counts(mask, truth) for mask, truth in zip(masks, truths, strict=True)])


def normalized(counts: np.ndarray) -> np.ndarray:
    """Counts `(..., 4)` as shares of their image's pixels."""
    return counts / counts.sum(-1, keepdims=True)


def pooled_jaccard(shares: np.ndarray) -> np.ndarray:
    """TP / (TP + FP + FN) of `(..., 4)` to `(...)`; 1.0 where a label is nowhere, and found nowhere."""
    hits, around = shares[..., 0], shares[..., :3].sum(-1)
    return np.where(around == 0, 1.0, hits / np.where(around == 0, 1, around))[()]


def pooled_dice(shares: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN), as [`pooled_jaccard`]."""
    jaccards = pooled_jaccard(shares)
    return 2 * jaccards / (1 + jaccards)


def aucs(presences: np.ndarray, is_there: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """
    The area under the ROC curve: how often an image with the label has the higher score than one without it, ties
    by half. NaN where all images are of one kind.

    Args:
        presences: a score an image that the label is there, `(num_images,)`.
        is_there: boolean, `(num_images,)`.
        weights: how often each image counts, `(num_draws, num_images)`.

    Returns:
        `(num_draws,)`.
    """
    with_it, without = presences[is_there][:, None], presences[~is_there]
    wins = (with_it > without) + 0.5 * (with_it == without)
    weights_with, weights_without = weights[:, is_there].astype(float), weights[:, ~is_there].astype(float)
    pairs = weights_with.sum(1) * weights_without.sum(1)
    won = ((weights_with @ wins) * weights_without).sum(1)
    return np.where(pairs > 0, won / np.maximum(pairs, 1), np.nan)


def summarize_labels(
    counts: np.ndarray,
    labels: Sequence[str],
    presences: np.ndarray | None = None,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[dict[str, float | str]]:
    """
    A row a label, one of the micro-average (`MICRO`, the official score) and one of `MEAN_OF_LABELS`.

    Args:
        counts: of [`label_counts`], stacked, `(num_images, num_labels, 4)`.
        labels: their names.
        presences: a score that a label is there, `(num_images, num_labels)`; without it there is no `auc`.
        num_resamples: of the bootstrap over images, as `confidence` and `seed`.

    Returns:
        For each `label`: `images_with_it`; `jaccard` and `dice`, the official ones; `image_jaccard`, the mean over
        the images in which it is or was found; `auc` of its presence; each with its interval as `_low` and `_high`.
        NaN where there is none.

    Raises:
        ValueError: no image, or another number of labels.
    """
    if counts.ndim != 3 or not len(counts) or counts.shape[1:] != (len(labels), 4):
        raise ValueError(f"`counts` must be (num_images, {len(labels)}, 4) of at least one image, got {counts.shape}.")
    is_there = (counts[..., 0] + counts[..., 2]) > 0
    shares = normalized(counts)
    per_image = class_scores(counts)
    once = np.ones((1, len(counts)))
    drawn = np.random.default_rng(seed).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), num_resamples)
    values = {}  # of each score `(1 + num_resamples, num_labels + 2)`: of all images, then of the draws
    for weights, of_all in ((once, True), (drawn, False)):
        sums = np.einsum("di,isc->dsc", weights, shares, optimize=True)
        has = np.einsum("di,is->ds", weights, np.isfinite(per_image).astype(float))
        means = np.einsum("di,is->ds", weights, np.nan_to_num(per_image)) / np.where(has, has, np.nan)
        found = {"image_jaccard": [*means.T, np.full(len(weights), np.nan)]}
        for name, score in (("jaccard", pooled_jaccard), ("dice", pooled_dice)):
            found[name] = [*score(sums).T, score(sums.sum(1))]
        found["auc"] = [np.full(len(weights), np.nan)] * (len(labels) + 1)
        if presences is not None:
            found["auc"][: len(labels)] = (
                aucs(presences[:, number], is_there[:, number], weights) for number in range(len(labels))
            )
        for name, columns in found.items():
            columns = np.stack([*columns, nan_mean(np.stack(columns[: len(labels)], axis=1), 1)], axis=1)
            values[name] = columns if of_all else np.concatenate([values[name], columns])

    rows = [{"label": name} for name in (*labels, MICRO, MEAN_OF_LABELS)]
    numbers = [*is_there.sum(0).tolist(), *[int(is_there.any(1).sum())] * 2]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    for number, row in enumerate(rows):
        row["images_with_it"] = numbers[number]
        for name in SCORES:
            value, draws = values[name][0, number], values[name][1:, number]
            draws = draws[np.isfinite(draws)]
            low, high = np.quantile(draws, tails).tolist() if len(draws) else (np.nan, np.nan)
            row |= {name: float(value), f"{name}_low": low, f"{name}_high": high}
    return rows


def truth_masks(row: dict, labels: Sequence[str]) -> np.ndarray:
    """The true masks of a row of `load_lesions`, boolean `(num_labels, height, width)`; `None` is an empty one."""
    return stacked([row[label] and as_boolean_mask(row[label], f"{row['image_id']}, {label}") for label in labels])


def segment_labels(
    dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor, batch_size: int = 8
) -> Iterator[tuple[str, BatchFeature, np.ndarray]]:
    """
    (image_id, result of [`segment`] at the size of the truths, [`truth_masks`] of the model's labels) of each row.

    Raises:
        ValueError: masks of another size than their image, by name.
    """
    labels = list(model.config.id2label.values())
    for start in range(0, len(dataset), batch_size):
        rows = [dataset[position] for position in range(start, min(start + batch_size, len(dataset)))]
        truths = [truth_masks(row, labels) for row in rows]
        for row, truth in zip(rows, truths, strict=True):
            check_sizes(row["image_id"], row["image"].size[::-1], truth.shape[1:])
        sizes = [truth.shape[1:] for truth in truths]
        # one result at a time: those of a batch of photos are large
        results = segment_one_by_one([row["image"] for row in rows], model, processor, sizes)
        yield from zip((row["image_id"] for row in rows), results, truths, strict=True)


def label_masks_of_folder(
    dataset: Dataset, folder: str | Path, num_first: int = 0
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """
    (image_id, masks, truths) of each row, the masks read from the folder under the names that `efp predict` gives them.

    Args:
        num_first: labels, the first ones, that are left out.

    Raises:
        FileNotFoundError, ValueError: by name: a mask that is missing, damaged, or of another size than the truth.
    """
    labels = label_names(dataset)
    for row in dataset:
        truths = truth_masks(row, labels[num_first:])
        paths = mask_paths(Path(folder), f"{row['image_id']}.png", labels)[num_first:]
        masks = [read_mask(path) for path in paths]
        for path, mask in zip(paths, masks, strict=True):
            check_sizes(str(path), truths.shape[1:], mask.shape)
        yield row["image_id"], np.stack(masks), truths


def presence_of(probabilities: np.ndarray) -> np.ndarray:
    """A score that each label is somewhere in the image: its highest probability, of `(num_labels, height, width)`."""
    return probabilities.max((1, 2))


def overlap_score(shares: np.ndarray) -> float:
    """Half the official micro-average and half the mean of the labels, of counts as shares, `(num_labels, 4)`."""
    return float(pooled_jaccard(shares.sum(0)) + pooled_jaccard(shares).mean()) / 2


def best_thresholds(counts: np.ndarray, thresholds: Sequence[float] = THRESHOLDS) -> tuple[list[float], np.ndarray]:
    """
    The thresholds with the best [`overlap_score`], and the counts there as shares, `(num_labels, 4)`.

    Each label begins at its own best Jaccard. Then one label after the other moves, until none gains: what a rare label
    finds wrongly costs the micro-average more than it gains for the label.

    Args:
        counts: at each threshold, `(num_images, num_thresholds, num_labels, 4)`.
    """
    shares = normalized(counts).sum(0)
    labels = np.arange(shares.shape[1])
    chosen = pooled_jaccard(shares).argmax(0)
    best = overlap_score(shares[chosen, labels])
    moved = True
    while moved:
        moved = False
        for label in labels:
            for number in range(len(thresholds)):
                tried = np.where(labels == label, number, chosen)
                score = overlap_score(shares[tried, labels])
                if score > best:
                    chosen, best, moved = tried, score, True
    return [thresholds[number] for number in chosen], shares[chosen, labels]
