"""Lesion images and masks, wherever they are: one door for folders, shards and the Hub."""

import os
from pathlib import Path

from ..extras import needing
from .folders import load_isic
from .hub import holds_shards, load_hub_lesions, stream_lesions

with needing("train", __name__):
    from datasets import DatasetDict, IterableDatasetDict


def load_lesions(
    source: str | Path, seed: int = 0, max_side: int | None = 512, streaming: bool = False
) -> DatasetDict | IterableDatasetDict:
    """
    `load_isic` for a folder of files, [`load_hub_lesions`] for a dataset on the Hub or for a folder of its Parquet or
    WebDataset shards. With `streaming` the latter are not read before they are asked for ([`stream_lesions`]); their
    splits must be there, and `seed` is not used.

    Raises:
        FileNotFoundError, ValueError: as these functions; `streaming` of a folder of files.
    """
    folder = Path(os.path.expanduser(source))
    is_path = folder.exists() or str(source).startswith((".", "/", "~"))
    if is_path and not holds_shards(folder):
        if streaming:
            raise ValueError(
                f"{source}: a stream must come from the Hub or from Parquet or WebDataset (.tar) shards, got a folder "
                "without any. Do not stream: files are read one by one anyway."
            )
        return load_isic(source, seed=seed, max_side=max_side)
    name = str(folder.absolute() if is_path else source)
    if streaming:
        return stream_lesions(name, max_side=max_side)
    return load_hub_lesions(name, seed=seed, max_side=max_side)
