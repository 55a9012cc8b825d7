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
from ..inference.drawing import add_legend, outline_labels, resize_mask, tint_classes
from .channels import is_array, picture_of, read_channels
from .files import read_image
from .found import (
    Found,
    absent_masks,
    cache_folder,
    faint_note,
    find_copies,
    find_divided,
    overlap_line,
    problems_of_classes,
    problems_of_ids,
    split_sizes,
)
from .hub import check_row, groups_of, named_splits, read_pair
from .labels import read_labels
from .lesions import find_lesions
from .names import listed
from .overlap import label_names
from .pairs import channels_problem, check_pairs, labels_in, mask_files, stacked
from .split import SPLITS, draw_split

with needing("train", __name__):
    from datasets import Dataset, DatasetDict

NAMED_PAIRS = 10  # of those that cannot be used
SHEET_COLUMNS = 8
SHEET_IMAGES = 48
TILE = 160  # pixels
Opener = Callable[[], tuple[Image.Image, np.ndarray]]  # an image and the labels of its mask


@dataclass
class Survey:
    """The pairs that can be read, and sentences of what cannot."""

    name: str
    form: str
    rows: dict[str, list[dict]] = field(default_factory=dict)  # of each split: entries of `check_pairs`, with `open`
    groups: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)  # a training refuses the data for them
    bad_pairs: list[str] = field(default_factory=list)  # and for each of these
    notes: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)  # the splits that the data has not
    classes: tuple[str, ...] = ()  # names of the labels 1..K; none: one class, the lesion
    labels: tuple[str, ...] = ()  # names of labels that overlap

    @property
    def num_classes(self) -> int:
        return max(1, len(self.classes))

    @property
    def named(self) -> tuple[str, ...]:
        """The several classes or labels, in the order of an entry's `shares`."""
        return self.labels or (self.classes if self.num_classes > 1 else ())


def survey_lesions(source: str | Path | Dataset | DatasetDict, seed: int = 0, labels_overlap: bool = False) -> Survey:
    """
    Reads every pair of what `load_lesions` takes, and as it does.

    Raises:
        FileNotFoundError, ValueError: as `load_lesions`, where no pair can be found.
    """
    name, form, found, classes = find_lesions(source, labels_overlap)
    if isinstance(found, Found):
        survey = survey_files(name, found)
    else:
        survey = survey_rows(name, form, named_splits(found, name), classes)
    entries = [entry for rows in survey.rows.values() for entry in rows]
    repaired = [entry["image_id"] for entry in entries if entry.get("repaired")]
    for words, image_ids in (
        ("masks are empty", [entry["image_id"] for entry in entries if entry["share"] == 0]),
        ("masks cover their whole image", [entry["image_id"] for entry in entries if entry["share"] == 1]),
        ("images have damaged JPEG data, which was repaired", repaired),
    ):
        if image_ids:
            survey.notes.append(f"{len(image_ids)} {words}: {listed(image_ids)}.")
    if note := faint_note(entries):
        survey.notes.append(note)
    survey.notes += notes_of_copies(survey.rows)
    if divided := find_divided(survey.rows, survey.groups):
        survey.notes.append(f"Images of one patient or lesion are in several splits: {listed(divided)}.")
    survey.problems += problems_of_classes(entries, survey.classes)
    absent = [name for name, shares in shares_of_classes(survey).items() if not any(shares)]
    if absent and entries and (survey.labels or any(entry["share"] for entry in entries)):
        survey.problems.append(
            f"No mask holds {listed(absent)}. "
            + (
                "Leave out its masks."
                if survey.labels
                else "Take the name out of the classes, and number the others anew."
            )
        )
    missing = [split for split in SPLITS if split not in survey.rows]
    if missing and not survey.problems and not survey.bad_pairs:
        try:
            survey.rows.update(draw_split(survey.rows["train"], survey.groups, seed, ["train", *missing]))
            survey.drawn = missing
        except ValueError as error:
            survey.problems.append(str(error))
    for split, rows in survey.rows.items():
        held = {label for entry in rows for label in labels_in(entry, first=0)}
        without = [name for place, name in enumerate(survey.named) if place not in held and name not in absent]
        if without:
            survey.notes.append(f"No mask of {split} holds {listed(without)}: it has no score there.")
    return survey


def survey_files(name: str, found: Found) -> Survey:
    problems = [*found.problems, *problems_of_ids(found)]
    facts = {"groups": found.groups, "problems": problems, "notes": list(found.notes), "classes": found.classes}
    survey = Survey(name, found.form, **facts, labels=found.labels)
    for split, pairs in found.pairs.items():
        checked = check_pairs(pairs, None, cache_folder(), found.num_classes)
        survey.rows[split] = []
        for (_, image, masks, *further), entry in zip(pairs, checked, strict=True):
            if isinstance(entry, Exception):
                survey.bad_pairs.append(str(entry))
            else:
                opened = partial(open_files, [image, *further], masks, found.num_classes)
                survey.rows[split].append({**entry, "open": opened})
    different = channels_problem([entry for rows in survey.rows.values() for entry in rows])
    survey.problems += [different] if different else []
    return survey


