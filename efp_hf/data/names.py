"""Which mask belongs to which image, by the names of their files."""

from dataclasses import dataclass
from pathlib import Path

from .channels import ARRAY_SUFFIX, join_files
from .files import IMAGE_SUFFIXES, is_image_file

# of a mask, where the image is `<id>.jpg`
MASK_NAMES = ("{}", "{}_segmentation", "{}_mask", "{}_gt", "mask_{}")
NAMES_BESIDE = MASK_NAMES[1:]  # in the same folder
# image_id, image file, mask file, and further files of the image; of labels that overlap a tuple of mask files, `None`
# where a label is not there
Pair = tuple
Files = dict[str, list[Path]]  # by their names without ending


@dataclass
class Matched:
    """Pairs by their names alone: no file is read yet."""

    pairs: list[Pair]  # sorted by id
    problems: list[str]  # sentences for which a folder is refused
    notes: list[str]  # sentences of what is left out


def match_folders(image_folder: Path, mask_folder: Path) -> Matched:
    """
    The images of a folder with their masks in another. An image's id is its file's name without the ending.

    Raises:
        FileNotFoundError: no image in the folder.
        ValueError: file names that are not UTF-8.
    """
    images, masks = images_of(image_folder), files_by_stem(mask_folder)
    found, strays = match(images, masks, MASK_NAMES, mask_folder)
    found.notes += stray_masks(strays, mask_folder, image_folder)
    found.notes += [note for folder in (image_folder, mask_folder) for note in deeper_images(folder)]
    return found


def match_label_folders(image_folder: Path, label_folders: list[Path]) -> Matched:
    """
    The images of a folder with their masks of labels that overlap, of a folder a label. An image without a mask in one
    of them does not show that label; one without any is a problem. Errors as of [`match_folders`].
    """
    images = images_of(image_folder)
    found = Matched([], [], deeper_images(image_folder))
    masks_of = []
    for folder in label_folders:
        masks, problems, strays = masks_of_images(images, files_by_stem(folder), MASK_NAMES)
        masks_of.append(masks)
        found.problems += [problem for problem in problems if problem not in found.problems]
        found.notes += stray_masks(strays, folder, image_folder) + deeper_images(folder)
    for name, paths in images.items():
        masks = tuple(masks[name][0] if name in masks else None for masks in masks_of)
        found.pairs.append((name, paths[0], masks))
    without_mask = [name for name, _, masks in found.pairs if not any(masks)]
    if without_mask:
        found.problems.append(
            f"{len(without_mask)} images have a mask in none of {', '.join(folder.name for folder in label_folders)}: "
            f"{listed(without_mask)}. Add the masks, an empty one where an image shows no label, or remove the images."
        )
    return found


def images_of(folder: Path) -> Files:
    """[`files_by_stem`] of a folder that must hold images."""
    images = files_by_stem(folder)
    if not images:
        there = listed(sorted(path.name + "/" * path.is_dir() for path in folder.iterdir()), 3) or "nothing"
        raise FileNotFoundError(
            f"{folder}: no image in the folder ({', '.join(IMAGE_SUFFIXES)}), got {there}. "
            "Put them there as PNG or JPEG, or list those of other folders in a CSV of image, mask and split."
        )
    return images


def stray_masks(strays: list[str], mask_folder: Path, image_folder: Path) -> list[str]:
    """A note, where masks belong to no image."""
    if not strays:
        return []
    return [f"{len(strays)} masks of {mask_folder} have no image in {image_folder} and are left out: {listed(strays)}."]


def find_pairs(image_folder: Path, mask_folder: Path) -> list[Pair]:
    """The pairs of [`match_folders`]; what it calls a problem is a `ValueError` here."""
    found = match_folders(image_folder, mask_folder)
    if found.problems:
        raise ValueError(found.problems[0])
    return found.pairs


def match_side_by_side(folder: Path) -> Matched:
    """
    The pairs of one folder, `a.jpg` and `a_mask.png`: what is named as a mask is one. Errors as of [`match_folders`].
    """
    files = files_by_stem(folder)
    masks = {stem: paths for stem, paths in files.items() if possible_ids(stem, NAMES_BESIDE)}
    images = {stem: paths for stem, paths in files.items() if stem not in masks}
    found, strays = match(images, masks, NAMES_BESIDE, folder)
    if strays:  # they may be images as well: not left out
        found.problems.append(f"{folder}: {len(strays)} files are named as masks of no image: {listed(strays)}.")
    found.notes += deeper_images(folder)
    return found


