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
from ..image_processing_efp import NUM_COLOURS, check_sizes
from .channels import is_array, picture_of, read_channels, resize_channels, write_channels
from .classes import COLUMN, features_with_classes
from .duplicates import HASHED_SIDE, perceptual_hash
from .files import REPAIRED, read_image, read_sized_image, write_atomically
from .labels import check_all_known, class_shares, labels_picture, palette_colors, read_labels, values_of_rows
from .names import Pair, listed
from .overlap import COLUMN as LABELS
from .overlap import features_with_labels

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
    An entry a pair, or the error why it cannot be used. An entry is `image_id`, `image` and `masks` (files at most
    `max_side` large, `None` for a label that is not there), `hash`, and of the original: `size` (height, width),
    `share` of all that is not background, `levels` of a photo ([`grey_levels`]), `values` of the masks
    ([`read_labels`]), `repaired`; of several classes or of labels that overlap, also their `shares`; of several classes
    also their `colors` ([`palette_colors`]). Of what is no photo `image` is a list of files, and `channels` their
    number.

    Entries are kept in `cache` under the files' names, sizes and times, so that a pair is read once, also when the run
    before was stopped half-way.

    Raises:
        OSError: the cache cannot be written to.
    """

    def check(pair: Pair) -> dict | FileNotFoundError | ValueError:
        image_id, image_path, masks, *further = pair
        try:
            states_of_masks = [path and file_state(path) for path in mask_files(masks)]
            states = [file_state(image_path), states_of_masks, *map(file_state, further)]
            facts = [*states, max_side, "v7", *([num_classes, "colors"] if num_classes > 1 else [])]
            if image_path.suffix.lower() in (".tif", ".tiff"):
                facts.append("channels")
            key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
            entry = read_entry(cache / f"{key}.json")
            if entry is None:
                if further or is_array(image_path):
                    files = [image_path, *further]
                    entry = check_channels(files, masks, max_side, cache / key, num_classes)
                else:
                    entry = check_pair(image_path, masks, max_side, cache / key, num_classes)
                entry["bytes"] = [path and os.stat(path).st_size for path in files_of(entry)]
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
        sizes = [path and os.stat(path).st_size for path in files_of(entry)]
        is_whole = sizes == entry["bytes"] and len(bytes.fromhex(entry["hash"])) == 32 and "repaired" in entry
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return entry if is_whole else None


def mask_files(masks: Path | tuple[Path | None, ...]) -> tuple[Path | None, ...]:
    """The mask files of a pair."""
    return masks if isinstance(masks, tuple) else (masks,)


def files_of(entry: dict) -> list[str | None]:
    return [*(entry["image"] if isinstance(entry["image"], list) else [entry["image"]]), *entry["masks"]]


def check_pair(
    image_path: Path, masks: Path | tuple[Path | None, ...], max_side: int | None, cached: Path, num_classes: int = 1
) -> dict:
    """
    Reads and checks a pair → its entry. What is larger than `max_side`, and a mask of other values than
    [`values_of_rows`], is written anew beside the entry.
    """
    paths = mask_files(masks)
    found = [path and read_labels(path, num_classes=num_classes) for path in paths]
    size_to_keep = reduced_size(next(mask[0].shape for mask in found if mask), max_side)
    image, size = read_sized_image(image_path, min_size=max(HASHED_SIDE, 2 * min(size_to_keep)))
    files = {"image": str(image_path), "masks": [path and str(path) for path in paths]}
    for number, (path, mask) in enumerate(zip(paths, found, strict=True)):
        if mask is None:
            continue
        overlaps = isinstance(masks, tuple)
        name = f"{image_path.stem}, {path.parent.name}/{path.name}" if overlaps else image_path.stem
        check_sizes(name, size, mask[0].shape)
        if overlaps:
            check_all_known(mask[0], path)
        if size_to_keep != size or mask[1] != values_of_rows(num_classes):
            picture = reduce_mask(labels_picture(mask[0], num_classes), size_to_keep)
            files["masks"][number] = f"{cached}-{number}.png" if overlaps else f"{cached}.png"
            write_atomically(Path(files["masks"][number]), lambda path, picture=picture: picture.save(path, "PNG"))
    if size_to_keep != size:
        reduced_image = reduce_image(image, size_to_keep)
        files["image"] = f"{cached}.jpg"
        write_atomically(Path(files["image"]), lambda path: reduced_image.save(path, "JPEG", quality=95))
    if min(size) >= 2 * HASHED_SIDE:
        # hashed from one decoding whatever `max_side` is: training and scoring have to draw the same split
        image = read_image(image_path, min_size=HASHED_SIDE)
    values = " or ".join(sorted({mask[1] for mask in found if mask}))
    labels = [mask and mask[0] for mask in found]
    facts = facts_of(stacked(labels) if isinstance(masks, tuple) else labels[0], num_classes) | {"values": values}
    if num_classes > 1:
        facts["colors"] = palette_colors(masks, labels[0], num_classes)
    facts |= {"levels": grey_levels(image), "repaired": image.info.get(REPAIRED, "")}
    return {**files, **facts, "hash": perceptual_hash(image)}


def grey_levels(image: Image.Image) -> int:
    """Of an RGB image: from its darkest value to its brightest, 0 to 255."""
    extremes = image.getextrema()
    return max(high for _, high in extremes) - min(low for low, _ in extremes)


def stacked(labels: list[np.ndarray | None]) -> np.ndarray:
    """The 0/1 maps of labels that overlap, `(num_labels, height, width)`, empty where there is none; one is there."""
    nothing = np.zeros_like(next(of_one for of_one in labels if of_one is not None))
    return np.stack([nothing if of_one is None else of_one for of_one in labels])


def check_channels(
    files: list[Path], mask_path: Path | tuple[Path | None, ...], max_side: int | None, cached: Path, num_classes: int
) -> dict:
    """
    As [`check_pair`], of an image that is no photo; what is larger than `max_side` becomes one file of an array. Labels
    that overlap are refused.
    """
    if isinstance(mask_path, tuple):
        raise ValueError(
            f"{files[0]}: an image with labels that overlap must be one photo of three colours, got "
            f"{f'{len(files)} files' if len(files) > 1 else 'other channels'}. Save it as RGB, or give it one mask."
        )
    labels, values = read_labels(mask_path, num_classes=num_classes)
    array = read_channels(files)
    if len(files) > 1 and array.shape[2] == NUM_COLOURS:
        raise ValueError(
            f"{files[0]}: {len(files)} grey files make three channels, as a photo's colours do, and would be predicted "
            "one by one. Save them as one RGB file."
        )
    check_sizes(files[0].stem, array.shape[:2], labels.shape)
    paths, mask = [str(file) for file in files], str(mask_path)
    size = reduced_size(labels.shape, max_side)
    if size != labels.shape:
        paths = [f"{cached}.npy"]
        write_atomically(Path(paths[0]), lambda path: write_channels(resize_channels(array, size), path))
    if size != labels.shape or values != values_of_rows(num_classes):
        mask = f"{cached}.png"
        picture = reduce_mask(labels_picture(labels, num_classes), size)
        write_atomically(Path(mask), lambda path: picture.save(path, "PNG"))
    # of a photo as in [`check_pair`]: with and without further files the same split is drawn
    seen = picture_of(array) if is_array(files[0]) else read_image(files[0], min_size=HASHED_SIDE)
    facts = facts_of(labels, num_classes) | {"values": values, "channels": array.shape[2], "repaired": ""}
    return {"image": paths, "masks": [mask], **facts, "hash": perceptual_hash(seen)}


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
    """
    What an entry says of the whole mask: `size`, `share`, and of several classes `shares`. Of labels that overlap,
    `(num_labels, height, width)`, `share` is that of the pixels that show one of them.
    """
    if labels.ndim == 3:
        shares = [round(float(of_one.mean()), 6) for of_one in labels]
        return {"size": labels.shape[1:], "share": round(float(labels.any(0).mean()), 6), "shares": shares}
    if num_classes == 1:
        return {"size": labels.shape, "share": round(float((labels == 1).mean()), 6)}
    shares = class_shares(labels, num_classes)
    return {"size": labels.shape, "share": round(sum(shares), 6), "shares": shares}


def reduced_size(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """(height, width) with the longest side at most `max_side`, never larger than `size`."""
    scale = 1 if max_side is None else min(1, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def reduce_image(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An RGB image, smoothly, at `size`, (height, width)."""
    return image.resize(size[::-1], Image.Resampling.BILINEAR)


