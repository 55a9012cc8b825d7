"""
Lesion images and masks of a dataset on the Hub, or of a folder of Parquet or WebDataset shards: as a `DatasetDict`, or
streamed.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from tarfile import TarError

import numpy as np
from PIL import Image

from ..extras import needing
from ..image_processing_efp import check_sizes
from .channels import further_columns
from .classes import COLUMN, class_names, features_with_classes
from .duplicates import perceptual_hash
from .files import read_sized_image, write_atomically
from .found import (
    Found,
    absent_masks,
    cache_folder,
    masks_line,
    overlap_line,
    problems_of_classes,
    warn_of_faint,
    warn_of_leaks,
    with_line,
)
from .labels import check_all_known, labels_picture, palette_colors, read_labels, values_of_rows
from .overlap import COLUMN as LABELS
from .overlap import ID_COLUMNS, IMAGE_COLUMNS, MASK_COLUMNS, features_with_labels, label_names
from .pairs import FEATURES, facts_of, grey_levels, labels_in, reduce_image, reduce_mask, reduced_size, stacked
from .split import GROUP_COLUMNS, SPLITS, draw_split
from .tables import METADATA

with needing("train", __name__):
    from datasets import Dataset, DatasetDict, Features, IterableDatasetDict, Value, load_dataset
    from datasets import Image as ImageFeature
    from datasets.exceptions import DatasetGenerationError
    from pyarrow import ArrowInvalid

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
    A dataset of the Hub (or anything that `datasets.load_dataset` takes), as [`convert_dataset`] gives it.

    Raises:
        FileNotFoundError, ValueError: no such dataset; as [`convert_dataset`].
    """
    loaded = load_splits(name, **kwargs)
    classes = class_names(loaded, name)
    return convert_dataset(loaded, name, "a dataset of the Hub", image_column, mask_column, seed, max_side, classes)


def convert_dataset(
    loaded: Dataset | DatasetDict,
    name: str,
    form: str,
    image_column: str | None = None,
    mask_column: str | None = None,
    seed: int = 0,
    max_side: int | None = 512,
    classes: tuple[str, ...] = (),
) -> DatasetDict:
    """
    A dataset of images and masks as `load_lesions` gives one; a single `Dataset` is taken for `train`. Where it has no
    column of masks, but several others of pictures, these are of labels that overlap ([`label_names`]).

    Missing splits are drawn from `train`; the columns `patient_id` and `lesion_id` are respected where present. What is
    larger than `max_side`, and masks of other values than [`values_of_rows`], are written anew to the cache of
    `datasets`.

    Args:
        name, form: of the data, for messages and for `found_line`.
        image_column, mask_column: default: the first of `IMAGE_COLUMNS` and of `MASK_COLUMNS` that is there.
        classes: names of the labels 1..K; none: one class, the lesion.

    Raises:
        ValueError: no `train` split, or a missing column, with the columns that there are; a row that cannot be used,
            by its id.
    """
    labels = label_names(loaded, name) if mask_column is None else ()
    features = features_with_labels(FEATURES, labels) if labels else features_with_classes(FEATURES, classes)
    splits, facts, num_classes = {}, {}, max(1, len(classes))
    for split, rows in named_splits(loaded, name, image_column, mask_column).items():
        settings = {"num_classes": num_classes, "labels": labels}
        checked = {"fn_kwargs": settings, "remove_columns": rows.column_names}
        seen = rows.map(check_row, **checked, desc=f"{name}, {split}: checking")
        own = groups_of(rows)  # by the ids of this split, which may start anew in the next
        facts[split] = [{**fact, "groups": own.get(fact["image_id"], [])} for fact in seen]
        if any(is_changed(fact["size"], fact["values"], max_side, num_classes) for fact in facts[split]):
            settings["max_side"] = max_side
            rows = rows.map(reduce_row, fn_kwargs=settings, desc=f"{name}, {split}: reducing")
        rows = cast_images(rows, ImageFeature(), labels)
        splits[split] = with_column_of_labels(rows, facts[split], features, first=0 if labels else 1)
    warn_of_leaks(facts, {})
    warn_of_faint(fact for split_facts in facts.values() for fact in split_facts)
    if problems := problems_of_classes([fact for split_facts in facts.values() for fact in split_facts], classes):
        raise ValueError(f"{name}: {problems[0]}")

    missing = [split for split in SPLITS if split not in splits]
    if missing:
        train = splits["train"]
        entries = [{**fact, "row": row} for row, fact in enumerate(facts["train"])]
        drawn = draw_split(entries, groups_of(train), seed, ["train", *missing])
        splits.update({split: train.select([entry["row"] for entry in drawn[split]]) for split in drawn})
    data = DatasetDict({split: splits[split].select_columns(list(features)) for split in SPLITS})
    masks = masks_line([fact["values"] for split_facts in facts.values() for fact in split_facts], classes)
    if labels:
        absent = absent_masks([fact["masks"] for split_facts in facts.values() for fact in split_facts])
        masks += f"; {overlap_line(labels, absent)}"
    return with_line(data, f"{name}: {form}; {masks}", missing)


