"""A photo after its one run through the model, and the lesion in it at any threshold."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BatchFeature

from ..configuration_efp import NUM_LEVELS
from ..data.files import REPAIRED, read_image
from ..image_processing_efp import EFPImageProcessor, value_of_each
from ..inference.correction import Correction, expected_after
from ..inference.folder import read_for_model
from ..inference.task import class_names_of, has_structures, is_lesion
from ..lesion.structures import LABELS, LESION
from ..modeling_efp import EFPForSegmentation, with_background
from .marks import Marks
from .uploads import check_photo, without_folder

PREVIEW_SIDE = 1024  # longer side of the pictures on the page


@dataclass
class Layers:
    """
    The labels of a photo that overlap, the lesion and its structures: their `names`, `logits` `(1, num_labels, height,
    width)` at the model's size, the model's own `processor`, with a threshold each, and the names that are `shown`.
    """

    names: tuple[str, ...]
    logits: torch.Tensor
    processor: EFPImageProcessor
    shown: tuple[str, ...]

    def post_process(self, size: tuple[int, int], threshold: float | None = None) -> BatchFeature:
        """
        `segmentation` (boolean) and `probabilities`, `(num_labels, height, width)` of `size`, and a list of
        `expected_jaccard`. A `threshold` is the lesion's; the structures have those of the processor.
        """
        return self.processor.post_process_semantic_segmentation(
            SimpleNamespace(logits=self.logits),
            target_sizes=[size],
            threshold=with_lesion_threshold(self.processor, threshold),
            return_probabilities=True,
        )[0]


def lesion_of(processor: EFPImageProcessor) -> EFPImageProcessor:
    """The processor for the lesion's mask alone, of one for labels that overlap; others as they are."""
    if not processor.labels_overlap:
        return processor
    alone = copy.copy(processor)
    alone.labels_overlap, alone.largest_region = False, False
    for name in ("threshold", "jaccard_temperature"):
        setattr(alone, name, value_of_each(name, getattr(processor, name), len(LABELS))[0])
    return alone


def with_lesion_threshold(processor: EFPImageProcessor, threshold: float | None) -> list[float]:
    """The thresholds of a processor for labels that overlap, with another one for the lesion."""
    thresholds = value_of_each("threshold", processor.threshold, len(LABELS))
    if threshold is not None:
        thresholds[0] = threshold
    return thresholds


@dataclass
class SegmentedPhoto:
    """
    A photo after its one run through the model: what every tab is drawn from.

    `size` is (height, width) of the upright photo, `preview` the photo at the page's size, `logits` `(1, num_labels,
    height, width)` at the model's size, `classes` the names of the labels 1..K where there are several, `maps` the name
    and the `(height, width)` array of F1..F4, F*1..F*4 (means over the channels) and M_s 1..4, empty for an exported
    model, `note` what had to be repaired to read the file.

    Where the model has structures, too, `logits` are of the lesion alone, as of a model for lesions, and `layers` has
    all labels.

    Where the model takes prompts, `correction` keeps what the encoder made of the photo, `marks` are a person's clicks
    and box that `logits` are of, before these fill the box, `past` and `future` those before them and those that were
    undone.
    """

    path: Path
    size: tuple[int, int]
    preview: Image.Image
    logits: torch.Tensor
    maps: dict[str, np.ndarray]
    note: str = ""
    classes: tuple[str, ...] = ()
    layers: Layers | None = None
    name: str = LESION  # of the one class, where there are not several
    correction: Correction | None = None
    marks: Marks = field(default_factory=Marks)
    past: tuple[Marks, ...] = ()
    future: tuple[Marks, ...] = ()