def reduce_mask(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A mask, by the nearest pixel, at `size`, (height, width)."""
    return mask.resize(size[::-1], Image.Resampling.NEAREST)


def to_dataset(entries: list[dict], classes: tuple[str, ...] = (), labels: tuple[str, ...] = ()) -> Dataset:
    """
    The entries' images and masks; where `classes` are named, the column of that name says which a mask holds. With
    names of labels that overlap each has a column of masks, and the column `labels` says which are in the image.
    """
    names = ("image", "image_id")
    columns = {name: [entry[name] for entry in entries] for name in names}
    columns |= {name: [entry["masks"][place] for entry in entries] for place, name in enumerate(labels or ("mask",))}
    features = features_with_classes(FEATURES, classes)
    if labels:
        features = features_with_labels(FEATURES, labels)
        columns[LABELS] = [labels_in(entry, first=0) for entry in entries]
    elif classes:
        columns[COLUMN] = [labels_in(entry) for entry in entries]
    has_channels = any("channels" in entry for entry in entries)
    if has_channels:
        features = Features({**features, "image": List(Value("string"))})
    rows = Dataset.from_dict({name: columns[name] for name in features}, features=features)
    return rows.with_transform(with_channels_read) if has_channels else rows


def with_channels_read(rows: dict[str, list]) -> dict[str, list]:
    """Rows whose images are lists of files → the same with arrays."""
    return rows | {name: list(map(read_channels, values)) for name, values in rows.items() if name == "image"}


def labels_in(entry: dict, first: int = 1) -> list[int]:
    """The labels that an entry's masks hold; the `first` one is 0 where there is no background."""
    return [label for label, share in enumerate(entry.get("shares", [entry["share"]]), start=first) if share > 0]
