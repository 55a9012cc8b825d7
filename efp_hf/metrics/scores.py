"""
Scores of lesion masks. A mask is reduced to its four counts once; every overlap score is a function of those.

The per-image scores are those of the ISIC 2018 challenge, with the edge cases of its scorer (isic-challenge-scoring
5.6.0). Pooled scores, which many papers report, are other numbers and have other names.
"""

from collections.abc import Sequence

import numpy as np

LESION_ABOVE = 128  # grey value of a mask: 128 is skin, 129 lesion, as the official scorer cuts
NUM_RESAMPLES = 10_000  # of the bootstrap over images
JACCARD_THRESHOLD = 0.65  # below, the challenge counts a mask as failed
BOUNDARY_TOLERANCE = 0.0075  # of the diagonal: Csurka et al. 2013, "What is a good evaluation measure for
# semantic segmentation?", and the default of MATLAB's bfscore
CHUNK_SIZE = 1_000_000  # random indices held at once by the bootstrap


def confusion_counts(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """
    The pixels of one mask as int64 `(4,)`: true positives, false positives, false negatives, true negatives.

    Args:
        mask: what was found, `(height, width)`; boolean, labels 0 and 1, or grey 0..255 of any integer type: above 128
            is lesion.
        truth: the same of the expert.

    Raises:
        ValueError: masks of different sizes, or one that is not `(height, width)`, is of floats or leaves 0..255.
    """
    mask, truth = to_lesion_pair(mask, truth)
    true_positives = np.count_nonzero(mask & truth)
    false_positives = np.count_nonzero(mask) - true_positives
    false_negatives = np.count_nonzero(truth) - true_positives
    true_negatives = mask.size - true_positives - false_positives - false_negatives
    return np.array([true_positives, false_positives, false_negatives, true_negatives], dtype=np.int64)


def to_lesion_pair(mask: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both masks as boolean arrays of one size."""
    mask, truth = to_lesion(mask, "mask"), to_lesion(truth, "truth")
    if mask.shape != truth.shape:
        raise ValueError(
            f"mask is {mask.shape[0]}×{mask.shape[1]}, truth {truth.shape[0]}×{truth.shape[1]}. "
            "A mask must have the size of its truth: resize the probabilities before the cut, not the truth."
        )
    return mask, truth


def to_lesion(mask: np.ndarray, name: str) -> np.ndarray:
    """
    A boolean mask, one of labels 0 and 1, or a grey one as a boolean array; `name` is the argument that the errors
    speak of.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"`{name}` must be one mask (height, width), got shape {mask.shape}.")
    if mask.dtype == bool:
        return mask
    if not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(f"`{name}` must be boolean or grey 0..255, got {mask.dtype}. Cut probabilities first.")
    brightest = mask.max()
    if mask.dtype != np.uint8 and (brightest > 255 or mask.min() < 0):
        raise ValueError(f"`{name}` must be boolean or grey 0..255, got {mask.min()}..{brightest}.")
    return mask == 1 if brightest == 1 else mask > LESION_ABOVE  # labels, or grey


def split_counts(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`(..., 4)` to true positives, false positives, false negatives, true negatives, each `(...)`."""
    counts = np.asarray(counts)
    if counts.ndim == 0 or counts.shape[-1] != 4:
        raise ValueError(
            f"`counts` must be (..., 4), got shape {counts.shape}. Make them with confusion_counts and stack them."
        )
    return tuple(np.moveaxis(counts, -1, 0))


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, and 1.0 where there is no whole to have a part of."""
    return np.where(whole == 0, 1.0, part / np.maximum(whole, 1))[()]


def jaccard(counts: np.ndarray) -> np.ndarray:
    """Lesion pixels in both over lesion pixels in either, `(..., 4)` to `(...)`. 1.0 when neither has any."""
    true_positives, false_positives, false_negatives, _ = split_counts(counts)
    return share(true_positives, true_positives + false_positives + false_negatives)


def dice(counts: np.ndarray) -> np.ndarray:
    """Of the lesion, the same number as F1, `(..., 4)` to `(...)`. 1.0 when neither mask has a lesion."""
    true_positives, false_positives, false_negatives, _ = split_counts(counts)
    return share(2 * true_positives, 2 * true_positives + false_positives + false_negatives)


def sensitivity(counts: np.ndarray) -> np.ndarray:
    """Share of the true lesion that was found, `(..., 4)` to `(...)`. 1.0 when there is no lesion to be found."""
    true_positives, _, false_negatives, _ = split_counts(counts)
    return share(true_positives, true_positives + false_negatives)


def specificity(counts: np.ndarray) -> np.ndarray:
    """Share of the true skin that was left alone, `(..., 4)` to `(...)`. 1.0 when all of the truth is lesion."""
    _, false_positives, _, true_negatives = split_counts(counts)
    return share(true_negatives, true_negatives + false_positives)


def accuracy(counts: np.ndarray) -> np.ndarray:
    """Share of all pixels that are right, `(..., 4)` to `(...)`."""
    true_positives, false_positives, false_negatives, true_negatives = split_counts(counts)
    right = true_positives + true_negatives
    return share(right, right + false_positives + false_negatives)


def threshold_jaccard(counts: np.ndarray, threshold: float = JACCARD_THRESHOLD) -> np.ndarray:
    """The score that ranks the challenge: Jaccard, and 0.0 for a mask below `threshold`. At `threshold` it counts."""
    values = jaccard(counts)
    return np.where(values >= threshold, values, 0.0)[()]


def pooled_scores(counts: np.ndarray) -> dict[str, float]:
    """
    Scores of all pixels of `(num_images, 4)` counts as if they were one image. Large lesions and images weigh more,
    and one failed image hardly shows; these are not the challenge's scores.

    Returns:
        `pooled_iou` and `pooled_dice` of the lesion, `pooled_background_iou` of the skin, and `pooled_mean_iou`, the
        mean of the two classes' IoU.
    """
    total = check_images(counts).sum(0)
    # For the background TN are the hits, FN its false positives and FP its false negatives: the counts reversed.
    lesion_iou, background_iou = float(jaccard(total)), float(jaccard(total[::-1]))
    return {
        "pooled_iou": lesion_iou,
        "pooled_dice": float(dice(total)),
        "pooled_background_iou": background_iou,
        "pooled_mean_iou": (lesion_iou + background_iou) / 2,
    }


def check_images(counts: np.ndarray) -> np.ndarray:
    """`counts` as an array `(num_images, 4)` of at least one image."""
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[1] != 4 or len(counts) == 0:
        raise ValueError(
            f"`counts` must be (num_images, 4) of at least one image, got shape {counts.shape}. "
            "Make them with confusion_counts and stack them."
        )
    return counts


def hausdorff95(mask: np.ndarray, truth: np.ndarray) -> float:
    """
    Distance between the boundaries of the two lesions that 95 % of their pixels keep, over the image's diagonal.

    For each boundary the 95th percentile of the distances from its pixels to the nearest pixel of the other one; the
    larger of the two counts. 0.0 when neither mask has a lesion, 1.0, the worst, when one of them has none.

    Args and errors are those of [`confusion_counts`].
    """
    mask, truth = to_lesion_pair(mask, truth)
    if not mask.any() or not truth.any():
        return float(mask.any() != truth.any())
    to_truth, to_mask = boundary_distances(mask, truth)
    return float(max(np.percentile(to_truth, 95), np.percentile(to_mask, 95)) / np.hypot(*mask.shape))


def boundary_f1(mask: np.ndarray, truth: np.ndarray, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """
    F1 of the boundary: precision is the share of the mask's boundary that lies within the tolerance of the truth's,
    recall the reverse. 1.0 when neither mask has a lesion, 0.0 when one of them has none.

    Args:
        mask: as in [`confusion_counts`], with its errors.
        truth: as in [`confusion_counts`].
        tolerance: largest distance that still counts as a hit, as a share of the image's diagonal.
    """
    if not 0 <= tolerance <= 1:
        raise ValueError(f"`tolerance` must be a share of the diagonal between 0 and 1, got {tolerance}.")
    mask, truth = to_lesion_pair(mask, truth)
    if not mask.any() or not truth.any():
        return float(mask.any() == truth.any())
    to_truth, to_mask = boundary_distances(mask, truth)
    largest = tolerance * np.hypot(*mask.shape)
    precision, recall = np.mean(to_truth <= largest), np.mean(to_mask <= largest)
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def boundary_distances(mask: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Distances in pixels from each boundary pixel of the mask to the nearest one of the truth, and the reverse.

    From a tree of the boundary's pixels: exact, and much faster than a distance transform, whose cost is that of all
    pixels. The tree splits space and not the points: a balanced one is slow on ragged boundaries.
    """
    from scipy.spatial import KDTree

    mask_points, truth_points = boundary_points(mask), boundary_points(truth)
    mask_tree, truth_tree = (
        KDTree(points, balanced_tree=False, compact_nodes=False) for points in (mask_points, truth_points)
    )
    return truth_tree.query(mask_points)[0], mask_tree.query(truth_points)[0]


def boundary_points(lesion: np.ndarray) -> np.ndarray:
    """
    `(num_points, 2)` row and column of the lesion's pixels that touch skin, or the image's edge, on one of four sides.
    The lesion is boolean and not empty. Only its bounding box is looked at.
    """
    rows, columns = np.flatnonzero(lesion.any(1)), np.flatnonzero(lesion.any(0))
    top, left = rows[0], columns[0]
    box = np.pad(lesion[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    inside = box[:-2, 1:-1] & box[2:, 1:-1] & box[1:-1, :-2] & box[1:-1, 2:]
    return np.argwhere(box[1:-1, 1:-1] & ~inside) + np.array([top, left])


def bootstrap_interval(
    values: np.ndarray, num_resamples: int = NUM_RESAMPLES, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """
    Percentile bootstrap interval (low, high) of the mean. Images are drawn with replacement, so it tells what another
    test set of this size would give, not what another training run would.

    Args:
        values: one finite score an image, `(num_images,)`.
        num_resamples: test sets drawn.
        confidence: share of them whose mean lies inside.
        seed: of the draws; equal arguments give equal intervals.
    """
    return bootstrap_intervals([values], num_resamples, confidence, seed)[0]


def bootstrap_intervals(
    scores: Sequence[np.ndarray], num_resamples: int = NUM_RESAMPLES, confidence: float = 0.95, seed: int = 0
) -> list[tuple[float, float]]:
    """[`bootstrap_interval`] of several scores of the same images, which are drawn once for all of them."""
    scores = [np.asarray(values, dtype=np.float64) for values in scores]
    for values in scores:
        if values.shape != scores[0].shape:
            raise ValueError(f"`scores` must be of the same images, got shapes {values.shape} and {scores[0].shape}.")
        if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
            raise ValueError(f"`values` must be one finite number an image, got shape {values.shape}: {values}.")
    if num_resamples < 1:
        raise ValueError(f"`num_resamples` must be at least 1, got {num_resamples}.")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be between 0 and 1, got {confidence}.")

    generator = np.random.default_rng(seed)
    num_images = len(scores[0])
    rows = max(1, CHUNK_SIZE // num_images)
    means = []
    for start in range(0, num_resamples, rows):
        drawn = generator.integers(num_images, size=(min(rows, num_resamples - start), num_images))
        means.append([values[drawn].mean(1) for values in scores])
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    return [tuple(np.quantile(means_of_score, tails).tolist()) for means_of_score in np.concatenate(means, axis=1)]


def paired_bootstrap_interval(
    values: np.ndarray,
    other_values: np.ndarray,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """
    As [`bootstrap_interval`], of the mean of `values - other_values`: two methods' scores of the same images in the
    same order. An interval that leaves out 0 is a difference that these images show.
    """
    values, other_values = np.asarray(values, dtype=np.float64), np.asarray(other_values, dtype=np.float64)
    if values.shape != other_values.shape:
        raise ValueError(
            f"`other_values` must be of the same images as `values`, got shapes {other_values.shape} and "
            f"{values.shape}."
        )
    return bootstrap_interval(values - other_values, num_resamples, confidence, seed)


def summarize(
    counts: np.ndarray,
    hd95s: np.ndarray | None = None,
    boundary_f1s: np.ndarray | None = None,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, float]:
    """
    Every definition in use, side by side, so that a report can be held against any paper.

    Args:
        counts: of [`confusion_counts`], stacked: `(num_images, 4)`.
        hd95s: of [`hausdorff95`], one an image.
        boundary_f1s: of [`boundary_f1`], one an image.
        num_resamples: of the bootstrap over images, as `confidence` and `seed`.

    Returns:
        - `jaccard`, `threshold_jaccard`, `dice`, `sensitivity`, `specificity`: unweighted means over the images, with
          their intervals as `_low` and `_high`; and `accuracy` without one;
        - `failure_rate`, the share of images with a Jaccard below `JACCARD_THRESHOLD`, and `worst_decile_jaccard`, the
          mean of the worst tenth (rounded down, at least one image);
        - those of [`pooled_scores`];
        - `hd95` and `boundary_f1`, where given.

    Raises:
        ValueError: no image, or boundary scores of another number of images.
    """
    counts = check_images(counts)
    jaccards = jaccard(counts)
    per_image = {
        "jaccard": jaccards,
        "threshold_jaccard": threshold_jaccard(counts),
        "dice": dice(counts),
        "sensitivity": sensitivity(counts),
        "specificity": specificity(counts),
    }
    summary = {}
    intervals = bootstrap_intervals(list(per_image.values()), num_resamples, confidence, seed)
    for (name, values), interval in zip(per_image.items(), intervals, strict=True):
        summary[name] = float(values.mean())
        summary[f"{name}_low"], summary[f"{name}_high"] = interval
    summary["accuracy"] = float(accuracy(counts).mean())
    summary["failure_rate"] = float(np.mean(jaccards < JACCARD_THRESHOLD))
    summary["worst_decile_jaccard"] = float(np.sort(jaccards)[: max(1, len(jaccards) // 10)].mean())
    summary.update(pooled_scores(counts))

    for name, values in (("hd95", hd95s), ("boundary_f1", boundary_f1s)):
        if values is None:
            continue
        if np.shape(values) != (len(counts),):
            raise ValueError(
                f"`{name}s` must be one number an image, got shape {np.shape(values)} for {len(counts)} images."
            )
        summary[name] = float(np.mean(values))
    return summary
