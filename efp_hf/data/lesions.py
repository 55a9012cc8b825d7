"""Lesion images and masks, wherever they are: one door for folders, shards and the Hub."""

import os
from pathlib import Path

from ..extras import needing
from .classes import class_names, read_classes
from .forms import find_form
from .found import Found, load_found
from .hub import convert_dataset, find_rows_of_files, holds_shards, load_splits, stream_lesions
from .overlap import label_names

with needing("train", __name__):
    from datasets import Dataset, DatasetDict, IterableDatasetDict


def load_lesions(
    source: str | Path | Dataset | DatasetDict,
    seed: int = 0,
    max_side: int | None = 512,
    streaming: bool = False,
    labels_overlap: bool = False,
) -> DatasetDict | IterableDatasetDict:
    """
    The splits train, validation and test of `image` (RGB), `mask` (grey, 0 and 255) and `image_id`, from a folder or
    file in one of `FORMS`, a dataset of the Hub, or a `Dataset` or `DatasetDict`. `found_line` says what was found.

    Where an image is a `.npy` file, a TIFF of several bands or pages, or several files (the columns `image_2`, …, or
    files `<id>_2.png`), `image` is an array `(height, width, channels)` of them all: uint8, or float32 of 0..255.

    Splits that are not there are drawn from `train`: 70/10/20, seeded, with no patient, lesion or near-duplicate image
    on two sides. Every file is read and checked once.

    Several classes that exclude each other have names: in `classes.txt`, in a COCO file, or in the column `classes` of
    a dataset. `mask` then holds 0 for the background, 1..K for the classes and 255 for ignored pixels, and a column
    `classes` says which are in it; [`class_names`] gives their names.

    Labels that overlap have a mask each: in folders `masks/<label>/`, or in the columns of a dataset. In place of
    `mask` there is then a column of each label, `None` where an image does not show it, and a column `labels` says
    which an image shows; [`label_names`] gives their names.

    Args:
        source: a path, the id of a dataset on the Hub, or a dataset.
        seed: of the drawn split.
        max_side: longest side in pixels of the images and masks that the dataset gives; `None` for their own size.
        streaming: of the Hub or of Parquet or WebDataset shards: rows are read as they are asked for
            ([`stream_lesions`]). Their splits must be there, and `seed` is not used.
        labels_overlap: they must; of a COCO file each category then has a mask of its own, and of ISIC 2018 the lesion
            and each structure of Task 2.

    Raises:
        FileNotFoundError: no such folder or dataset, or one in no form that is known.
        ValueError: by name: two forms that fit, images without a mask, files that cannot be used; `streaming` of files,
            or of labels that overlap; labels that do not overlap, but have to.
        OSError: the cache cannot be written to.
    """
    if streaming:
        if labels_overlap:
            raise ValueError(f"{source}: labels that overlap must be read without streaming. Do not stream.")
        path = stream_source(source)
        return stream_lesions(path, max_side=max_side, classes=read_classes(Path(path)))
    name, form, found, classes = find_lesions(source, labels_overlap)
    if isinstance(found, Found):
        return load_found(found, name, seed, max_side)
    return convert_dataset(found, name, form, seed=seed, max_side=max_side, classes=classes)


def find_lesions(
    source: str | Path | Dataset | DatasetDict, labels_overlap: bool = False
) -> tuple[str, str, Found | Dataset | DatasetDict, tuple[str, ...]]:
    """
    A name for messages, the form, what is there, before its images are read, and the names of its classes; errors as of
    [`load_lesions`].
    """
    name, form, found, classes = find_any(source, labels_overlap)
    labels = found.labels if isinstance(found, Found) else label_names(found, name)
    if labels_overlap and not labels:
        raise ValueError(
            f"{name}: labels that overlap must have a mask each, in folders masks/<label>/, in a COCO file, or in the "
            f"columns of a dataset, got {form}. See docs/data.md."
        )
    if not isinstance(found, Found):
        found = find_rows_of_files(found, name, form, classes) or found
    return name, form, found, classes


def find_any(
    source: str | Path | Dataset | DatasetDict, labels_overlap: bool
) -> tuple[str, str, Found | Dataset | DatasetDict, tuple[str, ...]]:
    """As [`find_lesions`], whether or not labels overlap in it; a dataset is one."""
    if isinstance(source, Dataset | DatasetDict):
        return "data", "a dataset", source, class_names(source)
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"`source` must be a path, a Hub id or a dataset, got a {type(source).__name__}. Pass one.")
    path = local_path(source)
    if path is None:
        loaded = load_splits(str(source))
        return str(source), "a dataset of the Hub", loaded, class_names(loaded, str(source))
    form, found = find_form(path, labels_overlap)
    named = read_classes(path if path.is_dir() else path.parent)
    if isinstance(found, Found):
        found.classes = () if found.labels else found.classes or named
        return path.name, form, found, found.classes
    return str(path), form, found, class_names(found, str(path)) or named


def local_path(source: str | Path) -> Path | None:
    """`None` for the id of a dataset on the Hub."""
    path = Path(os.path.expanduser(source))
    is_path = path.exists() or str(source).startswith((".", "/", "~"))
    return path.absolute() if is_path else None  # where there is no such user, the path as it is


def stream_source(source: str | Path) -> str:
    path = local_path(source)
    if path is not None and not holds_shards(path):
        raise ValueError(
            f"{source}: a stream must come from the Hub or from Parquet or WebDataset (.tar) shards, got a folder "
            "without any. Do not stream: files are read one by one anyway."
        )
    return str(path or source)
