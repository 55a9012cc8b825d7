"""Pairs of an image file and its mask file: checked, and reduced once."""

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
from .channels import is_array, picture_of, read_channels, resize_channels, write_channels
from .classes import COLUMN, features_with_classes
from .duplicates import HASHED_SIDE, perceptual_hash
from .files import REPAIRED, read_image, read_sized_image, write_atomically
from .labels import class_shares, labels_picture, palette_colors, read_labels, values_of_rows
from .names import Pair, listed

with needing("train", __name__):
    from datasets import Dataset, Features, List, Value
    from datasets import Image as ImageFeature

logger = logging.getLogger(__name__)
FEATURES = Features({"image": ImageFeature(), "mask": ImageFeature(), "image_id": Value("string")})


def check_and_cache(pairs: list[Pair], max_side: int | None, cache: Path, num_classes: int = 1) -> list[dict]:
    """
    One entry a pair, as [`check_pairs`] gives it.

    Raises:
        FileNotFoundError, ValueError: pairs that cannot be used: all are named, and why of the first.
        OSError: the cache cannot be written to.
    """
    checked = check_pairs(pairs, max_side, cache, num_classes)
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


def check_pairs(
    pairs: list[Pair], max_side: int | None, cache: Path, num_classes: int = 1
) -> list[dict | FileNotFoundError | ValueError]:
    """
    An entry a pair, or the error why it cannot be used. An entry is `image_id`, `image` and `mask` (files at most
    `max_side` large), `hash`, and of the original: `size` (height, width), `share` of all that is not background,
    `values` of the mask ([`read_labels`]), `repaired`; of several classes also their `shares` and `colors`
    ([`palette_colors`]). Of what is no photo `image` is a list of files, and `channels` their number.

    Entries are kept in `cache` under the files' names, sizes and times, so that a pair is read once, also when the run
    before was stopped half-way.

    Raises:
        OSError: the cache cannot be written to.
    """

    def check(pair: Pair) -> dict | FileNotFoundError | ValueError:
        image_id, image_path, mask_path, *further = pair
        try:
            facts = [*map(file_state, pair[1:]), max_side, "v5", *([num_classes, "colors"] if num_classes > 1 else [])]
            if image_path.suffix.lower() in (".tif", ".tiff"):
                facts.append("channels")
            key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
            entry = read_entry(cache / f"{key}.json")
            if entry is None:
                if further or is_array(image_path):
                    files = [image_path, *further]
                    entry = check_channels(files, mask_path, max_side, cache / key, num_classes)
                else:
                    entry = check_pair(image_path, mask_path, max_side, cache / key, num_classes)
                entry["bytes"] = [os.stat(path).st_size for path in files_of(entry)]
                write_atomically(cache / f"{key}.json", lambda path: path.write_text(json.dumps(entry)))
        except (FileNotFoundError, ValueError) as error:
            return error
        return {**entry, "image_id": image_id}

    try:
        cache.mkdir(parents=True, exist_ok=True)
        return thread_map(check, pairs, max_workers=os.cpu_count(), desc="checking images", unit="image", leave=False)
    except OSError as error:
        raise OSError(f"{cache} cannot keep what was read ({error}). Make room, or set HF_DATASETS_CACHE.") from error


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
        sizes = [os.stat(path).st_size for path in files_of(entry)]
        is_whole = sizes == entry["bytes"] and len(bytes.fromhex(entry["hash"])) == 32 and "repaired" in entry
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return entry if is_whole else None


def files_of(entry: dict) -> list[str]:
    return [*(entry["image"] if isinstance(entry["image"], list) else [entry["image"]]), entry["mask"]]


def check_pair(image_path: Path, mask_path: Path, max_side: int | None, cached: Path, num_classes: int = 1) -> dict:
    """
    Reads and checks a pair → its entry. What is larger than `max_side`, and a mask of other values than
    [`values_of_rows`], is written anew beside the entry.
    """
    labels, values = read_labels(mask_path, num_classes=num_classes)
    size_to_keep = reduced_size(labels.shape, max_side)
    image, size = read_sized_image(image_path, min_size=max(HASHED_SIDE, 2 * min(size_to_keep)))
    check_sizes(image_path.stem, size, labels.shape)
    files = {"image": str(image_path), "mask": str(mask_path)}
    mask = labels_picture(labels, num_classes)
    if size_to_keep != size:
        reduced_image, mask = reduce_pair(image, mask, size_to_keep)
        files["image"] = f"{cached}.jpg"
        write_atomically(Path(files["image"]), lambda path: reduced_image.save(path, "JPEG", quality=95))
    if size_to_keep != size or values != values_of_rows(num_classes):
        files["mask"] = f"{cached}.png"
        write_atomically(Path(files["mask"]), lambda path: mask.save(path, "PNG"))
    if min(size) >= 2 * HASHED_SIDE:
        # hashed from one decoding whatever `max_side` is: training and scoring have to draw the same split
        image = read_image(image_path, min_size=HASHED_SIDE)
    facts = facts_of(labels, num_classes) | {"values": values}
    if num_classes > 1:
        facts["colors"] = palette_colors(mask_path, labels, num_classes)
    return {**files, **facts, "hash": perceptual_hash(image), "repaired": image.info.get(REPAIRED, "")}


