"""Mask files as people write them (0/255, 0/1, or a palette) → labels, a class number a pixel."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .files import as_boolean_mask, check_mask_mode, decode, open_image

BLACK_AND_WHITE = "0 and 255"  # as the rows of a dataset hold it
NUMBERS = "0 and 1"
PALETTE = "palette indices"


def read_labels(path: str | Path, content: bytes | None = None) -> tuple[np.ndarray, str]:
    """
    A mask file as `(height, width)` class numbers, 0 background and 1 lesion, and how the file writes them:
    `BLACK_AND_WHITE`, `NUMBERS` or `PALETTE`. `content` as in `open_image`.

    Raises:
        FileNotFoundError, ValueError: as `read_mask`.
    """
    with open_image(path, content=content) as mask:
        return labels_of(decode(mask, path, content=content), path)


def labels_of(mask: Image.Image, name: str | Path) -> tuple[np.ndarray, str]:
    """
    As [`read_labels`], of a picture. A palette whose first colour is black is read by its indices, as annotation tools
    write them; another one by its colours, which must be black and white.
    """
    check_mask_mode(mask, name)
    upright = ImageOps.exif_transpose(mask)
    if upright.mode == "P" and (upright.getpalette() or [])[:3] == [0, 0, 0]:
        numbers = np.asarray(upright)
        if numbers.max() <= 1:
            return numbers, PALETTE
    grey = np.asarray(upright.convert("L"))
    if grey.max() == 1:
        return grey, NUMBERS
    return as_boolean_mask(mask, name).astype(np.uint8), BLACK_AND_WHITE
