"""The images of a dataset, one by one, for whoever needs no masks: from the Hub, or Parquet or WebDataset shards."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from tarfile import TarError

from ..extras import needing
from .hub import ID_COLUMNS, IMAGE_COLUMNS, holds_shards

with needing("train", __name__):
    from datasets import Image, IterableDataset, load_dataset
    from datasets.exceptions import DatasetGenerationError, DatasetsError
    from pyarrow import ArrowInvalid

# where no masks are, the image may be what is the mask elsewhere
COLUMNS = (*IMAGE_COLUMNS, "png", "tif", "tiff", "webp", "bmp")
DAMAGE = (ArrowInvalid, DatasetGenerationError, TarError)


def stream_images(source: str | Path, split: str | None = None) -> Iterator[tuple[str, bytes]]:
    """
    (name, content) of each image's file, in order. The name is the row's id, with `_` for `/`, and the file's ending;
    without an id, the SHA-256 of the content. Nothing is kept in memory or in a cache.

    Args:
        source: a folder with shards, or the id of a dataset on the Hub.
        split: which one, where there are several.

    Raises:
        FileNotFoundError: no such dataset, or a folder without shards.
        ValueError: no such split or column, with those that there are; damaged files.
        OSError: while the images come: a damaged shard, or a lost connection.
    """
    dataset = open_stream(source, split)
    there = dataset.column_names
    column = next((column for column in COLUMNS if column in there), None)
    if column is None:
        raise ValueError(f"{source}: no column with images ({', '.join(COLUMNS)}), got {', '.join(there)}. Rename one.")
    ids = next((name for name in ID_COLUMNS if name in there), None)
    rows = dataset.cast_column(column, Image(decode=False)).select_columns([column, ids] if ids else [column])
    return named_images(rows, str(source), column, ids)


def open_stream(source: str | Path, split: str | None) -> IterableDataset:
    folder = Path(os.path.expanduser(source))
    is_path = folder.exists() or str(source).startswith((".", "/", "~"))
    if is_path and not (folder.is_dir() and holds_shards(folder)):
        raise FileNotFoundError(
            f"{source}: no folder with Parquet or WebDataset (.tar) shards. Pass images without --data."
        )
    try:
        splits = load_dataset(str(folder.absolute() if is_path else source), streaming=True)
    except (*DAMAGE, DatasetsError) as error:
        raise ValueError(f"{source}: the dataset cannot be read ({error.__cause__ or error}).") from error
    if split is None and len(splits) == 1:
        (split,) = splits
    if split not in splits:
        raise ValueError(f"`split` must be one of {', '.join(splits)} of {source}, got {split}. Pass --split.")
    dataset = splits[split]
    return dataset if dataset.column_names else dataset._resolve_features()


def named_images(rows: IterableDataset, source: str, column: str, ids: str | None) -> Iterator[tuple[str, bytes]]:
    num_read = 0
    try:
        for row in rows:
            file = row[column] or {}
            content = file.get("bytes") or b""  # a path would be one of the machine that made the dataset
            image_id = str(row[ids] or "") if ids else ""
            name = image_id.replace("/", "_") or hashlib.sha256(content).hexdigest()[:16]
            yield name + (PurePosixPath(file.get("path") or "").suffix or ".jpg"), content
            num_read += 1
    except (*DAMAGE, DatasetsError, OSError) as error:
        cause = error.__cause__ or error
        raise OSError(f"{source}: the dataset cannot be read further than {num_read} images ({cause})") from error
