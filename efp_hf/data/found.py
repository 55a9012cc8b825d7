"""What was found in a folder, by names alone → its images, checked and split, as a `DatasetDict`."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path

from ..extras import needing
from .duplicates import SAME_IMAGE_BITS, near_duplicates
from .labels import BLACK_AND_WHITE, IGNORED, NUMBERS_IGNORED, PALETTE_IGNORED
from .names import Matched, Pair, listed
from .pairs import channels_problem, check_and_cache, to_dataset
from .split import SPLITS, draw_split

with needing("train", __name__):
    from datasets import DatasetDict, config

FAINT_LEVELS = 32  # of 256, from the darkest pixel to the brightest; a photo has more than 100
logger = logging.getLogger(__name__)


@dataclass
class Found:
    """Image and mask files of a form of data; nothing of them is read yet."""

    form: str  # as a person calls it
    pairs: dict[str, list[Pair]]  # of each split that there is
    groups: dict[str, list[str]] = field(default_factory=dict)  # image_id → its patient and lesion
    problems: list[str] = field(default_factory=list)  # sentences for which it is refused
    notes: list[str] = field(default_factory=list)  # sentences of what is left out
    classes: tuple[str, ...] = ()  # names of the labels 1..K; none: one class, the lesion
    labels: tuple[str, ...] = ()  # names of labels that overlap, each with a mask file of its own

    @property
    def num_classes(self) -> int:
        return max(1, len(self.classes))

    def add(self, split: str, matched: Matched) -> None:
        self.pairs[split] = matched.pairs
        self.problems += matched.problems
        self.notes += matched.notes


def load_found(
    found: Found, name: str, seed: int = 0, max_side: int | None = 512, cache_dir: str | Path | None = None
) -> DatasetDict:
    """
    Every file is read and checked once. What is larger than `max_side` is decoded at reduced scale and kept in the
    cache; later calls only look at sizes and times.

    Args:
        name: of the data, for the line that [`found_line`] gives.
        seed, max_side, cache_dir: as of `load_lesions`.

    Raises:
        FileNotFoundError, ValueError: the first problem, and how many others there are; files that cannot be used.
        OSError: the cache cannot be written to.
    """
    problems = found.problems + problems_of_ids(found)
    if problems:
        others = f" `efp data` shows {len(problems) - 1} more." if len(problems) > 1 else ""
        raise ValueError(problems[0] + others)
    for note in found.notes:
        logger.warning(note)
    cache = cache_folder(cache_dir)
    entries = {
        split: check_and_cache(pairs, max_side, cache, found.num_classes) for split, pairs in found.pairs.items()
    }
    rows = [entry for of_split in entries.values() for entry in of_split]
    different = channels_problem(rows)
    if different:
        raise ValueError(different)
    warn_of_leaks(entries, found.groups)
    warn_of_faint(rows)
    if problems := problems_of_classes(rows, found.classes):
        raise ValueError(f"{name}: {problems[0]}")
    masks = masks_line([entry["values"] for entry in rows], found.classes)
    if found.labels:
        masks += f"; {overlap_line(found.labels, absent_masks([entry['masks'] for entry in rows]))}"
    missing = [split for split in SPLITS if split not in entries]
    if missing:
        entries.update(draw_split(entries["train"], found.groups, seed, ["train", *missing]))
    data = DatasetDict({split: to_dataset(entries[split], found.classes, found.labels) for split in SPLITS})
    return with_line(data, f"{name}: {found.form}; {masks}", missing)


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    return Path(cache_dir or Path(config.HF_DATASETS_CACHE) / "efp_hf")


def problems_of_ids(found: Found) -> list[str]:
    """No training images, and two images of one id."""
    problems = []
    if not found.pairs.get("train") and not found.problems:
        problems.append(f"A `train` split is needed, got {' and '.join(found.pairs) or 'no pair'}. Name one so.")
    counts = Counter((split, image_id) for split, pairs in found.pairs.items() for image_id, *_ in pairs)
    doubled = [image_id for (_, image_id), count in counts.items() if count > 1]
    if doubled:
        problems.append(f"Images must have different names, got two of {listed(doubled)}. Rename one of each.")
    return problems


def problems_of_classes(entries: list[dict], classes: tuple[str, ...]) -> list[str]:
    """
    Of several classes: masks that hold none of them, and palettes whose indices are not the numbers of classes. Of one:
    masks of 0 and 255 beside others that ignore 255.
    """
    if len(classes) < 2:
        ignoring = [entry["image_id"] for entry in entries if entry["values"] in (NUMBERS_IGNORED, PALETTE_IGNORED)]
        others = [entry["image_id"] for entry in entries if entry["values"] == BLACK_AND_WHITE and entry["share"]]
        if not (ignoring and others):
            return []
        return [
            f"255 must mean the same in all masks, got 0, 1 and 255 (ignored) in {listed(ignoring)}, and 0 and 255 in "
            f"{listed(others)}: is it {(*classes, 'lesion')[0]} or ignored there? Write what it is as 1, all else as 0."
        ]
    if not entries:
        return []
    problems = []
    if not any(entry["share"] for entry in entries):
        problems.append(
            f"No mask holds one of the {len(classes)} classes, but 0 (background) or {IGNORED} (ignored) alone. Number "
            "them from 1 on; of one class leave one name in classes.txt."
        )
    for place, name in enumerate(classes):
        colors = {entry["colors"][place]: entry["image_id"] for entry in reversed(entries) if entry["colors"][place]}
        if len(colors) > 1:
            shown = [f"{color} in {image_id}" for color, image_id in colors.items()]
            problems.append(
                f"The index of {name} must have one colour in all palettes, got {listed(shown, 3)}: these indices are "
                "not the numbers of the classes. Save the masks as grey PNG that holds the numbers."
            )
    return problems


def masks_line(values: Iterable[str], classes: tuple[str, ...]) -> str:
    """How the masks are written, and which classes they hold, where these have names."""
    written = " or ".join(sorted(set(values)))
    return f"masks of {written}" + (f" for {listed(list(classes))}" if classes else "")


def absent_masks(masks: Iterable[Iterable]) -> list[int]:
    """How many images have no mask of each label that overlaps others, of the masks of each image."""
    return [sum(mask is None for mask in of_label) for of_label in zip(*masks, strict=True)]


def overlap_line(labels: tuple[str, ...], absent: Iterable[int]) -> str:
    """Names labels that overlap, and how many images have no mask of one."""
    named = [
        f"{label} (not in {number} images without its mask)" if number else label
        for label, number in zip(labels, absent, strict=True)
    ]
    return f"labels that overlap: {listed(named)}"


def find_copies(entries: dict[str, list[dict]]) -> list[tuple[str, str, str, str]]:
    """(image_id, image_id, split, split) of the copies among the entries of all splits."""
    rows = [(entry["image_id"], entry["hash"], split) for split, members in entries.items() for entry in members]
    copies = near_duplicates([value for _, value, _ in rows], SAME_IMAGE_BITS) if rows else []
    return [(rows[one][0], rows[other][0], rows[one][2], rows[other][2]) for one, other in copies]


def find_divided(entries: dict[str, list[dict]], groups: dict[str, list[str]]) -> list[str]:
    """
    The patients and lesions, as `patient_id colin (test, train)`, whose images are in more than one split; of an entry
    by its own `groups`, where it has some, else by its id.
    """
    places = {}
    for split, members in entries.items():
        for entry in members:
            for group in entry.get("groups", groups.get(entry["image_id"], [])):
                places.setdefault(group, set()).add(split)
    return [
        f"{group.replace(':', ' ', 1)} ({', '.join(sorted(splits))})"
        for group, splits in places.items()
        if len(splits) > 1
    ]


def warn_of_leaks(entries: dict[str, list[dict]], groups: dict[str, list[str]]) -> None:
    """Where the splits that the data has hold copies of an image, or images of one patient or lesion."""
    copies = find_copies(entries) if len(entries) > 1 else []
    across = [f"{one} ({split}) and {other} ({place})" for one, other, split, place in copies if split != place]
    for words, found in (
        ("Copies of an image are in two splits", across),
        ("Images of one patient or lesion are in several splits", find_divided(entries, groups)),
    ):
        if found:
            logger.warning("%s, scores will be too good: %s.", words, listed(found, 3))


def faint_note(entries: Iterable[dict]) -> str | None:
    """A sentence of the images in which nearly nothing is to be seen."""
    faint = [entry["image_id"] for entry in entries if entry.get("levels", FAINT_LEVELS) < FAINT_LEVELS]
    if not faint:
        return None
    return (
        f"{len(faint)} images show fewer than {FAINT_LEVELS} of 256 grey levels: {listed(faint)}. If they are 16-bit "
        "data of a narrow range, stretch all of them alike and save them with 8 bits."
    )


def warn_of_faint(entries: Iterable[dict]) -> None:
    if note := faint_note(entries):
        logger.warning(note)


def with_line(data: DatasetDict, what: str, drawn: list[str]) -> DatasetDict:
    """The data with the line of [`found_line`] as its description."""
    for rows in data.values():
        rows.info.description = f"{what}; {sum(map(len, data.values()))} pairs: {split_sizes(data, drawn)}"
    return data


def split_sizes(splits: Mapping[str, Sized], drawn: list[str]) -> str:
    """How many images each split has, and which of them are `drawn`."""
    sizes = ", ".join(f"{split} {len(splits[split])}" for split in SPLITS if split in splits)
    return sizes + (f" ({' and '.join(drawn)} drawn from train)" if drawn else "")


def found_line(data: DatasetDict) -> str:
    """One line: the form in which the data was found, its masks, and the images of each split."""
    return next(iter(data.values())).info.description
