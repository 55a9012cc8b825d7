"""How fast a mask becomes right under clicks and boxes: a simulated annotator on every image."""

from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from ..extras import needing
from ..image_processing_efp import EFPImageProcessor
from ..inference.correction import Correction
from ..modeling_efp import EFPForSegmentation
from ..training.annotator import lesion_box, next_click
from . import confusion_counts, jaccard
from .evaluation import truth_mask
from .scores import JACCARD_THRESHOLD, bootstrap_interval

with needing("train", __name__):
    from datasets import Dataset

MAX_CLICKS = 20
CLICKS = (0, 1, 2, 3, 5, 10)  # that a table shows
BOX_JITTERS = (0.0, 0.05, 0.1)
TARGETS = (0.8, 0.85, 0.9)  # of NoC


def jaccard_of(mask: np.ndarray, truth: np.ndarray) -> float:
    return float(jaccard(confusion_counts(mask, truth)))


def click_jaccards(
    correction: Correction, truth: np.ndarray, max_clicks: int = MAX_CLICKS, random: np.random.Generator | None = None
) -> list[float]:
    """J after 0, 1, … `max_clicks` clicks, at the truth's size; once a mask is the truth itself it stays."""
    scale = np.array(correction.size[::-1]) / truth.shape[::-1]
    points, jaccards = [], []
    for _ in range(max_clicks + 1):
        mask = correction.segment(points, target_size=truth.shape)["segmentation"].numpy(force=True)
        jaccards.append(jaccard_of(mask, truth))
        click = next_click(mask, truth, random)
        if click is None:
            break
        x, y, label = click
        points = [*points, (x * scale[0], y * scale[1], label)]
    return jaccards + jaccards[-1:] * (max_clicks + 1 - len(jaccards))


def box_jaccards(correction: Correction, truth: np.ndarray, random: np.random.Generator) -> list[float]:
    """J of each of `BOX_JITTERS`, at the truth's size; of an empty truth that of the mask without a box."""
    scale = np.tile(np.array(correction.size[::-1]) / truth.shape[::-1], 2)
    jaccards = []
    for jitter in BOX_JITTERS:
        box = lesion_box(truth, random, jitter)
        box = None if box is None else tuple((np.array(box) * scale).tolist())
        mask = correction.segment(box=box, target_size=truth.shape)["segmentation"].numpy(force=True)
        jaccards.append(jaccard_of(mask, truth))
    return jaccards


def correct_images(
    dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor, seed: int = 0
) -> Iterator[dict]:
    """
    A row an image: `image_id`, `clicks` (J after 0 … `MAX_CLICKS` clicks into the middle of the largest error),
    `clicks_anywhere` (clicks drawn anywhere in it) and `boxes` (J of each of `BOX_JITTERS`).
    """
    for number, row in enumerate(tqdm(dataset, unit="image", desc="clicking", leave=False, disable=None)):
        random = np.random.default_rng((seed, number))
        truth, correction = truth_mask(row), Correction(row["image"], model, processor)
        yield {
            "image_id": row["image_id"],
            "clicks": click_jaccards(correction, truth),
            "clicks_anywhere": click_jaccards(correction, truth, random=random),
            "boxes": box_jaccards(correction, truth, random),
        }


def number_of_clicks(jaccards: Sequence[float], target: float) -> int:
    """NoC: the clicks until J reaches `target`, `MAX_CLICKS` where it never does (Xu et al. 2016)."""
    reached = np.flatnonzero(np.asarray(jaccards)[1:] >= target)
    return int(reached[0]) + 1 if len(reached) else len(jaccards) - 1


def summarize_corrections(corrected: list[dict]) -> tuple[list[dict], list[dict]]:
    """
    Rows of [`correct_images`] → a row a kind of prompts with mean J and its 95 % bootstrap interval, Dice and the share
    of failures; and a row a target with the mean number of clicks, its interval and the share of images that never
    reach it.
    """
    prompts, clicks = [], []
    kinds = {"in the middle": "clicks", "anywhere": "clicks_anywhere"}
    jaccards = {place: np.array([row[name] for row in corrected]) for place, name in kinds.items()}
    boxes = np.array([row["boxes"] for row in corrected])
    settings = {
        **{(f"{number} clicks", place): values[:, number] for place, values in jaccards.items() for number in CLICKS},
        **{("box", f"{jitter:.0%} off"): boxes[:, k] for k, jitter in enumerate(BOX_JITTERS)},
    }
    for (prompt, place), values in settings.items():
        low, high = bootstrap_interval(values)
        scores = {"jaccard": values.mean(), "jaccard_low": low, "jaccard_high": high}
        scores |= {"dice": (2 * values / (1 + values)).mean(), "failure_rate": (values < JACCARD_THRESHOLD).mean()}
        prompts.append({"prompts": prompt, "place": place, **{name: round(float(v), 6) for name, v in scores.items()}})
    for place, values in jaccards.items():
        for target in TARGETS:
            numbers = np.array([number_of_clicks(image, target) for image in values])
            low, high = bootstrap_interval(numbers)
            scores = {"clicks": numbers.mean(), "clicks_low": low, "clicks_high": high}
            scores["never"] = (values[:, 1:].max(1) < target).mean()
            clicks.append(
                {"target": target, "place": place, **{name: round(float(v), 4) for name, v in scores.items()}}
            )
    return prompts, clicks
