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
from .found import Found, cache_folder, masks_line, problems_of_classes, warn_of_copies, with_line
from .labels import labels_picture, palette_colors, read_labels, values_of_rows
from .pairs import FEATURES, facts_of, labels_in, reduce_pair, reduced_size
from .split import GROUP_COLUMNS, SPLITS, draw_split
from .tables import METADATA

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
    A dataset of images and masks as `load_isic` gives one; a single `Dataset` is taken for `train`.

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
    splits, facts, num_classes = {}, {}, max(1, len(classes))
    for split, rows in named_splits(loaded, name, image_column, mask_column).items():
        checked = {"fn_kwargs": {"num_classes": num_classes}, "remove_columns": rows.column_names}
        seen = rows.map(check_row, **checked, desc=f"{name}, {split}: checking")
        facts[split] = list(seen)
        if any(is_changed(fact["size"], fact["values"], max_side, num_classes) for fact in facts[split]):
            settings = {"max_side": max_side, "num_classes": num_classes}
            rows = rows.map(reduce_row, fn_kwargs=settings, desc=f"{name}, {split}: reducing")
        rows = cast_images(rows, ImageFeature())
        splits[split] = with_column_of_classes(rows, facts[split], classes)
    warn_of_copies(facts)
    if problems := problems_of_classes([fact for split_facts in facts.values() for fact in split_facts], classes):
        raise ValueError(f"{name}: {problems[0]}")

    missing = [split for split in SPLITS if split not in splits]
    if missing:
        train = splits["train"]
        entries = [{**fact, "row": row} for row, fact in enumerate(facts["train"])]
        drawn = draw_split(entries, groups_of(train), seed, ["train", *missing])
        splits.update({split: train.select([entry["row"] for entry in drawn[split]]) for split in drawn})
    columns = list(features_with_classes(FEATURES, classes))
    data = DatasetDict({split: splits[split].select_columns(columns) for split in SPLITS})
    masks = masks_line([fact["values"] for split_facts in facts.values() for fact in split_facts], classes)
    return with_line(data, f"{name}: {form}; {masks}", missing)


def find_rows_of_files(loaded: Dataset | DatasetDict, name: str, form: str, classes: tuple[str, ...]) -> Found | None:
    """
    The files of a dataset with the columns `image_2`, …, of which an image has several; those without a file of their
    own are written to the cache. `None` for a dataset without such columns.

    Raises:
        ValueError: as [`convert_dataset`]; a row without one of its images.
    """
    splits = {"train": loaded} if isinstance(loaded, Dataset) else loaded
    further = further_columns(next(iter(splits.values())).column_names)
    if not further:
        return None
    found = Found(form, {}, classes=classes)
    for split, rows in named_splits(loaded, name).items():
        for column in further:
            rows = rows.cast_column(column, ImageFeature(decode=False))
        found.groups |= groups_of(rows)
        columns = ("image", "mask", *further)
        found.pairs[split] = [(row["image_id"], *(file_of(row, column) for column in columns)) for row in rows]
    return found


def file_of(row: dict, column: str) -> Path:
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


def with_column_of_classes(rows: Dataset, facts: list[dict], classes: tuple[str, ...]) -> Dataset:
    """The rows with the labels that their masks hold, in place of what the column held; none without names."""
    if not classes:
        return rows
    rows = rows.remove_columns([COLUMN] if COLUMN in rows.column_names else [])
    feature = features_with_classes(FEATURES, classes)[COLUMN]
    return rows.add_column(COLUMN, [labels_in(fact) for fact in facts], feature=feature)


