"""Lesion images and masks, wherever they are: one door for folders, shards and the Hub."""

import os
from pathlib import Path

from ..extras import needing
from .forms import find_form
from .found import Found, load_found
from .hub import convert_dataset, holds_shards, load_hub_lesions, stream_lesions

with needing("train", __name__):
    from datasets import Dataset, DatasetDict, IterableDatasetDict


def load_lesions(
    source: str | Path | Dataset | DatasetDict, seed: int = 0, max_side: int | None = 512, streaming: bool = False
) -> DatasetDict | IterableDatasetDict:
    """
    The splits train, validation and test of `image` (RGB), `mask` (grey, 0 and 255) and `image_id`, from a folder or
    file in one of `FORMS`, a dataset of the Hub, or a `Dataset` or `DatasetDict`. `found_line` says what was found.

    Splits that are not there are drawn from `train`: 70/10/20, seeded, with no patient, lesion or near-duplicate image
    on two sides. Every file is read and checked once.

    Args:
        source: a path, the id of a dataset on the Hub, or a dataset.
        seed: of the drawn split.
        max_side: longest side in pixels of the images and masks that the dataset gives; `None` for their own size.
        streaming: of the Hub or of Parquet or WebDataset shards: rows are read as they are asked for
            ([`stream_lesions`]). Their splits must be there, and `seed` is not used.

    Raises:
        FileNotFoundError: no such folder or dataset, or one in no form that is known.
        ValueError: by name: two forms that fit, images without a mask, files that cannot be used; `streaming` of files.
        OSError: the cache cannot be written to.
    """
    if isinstance(source, Dataset | DatasetDict):
        return convert_dataset(source, "data", "a dataset", seed=seed, max_side=max_side)
    path = Path(os.path.expanduser(source))
    is_path = path.exists() or str(source).startswith((".", "/", "~"))
    if streaming and is_path and not holds_shards(path):
        raise ValueError(
            f"{source}: a stream must come from the Hub or from Parquet or WebDataset (.tar) shards, got a folder "
            "without any. Do not stream: files are read one by one anyway."
        )
    if streaming:
        return stream_lesions(str(path.absolute() if is_path else source), max_side=max_side)
    if not is_path:
        return load_hub_lesions(str(source), seed=seed, max_side=max_side)
    path = path.absolute()  # where there is no such user, the path as it is
    form, found = find_form(path)
    if isinstance(found, Found):
        return load_found(found, path.name, seed, max_side)
    return convert_dataset(found, str(path), form, seed=seed, max_side=max_side)
