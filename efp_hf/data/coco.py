"""Masks from the polygons or run-length codes of a COCO file, which Label Studio, CVAT and others export."""

import hashlib
import json
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ..extras import needing
from ..lesion.structures import LESION
from .classes import BACKGROUND_NAMES, check_names
from .files import write_atomically
from .found import Found, cache_folder
from .names import listed
from .overlap import check_label_names
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


def find_coco(root: Path, files: list[Path], labels_overlap: bool = False) -> Found:
    """
    The masks are drawn once into the cache. The categories of the annotations are the classes, in the order of their
    numbers; one alone that is called lesion is what a class without a name is taken for. Where `labels_overlap` each
    has a mask of its own.

    Raises:
        ValueError: a file that is no COCO file or damaged, two of a split, or categories of other numbers in one split
            than in another; where `labels_overlap`, names as of [`check_label_names`].
    """
    found = Found(f"COCO, {' and '.join(path.name for path in files)}", {})
    there = {}
    for path in image_files(root):
        there.setdefault(path.name, []).append(path)
    files_of_splits = table_of_split(files, lambda path: split_name(root, path))
    contents = {path: read_coco(path) for path in files_of_splits.values()}
    categories = categories_of(contents)
    named = tuple(categories.values())
    if labels_overlap:
        found.labels = named
        check_label_names(found.labels, str(next(iter(contents))))
    else:
        found.classes = () if named == (LESION,) else named
    for split, path in files_of_splits.items():
        try:
            add_images(found, split or "train", path, contents[path], there, list(categories))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise damaged(path, error) from error
    found.notes += unlisted(root, found, files)
    if (root / "metadata.csv").is_file() and "isic_id" in columns_of(root / "metadata.csv"):
        found.groups = read_groups(root / "metadata.csv")
    return found


def split_name(root: Path, path: Path) -> str:
    """Of `instances_val2017.json` or `valid/_annotations.coco.json` the word that names a split, or nothing."""
    words = re.findall("[a-z]+", str(path.relative_to(root).with_suffix("")).lower())
    return next((word for word in words if word in SPLIT_NAMES), "")


def read_coco(path: Path) -> COCO:
    if not is_coco(path):
        raise ValueError(f"{path} must be a COCO file with {', '.join(KEYS)}. Export it as COCO.")
    try:
        with redirect_stdout(StringIO()):  # it says how long it takes
            coco = COCO(path)
        check_content(coco, path)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise damaged(path, error) from error
    return coco


def damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: the file is damaged ({type(error).__name__}: {error}). Export it again.")


def categories_of(contents: dict[Path, COCO]) -> dict[int, str]:
    """
    Number → name of the categories that annotations have, by their numbers. One called background is none.

    Raises:
        ValueError: a number that has two names, or names as of [`check_names`].
    """
    categories = {}
    for path, coco in contents.items():
        used = {annotation["category_id"] for annotation in coco.dataset["annotations"]}
        for number in used & coco.cats.keys():
            name = str(coco.cats[number]["name"])
            if categories.setdefault(number, name) != name:
                raise ValueError(
                    f"{path}: the category {number} must be {categories[number]!r}, as in the other file, "
                    f"got {name!r}. Export both together."
                )
    names = {number: categories[number] for number in sorted(categories)}
    names = {number: name for number, name in names.items() if name.lower() not in BACKGROUND_NAMES}
    check_names(names.values(), str(next(iter(contents))))
    return names


def add_images(
    found: Found, split: str, path: Path, coco: COCO, there: dict[str, list[Path]], categories: list[int]
) -> None:
    pairs = found.pairs.setdefault(split, [])
    several = len(categories) > 1 and not found.labels
    version = ["v3", *categories] if found.labels else ["v2", *categories] if several else ["v1"]
    key = hashlib.sha256(json.dumps([*file_state(path), *version]).encode()).hexdigest()[:24]
    folder = cache_folder() / "coco" / key
    folder.mkdir(parents=True, exist_ok=True)
    no_area = "a box alone, or a polygon or run-length code that is none"
    overlapping = []
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
            if several and overlap(coco, annotations):
                overlapping.append(str(name))
            if found.labels:
                masks = draw_masks(coco, annotations, folder, place, categories)
            else:
                masks = folder / f"{place}.png"
                if not masks.exists():
                    draw_mask(coco, annotations, masks, categories)
            pairs.append((name.stem, files[0], masks))
    pairs.sort()
    if overlapping:
        found.notes.append(
            f"{path}: areas of two classes overlap in {len(overlapping)} images, and the smaller one counts there: "
            f"{listed(overlapping)}. With --labels-overlap each has a mask of its own."
        )
    others = [place.name for paths in there.values() for place in paths]
    hints = {"no file": f", and there is {listed(others, 3)}" if others else ""}
    found.problems += [
        f"{path}: {len(names)} images have {what}: {listed(names)}{hints.get(what, '')}. Mend or remove them."
        for what, names in wrong.items()
        if names
    ]


def check_content(coco: COCO, path: Path) -> None:
    """
    Raises:
        ValueError: two images of one number, annotations of no image, or of a category that has no name.
    """
    for annotation in coco.dataset["annotations"]:
        coco.cats[annotation["category_id"]]["name"]  # a KeyError says that it is not there
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


def draw_mask(coco: COCO, annotations: list[dict], path: Path, categories: list[int]) -> None:
    """Of one category 0 and 255; of several 1, 2, … in the order of `categories`, the smaller areas on top."""
    areas = [(annotation["category_id"], coco.annToMask(annotation).astype(bool)) for annotation in annotations]
    labels = np.zeros(areas[0][1].shape, np.uint8)
    numbers = {category: 255 if len(categories) == 1 else place for place, category in enumerate(categories, start=1)}
    for category, area in sorted(areas, key=lambda found: -np.count_nonzero(found[1])):
        labels[area] = numbers.get(category, 0)  # 0: an area that was drawn as background
    write_atomically(path, lambda partial: Image.fromarray(labels).save(partial, "PNG"))


def draw_masks(
    coco: COCO, annotations: list[dict], folder: Path, place: int, categories: list[int]
) -> tuple[Path | None, ...]:
    """
    A mask of 0 and 255 for each of the `categories` that an image has; of an image that has none of them, whose
    annotations are of the background, empty ones for all.
    """
    masks = []
    there = {annotation["category_id"] for annotation in annotations}
    for number, category in enumerate(categories):
        mask = folder / f"{place}-{number}.png"
        if category not in there and there & set(categories):
            masks.append(None)
            continue
        if not mask.exists():
            of_others = [annotation for annotation in annotations if annotation["category_id"] != category]
            of_label = [annotation for annotation in annotations if annotation["category_id"] == category]
            draw_mask(coco, of_label or of_others, mask, [category])
        masks.append(mask)
    return tuple(masks)


def overlap(coco: COCO, annotations: list[dict]) -> bool:
    """Whether areas of two categories have a pixel in common."""
    of_category = {}
    for annotation in annotations:
        area = coco.annToMask(annotation)
        number = annotation["category_id"]
        of_category[number] = area | of_category.get(number, 0)
    return bool(sum(area.astype(int) for area in of_category.values()).max() > 1) if len(of_category) > 1 else False
