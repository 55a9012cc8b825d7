"""Lesion images and masks as a `DatasetDict`: the official ISIC 2018 folders, one's own folders, or the Hub."""

import csv
import hashlib
import json
import os
from pathlib import Path

import imagehash
import numpy as np
from datasets import Dataset, DatasetDict, Features, Value, config, load_dataset
from datasets import Image as ImageFeature
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm.contrib.concurrent import thread_map

from .files import (
    IMAGE_SUFFIXES,
    is_image_file,
    open_image,
    read_image,
    read_mask,
    upright_size,
    write_atomically,
)
from ..image_processing_efp import to_upright_rgb

SPLITS = ("train", "validation", "test")
FOLDERS = {
    "train": ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
    "validation": ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
    "test": ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
}
OWN_FOLDERS = ("images", "masks")
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
# Of 256. In ISIC 2018 the same photo in other colours or another crop is up to about 56 bits away; unrelated images of
# small lesions begin at 40. Keeping too many images together costs nothing, a copy on two sides does.
HASH_BITS_APART = 56
HASHED_SIDE = 256
FEATURES = Features({"image": ImageFeature(), "mask": ImageFeature(), "image_id": Value("string")})


def load_lesions(source: str | Path, seed: int = 0, max_side: int | None = 512) -> DatasetDict:
    """`load_isic` for a folder, [`load_hub_lesions`] for the id of a dataset on the Hub."""
    if Path(source).exists() or str(source).startswith((".", "/", "~")):
        return load_isic(source, seed=seed, max_side=max_side)
    return load_hub_lesions(str(source), seed=seed, max_side=max_side)


def load_isic(
    root: str | Path, seed: int = 0, max_side: int | None = 512, cache_dir: str | Path | None = None
) -> DatasetDict:
    """
    Image and mask pairs of the splits train, validation and test.

    `root` holds the folders of the official archives (`ISIC2018_Task1-2_Training_Input`,
    `ISIC2018_Task1_Training_GroundTruth` and, where present, the same of Validation and Test), or `images` and `masks`
    with the masks named `<id>.png` or `<id>_segmentation.png`. Splits that have no folder are drawn from the training
    folder: 70/10/20, seeded, with no patient, lesion (`metadata.csv`: `isic_id`, `patient_id`, `lesion_id`) or
    near-duplicate image on two sides.

    Every file is read and checked once. What is larger than `max_side` is decoded at reduced scale and kept in the
    cache; later calls only look at sizes and times.

    Args:
        root: the folder.
        seed: of the drawn split.
        max_side: longest side in pixels of the images and masks that the dataset gives; `None` for their own size.
        cache_dir: default: `efp_hf` in the cache folder of `datasets`.

    Returns:
        `DatasetDict` of `image` (RGB), `mask` (grey, 0 and 255), `image_id`.

    Raises:
        FileNotFoundError: a missing folder, or no image in it.
        ValueError: by name: a missing or doubled mask, a damaged file, a mask of another size than its image or with
            values other than 0 and 255.
    """
    root = Path(root).expanduser().absolute()
    folders = find_folders(root)
    pairs = {split: find_pairs(root / images, root / masks) for split, (images, masks) in folders.items()}
    cache = Path(cache_dir or Path(config.HF_DATASETS_CACHE) / "efp_hf")
    entries = {split: check_and_cache(split_pairs, max_side, cache) for split, split_pairs in pairs.items()}

    missing = [split for split in SPLITS if split not in entries]
    if missing:
        drawn = draw_split(entries["train"], read_groups(root / "metadata.csv"), seed, ["train", *missing])
        entries.update(drawn)
    return DatasetDict({split: to_dataset(entries[split]) for split in SPLITS})


