"""What the masks are worth: the challenge's scores, the pooled ones, the boundary, and their intervals."""

from .scores import (
    BOUNDARY_TOLERANCE,
    JACCARD_THRESHOLD,
    accuracy,
    bootstrap_interval,
    boundary_f1,
    confusion_counts,
    dice,
    hausdorff95,
    jaccard,
    paired_bootstrap_interval,
    pooled_scores,
    sensitivity,
    specificity,
    summarize,
    threshold_jaccard,
)

__all__ = [
    "BOUNDARY_TOLERANCE",
    "JACCARD_THRESHOLD",
    "accuracy",
    "bootstrap_interval",
    "boundary_f1",
    "confusion_counts",
    "dice",
    "hausdorff95",
    "jaccard",
    "paired_bootstrap_interval",
    "pooled_scores",
    "sensitivity",
    "specificity",
    "summarize",
    "threshold_jaccard",
]