def has_side_by_side(folder: Path) -> bool:
    """Whether one of the image files of a folder is named as the mask of another one."""
    stems = {path.stem for path in folder.iterdir() if is_image_file(path)}
    return any(image_id in stems for stem in stems for image_id in possible_ids(stem, NAMES_BESIDE))


def match(images: Files, masks: Files, names: tuple[str, ...], mask_folder: Path) -> tuple[Matched, list[str]]:
    """What belongs together, and the names of the mask files that belong to no image."""
    masks_of, problems, strays = masks_of_images(images, masks, names)
    # an image without a mask that is called as a further one of another image is a further one
    further = {name: [stem for stem in stems if stem not in masks_of] for name, stems in join_files(images).items()}
    further = {name: stems for name, stems in further.items() if name in masks_of}
    further_files = {name: [path for stem in stems for path in images[stem]] for name, stems in further.items()}
    joined = {stem for stems in further.values() for stem in stems}
    without_mask = [name for name in images if name not in masks_of and name not in joined]
    if without_mask:
        problems.append(
            f"{len(without_mask)} images have no mask in {mask_folder}: {listed(without_mask)}. Add the masks or "
            f"remove the images. The mask of {without_mask[0]} would be {mask_names(without_mask[0], names)}"
            + (f", and there is {listed(strays, 3)}." if strays else ".")
        )
    pairs = [
        (name, images[name][0], masks_of[name][0], *further_files.get(name, ())) for name in images if name in masks_of
    ]
    return Matched(pairs, problems, []), strays


def masks_of_images(images: Files, masks: Files, names: tuple[str, ...]) -> tuple[Files, list[str], list[str]]:
    """The masks of each image that has one, problems, and the names of the mask files that belong to no image."""
    problems, strays, masks_of = [], [], {}
    for stem, paths in masks.items():
        ids = [image_id for image_id in possible_ids(stem, names) if image_id in images]
        if len(ids) > 1:
            problems.append(f"{paths[0].name} may be the mask of {' or of '.join(ids)}. Rename it.")
        if ids:
            masks_of.setdefault(ids[0], []).extend(paths)
        else:
            strays += [path.name for path in paths]
    for kind, files in (("images", images), ("masks", masks_of)):
        doubled = [name for name, paths in files.items() if len(paths) > 1]
        if doubled:
            first, second, *_ = files[doubled[0]]
            others = f" So it is with {listed(doubled[1:])}." if doubled[1:] else ""
            problems.append(f"{doubled[0]}: two {kind}, {first.name} and {second.name}. Remove one.{others}")
    return masks_of, problems, strays


def mask_names(image_id: str, names: tuple[str, ...] = MASK_NAMES) -> str:
    """What the mask of an image may be called, in words."""
    *others, last = (f"{name.format(image_id)}.png" for name in names)
    return f"{', '.join(others)} or {last}"


def deeper_images(folder: Path) -> list[str]:
    """A note, where folders of this one hold images, which nobody reads."""
    deeper = sorted(path.name for path in folder.iterdir() if path.is_dir() and holds_images(path))
    return [f"The images in folders of {folder} are left out: {listed(deeper)}."] if deeper else []


def possible_ids(stem: str, names: tuple[str, ...]) -> list[str]:
    """The ids of the images whose mask a file of this name may be."""
    ids = []
    for name in names:
        before, after = name.split("{}")
        if stem.startswith(before) and stem.endswith(after) and len(stem) > len(before) + len(after):
            ids.append(stem[len(before) : len(stem) - len(after)])
    return ids


def files_by_stem(folder: Path) -> Files:
    """The image files of a folder, sorted, by their names without ending; arrays where there are none."""
    files = {}
    for path in images_in(folder):
        files.setdefault(path.stem, []).append(path)
    unreadable = [ascii(paths[0].name) for paths in files.values() if not is_utf8(paths[0])]
    if unreadable:
        raise ValueError(f"{folder}: file names must be UTF-8, got {listed(unreadable)}. Rename them.")
    return files


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, sorted; `.npy` files where there are none."""
    paths = sorted(path for path in folder.iterdir() if not path.is_dir() and not path.name.startswith("."))
    arrays = [path for path in paths if path.suffix.lower() == ARRAY_SUFFIX]
    return [path for path in paths if is_image_file(path)] or arrays


def holds_images(folder: Path) -> bool:
    return any(is_image_file(path) and not path.is_dir() for path in folder.iterdir())


def is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def listed(names: list[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")
