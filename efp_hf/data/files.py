"""Reads image and mask files, or says by name why it cannot."""

import csv
import os
import struct
import threading
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from ..image_processing_efp import orientation_of, to_upright_rgb
from .png import check_rows, png_depth
from .tiff import tiff_layout

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
# What Pillow raises for damaged files, its EXIF and TIFF readers among them
DECODING_ERRORS = (OSError, SyntaxError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, struct.error)
JPEG_COLOURS = {"RGB": "RGB", "L": "GRAY"}  # Pillow's mode → simplejpeg's
REPAIRED = "repaired"  # key of `Image.info`
TIFF_BITS = 258  # the tag BitsPerSample
MAX_PIXELS = 100_000_000  # a decompression bomb is refused before its pixels are decoded


# Of Pillow's formats those that photos and masks come in. Some of the others start programs (EPS: Ghostscript).
IMAGE_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")  # MPO is opened as JPEG


def is_image_file(path: Path) -> bool:
    """By its ending; not hidden, and not one of the super-pixel pictures that some ISIC archives hold."""
    return (
        path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and not path.stem.endswith("_superpixels")
    )


def delimiter_of(table: Path) -> str:
    """A spreadsheet saves semicolons where the comma is for decimals."""
    with table.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        header = file.readline()
    return max(",;\t", key=header.count)


def rows_of_table(table: Path) -> list[dict]:
    """
    Each row of a CSV, by column; what is missing is empty, and values beyond the header are under `None`.

    Raises:
        ValueError: not a table in UTF-8.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file, delimiter=delimiter_of(table), restval=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} must be a table in UTF-8, got {error}. Save it again.") from error


def open_image(path: str | Path, max_pixels: int = MAX_PIXELS, content: bytes | None = None) -> Image.Image:
    """
    An image file opened but not yet decoded.

    Args:
        content: of the file, where it is not to be read; `path` is then only its name in messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is empty, no image, animated or of several pages, has more than `max_pixels`, or other
            channels than a photo.
    """
    if content is None and not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file. Check the path.")
    if (Path(path).stat().st_size if content is None else len(content)) == 0:
        raise ValueError(f"{path}: the file is empty. Copy or download it again.")
    layout = tiff_layout(path, content)
    if layout is not None and layout.pages == 1 and not layout.is_photo:
        raise ValueError(not_of_colours(path, layout.samples))
    try:
        with warnings.catch_warnings():  # Pillow's own limit warns; ours below refuses
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path if content is None else BytesIO(content), formats=IMAGE_FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: the image has more than {max_pixels} pixels. Reduce it first.") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{path}: not an image that can be read. Save it as JPEG or PNG.") from error
    except DECODING_ERRORS as error:
        raise ValueError(f"{path}: the image cannot be opened ({error}). Save it again as JPEG or PNG.") from error
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(f"{path}: the image has {height}×{width} pixels, more than {max_pixels}. Reduce it first.")
    try:
        # the second picture of a phone's MPO file is a preview or a depth map: the first one is the photo
        is_single = image.format == "MPO" or not has_second_frame(image)
        upright_size(image)
    except DECODING_ERRORS as error:
        raise ValueError(f"{path}: the file is damaged or truncated ({error}). Copy it again.") from error
    if not is_single:
        raise ValueError(f"{path}: the file holds several images. Save the one that is meant as a single image.")
    return image


def not_of_colours(path: str | Path, num_channels: int) -> str:
    return (
        f"{path}: the image has {num_channels} channels, and three colours are needed. Pass a checkpoint that was "
        f"trained with {num_channels} channels, or save the colours alone as RGB."
    )


def has_second_frame(image: Image.Image) -> bool:
    """Without counting them all: a TIFF of two megabytes can hold 20,000 pages, which takes Pillow a minute."""
    try:
        image.seek(1)
    except EOFError:
        return False
    finally:
        image.seek(0)
    return True


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of an opened image after its EXIF rotation, from the header alone."""
    width, height = image.size
    return (width, height) if 5 <= orientation_of(image) <= 8 else (height, width)


def decode(
    opened: Image.Image, path: str | Path, min_size: int | None = None, content: bytes | None = None
) -> Image.Image:
    """
    An opened image with its pixels. `info[REPAIRED]` says what of a JPEG's damaged data was made up.

    Args:
        min_size: the shorter side that is needed. A larger JPEG is decoded at the smallest of 1/1, 1/2, 1/4, 1/8 of
            its size that still has it, many times faster.
        content: as in [`open_image`].

    Raises:
        ValueError: a truncated or damaged file.
    """
    if min_size is not None:
        opened.draft(None, (min_size, min_size))  # a JPEG keeps both sides at or above the request
    damage = None
    source = path if content is None else BytesIO(content)
    if opened.format == "JPEG" and opened.mode in JPEG_COLOURS:
        image, damage = decode_jpeg(opened)
        if image is not None:
            return image
    try:
        opened.load()
        if opened.format == "PNG":
            check_rows(opened, source)
    except DECODING_ERRORS as error:
        raise ValueError(f"{path}: the file is damaged or truncated ({error}). Copy it again.") from error
    if has_12_of_16_bits(opened, source):
        raise ValueError(
            f"{path}: the image must use its 16 bits, got data of 12 or fewer, whose white level the file does not "
            "say. Save it as 8-bit RGB."
        )
    if damage is not None:
        opened.info[REPAIRED] = f"damaged JPEG data was repaired ({damage})"
    return opened


