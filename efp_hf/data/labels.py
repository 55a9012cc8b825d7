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
    As [`read_labels`], of a picture. A palette of black and white is read by its colours, whatever their order; of
    other colours by its indices, where the first one is black, as annotation tools write them.
    """
    check_mask_mode(mask, name)
    if mask.mode == "P" and not has_distinct_black_and_white(mask):
        palette = mask.getpalette() or [0, 0, 0]
        numbers = np.asarray(ImageOps.exif_transpose(mask))
        if palette[:3] == [0, 0, 0] and numbers.max() <= 1:
            return numbers, PALETTE
    grey = np.asarray(ImageOps.exif_transpose(mask).convert("L"))
    if grey.max() == 1:
        return grey, NUMBERS
    return as_boolean_mask(mask, name).astype(np.uint8), BLACK_AND_WHITE


def has_distinct_black_and_white(mask: Image.Image) -> bool:
    """Whether the colours of a palette picture, that of index 0 included, are black and white, each once."""
    used = np.union1d(np.unique(np.asarray(mask)), [0])
    colours = np.array([*(mask.getpalette() or []), *[0] * 768][:768]).reshape(-1, 3)[used]
    is_black_or_white = np.isin(colours, (0, 255)).all() and (colours == colours[:, :1]).all()
    return bool(is_black_or_white) and len(np.unique(colours, axis=0)) == len(used)
