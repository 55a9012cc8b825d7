"""Images of any number of channels, from files of several bands or from several files, as arrays."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..image_processing_efp import NUM_COLOURS, to_upright_rgb
from .files import MAX_PIXELS, decode, open_image
from .tiff import read_tiff, tiff_layout

ARRAY_SUFFIX = ".npy"
MAX_CHANNELS = 64
FURTHER_NAME = re.compile(r"(.+)_([2-9]|[1-9]\d)")  # of a further file of an image, without its ending
FURTHER_COLUMN = re.compile(r"image_([2-9]|[1-9]\d)")
FLOAT_SCALE, SHORT_SCALE = 255, 257  # what 1.0 is, and by which 16 bits are divided


def is_array(path: Path) -> bool:
    """
    Whether a file holds channels that are no photo's: `.npy`, or a TIFF of several pages or of other bands. One whose
    fourth band is called alpha is a photo where that is opaque everywhere.
    """
    if path.suffix.lower() == ARRAY_SUFFIX:
        return True
    layout = tiff_layout(path)
    if layout is None or layout.pages > MAX_CHANNELS or min(layout.pages, layout.samples) > 1:
        return False  # no image that can be read: Pillow says what is wrong
    if layout.is_photo and not layout.has_alpha:
        return False
    return not layout.is_photo or not is_opaque(path)


def channels_in(path: Path) -> int:
    """Of one file, by its header; three of a picture, and of what cannot be read."""
    if path.suffix.lower() == ARRAY_SUFFIX:
        try:
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
        except Exception:  # whatever a damaged file makes of it: reading says what is wrong
            return NUM_COLOURS
        return shape[2] if len(shape) == 3 else 1
    layout = tiff_layout(path)
    return NUM_COLOURS if layout is None or layout.is_photo else layout.pages * layout.samples


def is_opaque(path: Path) -> bool:
    pixels = read_tiff(path)
    return bool((pixels[..., -1] == np.iinfo(pixels.dtype).max).all()) if pixels.dtype.kind == "u" else False


def read_channels(files: Sequence[str | Path]) -> np.ndarray:
    """
    The channels of an image's files, one file after the other, `(height, width, channels)`: uint8, or float32 on the
    same scale from 0 to 255 where a file has 16 bits or floats from 0 to 1. A photo has three channels, a grey picture
    beside others one.

    Raises:
        FileNotFoundError, ValueError: by name: a file that is missing or damaged, of another size than the first one,
            transparent, of other numbers, or with more than `MAX_CHANNELS` channels.
    """
    arrays = [read_array(Path(file)) for file in files]
    for file, array in zip(files, arrays, strict=True):
        if array.shape[:2] != arrays[0].shape[:2]:
            (height, width), (first_height, first_width) = array.shape[:2], arrays[0].shape[:2]
            raise ValueError(
                f"{file}: the image is {height}×{width}, {Path(files[0]).name} is {first_height}×{first_width}. "
                "All files of an image must have one size."
            )
    return np.concatenate(arrays, axis=-1)


def read_array(path: Path) -> np.ndarray:
    """As [`read_channels`], of one file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Check the path.")
    if path.suffix.lower() == ARRAY_SUFFIX:
        try:
            with path.open("rb") as file:
                pixels = np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:  # each kind of damage has one of its own
            raise ValueError(f"{path}: no array that can be read ({error}). Save it with numpy.save.") from error
        if pixels.ndim == 2:
            pixels = pixels[..., None]
    elif is_array(path):
        pixels = read_tiff(path)
    else:
        return read_picture(path)
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= MAX_CHANNELS or 0 in pixels.shape:
        raise ValueError(
            f"{path}: the array must be (height, width, channels) with up to {MAX_CHANNELS} channels, got "
            f"{pixels.shape}. Save it so."
        )
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise ValueError(f"{path}: the image has more than {MAX_PIXELS} pixels. Reduce it first.")
    return to_byte_scale(pixels, path)


def read_picture(path: Path) -> np.ndarray:
    """A grey picture of 8 or 16 bits as one channel, another one as its three colours."""
    with open_image(path) as opened:
        picture = decode(opened, path)
        if picture.mode in ("L", "I;16"):
            return to_byte_scale(np.asarray(ImageOps.exif_transpose(picture))[..., None], path)
        if picture.has_transparency_data and picture.convert("RGBA").getextrema()[3] != (255, 255):
            raise ValueError(f"{path}: the image must not be transparent beside others. Save it without alpha.")
        try:
            return np.array(to_upright_rgb(picture))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def to_byte_scale(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.newbyteorder("=") == np.uint16:  # of either order
        return pixels.astype(np.float32) / SHORT_SCALE
    if pixels.dtype.kind != "f":
        raise ValueError(
            f"{path}: pixels must be uint8, uint16, or floats from 0 to 1, got {pixels.dtype}. Scale them."
        )
    low, high = float(pixels.min()), float(pixels.max())  # NaN where one is
    if not 0 <= low <= high <= 1:
        raise ValueError(f"{path}: floats must be from 0 to 1, got {low:g} to {high:g}. Scale them.")
    return pixels.astype(np.float32) * FLOAT_SCALE


def write_channels(array: np.ndarray, path: Path) -> None:
    """For [`read_channels`]; what is no uint8 with 16 bits."""
    np.save(path, array if array.dtype == np.uint8 else np.round(array * SHORT_SCALE).astype(np.uint16))


def resize_channels(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Smoothly, to (height, width)."""
    planes = [np.ascontiguousarray(array[..., channel]) for channel in range(array.shape[2])]
    resized = [Image.fromarray(plane).resize(size[::-1], Image.Resampling.BILINEAR) for plane in planes]
    return np.stack([np.asarray(plane) for plane in resized], axis=-1)


def picture_of(array: np.ndarray) -> Image.Image:
    """What a person may see of an image of many channels: the first three in RGB, of fewer the first in grey."""
    shown = array[..., :NUM_COLOURS] if array.shape[2] >= NUM_COLOURS else array[..., :1].repeat(NUM_COLOURS, axis=2)
    return Image.fromarray(np.round(shown).astype(np.uint8))


def height_and_width(image: Image.Image | np.ndarray) -> tuple[int, int]:
    """Of a photo, or of an array of channels."""
    return image.shape[:2] if isinstance(image, np.ndarray) else image.size[::-1]


def further_columns(columns: Iterable[str]) -> list[str]:
    """`image_2`, `image_3`, … in their order."""
    return sorted((name for name in columns if FURTHER_COLUMN.fullmatch(name)), key=lambda name: int(name[6:]))


def join_files(stems: Iterable[str]) -> dict[str, list[str]]:
    """Each name that is no further file's, and those of its further files `<name>_2`, `<name>_3`, … that are there."""
    stems = set(stems)
    first = {stem: [] for stem in sorted(stems) if not ((found := FURTHER_NAME.fullmatch(stem)) and found[1] in stems)}
    for stem in sorted(stems - first.keys(), key=lambda stem: int(FURTHER_NAME.fullmatch(stem)[2])):
        name = FURTHER_NAME.fullmatch(stem)[1]
        first.setdefault(name, []).append(stem)
    return first


def channels_of(rows) -> int:
    """Of the images of a dataset of [`load_lesions`], of its first row where they are lists of files."""
    is_list = hasattr(rows.features["image"], "feature")
    return rows[0]["image"].shape[2] if is_list and len(rows) else NUM_COLOURS
