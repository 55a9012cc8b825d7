"""Pairs of an image file and its mask file: found in two folders, checked, and reduced once."""

import hashlib
import json
import logging
import os
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.contrib.concurrent import thread_map

from ..extras import needing
from ..image_processing_efp import check_sizes
from .duplicates import HASHED_SIDE, perceptual_hash
from .files import IMAGE_SUFFIXES, REPAIRED, is_image_file, read_image, read_mask, read_sized_image, write_atomically

with needing("train", __name__):
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

logger = logging.getLogger(__name__)
FEATURES = Features({"image": ImageFeature(), "mask": ImageFeature(), "image_id": Value("string")})


def find_pairs(image_folder: Path, mask_folder: Path) -> list[tuple[str, Path, Path]]:
    """
    (image_id, image file, mask file), sorted by id. The id is the image's file name without its ending.

    Raises:
        FileNotFoundError: no image in the folder.
        ValueError: with the ids: two images or masks of one, images without a mask, file names that are not UTF-8.
    """
    images = group_by_id(image_folder)
    if not images:
        raise FileNotFoundError(f"{image_folder}: no image in the folder ({', '.join(IMAGE_SUFFIXES)}).")
    masks = group_by_id(mask_folder, "_segmentation")
    for kind, files in (("images", images), ("masks", {name: masks[name] for name in images if name in masks})):
        doubled = [name for name, paths in files.items() if len(paths) > 1]
        if doubled:
            first, second, *_ = files[doubled[0]]
            others = f" So it is with {listed(doubled[1:])}." if doubled[1:] else ""
            raise ValueError(f"{doubled[0]}: two {kind}, {first.name} and {second.name}. Remove one.{others}")
    without_mask = [name for name in images if name not in masks]
    if without_mask:
        raise ValueError(
            f"{len(without_mask)} images have no mask in {mask_folder}: {listed(without_mask)}. "
            "Add the masks or remove the images."
        )
    without_image = [name for name in masks if name not in images]
    if without_image:
        logger.warning(
            "%d masks of %s have no image in %s and are left out: %s.",
            len(without_image),
            mask_folder,
            image_folder,
            listed(without_image),
        )
    return [(name, images[name][0], masks[name][0]) for name in images]


def group_by_id(folder: Path, suffix: str = "") -> dict[str, list[Path]]:
    """Image id → its files in a folder, sorted; `suffix` is what may follow the id in a file's name."""
    files = {}
    for path in sorted(path for path in folder.iterdir() if is_image_file(path) and not path.is_dir()):
        files.setdefault(path.stem.removesuffix(suffix), []).append(path)
    unreadable = [ascii(paths[0].name) for paths in files.values() if not is_utf8(paths[0])]
    if unreadable:
        raise ValueError(f"{folder}: file names must be UTF-8, got {listed(unreadable)}. Rename them.")
    return files


