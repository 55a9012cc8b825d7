"""
Lesion images and masks of a dataset on the Hub, or of a folder of Parquet or WebDataset shards: as a `DatasetDict`, or
streamed.
"""

import hashlib
from pathlib import Path
from tarfile import TarError

import numpy as np
from PIL import Image

from ..extras import needing
from ..image_processing_efp import check_sizes
from .duplicates import perceptual_hash
from .files import read_mask, read_sized_image
from .pairs import FEATURES, reduce_pair, reduced_size
from .split import GROUP_COLUMNS, SPLITS, draw_split

with needing("train", __name__):
    from datasets import Dataset, DatasetDict, IterableDatasetDict, Value, load_dataset
    from datasets import Image as ImageFeature
    from datasets.exceptions import DatasetGenerationError
    from pyarrow import ArrowInvalid

# The first that is there, where no other is named; a WebDataset's columns are the endings of its files
IMAGE_COLUMNS = ("image", "jpg", "jpeg", "image.jpg", "image.jpeg", "image.png")
MASK_COLUMNS = ("mask", "png", "mask.png")
ID_COLUMNS = ("image_id", "__key__")
NEEDED_OF_A_STREAM = ("train", "validation")
SHARD_SUFFIXES = (".parquet", ".tar")


def load_hub_lesions(
    name: str,
    image_column: str | None = None,
    mask_column: str | None = None,
    seed: int = 0,
    max_side: int | None = 512,
    **kwargs,
) -> DatasetDict:
    """
    A dataset of the Hub (or anything that `datasets.load_dataset` takes) as `load_isic` gives one.

    Missing splits are drawn from `train`; the columns `patient_id` and `lesion_id` are respected where present. What is
    larger than `max_side` is reduced once and kept in the cache of `datasets`.

    Args:
        image_column, mask_column: default: the first of `IMAGE_COLUMNS` and of `MASK_COLUMNS` that is there.

    Raises:
        ValueError: no `train` split, or a missing column, with the columns that there are; a mask of another size than
            its image, by name.
    """
    loaded = load_splits(name, **kwargs)
    if "train" not in loaded:
        raise ValueError(f"{name}: a `train` split is needed, got {list(loaded)}.")
    splits = {}
    for split, dataset in loaded.items():
        found = find_columns(dataset.column_names, name, image_column, mask_column)
        names = dict(zip(found, FEATURES, strict=True))
        dataset = dataset.rename_columns({old: new for old, new in names.items() if old not in (None, new)})
        if "image_id" not in dataset.column_names:
            dataset = dataset.add_column("image_id", [f"{split}_{row:07d}" for row in range(len(dataset))])
        splits[split] = cast_images(dataset, ImageFeature()).cast_column("image_id", Value("string"))

    missing = [split for split in SPLITS if split not in splits]
    if missing:
        train = splits["train"]
        pixels = train.select_columns(["image"])
        entries = [
            {"image_id": image_id, "hash": perceptual_hash(pixels[row]["image"]), "row": row}
            for row, image_id in enumerate(train["image_id"])
        ]
        groups = {
            image_id: [f"{column}:{train[column][row]}" for column in GROUP_COLUMNS if has_value(train, column, row)]
            for row, image_id in enumerate(train["image_id"])
        }
        drawn = draw_split(entries, groups, seed, ["train", *missing])
        splits.update({split: train.select([entry["row"] for entry in drawn[split]]) for split in drawn})
    chosen = {split: splits[split].select_columns(list(FEATURES)) for split in SPLITS}
    if max_side is not None:
        # as files, not as pixels: what is small enough stays the file that it is
        for split, dataset in chosen.items():
            files = cast_images(dataset, ImageFeature(decode=False))
            files = files.map(reduce_row, fn_kwargs={"max_side": max_side}, desc=f"{name}, {split}: reducing")
            chosen[split] = cast_images(files, ImageFeature())
    return DatasetDict(chosen)


def stream_lesions(
    name: str, image_column: str | None = None, mask_column: str | None = None, max_side: int | None = 512, **kwargs
) -> IterableDatasetDict:
    """
    As [`load_hub_lesions`], each row read when it is asked for: nothing is kept in memory or in a cache. The splits
    `train` and `validation` must be there, as `datasets` finds them in the names of the files (`data/train-*.parquet`,
    `validation-0000.tar`); `test` may be. Rows without an id are named after the SHA-256 of their image.

    Raises:
        ValueError: a missing split or column, with what there is; at a row, as [`load_hub_lesions`].
    """
    loaded = load_splits(name, streaming=True, **kwargs)
    missing = [split for split in NEEDED_OF_A_STREAM if split not in loaded]
    if missing:
        raise ValueError(
            f"{name}: a stream must have the splits {' and '.join(NEEDED_OF_A_STREAM)}, got {', '.join(loaded)}: they "
            "cannot be drawn without reading all images. Name the files after them, or do not stream."
        )
    streams = {}
    for split in [split for split in SPLITS if split in loaded]:
        dataset = loaded[split] if loaded[split].column_names else loaded[split]._resolve_features()
        image_column, mask_column, id_column = find_columns(dataset.column_names, name, image_column, mask_column)
        for column in (image_column, mask_column):  # `datasets` would decode, and encode again with some loss
            dataset = dataset.cast_column(column, ImageFeature(decode=False))
        streams[split] = dataset.map(
            read_row,
            features=FEATURES,
            fn_kwargs={"columns": (image_column, mask_column, id_column), "max_side": max_side},
            remove_columns=dataset.column_names,
        )
    return IterableDatasetDict(streams)