def named_splits(
    loaded: Dataset | DatasetDict, name: str, image_column: str | None = None, mask_column: str | None = None
) -> DatasetDict:
    """The splits with the columns `image` and `mask`, both as files, and `image_id`; errors as [`convert_dataset`]."""
    loaded = {"train": loaded} if isinstance(loaded, Dataset) else loaded
    check_splits(loaded, name)
    if "train" not in loaded:
        raise ValueError(f"{name}: a `train` split is needed, got {list(loaded)}.")
    splits = {}
    for split, dataset in loaded.items():
        found = find_columns(dataset.column_names, name, image_column, mask_column)
        names = dict(zip(found, FEATURES, strict=True))
        dataset = dataset.rename_columns({old: new for old, new in names.items() if old not in (None, new)})
        if "image_id" not in dataset.column_names:
            dataset = dataset.add_column("image_id", [f"{split}_{row:07d}" for row in range(len(dataset))])
        # as files, not as pixels: what is small enough stays the file that it is
        splits[split] = cast_images(dataset, ImageFeature(decode=False)).cast_column("image_id", Value("string"))
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
            raise ValueError(
                f"{name}: no column {column!r}, got {there}. Rename them to image and mask, or pass image_column and "
                "mask_column to `load_hub_lesions`."
            )
    return image_column, mask_column, next((column for column in ID_COLUMNS if column in there), None)


def groups_of(dataset: Dataset) -> dict[str, list[str]]:
    """image_id → its patient and lesion; of no image where there are no such columns."""
    columns = [column for column in GROUP_COLUMNS if column in dataset.column_names]
    groups = {image_id: [] for image_id in dataset["image_id"]} if columns else {}
    for column in columns:
        for image_id, value in zip(dataset["image_id"], dataset[column], strict=True):
            groups[image_id] += [] if value in (None, "") else [f"{column}:{value}"]
    return groups


def cast_images(dataset: Dataset, feature: ImageFeature) -> Dataset:
    return dataset.cast_column("image", feature).cast_column("mask", feature)


def check_row(row: dict, num_classes: int = 1) -> dict:
    """The entry of a row with both images as files, as `check_pairs` gives it."""
    image, labels, values = read_pair(row, num_classes)
    facts = {**facts_of(labels, num_classes), "values": values}
    if num_classes > 1:
        mask = row["mask"]
        facts["colors"] = palette_colors(mask["path"] or row["image_id"], labels, num_classes, mask["bytes"])
    return {"image_id": row["image_id"], "hash": perceptual_hash(image), **facts}


def is_changed(size: tuple[int, int], values: str, max_side: int | None, num_classes: int) -> bool:
    """Whether a row gives another image or mask than its files."""
    return values != values_of_rows(num_classes) or reduced_size(tuple(size), max_side) != tuple(size)


def reduce_row(row: dict, max_side: int | None, num_classes: int = 1) -> dict:
    """`image` and `mask` of a row, both as files, reduced; nothing of what is at most `max_side` large."""
    image, labels, values = read_pair(row, num_classes)
    mask, size_to_keep = labels_picture(labels, num_classes), reduced_size(labels.shape, max_side)
    if size_to_keep == labels.shape:
        return {} if values == values_of_rows(num_classes) else {"mask": mask}
    return dict(zip(("image", "mask"), reduce_pair(image, mask, size_to_keep), strict=True))


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
    mask, size_to_keep = labels_picture(labels, max(1, num_classes)), reduced_size(labels.shape, max_side)
    if size_to_keep != labels.shape:
        image, mask = reduce_pair(image, mask, size_to_keep)
    named = {COLUMN: labels_in(facts_of(labels, num_classes))} if num_classes else {}
    return {"image": image, "mask": mask, "image_id": image_id, **named}


def read_pair(row: dict, num_classes: int = 1) -> tuple[Image.Image, np.ndarray, str]:
    """
    The image (RGB) and the labels (as [`read_labels`] gives them) of a row that has both as files, and how the mask's
    file writes them.

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
    labels, values = read_labels(**files["mask"], num_classes=num_classes)
    check_sizes(row["image_id"], size, labels.shape)
    return image, labels, values


def file_digest(file: dict | None) -> str:
    """The first digits of the SHA-256 of an undecoded image."""
    if file is None or file["bytes"] is None:
        return "row without an id"
    return hashlib.sha256(file["bytes"]).hexdigest()[:16]