def find_rows_of_files(loaded: Dataset | DatasetDict, name: str, form: str, classes: tuple[str, ...]) -> Found | None:
    """
    The files of a dataset with the columns `image_2`, …, of which an image has several; those without a file of their
    own are written to the cache. `None` for a dataset without such columns.

    Raises:
        ValueError: as [`convert_dataset`]; a row without one of its images; labels that overlap.
    """
    splits = {"train": loaded} if isinstance(loaded, Dataset) else loaded
    further = further_columns(next(iter(splits.values())).column_names)
    if not further:
        return None
    if label_names(loaded, name):
        raise ValueError(
            f"{name}: images with labels that overlap must have one file each, got the columns {', '.join(further)}. "
            "Leave these out."
        )
    found = Found(form, {}, classes=classes)
    for split, rows in named_splits(loaded, name).items():
        for column in further:
            rows = rows.cast_column(column, ImageFeature(decode=False))
        found.groups |= groups_of(rows)
        columns = ("image", "mask", *further)
        found.pairs[split] = [(row["image_id"], *(path_of(row, column) for column in columns)) for row in rows]
    return found


def path_of(row: dict, column: str) -> Path:
    """Of an undecoded image of a row."""
    file = row[column]
    if file is None:
        raise ValueError(f"{row['image_id']}: the row must have `{column}`, got none. Add it or remove the row.")
    if file["bytes"] is None:
        return Path(file["path"])
    folder = cache_folder() / "files"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(file['bytes']).hexdigest()[:24]}.png"  # Pillow looks at the content
    if not path.exists():
        write_atomically(path, lambda partial: partial.write_bytes(file["bytes"]))
    return path


def with_column_of_labels(rows: Dataset, facts: list[dict], features: Features, first: int) -> Dataset:
    """The rows with the labels that their masks hold, in place of what the column held; none without names."""
    for column in (column for column in (COLUMN, LABELS) if column in features):
        rows = rows.remove_columns([column] if column in rows.column_names else [])
        rows = rows.add_column(column, [labels_in(fact, first) for fact in facts], feature=features[column])
    return rows


def named_splits(
    loaded: Dataset | DatasetDict, name: str, image_column: str | None = None, mask_column: str | None = None
) -> DatasetDict:
    """
    The splits with the columns `image` and `mask`, or of labels that overlap one each, all as files, and `image_id`;
    errors as [`convert_dataset`].
    """
    loaded = {"train": loaded} if isinstance(loaded, Dataset) else loaded
    check_splits(loaded, name)
    if "train" not in loaded:
        raise ValueError(f"{name}: a `train` split is needed, got {list(loaded)}.")
    splits = {}
    labels = label_names(loaded, name) if mask_column is None else ()
    for split, dataset in loaded.items():
        found = find_columns(dataset.column_names, name, image_column, mask_column, labels)
        names = dict(zip(found, FEATURES, strict=True))
        dataset = dataset.rename_columns({old: new for old, new in names.items() if old not in (None, new)})
        if "image_id" not in dataset.column_names:
            dataset = dataset.add_column("image_id", [f"{split}_{row:07d}" for row in range(len(dataset))])
        # as files, not as pixels: what is small enough stays the file that it is
        dataset = cast_images(dataset, ImageFeature(decode=False), labels)
        splits[split] = dataset.cast_column("image_id", Value("string"))
    return DatasetDict(splits)