def check_channels(files: list[Path], mask_path: Path, max_side: int | None, cached: Path, num_classes: int) -> dict:
    """As [`check_pair`], of an image that is no photo; what is larger than `max_side` becomes one file of an array."""
    labels, values = read_labels(mask_path, num_classes=num_classes)
    array = read_channels(files)
    check_sizes(files[0].stem, array.shape[:2], labels.shape)
    paths, mask = [str(file) for file in files], str(mask_path)
    size = reduced_size(labels.shape, max_side)
    if size != labels.shape:
        paths = [f"{cached}.npy"]
        write_atomically(Path(paths[0]), lambda path: write_channels(resize_channels(array, size), path))
    if size != labels.shape or values != values_of_rows(num_classes):
        mask = f"{cached}.png"
        picture = labels_picture(labels, num_classes).resize(size[::-1], Image.Resampling.NEAREST)
        write_atomically(Path(mask), lambda path: picture.save(path, "PNG"))
    # of a photo as in [`check_pair`]: with and without further files the same split is drawn
    seen = picture_of(array) if is_array(files[0]) else read_image(files[0], min_size=HASHED_SIDE)
    facts = facts_of(labels, num_classes) | {"values": values, "channels": array.shape[2], "repaired": ""}
    return {"image": paths, "mask": mask, **facts, "hash": perceptual_hash(seen)}


def channels_problem(entries: list[dict]) -> str | None:
    """A sentence, where images have other channels than most."""
    names = {}
    for entry in entries:
        names.setdefault(entry.get("channels", "the three of a photo"), []).append(entry["image_id"])
    if len(names) < 2:
        return None
    (usual, _), *others = sorted(names.items(), key=lambda found: -len(found[1]))
    found = "; ".join(f"{channels} in {listed(image_ids)}" for channels, image_ids in others)
    return f"All images must have the same channels, got {usual} in most, and {found}. Mend or remove those."


def facts_of(labels: np.ndarray, num_classes: int) -> dict:
    """What an entry says of the whole mask: `size`, `share`, and of several classes `shares`."""
    if num_classes == 1:
        return {"size": labels.shape, "share": round(float(labels.mean()), 6)}
    shares = class_shares(labels, num_classes)
    return {"size": labels.shape, "share": round(sum(shares), 6), "shares": shares}


def reduced_size(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """(height, width) with the longest side at most `max_side`, never larger than `size`."""
    scale = 1 if max_side is None else min(1, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def reduce_pair(image: Image.Image, mask: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """An RGB image, smoothly, and its mask, by the nearest pixel, at `size`, (height, width)."""
    return image.resize(size[::-1], Image.Resampling.BILINEAR), mask.resize(size[::-1], Image.Resampling.NEAREST)


def to_dataset(entries: list[dict], classes: tuple[str, ...] = ()) -> Dataset:
    """The entries' images and masks; where `classes` are named, the column of that name says which a mask holds."""
    columns = {name: [entry[name] for entry in entries] for name in FEATURES}
    if classes:
        columns[COLUMN] = [labels_in(entry) for entry in entries]
    features = features_with_classes(FEATURES, classes)
    if any("channels" in entry for entry in entries):
        features = Features({**features, "image": List(Value("string"))})
        return Dataset.from_dict(columns, features=features).with_transform(with_channels_read)
    return Dataset.from_dict(columns, features=features)


def with_channels_read(rows: dict[str, list]) -> dict[str, list]:
    """Rows whose images are lists of files → the same with arrays."""
    return rows | {name: list(map(read_channels, values)) for name, values in rows.items() if name == "image"}


def labels_in(entry: dict) -> list[int]:
    """The labels of the classes that an entry's mask holds."""
    return [label for label, share in enumerate(entry.get("shares", [entry["share"]]), start=1) if share > 0]
