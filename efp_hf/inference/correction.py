"""A mask that a person corrects: clicks and a box on one photo, one after another."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BatchFeature
from transformers.modeling_outputs import SemanticSegmenterOutput

from ..image_processing_efp import EFPImageProcessor, to_upright_rgb
from ..modeling_efp import EFPForSegmentation

THRESHOLDS = tuple(step / 20 for step in range(1, 20))
# Of 0, 0.05, 0.1, 0.2 and 0.5 each, those with the highest J on validation in boxes whose sides are up to 10 % off; in
# exact boxes 0.05 and 0 would bring 0.002 more. With `efp-isic`, by hand.
AWAY = 0.1  # intersection over union with the box that a threshold must gain for each 1 that it is away
GROWTH = 0.1  # of a box's sides, by which a mask may reach beyond them
NOTHING_IN_BOX = "no {} found in the box"  # a note on an empty mask, with the name of the class
SKIN = -20.0  # logit that no threshold above 1e-8 takes for lesion


def fill_box(
    logits: torch.Tensor,
    box: tuple[float, float, float, float],
    threshold: float,
    clicks: Sequence[tuple[float, float]] = (),
) -> torch.Tensor:
    """
    Logits of skin and lesion, `(1, 2, height, width)`, the lesion's moved by one number so that its mask fills the box,
    and those of sure skin around the box.

    A box says how far the lesion reaches, and the network does not take it at its word. The box is extended to the
    clicks. Outside of it, grown by `GROWTH` of its sides, nothing is lesion. Of `THRESHOLDS` and the given one, that
    counts whose mask has a bounding box most like the box, less `AWAY` times how far it is from the given one. Cut at
    `threshold`, the moved logits give that mask; it is empty where no threshold finds lesion in the box.

    Args:
        box: (left, top, right, bottom), in pixels of the logits.
        clicks: (x, y) of those on the lesion, in the same pixels.
    """
    left, top, right, bottom = box = extend_box(box, clicks)
    outside = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device)
    outside[box_pixels(box, GROWTH)] = False
    probability = (logits[0, 1] - logits[0, 0]).float().sigmoid().masked_fill(outside, 0)
    highest = probability[box_pixels(box)].amax()
    rows, columns = probability.amax(1), probability.amax(0)

    def worth(candidate: float) -> float:
        if highest <= candidate:
            return -math.inf
        (x0, x1), (y0, y1) = (
            (places[0].item(), places[-1].item() + 1)
            for places in ((values > candidate).nonzero() for values in (columns, rows))
        )
        shared = max(0, min(x1, right) - max(x0, left)) * max(0, min(y1, bottom) - max(y0, top))
        union = (x1 - x0) * (y1 - y0) + (right - left) * (bottom - top) - shared
        return shared / union - AWAY * abs(candidate - threshold)

    best = max((threshold, *THRESHOLDS), key=worth)
    if worth(best) == -math.inf:
        outside[:] = True
    moved = logits.clone()
    moved[:, 1] += math.log(threshold / (1 - threshold)) - math.log(best / (1 - best))
    moved[:, 1] = torch.where(outside, torch.minimum(moved[:, 1], moved[:, 0] + SKIN), moved[:, 1])
    return moved


def extend_box(
    box: tuple[float, float, float, float], clicks: Sequence[tuple[float, float]]
) -> tuple[float, float, float, float]:
    """The smallest box around a box and clicks."""
    x, y = zip(box[:2], box[2:], *clicks, strict=True)
    return min(x), min(y), max(x), max(y)


def box_pixels(box: tuple[float, float, float, float], growth: float = 0.0) -> tuple[slice, slice]:
    """Rows and columns of the pixels that a box touches, which is grown by this share of its sides on each of them."""
    spans = []
    for low, high in ((box[1], box[3]), (box[0], box[2])):
        margin = growth * (high - low)
        spans.append(slice(max(0, math.floor(low - margin)), math.ceil(high + margin)))
    return tuple(spans)


def check_points(points) -> None:
    """
    Raises:
        ValueError: a click that is no (x, y, label), or with another label than 0 and 1.
    """
    for point in points:
        if not are_numbers(point, 3) or point[2] not in (0, 1):
            raise ValueError(
                "`points` must be of (x, y, label) in pixels of the photo, label 1 (foreground) or 0 (background), "
                f"got {point!r:.80}."
            )


def are_numbers(values, count: int) -> bool:
    """Whether these are so many finite numbers."""
    try:
        values = np.asarray(values)
    except (TypeError, ValueError):  # lists of different lengths
        return False
    return values.shape == (count,) and values.dtype.kind in "buif" and bool(np.isfinite(values).all())


def as_tensors(
    points: Sequence[tuple[float, float, int]], box: tuple[float, float, float, float] | None
) -> dict[str, torch.Tensor]:
    """By the names of `Prompts`, of one photo; what is not there has no tensor."""
    prompts = {}
    if box is not None:
        prompts["input_boxes"] = torch.tensor([list(box)], dtype=torch.float64)
    if len(points):
        clicks = torch.tensor([[tuple(point) for point in points]], dtype=torch.float64)
        prompts["input_points"], prompts["input_labels"] = clicks[..., :2], clicks[..., 2].long()
    return prompts


def check_prompts(
    points: Sequence[tuple[float, float, int]], box: tuple[float, float, float, float] | None, size: tuple[int, int]
) -> None:
    """
    Raises:
        ValueError: as [`check_points`]; points or a box outside of a photo of this (height, width), or without area.
    """
    check_points(points)
    height, width = size
    for x, y, _ in points:
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(f"`points` must lie in the photo of {width}×{height} pixels, got ({x:g}, {y:g}).")
    if box is None:
        return
    if are_numbers(box, 4):
        left, top, right, bottom = box
        if 0 <= left < right <= width and 0 <= top < bottom <= height:
            return
        box = tuple(map(float, box))
    shown = f"({', '.join(f'{side:g}' for side in box)})" if are_numbers(box, 4) else f"{box!r:.80}"
    raise ValueError(
        f"`box` must be (left, top, right, bottom) in the photo of {width}×{height} pixels, with an area, got {shown}. "
        "Give two opposite corners."
    )


def expected_after(
    expected_jaccard: float,
    mask: np.ndarray | torch.Tensor,
    points: Sequence[tuple[float, float, int]],
    box: tuple[float, float, float, float] | None,
) -> float:
    """The expected Jaccard of a mask after prompts: 0 where it is empty, and they say that there is something."""
    is_there = box is not None or any(label == 1 for _, _, label in points)
    return 0.0 if is_there and not mask.any() else expected_jaccard


class Correction:
    """
    A photo whose encoder has run. Each mask that follows takes a decoder alone.

    A click is a correction of the mask before, so that masks depend on the clicks' order: the first mask is of the box,
    or the automatic one; each click more sees the mask of the clicks before it.

    Args:
        image: a `PIL` image.
        size: the (height, width) of the upright photo, whose pixels points and boxes count; default: the image's, of
            which it may be a reduced copy.

    Raises:
        ValueError: what is no image; a model that takes no prompts.
    """

    @torch.inference_mode()
    def __init__(
        self,
        image: Image.Image,
        model: EFPForSegmentation,
        processor: EFPImageProcessor,
        size: tuple[int, int] | None = None,
    ):
        if not isinstance(image, Image.Image):
            raise ValueError(f"`image` must be a PIL image, got {image!r:.80}. Open a file with PIL.Image.open.")
        image = to_upright_rgb(image)
        self.model, self.processor = model, processor
        self.size = size or (image.height, image.width)
        inputs = processor(image, return_tensors="pt").to(model.device, model.dtype)
        self.embeddings = model.get_image_embeddings(inputs["pixel_values"])
        height, width = inputs["pixel_values"].shape[-2:]
        # float32 would scale the border of some photos to a place outside of the input
        self.scale = torch.tensor([width / self.size[1], height / self.size[0]], dtype=torch.float64)
        self.steps: dict[tuple, SemanticSegmenterOutput] = {}  # what was asked for before: undo costs nothing

    def outputs(
        self,
        points: list[tuple[float, float, int]] = (),
        box: tuple[float, float, float, float] | None = None,
        threshold: float | None = None,
    ) -> SemanticSegmenterOutput:
        """
        The model's outputs after all of the clicks, in their order; with a box, moved to fill it ([`fill_box`]).

        Args:
            points: (x, y, label), label 1 on the lesion, 0 on skin.
            box: (left, top, right, bottom) around the lesion.
            threshold: at which the outputs will be cut; default: the processor's.

        Raises:
            ValueError: as of [`check_prompts`], or a threshold that is no probability.
        """
        found = self.step(points, box)
        if box is None:
            return found
        return SemanticSegmenterOutput(**{**found, "logits": self.fill(found.logits, points, box, threshold)})

    def fill(
        self,
        logits: torch.Tensor,
        points: list[tuple[float, float, int]],
        box: tuple[float, float, float, float],
        threshold: float | None = None,
    ) -> torch.Tensor:
        """[`fill_box`] of logits of [`step`], with points and box in pixels of the photo."""
        threshold = self.processor.threshold if threshold is None else threshold
        self.processor.check_threshold(threshold)
        scaled = (torch.tensor(box, dtype=torch.float64) * self.scale.repeat(2)).tolist()
        across, down = self.scale.tolist()
        clicks = [(x * across, y * down) for x, y, label in points if label == 1]
        return fill_box(logits, scaled, threshold, clicks)

    @torch.inference_mode()
    def step(
        self, points: list[tuple[float, float, int]], box: tuple[float, float, float, float] | None
    ) -> SemanticSegmenterOutput:
        """The outputs as the model gives them; what it is given as the mask before is of this kind, too."""
        check_prompts(points, box, self.size)
        points, box = tuple(map(tuple, points)), None if box is None else tuple(box)
        prompts = as_tensors(points, box)
        for name in prompts.keys() - {"input_labels"}:
            prompts[name] = (prompts[name] * self.scale.repeat(prompts[name].shape[-1] // 2)).float()
        prompts = {name: value.to(self.model.device) for name, value in prompts.items()}
        for count in range(len(points) + 1):
            if (points[:count], box) in self.steps:
                continue
            given = {name: value for name, value in prompts.items() if name == "input_boxes"}
            if count:
                given |= {name: prompts[name][:, :count] for name in ("input_points", "input_labels")}
                given["input_masks"] = self.steps[points[: count - 1], box].logits[:, 1:]
            self.steps[points[:count], box] = self.model(image_embeddings=self.embeddings, **given)
        return self.steps[points, box]

    def segment(
        self,
        points: list[tuple[float, float, int]] = (),
        box: tuple[float, float, float, float] | None = None,
        target_size: tuple[int, int] | None = None,
        threshold: float | None = None,
    ) -> BatchFeature:
        """
        `segmentation` (boolean), `probabilities` of the lesion, both `(height, width)` of `target_size` or the photo,
        and the mask's `expected_jaccard`, cut at `threshold` or the processor's. Where there are clicks all regions
        stay: a person may mean several.
        """
        only_largest = {"largest_region": False} if len(points) else {}
        (result,) = self.processor.post_process_semantic_segmentation(
            self.outputs(points, box, threshold),
            [target_size or self.size],
            threshold,
            return_probabilities=True,
            prompted=bool(len(points) or box is not None),
            **only_largest,
        )
        result["expected_jaccard"] = expected_after(result["expected_jaccard"], result["segmentation"], points, box)
        return result
