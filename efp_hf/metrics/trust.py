"""How well the expected Jaccard of masks predicts the real one."""

import numpy as np
from scipy import stats

from .scores import JACCARD_THRESHOLD


def summarize_trust(expected: np.ndarray, real: np.ndarray) -> dict[str, float | None]:
    """
    How well expected Jaccards, one an image, predict the real ones.

    Returns:
        `rank_correlation`, `failure_auc`, `failures` (how many), `mean_expected`, `mean_real`.

    Raises:
        ValueError: not one pair an image, or no image.
    """
    expected, real = check_pairs(expected, real)
    return {
        "rank_correlation": rank_correlation(expected, real),
        "failure_auc": failure_auc(expected, real),
        "failures": int(np.count_nonzero(real < JACCARD_THRESHOLD)),
        "mean_expected": float(expected.mean()),
        "mean_real": float(real.mean()),
    }


def rank_correlation(expected: np.ndarray, real: np.ndarray) -> float | None:
    """Spearman's rank correlation; `None` where one of the two is the same for all images."""
    expected, real = check_pairs(expected, real)
    if np.ptp(expected) == 0 or np.ptp(real) == 0:
        return None
    return float(stats.spearmanr(expected, real).statistic)


def failure_auc(expected: np.ndarray, real: np.ndarray, threshold: float = JACCARD_THRESHOLD) -> float | None:
    """
    How well a low expected Jaccard finds the failures, the images whose real one is below `threshold`: the area under
    the ROC curve, which is the probability that a failure has a lower expected Jaccard than a success, ties counted
    half. `None` where all images failed or none did.
    """
    expected, real = check_pairs(expected, real)
    failures, successes = expected[real < threshold], expected[real >= threshold]
    if len(failures) == 0 or len(successes) == 0:
        return None
    return float(stats.mannwhitneyu(successes, failures).statistic / (len(successes) * len(failures)))


def check_pairs(expected: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float arrays of one number an image."""
    expected, real = np.asarray(expected, dtype=np.float64), np.asarray(real, dtype=np.float64)
    if expected.ndim != 1 or expected.shape != real.shape or expected.size == 0:
        raise ValueError(
            f"`expected` and `real` must be one number an image, got shapes {expected.shape} and {real.shape}."
        )
    return expected, real