def load_hub_lesions(
    name: str,
    image_column: str = "image",
    mask_column: str = "mask",
    seed: int = 0,
    max_side: int | None = 512,
    **kwargs,
) -> DatasetDict:
    """
    A dataset of the Hub (or anything that `datasets.load_dataset` takes) as `load_isic` gives one.

    Missing splits are drawn from `train`; the columns `patient_id` and `lesion_id` are respected where present. What is
    larger than `max_side` is reduced once and kept in the cache of `datasets`.

    Raises:
        ValueError: no `train` split, or a missing column, with the columns that there are; a mask of another size than
            its image, by name.
    """
    loaded = load_dataset(name, **kwargs)
    if "train" not in loaded:
        raise ValueError(f"{name}: a `train` split is needed, got {list(loaded)}.")
    unknown = set(loaded) - set(SPLITS)
    if unknown:
        raise ValueError(f"{name}: splits must be among {', '.join(SPLITS)}, got {', '.join(loaded)}. Rename them.")
    splits = {}
    for split in [split for split in SPLITS if split in loaded]:
        dataset = loaded[split]
        for column in (image_column, mask_column):
            if column not in dataset.column_names:
                raise ValueError(
                    f"{name}: no column {column!r}, got {dataset.column_names}. Pass image_column and mask_column."
                )
        dataset = dataset.rename_columns(
            {old: new for old, new in ((image_column, "image"), (mask_column, "mask")) if old != new}
        )
        if "image_id" not in dataset.column_names:
            dataset = dataset.add_column("image_id", [f"{split}_{row:07d}" for row in range(len(dataset))])
        splits[split] = dataset.cast_column("image", ImageFeature()).cast_column("mask", ImageFeature())
        splits[split] = splits[split].cast_column("image_id", Value("string"))

    missing = [split for split in SPLITS if split not in splits]
    if missing:
        train = splits["train"]
        pixels = train.select_columns(["image"])
        entries = [
            {"image_id": image_id, "hash": perceptual_hash(pixels[row]["image"]), "row": row}
            for row, image_id in enumerate(train["image_id"])
        ]
        groups = {
            image_id: [f"{column}:{train[column][row]}" for column in GROUP_COLUMNS if has_value(train, column, row)]
            for row, image_id in enumerate(train["image_id"])
        }
        drawn = draw_split(entries, groups, seed, ["train", *missing])
        splits.update({split: train.select([entry["row"] for entry in drawn[split]]) for split in drawn})
    chosen = {split: splits[split].select_columns(list(FEATURES)) for split in SPLITS}
    if max_side is not None:
        # as files, not as pixels: what is small enough stays the file that it is
        for split, dataset in chosen.items():
            files = cast_images(dataset, ImageFeature(decode=False))
            files = files.map(reduce_row, fn_kwargs={"max_side": max_side}, desc=f"{name}, {split}: reducing")
            chosen[split] = cast_images(files, ImageFeature())
    return DatasetDict(chosen)


def cast_images(dataset: Dataset, feature: ImageFeature) -> Dataset:
    return dataset.cast_column("image", feature).cast_column("mask", feature)


def reduce_row(row: dict, max_side: int) -> dict:
    """`image` and `mask` of a row, both as files, reduced; nothing where they are at most `max_side` large."""
    image, mask = (ImageFeature().decode_example(row[column]) for column in ("image", "mask"))
    check_sizes(row["image_id"], image.size[::-1], mask.size[::-1])
    size_to_keep = reduced_size(mask.size[::-1], max_side)
    if size_to_keep == mask.size[::-1]:
        return {}
    return dict(zip(("image", "mask"), reduce_pair(to_upright_rgb(image), mask, size_to_keep), strict=True))


def check_sizes(image_id: str, size: tuple[int, int], mask_size: tuple[int, int]) -> None:
    if size != mask_size:
        raise ValueError(
            f"{image_id}: image is {size[0]}×{size[1]}, mask {mask_size[0]}×{mask_size[1]}. "
            "A mask must have the size of its image."
        )


