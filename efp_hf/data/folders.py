"""Lesion images and masks in folders, the challenge's or one's own, as a `DatasetDict`."""

import os
from pathlib import Path

from ..extras import needing
from .classes import read_classes
from .found import Found, load_found
from .names import holds_images, listed, match_folders, match_label_folders
from .overlap import check_label_names, label_folders
from .split import read_groups
from .structures import add_structures

with needing("train", __name__):
    from datasets import DatasetDict

FOLDERS = {
    "train": ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
    "validation": ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
    "test": ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
}
OWN_FOLDERS = ("images", "masks")
TASKS = ("lesion", "structures")


def load_isic(
    root: str | Path,
    seed: int = 0,
    max_side: int | None = 512,
    cache_dir: str | Path | None = None,
    task: str = "lesion",
) -> DatasetDict:
    """
    Image and mask pairs of the splits train, validation and test.

    `root` holds the folders of the official archives (`ISIC2018_Task1-2_Training_Input`,
    `ISIC2018_Task1_Training_GroundTruth` and, where present, the same of Validation and Test), or `images` and `masks`
    with the masks named as one of `MASK_NAMES`. Splits that have no folder are drawn from the training
    folder: 70/10/20, seeded, with no patient, lesion (`metadata.csv`: `isic_id`, `patient_id`, `lesion_id`) or
    near-duplicate image on two sides.

    Every file is read and checked once. What is larger than `max_side` is decoded at reduced scale and kept in the
    cache; later calls only look at sizes and times.

    Args:
        root: the folder.
        seed: of the drawn split.
        max_side: longest side in pixels of the images and masks that the dataset gives; `None` for their own size.
        cache_dir: default: `efp_hf` in the cache folder of `datasets`.
        task: "structures" for labels that overlap: the lesion and those of the folders
            `ISIC2018_Task2_Training_GroundTruth_v3` and, where present, those of Validation and Test
            ([`add_structures`]); the split is that of "lesion".

    Returns:
        `DatasetDict` of `image` (RGB), `mask` (grey, 0 and 255), `image_id`; with `classes.txt`, and where labels
        overlap, as `load_lesions`.

    Raises:
        FileNotFoundError: a missing folder or file, or no image.
        ValueError: by name: a missing or doubled mask, a damaged file, a mask of another size than its image or with
            values that [`read_labels`] does not take. Of several pairs all are counted, the first ten named. Masks
            without an image, and images whose damaged JPEG data was repaired, are a warning.
        OSError: the cache cannot be written to.
    """
    if task not in TASKS:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}, got {task!r}.")
    root = Path(os.path.expanduser(root)).absolute()  # where there is no such user, the path as it is
    found = find_pairs_of_folders(root)
    if task == "structures":
        found = add_structures(found, root)
    elif not found.labels:
        found.classes = read_classes(root)
    return load_found(found, root.name, seed, max_side, cache_dir)


def find_pairs_of_folders(root: Path) -> Found:
    """The pairs of the folders of [`find_folders`], and the patients and lesions of `metadata.csv`."""
    folders = find_folders(root)
    found = Found("images/ and masks/" if OWN_FOLDERS in folders.values() else "the layout of ISIC 2018", {})
    for split, (images, masks) in folders.items():
        of_labels = label_folders(root / masks) if masks == OWN_FOLDERS[1] else []
        if of_labels:
            found.form, found.labels = "images/ and masks/, a folder a label", tuple(path.name for path in of_labels)
            check_label_names(found.labels, str(root / masks))
            found.add(split, match_label_folders(root / images, of_labels))
        else:
            found.add(split, match_folders(root / images, root / masks))
    if len(folders) < len(FOLDERS):  # a split is drawn
        found.groups = read_groups(root / "metadata.csv")
    return found


def find_folders(root: Path) -> dict[str, tuple[str, str]]:
    """The image and mask folder of each split that `root` has; `train` is always there."""
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder. Pass the one that holds {OWN_FOLDERS[0]}/ and {OWN_FOLDERS[1]}/, "
            f"or {FOLDERS['train'][0]}."
        )
    folders = {split: pair for split, pair in FOLDERS.items() if (root / pair[0]).is_dir()}
    if not folders and (root / OWN_FOLDERS[0]).is_dir():
        folders = {"train": OWN_FOLDERS}
    if "train" not in folders:
        raise FileNotFoundError(
            f"{root}: neither {FOLDERS['train'][0]} nor {OWN_FOLDERS[0]} is there. Unpack the official archives into "
            f"one folder, or put your own files into {OWN_FOLDERS[0]}/ and {OWN_FOLDERS[1]}/."
        )
    for image_folder, mask_folder in folders.values():
        if not (root / mask_folder).is_dir():
            others = [path.name for path in sorted(root.iterdir()) if path.is_dir() and path.name != image_folder]
            others = [f"{name}/" for name in others if holds_images(root / name)]
            raise FileNotFoundError(
                f"{root / mask_folder}: no such folder. It has to hold the masks of {image_folder}."
                + (f" If {listed(others, 3)} does, call it {mask_folder}/." if others else "")
            )
    return folders
