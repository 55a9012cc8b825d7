"""The forms in which people keep images and masks, and which of them a path is in."""

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ..extras import needing
from .coco import coco_files, find_coco
from .files import is_image_file
from .folders import FOLDERS, OWN_FOLDERS, find_folders, find_pairs_of_folders
from .found import Found
from .hub import holds_shards, load_splits
from .names import has_side_by_side, listed, mask_names, match_side_by_side
from .split import read_groups
from .structures import add_structures
from .tables import METADATA, columns_of, find_imagefolder, find_paths, imagefolder_tables, path_tables

with needing("train", __name__):
    from datasets import Dataset, DatasetDict, load_from_disk

MOST_PATHS = 20_000  # of a folder that is looked through for what it holds
VOLUME_SUFFIXES = (".dcm", ".dicom", ".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
SAVED_FILES = ("dataset_dict.json", "state.json")  # of `save_to_disk`


class Form(NamedTuple):
    """One way to keep images and masks."""

    name: str
    marks: Callable[[Path], list[Path]]  # the files and folders that show that a folder is in this form
    find: Callable[[Path, list[Path], bool], Found | Dataset | DatasetDict]  # the last: whether labels overlap


def there(root: Path, *names: str) -> list[Path]:
    """These folders, if all are there."""
    paths = [root / name for name in names]
    return paths if all(path.is_dir() for path in paths) else []


def find_side_by_side(root: Path) -> Found:
    found = Found("pairs side by side", {}, groups=read_groups(root / "metadata.csv"))
    found.add("train", match_side_by_side(root))
    return found


FORMS = (
    Form(
        "the layout of ISIC 2018",
        lambda root: there(root, FOLDERS["train"][0]),
        lambda root, _, overlap: (
            add_structures(find_pairs_of_folders(root), root) if overlap else find_pairs_of_folders(root)
        ),
    ),
    Form("images/ and masks/", lambda root: there(root, *OWN_FOLDERS), lambda root, *_: find_pairs_of_folders(root)),
    Form(
        "pairs side by side",
        lambda root: [root] if has_side_by_side(root) else [],
        lambda root, *_: find_side_by_side(root),
    ),
    Form("imagefolder", imagefolder_tables, lambda root, marks, _: find_imagefolder(root, marks)),
    Form("COCO", coco_files, find_coco),
    Form("a CSV of paths", path_tables, lambda root, marks, _: find_paths(root, marks)),
    Form(
        "a saved dataset",
        lambda root: [root / name for name in SAVED_FILES if (root / name).is_file()],
        lambda root, *_: load_from_disk(str(root)),
    ),
    Form("shards", lambda root: [root] if holds_shards(root) else [], lambda root, *_: load_splits(str(root))),
)
FORM_OF_FILE = {".json": "COCO", ".jsonl": "imagefolder", ".csv": "a CSV of paths"}


def find_form(path: Path, labels_overlap: bool = False) -> tuple[str, Found | Dataset | DatasetDict]:
    """
    The form of a folder, or of a file that lists images, and what is in it.

    Raises:
        FileNotFoundError: nothing there, or no form that fits.
        ValueError: two forms that fit; as the finder of the form.
    """
    forms = {form.name: form for form in FORMS}
    if path.is_file():
        form = forms.get(FORM_OF_FILE.get(path.suffix.lower(), ""))
        if form is None:
            raise ValueError(f"{path} must be a folder, or a file of {', '.join(FORM_OF_FILE)}. Pass the folder.")
        root = path.parent.parent if path.parent.name == "annotations" else path.parent
        if path in imagefolder_tables(root):
            form = forms["imagefolder"]
        elif form.name == "imagefolder":
            raise ValueError(f"{path} must be called metadata.jsonl, as `datasets` wants it. Rename it.")
        return form.name, form.find(root, [path], labels_overlap)
    if not path.is_dir():
        find_folders(path)  # says that it is not there
    fitting = {form: marks for form in FORMS if (marks := form.marks(path))}
    if len(fitting) > 1:
        shown = [f"{form.name} ({', '.join(mark.name for mark in marks[:3])})" for form, marks in fitting.items()]
        files = [mark for marks in fitting.values() for mark in marks if mark.is_file()]
        way = f"Pass the file that is meant, as {files[0]}, or move one away" if files else "Move one of them away"
        raise ValueError(f"{path}: two forms fit, {' and '.join(shown)}. {way}.")
    for form, marks in fitting.items():
        return form.name, form.find(path, marks, labels_overlap)
    raise FileNotFoundError(no_form(path))


def no_form(root: Path) -> str:
    """What is there, and what it would have to be."""
    if (root / OWN_FOLDERS[0]).is_dir():
        find_folders(root)  # says that the masks are not there
    found = match_side_by_side(root)
    listings = [path for path in root.iterdir() if path.suffix in (".json", ".csv") and path.name not in METADATA]
    if found.problems and not listings:
        return found.problems[0]
    inside = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    return f"{root}: no form of images and masks, got {', '.join(inside[:5]) or 'an empty folder'}. {way_of(root)}"


def way_of(root: Path) -> str:
    """What to do with a folder of no form: its files that are in the way, and the names that would be read."""
    paths = sorted(path for path in islice(root.rglob("*"), MOST_PATHS) if not path.is_dir())
    volumes = [path.name for path in paths if path.name.lower().endswith(VOLUME_SUFFIXES)]
    if volumes:
        return (
            f"DICOM files and volumes are not read: {listed(volumes, 3)}. Save each slice as an 8-bit PNG in images/, "
            "and its mask under the same name in masks/."
        )
    folders = {}
    for path in paths:
        if is_image_file(path):
            folders.setdefault(path.parent.relative_to(root), []).append(path.name)
    shown = [f"{folder}/ ({names[0]}, …)" for folder, names in folders.items()]
    if len(folders) == 2 and all(len(folder.parts) == 1 for folder in folders):
        first = min((Path(names[0]).stem for names in folders.values()), key=len)
        return (
            f"If {' and '.join(shown)} are photos and masks, call these folders images/ and masks/. "
            f"The mask of {first} would be {mask_names(first)}."
        )
    tables = [path for path in paths if path.suffix == ".csv" and path.name not in METADATA]
    tables = [f"{path.name} ({', '.join(columns_of(path)[:5])})" for path in tables]
    if tables:
        return f"A CSV of paths must have the columns image and mask, got {listed(tables, 3)}. Rename them."
    listings = [path for path in paths if path.suffix == ".json"]
    if listings:
        return f"Its JSON files are not COCO: {listed([path.name for path in listings], 3)}. Export them as COCO" + (
            ", of LabelMe with its labelme2coco.py." if is_labelme(listings[0]) else "."
        )
    if len(folders) > 1:
        return (
            f"Images are in {listed(shown, 4)}. Put photos and masks into images/ and masks/, or list the pairs in a "
            "CSV of image, mask and split, as docs/data.md shows."
        )
    return "Put your files into images/ and masks/, or see docs/data.md for other forms."


def is_labelme(path: Path) -> bool:
    """Whether a JSON file is of LabelMe, which writes one an image."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "shapes" in content
