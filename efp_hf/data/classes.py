"""The names of classes that exclude each other: `classes.txt` of a folder, and the column `classes` of a dataset."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..extras import needing

with needing("train", __name__):
    from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict, List

CLASSES_FILE = "classes.txt"
COLUMN = "classes"  # the labels that a row's mask holds; its feature names them
BACKGROUND = "background"
BACKGROUND_NAMES = (BACKGROUND, "_background_")  # LabelMe writes the second
NO_CLASS = "__ignore__"  # LabelMe's first line
MAX_CLASSES = 253  # labels of 8 bits, without the background, the ignored pixels' 255, and 254


def read_classes(root: Path) -> tuple[str, ...]:
    """
    The names of the labels 1..K from `classes.txt` of a folder, one a line; none where there is no such file. A first
    line `background` names the label 0.

    Raises:
        ValueError: no text in UTF-8, no name, or names as of [`check_names`].
    """
    path = root / CLASSES_FILE
    if not path.is_file():
        return ()
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8, got {error}. Save it again.") from error
    names = [line for line in lines if line and line != NO_CLASS]
    if names and names[0].lower() in BACKGROUND_NAMES:
        names = names[1:]
    if not names:
        raise ValueError(f"{path} must name a class a line, got none. Write the name of label 1, then of 2, ….")
    check_names(names, str(path))
    return tuple(names)


def check_names(names: Iterable[str], source: str) -> None:
    """
    Raises:
        ValueError: two equal names, one of the background, one that is not printable, or more than `MAX_CLASSES`.
    """
    names = list(names)
    wrong = [name for name in names if not name.isprintable() or not name.strip() or name.lower() in BACKGROUND_NAMES]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if wrong or doubled:
        raise ValueError(f"{source}: classes must have names of their own, got {(wrong or doubled)[0]!r}. Rename it.")
    if len(names) > MAX_CLASSES:
        raise ValueError(f"{source}: there must be at most {MAX_CLASSES} classes, got {len(names)}. Join some.")


def classes_feature(classes: tuple[str, ...]) -> List:
    return List(ClassLabel(names=[BACKGROUND, *classes]))


def features_with_classes(features: Features, classes: tuple[str, ...]) -> Features:
    """Features of rows with the column `classes`, where classes are named."""
    return Features({**features, COLUMN: classes_feature(classes)}) if classes else features


def class_names(
    rows: Dataset | IterableDataset | DatasetDict | IterableDatasetDict, source: str = "data"
) -> tuple[str, ...]:
    """
    The names of the labels 1..K of a dataset's masks, as its column `classes` has them; none where nobody named them,
    and a mask then holds one class, the lesion.

    Raises:
        ValueError: names as of [`check_names`]; another first name than the background's.
    """
    if isinstance(rows, Mapping):
        rows = rows["train"] if "train" in rows else next(iter(rows.values()))
    feature = getattr((rows.features or {}).get(COLUMN), "feature", None)
    if not isinstance(feature, ClassLabel):
        return ()
    background, *names = feature.names
    if background.lower() not in BACKGROUND_NAMES or not names:
        raise ValueError(
            f"{source}: the names of the column `{COLUMN}` must begin with {BACKGROUND}, then name a class, "
            f"got {', '.join(feature.names[:5])}. Rename them."
        )
    check_names(names, source)
    return tuple(names)
