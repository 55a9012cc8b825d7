"""The dermoscopic structures of ISIC 2018, Task 2: masks that overlap each other and the lesion."""

import hashlib
import json
import os
from pathlib import Path

from PIL import Image
from tqdm.contrib.concurrent import thread_map

from ..extras import needing
from ..image_processing_efp import check_sizes
from ..lesion.structures import MASK_NAME, STRUCTURES
from .files import write_atomically
from .labels import BLACK_AND_WHITE, labels_picture, read_labels
from .names import listed
from .pairs import file_state, reduced_size

with needing("train", __name__):
    from datasets import Dataset, DatasetDict, List, Value
    from datasets import Image as ImageFeature

STRUCTURE_FOLDERS = (
    "ISIC2018_Task2_Training_GroundTruth_v3",
    "ISIC2018_Task2_Validation_GroundTruth",
    "ISIC2018_Task2_Test_GroundTruth",
)
SHARES = "structure_shares"  # column: of the image's pixels, one a structure


def add_structures(data: DatasetDict, root: Path, max_side: int | None, cache: Path) -> DatasetDict:
    """
    The splits of Task 1 with the masks of Task 2: a column of each of `STRUCTURES` (grey, 0 and 255), and `SHARES`.

    Every file is read and checked once. What is larger than `max_side` is reduced as its image is and kept in `cache`.

    Raises:
        FileNotFoundError: no folder of Task 2, or images without the mask of a structure, which the challenge's empty
            masks have.
        ValueError: a mask of another size than its image, damaged, or with other values than 0 and 255.
        OSError: the cache cannot be written to.
    """
    folders = [root / name for name in STRUCTURE_FOLDERS if (root / name).is_dir()]
    if not folders:
        raise FileNotFoundError(
            f"{root}: no {STRUCTURE_FOLDERS[0]} is there, whose masks are needed. Unpack the archive of Task 2 there."
        )
    files = {path.name: path for folder in reversed(folders) for path in folder.iterdir()}
    missing = [
        name
        for split in data
        for image_id in data[split]["image_id"]
        for name in (MASK_NAME.format(image_id, structure) for structure in STRUCTURES)
        if name not in files
    ]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} masks of structures are not in {' or '.join(folder.name for folder in folders)}: "
            f"{listed(missing)}. A structure that an image does not show has an empty mask."
        )
    cache.mkdir(parents=True, exist_ok=True)
    return DatasetDict({split: with_masks(rows, files, max_side, cache) for split, rows in data.items()})


def with_masks(rows: Dataset, files: dict[str, Path], max_side: int | None, cache: Path) -> Dataset:
    """The rows with the columns of [`add_structures`], from the files of masks by their names."""
    lesions = rows.cast_column("mask", ImageFeature(decode=False))

    def read(position: int) -> dict:
        row = lesions[position]
        with Image.open(row["mask"]["path"]) as lesion:
            size = lesion.size[::-1]
        paths = [files[MASK_NAME.format(row["image_id"], structure)] for structure in STRUCTURES]
        return check_masks(paths, row["image_id"], size, max_side, cache)

    entries = thread_map(read, range(len(rows)), max_workers=os.cpu_count(), desc="checking structures", leave=False)
    columns = {structure: [entry["masks"][number] for entry in entries] for number, structure in enumerate(STRUCTURES)}
    for structure, paths in columns.items():
        rows = rows.add_column(structure, paths).cast_column(structure, ImageFeature())
    return rows.add_column(SHARES, [entry["shares"] for entry in entries], feature=List(Value("float32")))


def check_masks(
    paths: list[Path], image_id: str, size: tuple[int, int], max_side: int | None, cache: Path
) -> dict[str, list]:
    """
    The `masks` (files of `size`, (height, width) of the image as the dataset gives it) and `shares` of an image's
    structures, kept in `cache` under the files' names, sizes and times.
    """
    facts = [*map(file_state, paths), size, max_side, "structures v1"]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
    kept = cache / f"{key}.json"
    try:
        entry = json.loads(kept.read_text())
        if all(os.path.isfile(path) for path in entry["masks"]):
            return entry
    except (OSError, ValueError, TypeError, LookupError):
        pass
    entry = {"masks": [], "shares": []}
    for number, path in enumerate(paths):
        labels, values = read_labels(path)
        check_sizes(f"{image_id}, {path.name}", size, reduced_size(labels.shape, max_side))
        if labels.shape != size or values != BLACK_AND_WHITE:
            mask = labels_picture(labels).resize(size[::-1], Image.Resampling.NEAREST)
            path = cache / f"{key}-{number}.png"
            write_atomically(path, lambda partial, mask=mask: mask.save(partial, "PNG"))
        entry["masks"].append(str(path))
        entry["shares"].append(round(float(labels.mean()), 6))
    write_atomically(kept, lambda partial: partial.write_text(json.dumps(entry)))
    return entry
