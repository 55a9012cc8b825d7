"""The dermoscopic structures of ISIC 2018, Task 2: masks that overlap each other and the lesion."""

from pathlib import Path

from ..lesion.structures import LABELS, MASK_NAME, STRUCTURES
from .found import Found
from .names import listed

STRUCTURE_FOLDERS = (
    "ISIC2018_Task2_Training_GroundTruth_v3",
    "ISIC2018_Task2_Validation_GroundTruth",
    "ISIC2018_Task2_Test_GroundTruth",
)


def add_structures(lesions: Found, root: Path) -> Found:
    """
    The pairs of Task 1 with the masks of Task 2: of `LABELS`, which overlap.

    Raises:
        FileNotFoundError: no folder of Task 2, or images without the mask of a structure, which the challenge's empty
            masks have.
    """
    folders = [root / name for name in STRUCTURE_FOLDERS if (root / name).is_dir()]
    if not folders:
        raise FileNotFoundError(
            f"{root}: no {STRUCTURE_FOLDERS[0]} is there, whose masks are needed. Unpack the archive of Task 2 there."
        )
    files = {path.name: path for folder in reversed(folders) for path in folder.iterdir()}
    names = {
        image_id: [MASK_NAME.format(image_id, structure) for structure in STRUCTURES]
        for pairs in lesions.pairs.values()
        for image_id, *_ in pairs
    }
    missing = [name for of_image in names.values() for name in of_image if name not in files]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} masks of structures are not in {' or '.join(folder.name for folder in folders)}: "
            f"{listed(missing)}. A structure that an image does not show has an empty mask."
        )
    lesions.labels = LABELS
    for split, pairs in lesions.pairs.items():
        lesions.pairs[split] = [
            (image_id, image, (lesion, *(files[name] for name in names[image_id])), *further)
            for image_id, image, lesion, *further in pairs
        ]
    return lesions
