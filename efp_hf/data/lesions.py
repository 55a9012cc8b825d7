"""Lesion images and masks, wherever they are: one door for folders and the Hub."""

from pathlib import Path

from ..extras import needing
from .folders import load_isic
from .hub import load_hub_lesions

with needing("train", __name__):
    from datasets import DatasetDict


def load_lesions(source: str | Path, seed: int = 0, max_side: int | None = 512) -> DatasetDict:
    """`load_isic` for a folder, [`load_hub_lesions`] for the id of a dataset on the Hub."""
    if Path(source).exists() or str(source).startswith((".", "/", "~")):
        return load_isic(source, seed=seed, max_side=max_side)
    return load_hub_lesions(str(source), seed=seed, max_side=max_side)
