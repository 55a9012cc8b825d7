"""The names of labels that overlap: the columns of a dataset that hold their masks, and folders, one a label."""

from collections.abc import Mapping
from pathlib import Path

from ..extras import needing
from .channels import further_columns
from .classes import BACKGROUND_NAMES, MAX_CLASSES
from .classes import COLUMN as CLASSES
from .names import holds_images
from .split import GROUP_COLUMNS

with needing("train", __name__):
    from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict, List
    from datasets import Image as ImageFeature

COLUMN = "labels"  # which of them a row shows; its feature names them, and each has a column of masks of its name
# Of images and of single masks; a WebDataset's columns are the endings of its files. The first that is there counts
IMAGE_COLUMNS = ("image", "jpg", "jpeg", "image.jpg", "image.jpeg", "image.png")
MASK_COLUMNS = ("mask", "png", "mask.png")
ID_COLUMNS = ("image_id", "__key__")
TAKEN = (*IMAGE_COLUMNS, *MASK_COLUMNS, *ID_COLUMNS, *GROUP_COLUMNS, COLUMN, CLASSES)


def label_folders(mask_folder: Path) -> list[Path]:
    """The folders, one a label, of a folder that holds the masks of two labels or more, and no mask itself."""
    if holds_images(mask_folder):
        return []
    folders = sorted(path for path in mask_folder.iterdir() if path.is_dir() and holds_images(path))
    return folders if len(folders) > 1 else []


def label_names(
    rows: Dataset | IterableDataset | DatasetDict | IterableDatasetDict, source: str = "data"
) -> tuple[str, ...]:
    """
    The names of the labels that overlap, as the column `labels` has them; or the columns of pictures beside that of the
    image, where there are several and none is a `mask`. None where labels exclude each other.

    Raises:
        ValueError: names as of [`check_label_names`].
    """
    if isinstance(rows, Mapping):
        rows = rows["train"] if "train" in rows else next(iter(rows.values()))
    features = rows.features or {}
    further = further_columns(features)  # of the image
    pictures = [name for name, feature in features.items() if isinstance(feature, ImageFeature) and name not in further]
    feature = getattr(features.get(COLUMN), "feature", None)
    if isinstance(feature, ClassLabel) and feature.names and set(feature.names) <= set(pictures):
        names = feature.names
    elif any(name in features for name in MASK_COLUMNS):
        return ()
    else:
        image = next((name for name in IMAGE_COLUMNS if name in pictures), None)
        names = [name for name in pictures if name != image]
        if image is None or len(names) < 2:
            return ()
    check_label_names(names, source)
    return tuple(names)


def check_label_names(names: list[str] | tuple[str, ...], source: str) -> None:
    """
    Raises:
        ValueError: fewer than two, two that are equal, one that is not printable, cannot be a part of a file's name, or
            is the background's or that of another column; more than `MAX_CLASSES`.
    """
    wrong = [
        name
        for name in names
        if not name.strip() or not name.isprintable() or set(name) & set("/\\") or name.lower() in BACKGROUND_NAMES
    ]
    wrong += [name for name in names if name in TAKEN or names.count(name) > 1]
    if wrong:
        raise ValueError(
            f"{source}: labels that overlap must have names of their own that can be a part of a file's name, got "
            f"{wrong[0]!r}. Rename it."
        )
    if not 2 <= len(names) <= MAX_CLASSES:
        raise ValueError(
            f"{source}: labels that overlap must be 2 to {MAX_CLASSES}, got {len(names)}. One alone is a class: see "
            "docs/data.md."
        )


def features_with_labels(features: Features, labels: tuple[str, ...]) -> Features:
    """The features of rows with a column of masks a label in place of the one mask, and the column `labels`."""
    kept = {name: feature for name, feature in features.items() if name not in MASK_COLUMNS}
    return Features(
        {**kept, **{label: ImageFeature() for label in labels}, COLUMN: List(ClassLabel(names=list(labels)))}
    )