def reduced_size(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """(height, width) with the longest side at most `max_side`, never larger than `size`."""
    scale = 1 if max_side is None else min(1, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def reduce_pair(image: Image.Image, mask: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """An RGB image, smoothly, and its mask, by the nearest pixel, at `size`, (height, width)."""
    return image.resize(size[::-1], Image.Resampling.BILINEAR), mask.resize(size[::-1], Image.Resampling.NEAREST)


GROUP_COLUMNS = ("patient_id", "lesion_id")


def has_value(dataset: Dataset, column: str, row: int) -> bool:
    return column in dataset.column_names and dataset[column][row] not in (None, "")


def get_split(dataset: DatasetDict, split: str) -> Dataset:
    """
    One split by name.

    Raises:
        ValueError: a split that is not there, with those that are.
    """
    if split not in dataset:
        raise ValueError(f"`split` must be one of {', '.join(dataset)}, got {split!r}.")
    return dataset[split]


def find_folders(root: Path) -> dict[str, tuple[str, str]]:
    """The image and mask folder of each split that `root` has; `train` is always there."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder. Pass the folder that holds {FOLDERS['train'][0]}.")
    folders = {split: pair for split, pair in FOLDERS.items() if (root / pair[0]).is_dir()}
    if not folders and (root / OWN_FOLDERS[0]).is_dir():
        folders = {"train": OWN_FOLDERS}
    if "train" not in folders:
        raise FileNotFoundError(
            f"{root}: neither {FOLDERS['train'][0]} nor {OWN_FOLDERS[0]} is there. Unpack the official archives into "
            f"one folder, or put your own files into {OWN_FOLDERS[0]}/ and {OWN_FOLDERS[1]}/."
        )
    for image_folder, mask_folder in folders.values():
        if not (root / mask_folder).is_dir():
            raise FileNotFoundError(
                f"{root / mask_folder}: no such folder. It has to hold the masks of {image_folder}."
            )
    return folders


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
        key = hashlib.sha256(json.dumps([state, max_side, "v2"]).encode()).hexdigest()[:24]
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
    with open_image(image_path) as header:
        size = upright_size(header)
    mask = read_mask(mask_path)
    check_sizes(image_path.stem, size, mask.shape)
    size_to_keep = reduced_size(size, max_side)
    image = read_image(image_path, min_size=2 * min(size_to_keep))
    files = {"image": str(image_path), "mask": str(mask_path)}
    if size_to_keep != size:
        reduced_image, reduced_mask = reduce_pair(image, Image.fromarray(mask.astype(np.uint8) * 255), size_to_keep)
        files = {"image": f"{cached}.jpg", "mask": f"{cached}.png"}
        write_atomically(Path(files["image"]), lambda path: reduced_image.save(path, "JPEG", quality=95))
        write_atomically(Path(files["mask"]), lambda path: reduced_mask.save(path, "PNG"))
    # of the same decoding whatever `max_side` is: training and scoring have to draw the same split
    return {**files, "hash": perceptual_hash(read_image(image_path, min_size=HASHED_SIDE))}


def perceptual_hash(image: Image.Image) -> str:
    """256-bit perceptual hash (pHash of a 16×16 grid) as hexadecimal; alike for images that look alike."""
    return str(
        imagehash.phash(image.convert("L").resize((HASHED_SIDE, HASHED_SIDE), Image.Resampling.BILINEAR), hash_size=16)
    )


def near_duplicates(hashes: list[str], bits_apart: int = HASH_BITS_APART) -> list[tuple[int, int]]:
    """Pairs of positions whose hashes differ in at most `bits_apart` bits."""
    bits = np.array([np.frombuffer(bytes.fromhex(value), dtype=np.uint8) for value in hashes])
    pairs = []
    for row in range(len(bits) - 1):
        distances = np.bitwise_count(bits[row + 1 :] ^ bits[row]).sum(1)
        pairs += [(row, row + 1 + int(other)) for other in np.flatnonzero(distances <= bits_apart)]
    return pairs


def read_groups(metadata: Path) -> dict[str, list[str]]:
    """image_id → its patient and lesion ids, from the ISIC archive's `metadata.csv`; empty without the file."""
    if not metadata.is_file():
        return {}
    with metadata.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if "isic_id" not in (rows.fieldnames or []):
            raise ValueError(
                f"{metadata}: no column 'isic_id', got {rows.fieldnames}. It names the images by their ids."
            )
        return {
            row["isic_id"]: [f"{column}:{row[column]}" for column in GROUP_COLUMNS if row.get(column)] for row in rows
        }


def draw_split(entries: list[dict], groups: dict[str, list[str]], seed: int, splits: list[str]) -> dict[str, list]:
    """
    Entries to splits by their usual shares, such that connected images stay together.

    Images are connected by a shared patient or lesion and by near-duplicate pixels. The groups are shuffled by a hash
    of `seed` and their first image's id, so that the split is the same on every machine and with every library.
    """
    position = {entry["image_id"]: row for row, entry in enumerate(entries)}
    if len(position) < len(entries):
        raise ValueError(f"`image_id` must be different for each image, got {len(position)} ids for {len(entries)}.")
    if groups and not position.keys() & groups.keys():
        raise ValueError(
            f"No image has its id in the metadata: {next(iter(position))} is not like {next(iter(groups))}. "
            "Ids are file names without their ending."
        )
    edges = near_duplicates([entry["hash"] for entry in entries])
    first_with = {}
    for image_id, row in position.items():
        for group in groups.get(image_id, []):
            edges.append((first_with.setdefault(group, row), row))
    rows, columns = np.array(edges, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(entries), len(entries)))
    component_of = connected_components(graph, directed=False)[1]

    members = {}
    for entry, component in zip(entries, component_of, strict=True):
        members.setdefault(int(component), []).append(entry)
    shuffled = sorted(
        members.values(),
        key=lambda group: hashlib.sha256(f"{seed}:{min(entry['image_id'] for entry in group)}".encode()).hexdigest(),
    )
    total = sum(SHARES[split] for split in splits)
    drawn = {split: [] for split in splits}
    for group in shuffled:  # each group to the split that is furthest behind its share
        split = max(splits, key=lambda name: SHARES[name] / total - len(drawn[name]) / len(entries))
        drawn[split] += group
    for split, split_entries in drawn.items():
        if not split_entries:
            raise ValueError(f"{len(entries)} images are too few, or too alike, for a {split} split.")
        split_entries.sort(key=lambda entry: entry["image_id"])
    return drawn


def to_dataset(entries: list[dict]) -> Dataset:
    return Dataset.from_dict({name: [entry[name] for entry in entries] for name in FEATURES}, features=FEATURES)


def write_split(data: DatasetDict, path: str | Path) -> None:
    """The sides of a split as CSV: `image_id`, `split`, sorted by id."""
    sides = sorted((image_id, split) for split in data for image_id in data[split]["image_id"])

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("image_id", "split"), *sides])

    write_atomically(Path(path), write)


if __name__ == "__main__":
    import sys

    write_split(load_isic(sys.argv[1]), sys.argv[2])
