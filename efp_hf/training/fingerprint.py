"""
The fingerprint of a checkpoint's training images: their perceptual hashes, without names and pixels, in its folder, so
that whoever scores it can find out whether it has seen the images of a test set. `efp train` writes it; into the folder
of an older checkpoint, from the images that it was trained and chosen on:

    python -m efp_hf.training.fingerprint runs/mine --data ISIC_FOLDER
"""

import argparse
import csv
import os
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

from PIL import Image
from transformers.utils.hub import cached_file

from ..data.channels import picture_of, read_channels
from ..data.duplicates import HASHED_SIDE, SAME_IMAGE_BITS, bits_between, hash_words, perceptual_hash
from ..data.files import IMAGE_FORMATS, read_image, write_atomically
from ..data.lesions import load_lesions
from ..data.names import listed
from ..extras import needing
from ..image_processing_efp import to_upright_rgb
from ..inference.checkpoint import TRAINING_IMAGES, find_checkpoint

with needing("train", __name__):
    from datasets import Dataset, DatasetDict, IterableDataset
    from datasets import Image as ImageFeature

SEEN_SPLITS = ("train", "validation")  # it was trained on the one and chosen on the other
MEND = "Copy the checkpoint again, or remove the file: its scores then say that its training images are not known."


def image_hashes(dataset: Dataset | IterableDataset) -> list[str]:
    """The [`perceptual_hash`] of each row's `image`, in order; the images are read once, some at a time."""
    files = dataset.select_columns(["image"])
    if isinstance(dataset, Dataset) and not isinstance(dataset.features["image"], ImageFeature):
        files = files.with_format(None)
    elif isinstance(dataset, Dataset):  # a stream gives pixels that are reduced on the way
        files = files.cast_column("image", ImageFeature(decode=False))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return [value for rows in files.iter(batch_size=64) for value in threads.map(hash_image, rows["image"])]


def hash_image(image: Image.Image | dict | list[str]) -> str:
    """Of pixels, of an undecoded `datasets` image: its `path` or `bytes`, or of the files of [`read_channels`]."""
    if isinstance(image, list):
        return perceptual_hash(picture_of(read_channels(image)))
    if isinstance(image, Image.Image):
        return perceptual_hash(to_upright_rgb(image))
    if image["bytes"] is None:
        return perceptual_hash(read_image(image["path"], min_size=HASHED_SIDE))
    with Image.open(BytesIO(image["bytes"]), formats=IMAGE_FORMATS) as opened:
        opened.draft(None, (HASHED_SIDE, HASHED_SIDE))
        return perceptual_hash(to_upright_rgb(opened))


def fingerprint_of(data: DatasetDict) -> set[tuple[str, str]]:
    """(hash, split) of `train` and `validation`; the fingerprint of a fine-tuned model is the union with its base's."""
    return {(value, split) for split in SEEN_SPLITS if split in data for value in image_hashes(data[split])}


def chosen_on(fingerprint: set[tuple[str, str]], dataset: Dataset) -> set[tuple[str, str]]:
    """A fingerprint with the images of a dataset on which settings were chosen; what it has of them stays as it is."""
    hashes = image_hashes(dataset)
    known = set(shared_images(hashes, fingerprint))
    return fingerprint | {(value, "validation") for position, value in enumerate(hashes) if position not in known}


def write_fingerprint(folder: str | Path, fingerprint: set[tuple[str, str]]) -> None:
    """`training_images.csv` in a checkpoint's folder, whole or not at all, sorted: it tells nothing of their order."""

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("hash", "split"), *sorted(fingerprint)])

    write_atomically(Path(folder, TRAINING_IMAGES), write)


def read_fingerprint(checkpoint: str | Path) -> set[tuple[str, str]] | None:
    """
    (hash, split) of the images that a checkpoint (a shipped one, a folder, or a Hub id) was trained and chosen on;
    `None` where it does not say.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: a file that is damaged.
    """
    path = cached_file(
        find_checkpoint(checkpoint),
        TRAINING_IMAGES,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return None
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} must be a table of hashes, got {error}. {MEND}") from error
    wrong = [row for row in rows if not is_entry(row)]
    if header != ["hash", "split"] or wrong or not rows:
        raise ValueError(
            f"{path} must have the columns hash and split: 64 hexadecimal digits, {' or '.join(SEEN_SPLITS)}, "
            f"got {(wrong or [header])[0]}. {MEND}"
        )
    return {(value, split) for value, split in rows}


def is_entry(row: list[str]) -> bool:
    return len(row) == 2 and len(row[0]) == 64 and set(row[0]) <= set("0123456789abcdef") and row[1] in SEEN_SPLITS


def shared_images(hashes: list[str], fingerprint: set[tuple[str, str]]) -> list[int]:
    """Positions of the hashes of images that are in the fingerprint, in the same or another file."""
    seen = hash_words(sorted({value for value, _ in fingerprint}))
    return [
        position
        for position, words in enumerate(hash_words(hashes))
        if len(seen) and bits_between(seen, words).min() <= SAME_IMAGE_BITS
    ]


def check_same_split(resumed: Path, base: str | Path | None, data: DatasetDict) -> None:
    """
    Raises:
        ValueError: `validation` holds images that the resumed checkpoint was trained on, and not its `base` before it:
            their scores would choose the epoch.
    """
    seen = (read_fingerprint(resumed) or set()) - ((base and read_fingerprint(base)) or set())
    trained = {value for value, split in seen if split == "train"}  # the data itself may have copies on both sides
    trained -= {value for value, split in seen if split == "validation"}
    hashes = image_hashes(data["validation"]) if trained else []
    shared = [data["validation"]["image_id"][place] for place, value in enumerate(hashes) if value in trained]
    if shared:
        raise ValueError(
            f"{resumed} must not be trained on images of `validation`, got {len(shared)} of {len(hashes)} "
            f"({listed(shared, 3)}). Resume with the --split-seed and the data that it was started with."
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes or extends the fingerprint in the folders of checkpoints.")
    parser.add_argument("checkpoint", nargs="+", help="shipped name or folder")
    parser.add_argument("--data", required=True, help="ISIC or own folder, or the Hub id of a dataset")
    parser.add_argument("--split-seed", type=int, default=0, help="of the 70/10/20 split, where the data has none")
    arguments = parser.parse_args()
    seen = fingerprint_of(load_lesions(arguments.data, seed=arguments.split_seed))
    for checkpoint in arguments.checkpoint:
        write_fingerprint(find_checkpoint(checkpoint), seen | (read_fingerprint(checkpoint) or set()))
