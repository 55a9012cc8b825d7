"""Mask files as people write them (0/255, 0/1, 0..K, or a palette) → labels, a class number a pixel."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .files import as_boolean_mask, check_mask_mode, decode, open_image

BLACK_AND_WHITE = "0 and 255"  # as the rows of a dataset of one class hold it
NUMBERS = "0 and 1"
PALETTE = "palette indices"
CLASS_NUMBERS = "class numbers"  # as the rows of several classes hold it
CHANNELS = "class numbers in each channel"
IGNORED = 255  # a label of pixels that nobody drew
# of one class, whose masks say it by a 255 beside a 1
NUMBERS_IGNORED = "0, 1 and 255 (ignored)"
PALETTE_IGNORED = "palette indices 0, 1 and 255 (ignored)"
SET_ASIDE = 254  # what `IGNORED` is called where 0 and 255 are a mask of one class


def read_labels(path: str | Path, content: bytes | None = None, num_classes: int = 1) -> tuple[np.ndarray, str]:
    """
    A mask file as `(height, width)` class numbers, 0 background and 1 lesion, and how the file writes them:
    `BLACK_AND_WHITE`, `NUMBERS` or `PALETTE`. Where it holds 1 and 255, these are `IGNORED`: `NUMBERS_IGNORED` or
    `PALETTE_IGNORED`. `content` as in `open_image`. Of several classes as of [`labels_of`].

    Raises:
        FileNotFoundError, ValueError: as `read_mask`.
    """
    with open_image(path, content=content) as mask:
        return labels_of(decode(mask, path, content=content), path, num_classes)


def labels_of(mask: Image.Image, name: str | Path, num_classes: int = 1) -> tuple[np.ndarray, str]:
    """
    As [`read_labels`], of a picture. A palette whose first colour is black is read by its indices, as annotation tools
    write them; another one by its colours, which must be black and white.

    With several classes a mask holds their numbers, as grey values or as indices of any palette: 0 background,
    1..`num_classes`, and `IGNORED`. They are written as `CLASS_NUMBERS`, `CHANNELS` or `PALETTE`.

    Raises:
        ValueError: transparency, more than 8 bits, or other values; with `name` and the value.
    """
    check_mask_mode(mask, name)
    upright = ImageOps.exif_transpose(mask)
    if num_classes > 1:
        return class_numbers(upright, name, num_classes)
    if upright.mode == "P" and (upright.getpalette() or [])[:3] == [0, 0, 0]:
        numbers = np.asarray(upright)
        if numbers.max() <= 1 or says_ignored(numbers):
            return numbers, PALETTE if numbers.max() <= 1 else PALETTE_IGNORED
    grey = np.asarray(upright.convert("L"))
    if grey.max() == 1 or says_ignored(grey):
        return grey, NUMBERS if grey.max() == 1 else NUMBERS_IGNORED
    return as_boolean_mask(mask, name).astype(np.uint8), BLACK_AND_WHITE


def says_ignored(numbers: np.ndarray) -> bool:
    """Whether a mask of one class holds 1 and 255, and nothing else but 0: 1 is the class then."""
    return bool((numbers == 1).any() and (numbers == IGNORED).any() and np.isin(numbers, (0, 1, IGNORED)).all())


def row_labels(mask: Image.Image, name: str | Path) -> np.ndarray:
    """
    The mask of a row of one class, as [`labels_picture`] writes it → 0, 1 and `IGNORED`, `(height, width)`, uint8.

    Raises:
        ValueError: as [`as_boolean_mask`].
    """
    ignored = np.asarray(mask) == SET_ASIDE if mask.mode == "L" else np.zeros((), bool)
    if not ignored.any():
        return as_boolean_mask(mask, name).astype(np.uint8)
    lesion = as_boolean_mask(Image.fromarray(np.where(ignored, 0, np.asarray(mask)).astype(np.uint8)), name)
    return np.where(ignored, IGNORED, lesion).astype(np.uint8)


def check_all_known(labels: np.ndarray, name: str | Path) -> None:
    """
    Raises:
        ValueError: labels of one mask, by its `name`, of which some are `IGNORED`.
    """
    if (labels == IGNORED).any():
        raise ValueError(
            f"{name}: a mask here must have no ignored pixels, got 255 beside 1. Write all pixels as 0 or 255."
        )


def class_numbers(mask: Image.Image, name: str | Path, num_classes: int) -> tuple[np.ndarray, str]:
    values = {"L": CLASS_NUMBERS, "P": PALETTE}.get(mask.mode, CHANNELS)
    if values == CHANNELS:
        channels = np.asarray(mask.convert("RGB"))
        if mask.mode == "1" or (channels != channels[..., :1]).any():
            found = "black and white" if mask.mode == "1" else "colours"
            raise ValueError(
                f"{name}: a mask of several classes must hold their numbers, got {found}. Save it as grey or palette "
                f"PNG, 0 background and 1 to {num_classes}."
            )
        mask = Image.fromarray(channels[..., 0])
    numbers = np.asarray(mask)
    strange = numbers[(numbers > num_classes) & (numbers != IGNORED)]
    if strange.size:
        raise ValueError(
            f"{name}: a mask must hold 0 (background), 1 to {num_classes} (the classes) and {IGNORED} (ignored), "
            f"got {strange.flat[0]}. Name all classes in classes.txt, one a line, and save masks as PNG, not as JPEG."
        )
    return numbers, values


def palette_colors(path: str | Path, labels: np.ndarray, num_classes: int, content: bytes | None = None) -> list[str]:
    """
    Of each class the colour that the palette of a mask file gives it, #rrggbb; "" of those that the mask does not hold,
    and of a file without a palette. `content` as in `open_image`.
    """
    with open_image(path, content=content) as mask:
        palette = mask.getpalette() if mask.mode == "P" else None
    if palette is None:
        return [""] * num_classes
    held = set(np.unique(labels).tolist())
    colors = (bytes(palette[3 * label : 3 * label + 3]).hex() for label in range(1, num_classes + 1))
    return [f"#{color}" if label in held else "" for label, color in enumerate(colors, start=1)]


def labels_picture(labels: np.ndarray, num_classes: int = 1) -> Image.Image:
    """
    Labels as the rows of a dataset hold them: of one class 0, 255 and, for what is `IGNORED`, `SET_ASIDE`; of several
    their numbers.
    """
    if num_classes > 1:
        return Image.fromarray(labels)
    return Image.fromarray(np.where(labels == IGNORED, SET_ASIDE, labels * 255).astype(np.uint8))


def values_of_rows(num_classes: int) -> str:
    """How the rows of a dataset write their masks: what is written so stays the file that it is."""
    return BLACK_AND_WHITE if num_classes == 1 else CLASS_NUMBERS


def class_shares(labels: np.ndarray, num_classes: int) -> list[float]:
    """Of the image's pixels, one a class."""
    counts = np.bincount(labels.ravel(), minlength=num_classes + 1)[1 : num_classes + 1]
    return [round(int(count) / labels.size, 6) for count in counts]