def is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def listed(names: list[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")


def check_and_cache(pairs: list[tuple[str, Path, Path]], max_side: int | None, cache: Path) -> list[dict]:
    """
    One entry a pair: `image_id`, `image` and `mask` (files at most `max_side` large), `hash`.

    Entries are kept in `cache` under the files' names, sizes and times, so that a pair is read once, also when the run
    before was stopped half-way.

    Raises:
        FileNotFoundError, ValueError: pairs that cannot be used: all are named, and why of the first.
        OSError: the cache cannot be written to.
    """

    def check(pair: tuple[str, Path, Path]) -> dict | FileNotFoundError | ValueError:
        image_id, image_path, mask_path = pair
        try:
            key = hashlib.sha256(json.dumps([*map(file_state, pair[1:]), max_side, "v4"]).encode()).hexdigest()[:24]
            entry = read_entry(cache / f"{key}.json")
            if entry is None:
                entry = check_pair(image_path, mask_path, max_side, cache / key)
                entry["bytes"] = [os.stat(entry[name]).st_size for name in ("image", "mask")]
                write_atomically(cache / f"{key}.json", lambda path: path.write_text(json.dumps(entry)))
        except (FileNotFoundError, ValueError) as error:
            return error
        return {**entry, "image_id": image_id}

    try:
        cache.mkdir(parents=True, exist_ok=True)
        checked = thread_map(
            check, pairs, max_workers=os.cpu_count(), desc="checking images", unit="image", leave=False
        )
    except OSError as error:
        raise OSError(f"{cache} cannot keep what was read ({error}). Make room, or set HF_DATASETS_CACHE.") from error
    wrong = {pair[0]: entry for pair, entry in zip(pairs, checked, strict=True) if isinstance(entry, Exception)}
    if wrong:
        first = next(iter(wrong.values()))
        if len(wrong) == 1:
            raise first
        raise ValueError(f"{len(wrong)} of {len(pairs)} pairs cannot be used: {listed([*wrong])}. The first: {first}")
    repaired = [entry["image_id"] for entry in checked if entry["repaired"]]
    if repaired:
        logger.warning("%d images have damaged JPEG data, which was repaired: %s.", len(repaired), listed(repaired))
    return checked


def file_state(path: Path) -> tuple[str, int, int]:
    """
    What changes when a file does.

    Raises:
        FileNotFoundError: it has gone, or is a link to nothing or in a circle.
        ValueError: it may not be looked at.
    """
    try:
        found = path.stat()
        return str(path.resolve()), found.st_size, found.st_mtime_ns
    except PermissionError as error:
        raise ValueError(f"{path}: the file cannot be read ({error.strerror}). Change its permissions.") from error
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(f"{path}: no such file. Check the path.") from error


def read_entry(path: Path) -> dict | None:
    """An entry that was kept, if it is whole and its files are as they were."""
    try:
        entry = json.loads(path.read_text())
        sizes = [os.stat(entry[name]).st_size for name in ("image", "mask")]
        is_whole = sizes == entry["bytes"] and len(bytes.fromhex(entry["hash"])) == 32 and "repaired" in entry
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return entry if is_whole else None


def check_pair(image_path: Path, mask_path: Path, max_side: int | None, cached: Path) -> dict:
    """Reads and checks a pair, reduces it where it is larger than `max_side` → its entry."""
    mask = read_mask(mask_path)
    size_to_keep = reduced_size(mask.shape, max_side)
    image, size = read_sized_image(image_path, min_size=max(HASHED_SIDE, 2 * min(size_to_keep)))
    check_sizes(image_path.stem, size, mask.shape)
    files = {"image": str(image_path), "mask": str(mask_path)}
    if size_to_keep != size:
        reduced_image, reduced_mask = reduce_pair(image, Image.fromarray(mask.astype(np.uint8) * 255), size_to_keep)
        files = {"image": f"{cached}.jpg", "mask": f"{cached}.png"}
        write_atomically(Path(files["image"]), lambda path: reduced_image.save(path, "JPEG", quality=95))
        write_atomically(Path(files["mask"]), lambda path: reduced_mask.save(path, "PNG"))
    if min(size) >= 2 * HASHED_SIDE:
        # hashed from one decoding whatever `max_side` is: training and scoring have to draw the same split
        image = read_image(image_path, min_size=HASHED_SIDE)
    return {**files, "hash": perceptual_hash(image), "repaired": image.info.get(REPAIRED, "")}


def reduced_size(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """(height, width) with the longest side at most `max_side`, never larger than `size`."""
    scale = 1 if max_side is None else min(1, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def reduce_pair(image: Image.Image, mask: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """An RGB image, smoothly, and its mask, by the nearest pixel, at `size`, (height, width)."""
    return image.resize(size[::-1], Image.Resampling.BILINEAR), mask.resize(size[::-1], Image.Resampling.NEAREST)


def to_dataset(entries: list[dict]) -> Dataset:
    return Dataset.from_dict({name: [entry[name] for entry in entries] for name in FEATURES}, features=FEATURES)