def has_12_of_16_bits(image: Image.Image, source: str | Path | BinaryIO) -> bool:
    """Whether a decoded file of 16 bits a colour uses 12 at most: Pillow keeps the upper 8, a dark picture."""
    if not image.mode.startswith(("RGB", "LA")):
        return False
    colours = image.getextrema()[:3] if image.mode.startswith("RGB") else image.getextrema()[:1]
    if max(high for _, high in colours) >= 16:
        return False
    return png_depth(source) == 16 if image.format == "PNG" else 16 in bits_per_sample(image)


def bits_per_sample(image: Image.Image) -> tuple[int, ...]:
    """Of a TIFF file; of others nothing."""
    return image.tag_v2.get(TIFF_BITS, ()) if image.format == "TIFF" else ()


def decode_jpeg(opened: Image.Image) -> tuple[Image.Image | None, str | None]:
    """
    The pixels that Pillow would give, by the same library; or `None` and what is wrong with the data. Pillow decodes
    damaged data without a word, where the library makes up what is missing.
    """
    width, height = opened.size  # as drafted
    opened.fp.seek(0)
    try:
        pixels = simplejpeg.decode_jpeg(opened.fp.read(), JPEG_COLOURS[opened.mode], min_height=height, min_width=width)
    except ValueError as error:
        return None, str(error)
    if pixels.shape[:2] != (height, width):
        return None, None
    image = Image.fromarray(pixels.squeeze(-1) if opened.mode == "L" else pixels)
    image.info = opened.info
    return image, None


def read_image(path: str | Path, min_size: int | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image of [`read_sized_image`] alone."""
    return read_sized_image(path, min_size, max_pixels)[0]


def read_sized_image(
    path: str | Path, min_size: int | None = None, max_pixels: int = MAX_PIXELS, content: bytes | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """
    An image file as upright 8-bit RGB ([`to_upright_rgb`]), and the (height, width) that the file has: with `min_size`
    as in [`decode`] the image may be smaller. `content` as in [`open_image`].

    Raises:
        FileNotFoundError, ValueError: as [`open_image`] and [`decode`], and for 32-bit pixels.
    """
    with open_image(path, max_pixels, content) as image:
        size = upright_size(image)
        image = decode(image, path, min_size, content)
        if image.format == "TIFF" and image.mode in ("RGBA", "LA") and image.getextrema()[-1] != (255, 255):
            raise ValueError(not_of_colours(path, len(image.mode)))  # some programs call any fourth channel alpha
        try:
            upright = to_upright_rgb(image)
        except DECODING_ERRORS as error:
            raise ValueError(f"{path}: {error}") from error
        if REPAIRED in image.info:
            upright.info[REPAIRED] = image.info[REPAIRED]
        return upright, size


def read_mask(path: str | Path, max_pixels: int = MAX_PIXELS, content: bytes | None = None) -> np.ndarray:
    """
    A mask file as a boolean `(height, width)` array, `True` for lesion. `content` as in [`open_image`].

    Raises:
        FileNotFoundError, ValueError: as [`open_image`] and [`decode`], and for values other than 0 and 255.
    """
    with open_image(path, max_pixels, content) as image:
        return as_boolean_mask(decode(image, path, content=content), path)


def as_boolean_mask(mask: Image.Image, name: str | Path) -> np.ndarray:
    """
    A 0/255 mask picture as booleans, `(height, width)`, upright.

    Raises:
        ValueError: transparency, or a value other than 0 and 255; with `name` and the value.
    """
    check_mask_mode(mask, name)
    grey = np.asarray(ImageOps.exif_transpose(mask).convert("L"))
    lesion = grey == 255
    strange = grey[~lesion & (grey != 0)]
    if strange.size:
        raise ValueError(
            f"{name}: a mask must hold 0 (background) and 255 (foreground), got {strange.flat[0]}. "
            "Binarise it, and save it as PNG, not as JPEG; or name several classes in classes.txt; of a dataset in the "
            "column `classes`."
        )
    return lesion


def check_mask_mode(mask: Image.Image, name: str | Path) -> None:
    """Refuses transparency, and more than 8 bits."""
    if mask.has_transparency_data and mask.convert("RGBA").getextrema()[3] != (255, 255):
        raise ValueError(f"{name}: a mask must not be transparent. Save it as 8-bit grey PNG of 0 and 255.")
    if mask.mode.startswith(("I", "F")):
        raise ValueError(f"{name}: a mask must have 8 bits, got mode {mask.mode!r}. Save it as 8-bit grey PNG.")


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """
    `write(path)` to a neighbour of `path` that then takes its name: a file is there whole or not at all. Several
    threads or processes may write the same one: the last stays.
    """
    partial = path.with_name(f".{os.getpid()}-{threading.get_native_id()}-{path.name}")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
