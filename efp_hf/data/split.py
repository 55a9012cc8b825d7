"""Which images train, choose and test: drawn by their usual shares, with nothing alike on two sides."""

import csv
import hashlib
import logging
import os
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..extras import needing
from .duplicates import near_duplicates
from .files import write_atomically

with needing("train", __name__):
    from datasets import Dataset, DatasetDict

SPLITS = ("train", "validation", "test")
# as people call them, in names of files and folders and in tables
SPLIT_NAMES = {**{split: split for split in SPLITS}, "training": "train", "val": "validation", "valid": "validation"}
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
GROUP_COLUMNS = ("patient_id", "lesion_id")
logger = logging.getLogger(__name__)


def draw_split(entries: list[dict], groups: dict[str, list[str]], seed: int, splits: list[str]) -> dict[str, list]:
    """
    Entries to splits by their usual shares, such that connected images stay together.

    Images are connected by a shared patient or lesion and by near-duplicate pixels. The groups are shuffled by a hash
    of `seed` and their first image's id, so that the split is the same on every machine and with every library.
    """
    position = {entry["image_id"]: row for row, entry in enumerate(entries)}
    if len(position) < len(entries):
        raise ValueError(f"`image_id` must be different for each image, got {len(position)} ids for {len(entries)}.")
    if groups and not position.keys() & groups.keys():
        raise ValueError(
            f"No image has its id in the metadata: {next(iter(position))} is not like {next(iter(groups))}. "
            "Ids are file names without their ending."
        )
    if groups and (alone := position.keys() - groups.keys()):
        logger.warning(
            "%d of %d images are not in the metadata, %s for one: their patients are not known.",
            len(alone),
            len(position),
            min(alone),
        )
    edges = near_duplicates([entry["hash"] for entry in entries])
    first_with = {}
    for image_id, row in position.items():
        for group in groups.get(image_id, []):
            edges.append((first_with.setdefault(group, row), row))
    rows, columns = np.array(edges, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(entries), len(entries)))
    component_of = connected_components(graph, directed=False)[1]

    members = {}
    for entry, component in zip(entries, component_of, strict=True):
        members.setdefault(int(component), []).append(entry)
    shuffled = sorted(
        members.values(),
        key=lambda group: hashlib.sha256(f"{seed}:{min(entry['image_id'] for entry in group)}".encode()).hexdigest(),
    )
    total = sum(SHARES[split] for split in splits)
    drawn = {split: [] for split in splits}
    for group in shuffled:  # each group to the split that is furthest behind its share
        split = max(splits, key=lambda name: SHARES[name] / total - len(drawn[name]) / len(entries))
        drawn[split] += group
    for split, split_entries in drawn.items():
        if not split_entries:
            raise ValueError(f"{len(entries)} images are too few, or too alike, for a {split} split.")
        split_entries.sort(key=lambda entry: entry["image_id"])
    return drawn


def read_groups(metadata: Path) -> dict[str, list[str]]:
    """
    image_id → its patient and lesion ids, from the ISIC archive's `metadata.csv`; empty without the file.

    Raises:
        OSError: what is there is no file that can be read.
        ValueError: no column `isic_id`, or no table.
    """
    if not os.path.lexists(metadata):
        return {}
    if metadata.exists() and not metadata.is_file():  # opening a pipe would wait for ever
        raise OSError(f"{metadata} must be a file that can be read. Mend or remove it.")
    # other columns may hold text of any encoding
    with metadata.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        rows = csv.DictReader(file)
        try:
            if "isic_id" not in (rows.fieldnames or []):
                raise ValueError(
                    f"{metadata}: no column 'isic_id', got {rows.fieldnames}. It names the images by their ids."
                )
            if not set(GROUP_COLUMNS) & set(rows.fieldnames):
                logger.warning(
                    "%s has no column %s: images of one patient may be on two sides of the split.",
                    metadata,
                    " or ".join(GROUP_COLUMNS),
                )
            return {
                row["isic_id"]: [f"{column}:{row[column]}" for column in GROUP_COLUMNS if row.get(column)]
                for row in rows
            }
        except csv.Error as error:
            raise ValueError(f"{metadata}, line {rows.line_num + 1}: {error}. Is a quotation mark open?") from error


def write_split(data: DatasetDict, path: str | Path) -> None:
    """The sides of a split as CSV: `image_id`, `split`, sorted by id."""
    sides = sorted((image_id, split) for split in data for image_id in data[split]["image_id"])

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("image_id", "split"), *sides])

    write_atomically(Path(path), write)


def get_split(dataset: DatasetDict, split: str) -> Dataset:
    """
    One split by name.

    Raises:
        ValueError: a split that is not there, with those that are.
    """
    if split not in dataset:
        raise ValueError(f"`split` must be one of {', '.join(dataset)}, got {split!r}.")
    return dataset[split]
