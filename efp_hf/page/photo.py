"""A photo after its one run through the model, and the lesion in it at any threshold."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BatchFeature

from ..data.files import REPAIRED, read_image
from ..image_processing_efp import EFPImageProcessor
from ..inference.correction import Correction, expected_after
from ..inference.folder import read_for_model
from ..inference.task import class_names_of, is_lesion
from ..lesion.structures import LESION
from ..modeling_efp import EFPForSegmentation
from .marks import Marks
from .uploads import check_photo, without_folder

PREVIEW_SIDE = 1024  # longer side of the pictures on the page


@dataclass
class SegmentedPhoto:
    """
    A photo after its one run through the model: what every tab is drawn from.

    `size` is (height, width) of the upright photo, `preview` the photo at the page's size, `logits` `(1, num_labels,
    height, width)` at the model's size, `classes` the names of the labels 1..K where there are several, `maps` the name
    and the `(height, width)` array of F1..F4, F*1..F*4 (means over the channels) and M_s 1..4, empty for an exported
    model, `note` what had to be repaired to read the file.

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
    maps.update({f"M_s {i}": attention[:, 0] for i, attention in enumerate(outputs.attentions or (), start=1)})
    return SegmentedPhoto(
        path=path,
        size=size,
        preview=make_preview(image, path, size),
        logits=outputs.logits.float().cpu(),
        maps={name: values[0].float().cpu().numpy() for name, values in maps.items()},
        note=image.info.get(REPAIRED, ""),
        classes=() if is_lesion(model.config) else class_names_of(model.config),
        name=class_names_of(model.config)[0],
        correction=correction,
    )


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
