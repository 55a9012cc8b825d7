"""Pairs of an image file and its mask file: found in two folders, checked, and reduced once."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.contrib.concurrent import thread_map

from ..extras import needing
from ..image_processing_efp import check_sizes
from .duplicates import HASHED_SIDE, perceptual_hash
from .files import IMAGE_SUFFIXES, is_image_file, read_image, read_mask, read_sized_image, write_atomically

with needing("train", __name__):
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

FEATURES = Features({"image": ImageFeature(), "mask": ImageFeature(), "image_id": Value("string")})


def find_pairs(image_folder: Path, mask_folder: Path) -> list[tuple[str, Path, Path]]:
    """(image_id, image file, mask file), sorted by id. The id is the image's file name without its ending."""
    images = sorted(path for path in image_folder.iterdir() if is_image_file(path))
    if not images:
        raise FileNotFoundError(f"{image_folder}: no image in the folder ({', '.join(IMAGE_SUFFIXES)}).")
    masks = {}
    for path in sorted(path for path in mask_folder.iterdir() if is_image_file(path)):
        masks.setdefault(path.stem.removesuffix("_segmentation"), []).append(path)

    pairs = {}
    without_mask = []
    for path in images:
        image_id = path.stem
        if image_id in pairs:
            raise ValueError(f"{image_id}: two images, {pairs[image_id][1].name} and {path.name}. Remove one.")
        found = masks.get(image_id, [])
        if len(found) > 1:
            raise ValueError(f"{image_id}: two masks, {found[0].name} and {found[1].name}. Remove one.")
        if found:
            pairs[image_id] = (image_id, path, found[0])
        else:
            without_mask.append(image_id)
    if without_mask:
        raise ValueError(
            f"{len(without_mask)} images have no mask in {mask_folder}: {', '.join(without_mask[:5])}"
            f"{', …' if len(without_mask) > 5 else ''}. Add the masks or remove the images."
        )
    return list(pairs.values())


def check_and_cache(pairs: list[tuple[str, Path, Path]], max_side: int | None, cache: Path) -> list[dict]:
    """
    One entry a pair: `image_id`, `image` and `mask` (files at most `max_side` large), `hash`.

    Entries are kept in `cache` under the files' names, sizes and times, so that a pair is read once, also when the run
    before was stopped half-way.
    """
    cache.mkdir(parents=True, exist_ok=True)

    def check(pair: tuple[str, Path, Path]) -> dict:
        image_id, image_path, mask_path = pair
        state = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in pair[1:]]
        key = hashlib.sha256(json.dumps([state, max_side, "v3"]).encode()).hexdigest()[:24]
        entry_path = cache / f"{key}.json"
        if entry_path.is_file():
            entry = json.loads(entry_path.read_text())
            if Path(entry["image"]).is_file() and Path(entry["mask"]).is_file():
                return {**entry, "image_id": image_id}
        entry = {"image_id": image_id, **check_pair(image_path, mask_path, max_side, cache / key)}
        write_atomically(entry_path, lambda path: path.write_text(json.dumps(entry)))
        return entry

    return thread_map(check, pairs, max_workers=os.cpu_count(), desc="checking images", unit="image", leave=False)


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
    return {**files, "hash": perceptual_hash(image)}


def reduced_size(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """(height, width) with the longest side at most `max_side`, never larger than `size`."""
    scale = 1 if max_side is None else min(1, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def reduce_pair(image: Image.Image, mask: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """An RGB image, smoothly, and its mask, by the nearest pixel, at `size`, (height, width)."""
    return image.resize(size[::-1], Image.Resampling.BILINEAR), mask.resize(size[::-1], Image.Resampling.NEAREST)


def to_dataset(entries: list[dict]) -> Dataset:
    return Dataset.from_dict({name: [entry[name] for entry in entries] for name in FEATURES}, features=FEATURES)
