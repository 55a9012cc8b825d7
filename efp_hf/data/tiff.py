"""TIFF files of several bands or pages: what their header says, and their pixels, which Pillow does not give."""

from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile

MAX_PAGES = 64  # more are no channels of an image
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Layout(NamedTuple):
    """Of the pages of a file, all of one size."""

    size: tuple[int, int]  # (height, width)
    pages: int
    samples: int  # of each page
    is_photo: bool  # grey, a palette, RGB or CMYK on one page; perhaps with a channel that is called alpha
    has_alpha: bool


def tiff_layout(path: str | Path, content: bytes | None = None) -> Layout | None:
    """
    `None` for another format, and for what cannot be understood or has pages of several sizes.

    Args:
        content: of the file, where it is not to be read.
    """
    try:
        if content is None and not Path(path).is_file():  # opening a pipe would wait for ever
            return None
        with open(path, "rb") if content is None else BytesIO(content) as file:
            if file.read(4) not in MAGIC:
                return None
            file.seek(0)
            with tifffile.TiffFile(file) as tiff:
                return layout_of(tiff)
    except Exception:  # whatever a damaged file makes of it: Pillow says what is wrong
        return None


def layout_of(tiff: tifffile.TiffFile) -> Layout | None:
    first = tiff.pages.first
    count = 1
    while count <= MAX_PAGES:
        try:
            page = tiff.pages[count]
        except IndexError:
            break
        if (page.shape, page.dtype) != (first.shape, first.dtype):
            return None
        count += 1
    samples = first.samplesperpixel
    kinds = {tifffile.PHOTOMETRIC.RGB: 3, tifffile.PHOTOMETRIC.YCBCR: 3, tifffile.PHOTOMETRIC.SEPARATED: 4}
    colours = kinds.get(first.photometric, 1)
    has_alpha = samples == colours + 1 and first.extrasamples[-1:] != () and int(first.extrasamples[-1]) in (1, 2)
    is_photo = count == 1 and (samples == colours or has_alpha)
    return Layout((first.imagelength, first.imagewidth), count, samples, is_photo, has_alpha)


def read_tiff(path: str | Path) -> np.ndarray:
    """
    The pixels as they are in the file, `(height, width, channels)`: the bands of one page, or several pages.

    Raises:
        ValueError: a damaged file, pages with several bands each, one that is turned, or a compression that tifffile
            cannot undo.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            layout = layout_of(tiff)
            if layout is None or layout.pages > MAX_PAGES or min(layout.pages, layout.samples) > 1:
                raise ValueError("its pages are not the channels of one image")
            pages = [tiff.pages[number] for number in range(layout.pages)]
            orientation = pages[0].tags.get(274)
            if orientation is not None and orientation.value != 1:
                raise ValueError("it is turned by its orientation tag")
            is_planar = pages[0].samplesperpixel > 1 and pages[0].axes[0] == "S"
            arrays = [page.asarray() for page in pages]
    except Exception as error:  # each kind of damage has one of its own
        raise ValueError(f"{path}: the TIFF cannot be read ({error}). Save it again, without compression.") from error
    if len(arrays) > 1:
        return np.stack(arrays, axis=-1)
    return np.moveaxis(arrays[0], 0, -1) if is_planar else arrays[0].reshape(*layout.size, -1)
