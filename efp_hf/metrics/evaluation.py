"""A model or a folder of masks against the truth, image by image, at the masks' own size."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers.image_processing_utils import BatchFeature

from ..data.channels import channels_of, height_and_width
from ..data.classes import class_names
from ..data.files import read_mask
from ..data.labels import IGNORED, check_all_known, labels_of, read_labels, row_labels
from ..data.overlap import label_names
from ..extras import needing
from ..image_processing_efp import EFPImageProcessor, check_sizes, keep_largest_region
from ..inference.checkpoint import segment
from ..inference.task import class_names_of, labels_overlap
from ..modeling_efp import EFPForSegmentation
from . import boundary_f1, confusion_counts, hausdorff95, jaccard
from .classes import class_counts, class_scores, mean_of_classes

with needing("train", __name__):
    from datasets import Dataset

logger = logging.getLogger(__name__)
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)  # those that are tried on validation


def truth_mask(row: dict, num_classes: int = 1) -> np.ndarray:
    """
    The true mask of a dataset row as booleans; of several classes its labels, uint8.

    Raises:
        ValueError: of one class, ignored pixels, by name.
    """
    if num_classes > 1:
        return labels_of(row["mask"], row["image_id"], num_classes)[0]
    labels = row_labels(row["mask"], row["image_id"])
    check_all_known(labels, row["image_id"])
    return labels == 1


def known_mask(row: dict, num_classes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """
    [`truth_mask`] and which of its pixels are ignored, boolean; of one class these are none of it. Of several classes
    they are `IGNORED` in the labels, and none here.
    """
    if num_classes > 1:
        truth = truth_mask(row, num_classes)
        return truth, np.zeros(truth.shape, bool)
    labels = row_labels(row["mask"], row["image_id"])
    return labels == 1, labels == IGNORED


def row_batches(
    dataset: Dataset, batch_size: int
) -> Iterator[tuple[list[dict], tuple[np.ndarray, ...], tuple[np.ndarray, ...]]]:
    """
    (rows, their true masks, which pixels are ignored, of [`known_mask`]) of each batch, in order.

    Raises:
        ValueError: a mask of another size than its image, by name.
    """
    num_classes = len(class_names(dataset))
    for start in range(0, len(dataset), batch_size):
        rows = [dataset[position] for position in range(start, min(start + batch_size, len(dataset)))]
        truths, ignored = zip(*(known_mask(row, num_classes) for row in rows), strict=True)
        for row, truth in zip(rows, truths, strict=True):
            check_sizes(row["image_id"], height_and_width(row["image"]), truth.shape)
        yield rows, truths, ignored


def segment_rows(
    dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor, batch_size: int = 8, **post_processing
) -> Iterator[tuple[str, BatchFeature, np.ndarray]]:
    """
    (image_id, result of [`segment`] at the size of the truth, truth) of each row. Where pixels of one class are
    ignored, nothing is found either, with the probability 0, and `ignored` says where.
    """
    for rows, truths, ignored in row_batches(dataset, batch_size):
        results = segment(
            [row["image"] for row in rows], model, processor, [truth.shape for truth in truths], **post_processing
        )
        for row, result, truth, unknown in zip(rows, results, truths, ignored, strict=True):
            if unknown.any():
                result["ignored"] = unknown
                unknown = torch.from_numpy(unknown).to(result["segmentation"].device)
                for name in ("segmentation", "probabilities"):
                    result[name] = result[name].masked_fill(unknown, 0)
            yield row["image_id"], result, truth


def model_masks(
    dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor, batch_size: int = 8, **post_processing
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(image_id, mask, truth) of each row, the mask made by the model at the size of the truth."""
    for image_id, result, truth in segment_rows(dataset, model, processor, batch_size, **post_processing):
        yield image_id, result["segmentation"].cpu().numpy(), truth


def folder_masks(dataset: Dataset, folder: str | Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """
    (image_id, mask, truth) of each row, the mask read from `folder/<id>_segmentation.png`; of several classes labels.

    Raises:
        FileNotFoundError, ValueError: by name: a mask that is missing, damaged, or of another size than the truth.
    """
    num_classes = len(class_names(dataset))
    for row in dataset:
        truth, ignored = known_mask(row, num_classes)
        path = Path(folder) / f"{row['image_id']}_segmentation.png"
        mask = read_labels(path, num_classes=num_classes)[0] if num_classes > 1 else read_mask(path)
        if mask.shape != truth.shape:
            raise ValueError(
                f"{path}: mask is {mask.shape[0]}×{mask.shape[1]}, truth {truth.shape[0]}×{truth.shape[1]}. "
                "Resize probabilities, not masks, to the size of the truth."
            )
        yield row["image_id"], np.where(ignored, 0, mask).astype(mask.dtype), truth


def boundary_scores(mask: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """HD95 as a share of the image's diagonal, and the boundary F1, of one mask."""
    return {"hd95": hausdorff95(mask, truth), "boundary_f1": boundary_f1(mask, truth)}


def mean_class_jaccard(
    dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor, batch_size: int = 8
) -> float:
    """The mean over several classes of their mean J."""
    masks = model_masks(dataset, model, processor, batch_size)
    num_classes = model.config.num_labels - 1
    return mean_of_classes(class_scores(np.array([class_counts(mask, truth, num_classes) for _, mask, truth in masks])))


def check_channels(dataset: Dataset, model: EFPForSegmentation, name: str) -> None:
    """
    Raises:
        ValueError: a model, by the name of its checkpoint, for images of other channels than the data's.
    """
    channels = channels_of(dataset)
    if channels != model.config.num_channels:
        raise ValueError(
            f"{name} must take the channels of the data, {channels}, got one of {model.config.num_channels}. "
            "Train it on such data, or pass another --checkpoint."
        )


def check_classes(dataset: Dataset, model: EFPForSegmentation, name: str) -> None:
    """
    Raises:
        ValueError: a model, by the name of its checkpoint, that was not made for the classes or channels of the data.
    """
    check_channels(dataset, model, name)
    classes, own = label_names(dataset) or class_names(dataset), class_names_of(model.config)
    other_kind = bool(label_names(dataset)) != labels_overlap(model.config)
    if other_kind or max(1, len(classes)) != len(own) or (len(own) > 1 and classes != own):
        raise ValueError(
            f"{name} must segment the classes of the data, {', '.join(classes) or 'one class'}, "
            f"got {', '.join(own)}. Train it on such data, or pass another --checkpoint."
        )
    if classes and classes != own:
        logger.warning("%s calls its label %s, the data %s.", name, *own, *classes)


def grid_jaccards(
    dataset: Dataset,
    model: EFPForSegmentation,
    processor: EFPImageProcessor,
    thresholds: Sequence[float],
    batch_size: int = 8,
    regions: tuple[bool, ...] = (False, True),
) -> dict[tuple[float, bool], float]:
    """(threshold, largest_region) → mean J, from one pass of the model over the rows."""
    counts = {(threshold, region): [] for threshold in thresholds for region in regions}
    for _, result, truth in segment_rows(dataset, model, processor, batch_size):
        probabilities = result["probabilities"].cpu().numpy()
        for threshold, region in counts:
            mask = probabilities > threshold
            mask = keep_largest_region(mask) if region else mask
            counts[threshold, region].append(confusion_counts(mask, truth))
    return {setting: float(jaccard(np.array(values)).mean()) for setting, values in counts.items()}
