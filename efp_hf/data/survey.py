"""What is in a set of images and masks, and what is wrong with it: everything at once, where a training stops."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image, ImageDraw

from ..extras import needing
from ..inference.drawing import tint_lesion
from .files import read_image
from .found import Found, cache_folder, find_copies, problems_of_ids, split_sizes
from .hub import check_row, groups_of, named_splits, read_pair
from .labels import read_labels
from .lesions import find_lesions
from .names import listed
from .pairs import check_pairs
from .split import SPLITS, draw_split

with needing("train", __name__):
    from datasets import Dataset, DatasetDict

SHEET_COLUMNS = 8
SHEET_IMAGES = 48
TILE = 160  # pixels
Opener = Callable[[], tuple[Image.Image, np.ndarray]]  # an image and its boolean mask


@dataclass
class Survey:
    """The pairs that can be read, and sentences of what cannot."""

    name: str
    form: str
    rows: dict[str, list[dict]] = field(default_factory=dict)  # of each split: entries of `check_pairs`, with `open`
    groups: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)  # a training refuses the data for them
    notes: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)  # the splits that the data has not


def survey_lesions(source: str | Path | Dataset | DatasetDict, seed: int = 0) -> Survey:
    """
    Reads every pair of what `load_lesions` takes.

    Raises:
        FileNotFoundError, ValueError: as `load_lesions`, where no pair can be found.
    """
    name, form, found = find_lesions(source)
    if isinstance(found, Found):
        survey = survey_files(name, found)
    else:
        survey = survey_rows(name, form, named_splits(found, name))
    entries = [entry for rows in survey.rows.values() for entry in rows]
    repaired = [entry["image_id"] for entry in entries if entry.get("repaired")]
    for words, image_ids in (
        ("masks are empty", [entry["image_id"] for entry in entries if entry["share"] == 0]),
        ("masks cover their whole image", [entry["image_id"] for entry in entries if entry["share"] == 1]),
        ("images have damaged JPEG data, which was repaired", repaired),
    ):
        if image_ids:
            survey.notes.append(f"{len(image_ids)} {words}: {listed(image_ids)}.")
    survey.notes += notes_of_copies(survey.rows)
    missing = [split for split in SPLITS if split not in survey.rows]
    if missing and not survey.problems:
        try:
            survey.rows.update(draw_split(survey.rows["train"], survey.groups, seed, ["train", *missing]))
            survey.drawn = missing
        except ValueError as error:
            survey.problems.append(str(error))
    return survey


def survey_files(name: str, found: Found) -> Survey:
    problems = [*found.problems, *problems_of_ids(found)]
    survey = Survey(name, found.form, groups=found.groups, problems=problems, notes=list(found.notes))
    for split, pairs in found.pairs.items():
        checked = check_pairs(pairs, None, cache_folder())
        survey.rows[split] = []
        for (_, image, mask), entry in zip(pairs, checked, strict=True):
            if isinstance(entry, Exception):
                survey.problems.append(str(entry))
            else:
                survey.rows[split].append({**entry, "open": partial(open_files, image, mask)})
    return survey


def survey_rows(name: str, form: str, splits: DatasetDict) -> Survey:
    survey = Survey(name, form)
    for split, dataset in splits.items():
        survey.rows[split] = []
        for number, row in enumerate(dataset):
            try:
                entry = {**check_row(row), "open": partial(open_row, dataset, number)}
            except (FileNotFoundError, ValueError) as error:
                survey.problems.append(str(error))
            else:
                survey.rows[split].append(entry)
    survey.groups = groups_of(splits["train"])
    return survey


def open_files(image: Path, mask: Path) -> tuple[Image.Image, np.ndarray]:
    return read_image(image), read_labels(mask)[0] == 1


def open_row(dataset: Dataset, number: int) -> tuple[Image.Image, np.ndarray]:
    image, mask, _ = read_pair(dataset[number])
    return image, np.asarray(mask) == 255


def notes_of_copies(rows: dict[str, list[dict]]) -> list[str]:
    """A sentence of the copies within splits, and one of those in two."""
    copies = find_copies(rows)
    within = [f"{one} = {other}" for one, other, split, other_split in copies if split == other_split]
    across = [
        f"{one} ({split}) = {other} ({other_split})"
        for one, other, split, other_split in copies
        if split != other_split
    ]
    places = (("in one split", within), ("in two splits", across))
    return [f"{len(names)} copies of an image {place}: {listed(names)}." for place, names in places if names]


def survey_lines(survey: Survey) -> list[str]:
    """The survey as a person reads it."""
    entries = [entry for rows in survey.rows.values() for entry in rows]
    lines = [f"{survey.name}: {survey.form}"]
    lines.append(f"pairs   {len(entries)} can be used: {split_sizes(survey.rows, survey.drawn)}")
    if entries:
        shares = [100 * entry["share"] for entry in entries]
        lines.append(f"lesion  {median(shares):.1f} % of the pixels (median), {min(shares):.1f} to {max(shares):.1f} %")
        lines.append(f"sizes   {counted('×'.join(map(str, entry['size'])) for entry in entries)}")
        lines.append(f"masks   {counted(entry['values'] for entry in entries)}")
    lines += [f"note: {note}" for note in survey.notes] + [f"problem: {problem}" for problem in survey.problems]
    count = len(survey.problems)
    refused = f"{count} problem{'s' if count > 1 else ''}: a training would refuse this data."
    return [*lines, refused if count else "A training takes this data as it is."]


def counted(values, most: int = 4) -> str:
    """Each value and how often it is there, the most frequent first."""
    counts = Counter(values).most_common()
    more = f", and {len(counts) - most} others" if len(counts) > most else ""
    return ", ".join(f"{value} ({count})" for value, count in counts[:most]) + more


def draw_sheet(survey: Survey) -> Image.Image:
    """
    A contact sheet with the lesions tinted: up to `SHEET_IMAGES` pairs, from the smallest lesion to the largest.

    Raises:
        ValueError: no pair can be used.
    """
    entries = sorted((entry for rows in survey.rows.values() for entry in rows), key=lambda entry: entry["share"])
    if not entries:
        raise ValueError(f"{survey.name}: no pair can be used, so there is no contact sheet. Mend the data first.")
    chosen = np.unique(np.linspace(0, len(entries) - 1, SHEET_IMAGES).round().astype(int))
    height = TILE + 14  # with a line of text
    columns = min(SHEET_COLUMNS, len(chosen))
    sheet = Image.new("RGB", (columns * TILE, -(-len(chosen) // columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, entry in enumerate(entries[position] for position in chosen):
        left, top = place % columns * TILE, place // columns * height
        image, mask = entry["open"]()
        image.thumbnail((TILE - 4, TILE - 4))
        small = Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST)
        sheet.paste(tint_lesion(image, np.asarray(small)), (left + 2, top + 2))
        draw.text((left + 2, top + TILE - 1), f"{entry['image_id'][-18:]} {100 * entry['share']:.0f} %", fill="black")
    return sheet
