"""Image and mask of a training pair to `pixel_values` and `labels`, augmented anew in each epoch."""

from collections.abc import Iterator
from itertools import count
from zlib import crc32

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from datasets import Image as ImageFeature
from PIL import Image
from transformers import TrainerCallback

from ..data.augmentation import training_augmentation
from ..data.channels import read_channels
from ..data.files import DECODING_ERRORS
from ..data.labels import IGNORED, SET_ASIDE, labels_of, row_labels
from ..image_processing_efp import EFPImageProcessor, check_sizes, to_upright_rgb

PICTURE = ImageFeature()
SHUFFLED_TOGETHER = 256  # rows of a stream that are held in memory, of which the next one is drawn


def undecoded(dataset: Dataset) -> Dataset:
    """Images and masks as files or bytes: [`LesionTransform`] decodes them, and names the one that it cannot."""
    for column, feature in dataset.features.items():
        if feature == PICTURE:
            dataset = dataset.cast_column(column, ImageFeature(decode=False))
    return dataset


def decoded(picture: Image.Image | dict, image_id: str) -> Image.Image:
    """
    Raises:
        ValueError: a file that is gone or damaged since it was checked, with its path, or its bytes' `image_id`.
    """
    if isinstance(picture, Image.Image):
        return picture
    try:
        return PICTURE.decode_example(picture)
    except DECODING_ERRORS as error:
        name = picture["path"] or image_id
        raise ValueError(f"{name}: the file is gone or damaged ({error}). Copy it again.") from error


class LesionTransform:
    """
    Rows of `image`, `mask`, `image_id` → `pixel_values` and `labels`, for `Dataset.with_transform`.

    Images and masks may be `PIL` images or [`undecoded`], images also the lists of files of [`read_channels`]; then
    there is no change of colours. The mask must be one of its image's size, as
    [`labels_picture`] writes it. Image and mask are augmented together at the
    dataset's size, then resized by the same processor that serves inference. How an image is changed depends on `seed`,
    `epoch` and its id alone: not on the number of processes, nor on whether the run was resumed.
    """

    def __init__(self, processor: EFPImageProcessor, augment: bool = False, seed: int = 0, num_classes: int = 1):
        self.processor = processor
        self.num_classes = num_classes
        self.augmentation = training_augmentation() if augment else None
        self.moving = training_augmentation(colours=False) if augment else None  # of what is no photo
        self.seed = seed
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by data-loading processes, too

    def __call__(self, rows: dict[str, list]) -> dict[str, torch.Tensor]:
        images, masks = [], []
        for image, mask, image_id in zip(rows["image"], rows["mask"], rows["image_id"], strict=True):
            is_photo = not isinstance(image, list)
            image = np.array(to_upright_rgb(decoded(image, image_id))) if is_photo else read_channels(image)
            mask = self.read_labels(decoded(mask, image_id), image_id)
            check_sizes(image_id, image.shape[:2], mask.shape)
            augmentation = self.augmentation if is_photo else self.moving
            if augmentation is not None:
                augmentation.set_random_seed(crc32(f"{self.seed}:{self.epoch.item()}:{image_id}".encode()))
                augmented = augmentation(image=image, mask=mask)
                image, mask = augmented["image"], augmented["mask"]
            images.append(image)
            masks.append(mask)
        batch = dict(self.processor(images, masks, input_data_format="channels_last", return_tensors="pt"))
        batch["labels"][batch["labels"] == SET_ASIDE] = IGNORED  # to the processor 0 and 255 are a mask of one class
        return batch

    def read_labels(self, mask: Image.Image, image_id: str) -> np.ndarray:
        """`(height, width)`, uint8: 0..`num_classes` and `SET_ASIDE`."""
        if self.num_classes == 1:
            labels = row_labels(mask, image_id)
        else:
            labels, _ = labels_of(mask, image_id, self.num_classes)
        return np.where(labels == IGNORED, SET_ASIDE, labels).astype(np.uint8)


class LesionStream(torch.utils.data.IterableDataset):
    """
    The examples of a streamed split, one by one. With a `shuffle_seed` without end: each epoch in another order and
    augmented anew, both by the seed and the number of the epoch alone, so that a resumed run reads the same again.
    """

    def __init__(self, rows: IterableDataset, transform: LesionTransform, shuffle_seed: int | None = None):
        self.rows, self.transform, self.shuffle_seed = rows, transform, shuffle_seed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        if self.shuffle_seed is None:
            yield from self.examples(self.rows)
            return
        # not the shared one: data-loading processes come to an epoch's end one after another
        self.transform.epoch = torch.zeros_like(self.transform.epoch)
        for epoch in count():
            self.transform.epoch.fill_(epoch)
            yield from self.examples(self.rows.shuffle(self.shuffle_seed + epoch, buffer_size=SHUFFLED_TOGETHER))

    def examples(self, rows: IterableDataset) -> Iterator[dict[str, torch.Tensor]]:
        for row in rows:
            batch = self.transform({name: [value] for name, value in row.items()})
            yield {name: values[0] for name, values in batch.items()}


class AugmentationEpoch(TrainerCallback):
    """Tells a [`LesionTransform`] which epoch begins."""

    def __init__(self, transform: LesionTransform):
        self.transform = transform

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.transform.epoch.fill_(int(state.epoch + 1e-6))  # a resumed epoch begins at a fraction