@torch.inference_mode()
def segment_photo(path: str | Path | None, model: EFPForSegmentation, processor: EFPImageProcessor) -> SegmentedPhoto:
    """
    Runs the model once, on the very input of `efp predict`.

    Raises:
        ValueError: as [`check_photo`], and for a damaged file.
    """
    path = check_photo(path)
    read = read_for_model(path, processor)
    if isinstance(read, str):
        raise ValueError(without_folder(read, path))
    image, size = read
    correction = None if model.prompt_encoder is None else Correction(image, model, processor, size)
    if correction is None:
        inputs = processor([image], return_tensors="pt").to(model.device, model.dtype)
    else:
        inputs = {"image_embeddings": correction.embeddings}
    outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
    hidden_states = outputs.hidden_states or ()  # an exported model returns none
    levels = range(1, len(hidden_states) // 2 + 1)
    names = [f"F{i}" for i in levels] + [f"F*{i}" for i in levels]
    maps = dict(zip(names, (level.mean(1) for level in hidden_states), strict=True))
    for place, attention in enumerate(outputs.attentions or ()):  # those of the added labels are the last
        of_added, i = divmod(place, NUM_LEVELS)
        maps[f"M_s {i + 1}{', structures' * of_added}"] = attention[:, 0]
    logits, layers = outputs.logits.float().cpu(), None
    if has_structures(model.config):
        layers = Layers(LABELS, logits, processor, shown=LABELS)
        logits = with_background(logits[:, :1])  # the lesion is the first of `LABELS`
    return SegmentedPhoto(
        path=path,
        size=size,
        preview=make_preview(image, path, size),
        logits=logits,
        maps={name: values[0].float().cpu().numpy() for name, values in maps.items()},
        note=image.info.get(REPAIRED, ""),
        classes=() if is_lesion(model.config) or layers is not None else class_names_of(model.config),
        name=class_names_of(model.config)[0],
        layers=layers,
        correction=correction,
    )


def with_shown(photo: SegmentedPhoto | None, shown: Sequence[str] | None) -> SegmentedPhoto | None:
    """The photo with other layers switched on, where it has some."""
    if photo is None or photo.layers is None or shown is None:
        return photo
    return replace(photo, layers=replace(photo.layers, shown=tuple(shown)))


def make_preview(image: Image.Image, path: Path, size: tuple[int, int]) -> Image.Image:
    """
    The photo with a longer side of `PREVIEW_SIDE`, from what was read for the model if that is enough. A small photo is
    enlarged here: in a picture that the browser shows larger than it is, Gradio misplaces clicks.
    """
    height, width = preview_size(size)
    if max(image.size) < min(0.9 * PREVIEW_SIDE, max(size)):
        image = read_image(path, min_size=min(height, width))
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2)


def preview_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the preview of a photo of this (height, width)."""
    scale = PREVIEW_SIDE / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def find_lesion(
    photo: SegmentedPhoto,
    processor: EFPImageProcessor,
    threshold: float | None = None,
    largest_region: bool | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mask (bool; of several classes labels) and probabilities of [`post_process`]."""
    result = post_process(photo, processor, threshold, largest_region, size)
    return result["segmentation"].numpy(), result["probabilities"].numpy()


def post_process(
    photo: SegmentedPhoto,
    processor: EFPImageProcessor,
    threshold: float | None = None,
    largest_region: bool | None = None,
    size: tuple[int, int] | None = None,
) -> BatchFeature:
    """
    `segmentation`, `probabilities` and, of one class, `expected_jaccard` of the kept logits, `(height, width)` of
    `size`, by default the photo's own: there they are those of `efp predict`, to the last bit. The model is not run. A
    box is filled from the threshold, and where there are clicks all regions stay, as in [`Correction.segment`].
    """
    logits, marks = photo.logits, photo.marks
    if marks.box is not None:
        logits = photo.correction.fill(logits, marks.points, marks.box, threshold)
    (result,) = processor.post_process_semantic_segmentation(
        SimpleNamespace(logits=logits),
        target_sizes=[photo.size if size is None else size],
        threshold=threshold,
        largest_region=False if marks.points else largest_region,
        return_probabilities=True,
        prompted=bool(marks),
    )
    if marks:
        expected = expected_after(result["expected_jaccard"], result["segmentation"], marks.points, marks.box)
        result["expected_jaccard"] = expected
    return result
