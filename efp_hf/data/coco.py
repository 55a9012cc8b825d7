"""Masks from the polygons or run-length codes of a COCO file, which Label Studio, CVAT and others export."""

import hashlib
import json
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path, PurePosixPath

from PIL import Image

from ..extras import needing
from .files import write_atomically
from .found import Found, cache_folder
from .names import listed
from .pairs import file_state
from .split import SPLIT_NAMES, read_groups
from .tables import columns_of, image_files, table_of_split, unlisted

with needing("train", __name__):
    from pycocotools.coco import COCO

KEYS = ("images", "annotations", "categories")
MOST_FILES = 10  # more JSON files in a folder are LabelMe's own, one an image


def coco_files(root: Path) -> list[Path]:
    """The COCO files of a folder, of its `annotations`, or of its folders `train`, `valid` and `test`."""
    folders = [root, root / "annotations", *(root / name for name in SPLIT_NAMES)]
    files = [sorted(folder.glob("*.json")) for folder in folders if folder.is_dir()]
    return [path for paths in files if len(paths) <= MOST_FILES for path in paths if is_coco(path)]


def is_coco(path: Path) -> bool:
    try:
        content = json.loads(path.read_bytes()) if path.is_file() else None  # opening a pipe would wait for ever
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in KEYS)


def find_coco(root: Path, files: list[Path]) -> Found:
    """
    The masks are drawn once into the cache.

    Raises:
        ValueError: a file that is no COCO file or damaged, two of a split, or annotations of several categories.
    """
    found = Found(f"COCO, {' and '.join(path.name for path in files)}", {})
    there = {}
    for path in image_files(root):
        there.setdefault(path.name, []).append(path)
    for split, path in table_of_split(files, lambda path: split_name(root, path)).items():
        try:
            add_images(found, split or "train", path, there)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(
                f"{path}: the file is damaged ({type(error).__name__}: {error}). Export it again."
            ) from error
    found.notes += unlisted(root, found, files)
    if (root / "metadata.csv").is_file() and "isic_id" in columns_of(root / "metadata.csv"):
        found.groups = read_groups(root / "metadata.csv")
    return found


def split_name(root: Path, path: Path) -> str:
    """Of `instances_val2017.json` or `valid/_annotations.coco.json` the word that names a split, or nothing."""
    words = re.findall("[a-z]+", str(path.relative_to(root).with_suffix("")).lower())
    return next((word for word in words if word in SPLIT_NAMES), "")


def add_images(found: Found, split: str, path: Path, there: dict[str, list[Path]]) -> None:
    if not is_coco(path):
        raise ValueError(f"{path} must be a COCO file with {', '.join(KEYS)}. Export it as COCO.")
    with redirect_stdout(StringIO()):  # it says how long it takes
        coco = COCO(path)
    check_content(coco, path)
    pairs = found.pairs.setdefault(split, [])
    key = hashlib.sha256(json.dumps([*file_state(path), "v1"]).encode()).hexdigest()[:24]
    folder = cache_folder() / "coco" / key
    folder.mkdir(parents=True, exist_ok=True)
    no_area = "a box alone, or a polygon or run-length code that is none"
    wrong = {"no file": [], "several files": [], "no annotation": [], no_area: []}
    for place, (number, image) in enumerate(sorted(coco.imgs.items())):
        name = PurePosixPath(str(image["file_name"]).replace("\\", "/"))
        files = [file for file in there.get(name.name, []) if is_at(file, name)]
        annotations = coco.imgToAnns.get(number, [])
        if len(files) != 1:
            wrong["several files" if files else "no file"].append(str(name))
        elif not annotations:
            wrong["no annotation"].append(str(name))
        elif not all(is_area(annotation.get("segmentation"), image) for annotation in annotations):
            wrong[no_area].append(str(name))
        else:
            mask = folder / f"{place}.png"
            if not mask.exists():
                draw_mask(coco, annotations, mask)
            pairs.append((name.stem, files[0], mask))
    pairs.sort()
    found.problems += [
        f"{path}: {len(names)} images have {what}: {listed(names)}. Mend or remove them."
        for what, names in wrong.items()
        if names
    ]


def check_content(coco: COCO, path: Path) -> None:
    """
    Raises:
        ValueError: two images of one number, annotations of no image, or of several categories: of these nobody knows
            which the lesion is.
    """
    used = {annotation["category_id"] for annotation in coco.dataset["annotations"]}
    names = [str(coco.cats[number]["name"]) for number in sorted(used)]
    if len(names) > 1:
        raise ValueError(
            f"{path}: the annotations must be of one category, got {listed(names)}. Export that of the lesion alone."
        )
    if len(coco.imgs) < len(coco.dataset["images"]):
        raise ValueError(f"{path}: two images have the same `id`. Export it again.")
    if strays := [str(number) for number in coco.imgToAnns if number not in coco.imgs]:
        raise ValueError(f"{path}: annotations are of images that are not in it: {listed(strays)}. Export it again.")


def is_at(file: Path, name: PurePosixPath) -> bool:
    """Whether a file's path ends in a name with its folders; those of another machine are left out."""
    is_elsewhere = name.is_absolute() or ".." in name.parts or ":" in name.parts[0]
    parts = name.parts[-1:] if is_elsewhere else name.parts
    return file.parts[-len(parts) :] == parts


def is_area(segmentation, image: dict) -> bool:
    """
    A run-length code of the image's size, or polygons of three points or more: pycocotools would take two for a box.
    """
    if isinstance(segmentation, dict):
        size, counts = [image["height"], image["width"]], segmentation["counts"]
        return list(segmentation["size"]) == size and (isinstance(counts, str) or sum(counts) == size[0] * size[1])
    return bool(segmentation) and all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in segmentation)


def draw_mask(coco: COCO, annotations: list[dict], path: Path) -> None:
    mask = coco.annToMask(annotations[0])
    for annotation in annotations[1:]:
        mask |= coco.annToMask(annotation)
    write_atomically(path, lambda partial: Image.fromarray(mask * 255).save(partial, "PNG"))
