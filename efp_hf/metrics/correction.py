"""How fast a mask becomes right under clicks and boxes: a simulated annotator on every image, GrabCut beside."""

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm
from transformers.image_processing_utils import BatchFeature

from ..extras import needing
from ..image_processing_efp import EFPImageProcessor, to_upright_rgb
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
BOX_ROWS = {"box": "boxes", "box, GrabCut": "grabcut"}  # name in the table → of [`correct_images`]
GRABCUT_STEPS = 5
GRABCUT_SIDE = 512  # longest of what GrabCut is given; a box in a photo of 12 megapixels would take it a minute

Box = tuple[float, float, float, float] | None


def jaccard_of(mask: np.ndarray, truth: np.ndarray) -> float:
    return float(jaccard(confusion_counts(mask, truth)))


def judged(result: dict, truth: np.ndarray) -> tuple[float, float]:
    """J of a result of `Correction.segment`, and the J that was expected of it."""
    return jaccard_of(result["segmentation"].numpy(force=True), truth), result["expected_jaccard"]


def click_scores(
    correction: Correction, truth: np.ndarray, max_clicks: int = MAX_CLICKS, random: np.random.Generator | None = None
) -> np.ndarray:
    """
    J and expected J after 0, 1, … `max_clicks` clicks on a photo of the truth's size, `(max_clicks + 1, 2)`. They stay
    as they are once the mask is the truth itself, and after the last of `CLICKS` once all `TARGETS` were reached.
    """
    points, scores = [], []
    for number in range(max_clicks + 1):
        result = correction.segment(points)
        scores.append(judged(result, truth))
        click = next_click(result["segmentation"].numpy(force=True), truth, random)
        if click is None or (number >= CLICKS[-1] and max(scores[1:])[0] >= TARGETS[-1]):
            break
        points = [*points, click]
    return np.array(scores + scores[-1:] * (max_clicks + 1 - len(scores)))


