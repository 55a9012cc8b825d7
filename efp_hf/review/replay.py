"""A review played by a simulated annotator on images with true masks: what it costs, and what it brings."""

import time
from collections.abc import Iterable, Iterator

import numpy as np
from tqdm import tqdm

from ..image_processing_efp import EFPImageProcessor
from ..inference.correction import Correction
from ..metrics import JACCARD_THRESHOLD
from ..metrics.correction import MAX_CLICKS, jaccard_of
from ..metrics.evaluation import truth_mask
from ..modeling_efp import EFPForSegmentation
from ..training.annotator import next_click

TARGET = 0.85
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)  # of the images that were reviewed
ORDERS = ("worst first", "random")


def replay(
    dataset: Iterable[dict],
    model: EFPForSegmentation,
    processor: EFPImageProcessor,
    target: float = TARGET,
    seed: int | None = None,
) -> Iterator[dict]:
    """
    A row an image: `expected_jaccard`, `before` and `after` (J of the model's mask and of the one after the `clicks`
    that take it to `target`, at most `MAX_CLICKS`), and the computer's `seconds`, without the reading of the file.

    Args:
        seed: clicks are drawn anywhere in the largest error; without it they are in its middle.
    """
    for number, row in enumerate(tqdm(dataset, unit="image", desc="reviewing", leave=False, disable=None)):
        random = None if seed is None else np.random.default_rng((seed, number))
        truth, points, jaccards, seconds = truth_mask(row), [], [], 0.0
        scale = np.array(row["image"].size) / truth.shape[::-1]
        while True:
            started = time.perf_counter()
            if not jaccards:
                correction = Correction(row["image"], model, processor)
            result = correction.segment(points, target_size=truth.shape)
            mask = result["segmentation"].numpy(force=True)
            seconds += time.perf_counter() - started
            if not jaccards:
                expected = result["expected_jaccard"]
            jaccards.append(jaccard_of(mask, truth))
            if jaccards[-1] >= target or len(points) == MAX_CLICKS:
                break
            x, y, label = next_click(mask, truth, random)
            points = [*points, (x * scale[0], y * scale[1], label)]
        yield {
            "image_id": row["image_id"],
            "expected_jaccard": expected,
            "before": jaccards[0],
            "after": jaccards[-1],
            "clicks": len(points),
            "seconds": seconds,
        }


def review_curve(rows: list[dict], order: str) -> list[dict]:
    """
    Of each of `SHARES`: `reviewed` images, their `clicks` and `seconds`, and mean `jaccard` and `failure_rate` of the
    whole folder after them.

    Args:
        order: "worst first", by expected Jaccard; "random": the mean over all orders, which needs no drawing.
    """
    rows = sorted(rows, key=lambda row: row["expected_jaccard"])
    before, after, clicks, seconds = (
        np.array([row[name] for row in rows], dtype=np.float64) for name in ("before", "after", "clicks", "seconds")
    )
    curve = []
    for share in SHARES:
        reviewed = round(share * len(rows))
        # how sure it is that an image was reviewed
        weight = np.arange(len(rows)) < reviewed if order == "worst first" else np.full(len(rows), reviewed / len(rows))
        failures = (1 - weight) * (before < JACCARD_THRESHOLD) + weight * (after < JACCARD_THRESHOLD)
        curve.append(
            {
                "order": order,
                "share": share,
                "reviewed": reviewed,
                "clicks": round(float(weight @ clicks), 2),
                "seconds": round(float(weight @ seconds), 2),
                "jaccard": round(float(np.mean((1 - weight) * before + weight * after)), 4),
                "failure_rate": round(float(failures.mean()), 4),
            }
        )
    return curve