def holds_shards(folder: Path) -> bool:
    """Whether a folder, or one in it, holds shards of a dataset."""
    return any(path.suffix in SHARD_SUFFIXES for path in folder.glob("*")) or any(
        path.suffix in SHARD_SUFFIXES for path in folder.glob("*/*")
    )


def load_splits(name: str, **kwargs) -> DatasetDict | IterableDatasetDict:
    """
    Raises:
        FileNotFoundError: no such dataset.
        ValueError: damaged files; splits of other names.
    """
    try:
        loaded = load_dataset(name, **kwargs)
    except (ArrowInvalid, DatasetGenerationError, TarError) as error:
        raise ValueError(f"{name}: a file is damaged ({error.__cause__ or error}). Copy it again.") from error
    if set(loaded) - set(SPLITS):
        raise ValueError(f"{name}: splits must be among {', '.join(SPLITS)}, got {', '.join(loaded)}. Rename them.")
    return loaded


def find_columns(
    there: list[str], name: str, image_column: str | None, mask_column: str | None
) -> tuple[str, str, str | None]:
    """
    The columns of the image, the mask and, if there is one, the id.

    Raises:
        ValueError: a missing column, with those that there are.
    """
    image_column = image_column or next((column for column in IMAGE_COLUMNS if column in there), IMAGE_COLUMNS[0])
    mask_column = mask_column or next((column for column in MASK_COLUMNS if column in there), MASK_COLUMNS[0])
    for column in (image_column, mask_column):
        if column not in there:
            raise ValueError(f"{name}: no column {column!r}, got {there}. Pass image_column and mask_column.")
    return image_column, mask_column, next((column for column in ID_COLUMNS if column in there), None)


def has_value(dataset: Dataset, column: str, row: int) -> bool:
    return column in dataset.column_names and dataset[column][row] not in (None, "")


def cast_images(dataset: Dataset, feature: ImageFeature) -> Dataset:
    return dataset.cast_column("image", feature).cast_column("mask", feature)


def reduce_row(row: dict, max_side: int) -> dict:
    """`image` and `mask` of a row, both as files, reduced; nothing where they are at most `max_side` large."""
    image, mask = read_pair(row)
    size_to_keep = reduced_size(mask.size[::-1], max_side)
    if size_to_keep == mask.size[::-1]:
        return {}
    return dict(zip(("image", "mask"), reduce_pair(image, mask, size_to_keep), strict=True))


def read_row(row: dict, columns: tuple[str, str, str | None], max_side: int | None) -> dict:
    """
    A row of a stream, its images at most `max_side` large.

    Args:
        columns: of the image and the mask, both as files, and of the id.
    """
    image_column, mask_column, id_column = columns
    image_id = str(row[id_column]) if id_column else file_digest(row[image_column])
    image, mask = read_pair({"image": row[image_column], "mask": row[mask_column], "image_id": image_id})
    size_to_keep = reduced_size(mask.size[::-1], max_side)
    if size_to_keep != mask.size[::-1]:
        image, mask = reduce_pair(image, mask, size_to_keep)
    return {"image": image, "mask": mask, "image_id": image_id}


def read_pair(row: dict) -> tuple[Image.Image, Image.Image]:
    """
    The image (RGB) and the mask (grey, 0 and 255) of a row that has both as files.

    Raises:
        ValueError: by the row's id: one that is missing, damaged, or no mask, and another size of the mask.
    """
    files = {}
    for column in ("image", "mask"):
        if row[column] is None:
            raise ValueError(f"{row['image_id']}: the row must have `{column}`, got none. Add it or remove the row.")
        content = row[column]["bytes"]
        files[column] = {"path": row[column]["path"] if content is None else row["image_id"], "content": content}
    image, size = read_sized_image(**files["image"])
    mask = read_mask(**files["mask"])
    check_sizes(row["image_id"], size, mask.shape)
    return image, Image.fromarray(mask.astype(np.uint8) * 255)


def file_digest(file: dict | None) -> str:
    """The first digits of the SHA-256 of an undecoded image."""
    if file is None or file["bytes"] is None:
        return "row without an id"
    return hashlib.sha256(file["bytes"]).hexdigest()[:16]
