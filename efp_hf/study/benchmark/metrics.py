"""Libraries that score the same masks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ... import metrics
from ...data.synthetic import draw_lesion
from .job import NUM_PHOTOS
from .systems import build_all
from .turns import median_and_spread, spread_columns

MEAN_IOU = "evaluate mean_iou"
EVALUATE_METRIC = Path(metrics.__file__).parent / "lesion_segmentation"


def draw_mask_pairs(num_pairs: int, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(mask, truth) as booleans: a drawn lesion and the same moved by a few pixels. Only `NUM_PHOTOS` differ."""
    truths = [np.asarray(draw_lesion(seed, size, size)[1]) > 0 for seed in range(min(NUM_PHOTOS, num_pairs))]
    pairs = [(np.roll(truth, size // 50, axis=(0, 1)), truth) for truth in truths]
    return [pairs[number % len(pairs)] for number in range(num_pairs)]


def score_overlap(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """The counts and scores as `efp score` computes them, with their bootstrap intervals."""
    import evaluate

    metric = evaluate.load(str(EVALUATE_METRIC))
    for mask, truth in pairs:
        metric.add(prediction=mask, reference=truth)
    return metric.compute()


def score_overlap_and_boundary(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Overlap, HD95 and boundary F1: what `efp score` computes of masks."""
    from ...metrics.evaluation import boundary_scores

    boundary = [boundary_scores(mask, truth) for mask, truth in pairs]
    return score_overlap(pairs) | {name: float(np.mean([row[name] for row in boundary])) for name in boundary[0]}


def score_with_mean_iou(name: str, pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict:
    """evaluate's mean_iou, loaded from the Hub or a folder with its script."""
    import evaluate

    masks, truths = ([pair[side].view(np.uint8) for pair in pairs] for side in (0, 1))
    return evaluate.load(name).compute(predictions=masks, references=truths, num_labels=2, ignore_index=255)


def metric_candidates(pairs: list, mean_iou: str) -> tuple[dict[str, Callable], dict[str, str]]:
    """Name → scoring of the pairs, and those left out with the reason."""
    own = {"efp_hf": partial(score_overlap, pairs), "efp_hf with boundary": partial(score_overlap_and_boundary, pairs)}
    tried, left_out = build_all({MEAN_IOU: partial(score_with_mean_iou, mean_iou, pairs[:1])})
    return own | {name: partial(score_with_mean_iou, mean_iou, pairs) for name in tried}, left_out


def metric_rows(seconds: dict[str, list[float]], left_out: dict[str, str], num_masks: int, size: int) -> list[dict]:
    """A row a candidate, also for one that is left out, with the reason in `note`. Speed-ups are ratios of medians."""
    fixed = {"masks": num_masks, "size": size}
    rows = []
    for name, values in seconds.items():
        ratio = median_and_spread(seconds[MEAN_IOU])[0] / median_and_spread(values)[0] if MEAN_IOU in seconds else None
        times = spread_columns(values, "s")
        over = round(ratio, 2) if ratio else ""
        rows.append({"scorer": name, **fixed, "rounds": len(values), **times, "over_mean_iou": over, "note": ""})
    for name, reason in left_out.items():
        times = dict.fromkeys(spread_columns([0], "s"), "")
        rows.append({"scorer": name, **fixed, "rounds": 0, **times, "over_mean_iou": "", "note": f"left out: {reason}"})
    return rows