def survey_rows(name: str, form: str, splits: DatasetDict, classes: tuple[str, ...]) -> Survey:
    survey = Survey(name, form, classes=classes, labels=label_names(splits, name))
    for split, dataset in splits.items():
        survey.rows[split], own = [], groups_of(dataset)
        for number, row in enumerate(dataset):
            try:
                settings = (survey.num_classes, survey.labels)
                opened = partial(open_row, dataset, number, *settings)
                entry = {**check_row(row, *settings), "open": opened, "groups": own.get(row["image_id"], [])}
            except (FileNotFoundError, ValueError) as error:
                survey.bad_pairs.append(str(error))
            else:
                survey.rows[split].append(entry)
    survey.groups = groups_of(splits["train"])  # other splits are drawn from it
    return survey


def open_files(
    images: list[Path], masks: Path | tuple[Path | None, ...], num_classes: int
) -> tuple[Image.Image, np.ndarray]:
    is_photo = len(images) == 1 and not is_array(images[0])
    image = read_image(images[0]) if is_photo else picture_of(read_channels(images))
    labels = [mask and read_labels(mask, num_classes=num_classes)[0] for mask in mask_files(masks)]
    return image, stacked(labels) if isinstance(masks, tuple) else labels[0]


def open_row(dataset: Dataset, number: int, *settings) -> tuple[Image.Image, np.ndarray]:
    image, labels, _ = read_pair(dataset[number], *settings)
    return image, labels


def shares_of_classes(survey: Survey) -> dict[str, list[float]]:
    """Name of each of several classes, or of labels that overlap → its share of each image."""
    entries = [entry for rows in survey.rows.values() for entry in rows]
    return {name: [entry["shares"][place] for entry in entries] for place, name in enumerate(survey.named)}


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


def survey_lines(survey: Survey, all_pairs: bool = False) -> list[str]:
    """The survey as a person reads it; of the pairs that cannot be used the first `NAMED_PAIRS`, or `all_pairs`."""
    entries = [entry for rows in survey.rows.values() for entry in rows]
    lines = [f"{survey.name}: {survey.form}"]
    lines.append(f"pairs   {len(entries)} can be used: {split_sizes(survey.rows, survey.drawn)}")
    if entries:
        if survey.labels:
            lines.append(overlap_line(survey.labels, absent_masks([entry["masks"] for entry in entries])))
        elif survey.num_classes == 1:
            name = (*survey.classes, "lesion")[0]
            lines.append(f"{name:<7} {share_line([entry['share'] for entry in entries])}")
        for place, (name, shares) in enumerate(shares_of_classes(survey).items(), start=1):
            there = [share for share in shares if share]
            where = f"in {len(there)} of {len(entries)} images"
            called = "label" if survey.labels else f"class {place}"
            lines.append(f"{called} {name}: {where}" + (f", there {share_line(there)}" if there else ""))
        lines.append(f"sizes   {counted('×'.join(map(str, entry['size'])) for entry in entries)}")
        channels = [entry.get("channels", "of a photo") for entry in entries]
        if any("channels" in entry for entry in entries):
            lines.append(f"channels {counted(channels)}")
        lines.append(f"masks   {counted(entry['values'] for entry in entries)}")
    lines += [f"note: {note}" for note in survey.notes]
    named = survey.bad_pairs if all_pairs else survey.bad_pairs[:NAMED_PAIRS]
    lines += [f"problem: {problem}" for problem in survey.problems + named]
    if others := len(survey.bad_pairs) - len(named):
        pairs = f"{others} more pairs" if others > 1 else "1 more pair"
        lines.append(f"problem: {pairs} cannot be used. Pass --all to name each.")
    count = len(survey.problems) + len(survey.bad_pairs)
    refused = f"{count} problem{'s' if count > 1 else ''}: a training would refuse this data."
    return [*lines, refused if count else "A training takes this data as it is."]


def share_line(shares: list[float]) -> str:
    percents = [100 * share for share in shares]
    return f"{median(percents):.1f} % of the pixels (median), {min(percents):.1f} to {max(percents):.1f} %"


def counted(values, most: int = 4) -> str:
    """Each value and how often it is there, the most frequent first."""
    counts = Counter(values).most_common()
    more = f", and {len(counts) - most} others" if len(counts) > most else ""
    return ", ".join(f"{value} ({count})" for value, count in counts[:most]) + more


def draw_sheet(survey: Survey) -> Image.Image:
    """
    A contact sheet with the lesions tinted, or each class or label in its colour: up to `SHEET_IMAGES` pairs, from the
    smallest area to the largest; several classes or labels are named below.

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
        image, labels = entry["open"]()
        image.thumbnail((TILE - 4, TILE - 4))
        if survey.labels:
            tile = outline_labels(image, np.stack([resize_mask(of_one, image.size) > 0 for of_one in labels]))
        else:
            tile = tint_classes(image, resize_mask(labels, image.size), survey.num_classes)
        sheet.paste(tile, (left + 2, top + 2))
        draw.text((left + 2, top + TILE - 1), f"{entry['image_id'][-18:]} {100 * entry['share']:.0f} %", fill="black")
    return add_legend(sheet, survey.named) if survey.named else sheet