def stream_lesions(
    name: str,
    image_column: str | None = None,
    mask_column: str | None = None,
    max_side: int | None = 512,
    classes: tuple[str, ...] = (),
    **kwargs,
) -> IterableDatasetDict:
    """
    As [`load_hub_lesions`], each row read when it is asked for: nothing is kept in memory or in a cache. The splits
    `train` and `validation` must be there, as `datasets` finds them in the names of the files (`data/train-*.parquet`,
    `validation-0000.tar`); `test` may be. Rows without an id are named after the SHA-256 of their image. `classes` as
    of [`convert_dataset`], where no column names them.

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
    classes = class_names(loaded, name) or classes
    for split in [split for split in SPLITS if split in loaded]:
        if further := further_columns(loaded[split].column_names or ()):
            raise ValueError(f"{name}: a stream must have one image a row, got {', '.join(further)}. Do not stream it.")
        dataset = loaded[split] if loaded[split].column_names else loaded[split]._resolve_features()
        image_column, mask_column, id_column = find_columns(dataset.column_names, name, image_column, mask_column)
        for column in (image_column, mask_column):  # `datasets` would decode, and encode again with some loss
            dataset = dataset.cast_column(column, ImageFeature(decode=False))
        streams[split] = dataset.map(
            read_row,
            features=features_with_classes(FEATURES, classes),
            fn_kwargs={
                "columns": (image_column, mask_column, id_column),
                "max_side": max_side,
                "num_classes": len(classes),
            },
            remove_columns=dataset.column_names,
        )
    return IterableDatasetDict(streams)


def holds_shards(folder: Path) -> bool:
    """Whether a folder, or one in it, holds shards of a dataset."""
    paths = [*folder.glob("*"), *folder.glob("*/*")]
    return any(path.suffix in SHARD_SUFFIXES and path.name not in METADATA for path in paths)


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
    check_splits(loaded, name)
    return loaded


def check_splits(splits: Iterable[str], name: str) -> None:
    if set(splits) - set(SPLITS):
        raise ValueError(f"{name}: splits must be among {', '.join(SPLITS)}, got {', '.join(splits)}. Rename them.")


def find_columns(
    there: list[str], name: str, image_column: str | None, mask_column: str | None, labels: tuple[str, ...] = ()
) -> tuple[str, str | None, str | None]:
    """
    The columns of the image, the mask and, if there is one, the id. Where `labels` overlap there is no column of one
    mask, but one of each.

    Raises:
        ValueError: a missing column, with those that there are.
    """
    image_column = image_column or next((column for column in IMAGE_COLUMNS if column in there), IMAGE_COLUMNS[0])
    mask_column = mask_column or next((column for column in MASK_COLUMNS if column in there), MASK_COLUMNS[0])
    for column in (image_column, *(labels or (mask_column,))):
        if column not in there:
            raise ValueError(
                f"{name}: no column {column!r}, got {there}. Rename them to image and mask, or pass image_column and "
                "mask_column to `load_hub_lesions`."
            )
    return (
        image_column,
        None if labels else mask_column,
        next((column for column in ID_COLUMNS if column in there), None),
    )


def groups_of(dataset: Dataset) -> dict[str, list[str]]:
    """image_id → its patient and lesion; of no image where there are no such columns."""
    columns = [column for column in GROUP_COLUMNS if column in dataset.column_names]
    groups = {image_id: [] for image_id in dataset["image_id"]} if columns else {}
    for column in columns:
        for image_id, value in zip(dataset["image_id"], dataset[column], strict=True):
            groups[image_id] += [] if value in (None, "") else [f"{column}:{value}"]
    return groups


def cast_images(dataset: Dataset, feature: ImageFeature, labels: tuple[str, ...] = ()) -> Dataset:
    for column in ("image", *(labels or ("mask",))):
        dataset = dataset.cast_column(column, feature)
    return dataset


def check_row(row: dict, num_classes: int = 1, labels: tuple[str, ...] = ()) -> dict:
    """
    The entry of a row with all pictures as files, as `check_pairs` gives it; `masks` are True, or `None` where a label
    that overlaps others is not there.
    """
    image, found, values = read_pair(row, num_classes, labels)
    facts = {**facts_of(found, num_classes), "values": values, "masks": [row[label] and True for label in labels]}
    if num_classes > 1:
        facts["colors"] = palette_colors(**file_of(row, "mask"), labels=found, num_classes=num_classes)
    return {"image_id": row["image_id"], "hash": perceptual_hash(image), "levels": grey_levels(image), **facts}


def is_changed(size: tuple[int, int], values: str, max_side: int | None, num_classes: int) -> bool:
    """Whether a row gives another image or mask than its files."""
    return values != values_of_rows(num_classes) or reduced_size(tuple(size), max_side) != tuple(size)


def reduce_row(row: dict, max_side: int | None, num_classes: int = 1, labels: tuple[str, ...] = ()) -> dict:
    """The image and the masks of a row, all as files, reduced; nothing of what is at most `max_side` large."""
    image, found, values = read_pair(row, num_classes, labels)
    of_columns = zip(labels, found, strict=True) if labels else [("mask", found)]
    masks = {name: labels_picture(of_one, num_classes) for name, of_one in of_columns if row[name] is not None}
    size = found.shape[-2:]
    size_to_keep = reduced_size(size, max_side)
    if size_to_keep == size:
        return {} if values == values_of_rows(num_classes) else masks
    reduced = {name: reduce_mask(mask, size_to_keep) for name, mask in masks.items()}
    return {"image": reduce_image(image, size_to_keep), **reduced}


def read_row(row: dict, columns: tuple[str, str, str | None], max_side: int | None, num_classes: int = 0) -> dict:
    """
    A row of a stream, its images at most `max_side` large.

    Args:
        columns: of the image and the mask, both as files, and of the id.
        num_classes: that are named; 0: one class without a name.
    """
    image_column, mask_column, id_column = columns
    image_id = str(row[id_column]) if id_column else file_digest(row[image_column])
    files = {"image": row[image_column], "mask": row[mask_column], "image_id": image_id}
    image, labels, _ = read_pair(files, max(1, num_classes))
    if num_classes < 2:  # what 255 is elsewhere, the masks of all rows would tell
        check_all_known(labels, f"{image_id}, of a stream")
    mask, size_to_keep = labels_picture(labels, max(1, num_classes)), reduced_size(labels.shape, max_side)
    if size_to_keep != labels.shape:
        image, mask = reduce_image(image, size_to_keep), reduce_mask(mask, size_to_keep)
    named = {COLUMN: labels_in(facts_of(labels, num_classes))} if num_classes else {}
    return {"image": image, "mask": mask, "image_id": image_id, **named}


def read_pair(row: dict, num_classes: int = 1, labels: tuple[str, ...] = ()) -> tuple[Image.Image, np.ndarray, str]:
    """
    The image (RGB) and the labels (as [`read_labels`] gives them, or [`stacked`] where `labels` overlap) of a row that
    has all as files, and how the masks' files write them.

    Raises:
        ValueError: by the row's id: one that is missing, damaged, or no mask, and another size of the mask.
    """
    image_id = row["image_id"]
    if labels and not any(row[label] for label in labels):
        raise ValueError(
            f"{image_id}: the row must have a mask in one of {', '.join(labels)}, got none. Add an empty mask, or "
            "remove the row."
        )
    image, size = read_sized_image(**file_of(row, "image"))
    found, values = [], set()
    for column in labels or ("mask",):
        if labels and row[column] is None:
            found.append(None)
            continue
        of_one, written = read_labels(**file_of(row, column), num_classes=num_classes)
        check_sizes(f"{image_id}, {column}" if labels else image_id, size, of_one.shape)
        if labels:
            check_all_known(of_one, f"{image_id}, {column}")
        found.append(of_one)
        values.add(written)
    return image, stacked(found) if labels else found[0], " or ".join(sorted(values))


def file_of(row: dict, column: str) -> dict:
    """The `path` and `content` of a picture of a row; where it has content, its path is the row's id."""
    if row[column] is None:
        raise ValueError(f"{row['image_id']}: the row must have `{column}`, got none. Add it or remove the row.")
    content = row[column]["bytes"]
    return {"path": row[column]["path"] if content is None else row["image_id"], "content": content}


def file_digest(file: dict | None) -> str:
    """The first digits of the SHA-256 of an undecoded image."""
    if file is None or file["bytes"] is None:
        return "row without an id"
    return hashlib.sha256(file["bytes"]).hexdigest()[:16]