def grabcut_mask(image: Image.Image, box: Box, size: tuple[int, int]) -> np.ndarray:
    """
    What GrabCut (Rother et al. 2004) of OpenCV takes for the lesion, boolean, `(height, width)` of `size`.

    It learns the colours of lesion and skin from the image itself: all pixels that the box does not touch are skin. A
    box that touches all of them leaves it no skin, and is the mask itself then. Without a box there is no lesion.

    Args:
        box: in pixels of `size`.
    """
    if box is None:
        return np.zeros(size, bool)
    scale = min(1, GRABCUT_SIDE / max(size))
    height, width = (max(1, round(scale * side)) for side in size)
    left, top, right, bottom = np.array(box) * np.tile([width / size[1], height / size[0]], 2)
    kinds = np.full((height, width), cv2.GC_BGD, np.uint8)
    kinds[int(top) : math.ceil(bottom), int(left) : math.ceil(right)] = cv2.GC_PR_FGD
    if (kinds == cv2.GC_PR_FGD).all():
        return np.ones(size, bool)
    pixels = np.asarray(to_upright_rgb(image).resize((width, height)))
    colours = np.zeros((1, 65)), np.zeros((1, 65))  # written by OpenCV
    cv2.setRNGSeed(0)
    cv2.grabCut(pixels, kinds, None, *colours, GRABCUT_STEPS, cv2.GC_INIT_WITH_MASK)
    found = np.isin(kinds, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    return cv2.resize(found, size[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)


def correct_images(
    dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor, seed: int = 0
) -> Iterator[dict]:
    """
    A row an image: `image_id`, `clicks` ([`click_scores`] into the middle of the largest error), `clicks_anywhere`
    (clicks drawn anywhere in it), `boxes` (J and expected J in a box of each of `BOX_JITTERS`; none without a lesion)
    and `grabcut` (GrabCut's in the same boxes; it expects nothing, NaN).
    """
    for number, row in enumerate(tqdm(dataset, unit="image", desc="clicking", leave=False, disable=None)):
        random = np.random.default_rng((seed, number))
        truth = truth_mask(row)
        correction = Correction(row["image"], model, processor, truth.shape)
        clicks_anywhere = click_scores(correction, truth, MAX_CLICKS, random)
        boxes = [lesion_box(truth, random, jitter) for jitter in BOX_JITTERS]
        yield {
            "image_id": row["image_id"],
            "clicks": click_scores(correction, truth, MAX_CLICKS),
            "clicks_anywhere": clicks_anywhere,
            "boxes": [judged(correction.segment(box=box), truth) for box in boxes],
            "grabcut": [(jaccard_of(grabcut_mask(row["image"], box, truth.shape), truth), math.nan) for box in boxes],
        }


def prompted_rows(
    dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor, seed: int = 0
) -> Iterator[tuple[str, BatchFeature, np.ndarray]]:
    """
    (image_id, result of `Correction.segment`, truth): of each row after one click into the middle of the largest error,
    and in a box whose sides are off by up to the last of `BOX_JITTERS`; neither where there is no error or no lesion.
    """
    for number, row in enumerate(dataset):
        truth = truth_mask(row)
        correction = Correction(row["image"], model, processor, truth.shape)
        click = next_click(correction.segment()["segmentation"].numpy(force=True), truth)
        box = lesion_box(truth, np.random.default_rng((seed, number)), BOX_JITTERS[-1])
        prompts = [{"points": [click]}] * (click is not None) + [{"box": box}] * (box is not None)
        for given in prompts:
            yield row["image_id"], correction.segment(**given), truth


PERFECT = {
    "image_id": "",
    **dict.fromkeys(("clicks", "clicks_anywhere"), [(1.0, 1.0)] * (MAX_CLICKS + 1)),
    **dict.fromkeys(("boxes", "grabcut"), [(1.0, 1.0)] * len(BOX_JITTERS)),
}  # a row of an image that needs no correction, for its columns


def number_of_clicks(jaccards: Sequence[float], target: float) -> int:
    """NoC: the clicks until J reaches `target`, `MAX_CLICKS` where it never does (Xu et al. 2016)."""
    reached = np.flatnonzero(np.asarray(jaccards)[1:] >= target)
    return int(reached[0]) + 1 if len(reached) else len(jaccards) - 1


def summarize_corrections(corrected: list[dict]) -> tuple[list[dict], list[dict]]:
    """
    Rows of [`correct_images`] → a row a kind of prompts with mean J and its 95 % bootstrap interval, Dice, the share of
    failures and the mean expected J; and a row a target with the mean number of clicks, its interval and the share of
    images that never reach it.
    """
    prompts, clicks = [], []
    kinds = {"in the middle": "clicks", "anywhere": "clicks_anywhere"}
    clicked = {place: np.array([row[name] for row in corrected]) for place, name in kinds.items()}
    boxes = {name: np.array([row[key] for row in corrected]) for name, key in BOX_ROWS.items()}
    settings = {
        **{(f"{number} clicks", place): values[:, number] for place, values in clicked.items() for number in CLICKS},
        **{
            (name, f"{jitter:.0%} off"): values[:, k]
            for name, values in boxes.items()
            for k, jitter in enumerate(BOX_JITTERS)
        },
    }
    for (prompt, place), pairs in settings.items():
        values, expected = pairs.T
        low, high = bootstrap_interval(values)
        scores = {"jaccard": values.mean(), "jaccard_low": low, "jaccard_high": high}
        scores |= {"dice": (2 * values / (1 + values)).mean(), "failure_rate": (values < JACCARD_THRESHOLD).mean()}
        scores["expected_jaccard"] = expected.mean()
        prompts.append({"prompts": prompt, "place": place, **{name: round(float(v), 6) for name, v in scores.items()}})
    for place, values in clicked.items():
        jaccards = values[..., 0]
        for target in TARGETS:
            numbers = np.array([number_of_clicks(image, target) for image in jaccards])
            low, high = bootstrap_interval(numbers)
            scores = {"clicks": numbers.mean(), "clicks_low": low, "clicks_high": high}
            scores["never"] = (jaccards[:, 1:].max(1) < target).mean()
            clicks.append(
                {"target": target, "place": place, **{name: round(float(v), 4) for name, v in scores.items()}}
            )
    return prompts, clicks
