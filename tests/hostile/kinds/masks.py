"""Damage to mask files, and strange masks that are right."""

import os
import zlib

import numpy as np
from PIL import Image

from ..damage import Case, Outcome, cut, flip_bits, kind
from .images import ORIENTATION, STORED, encoded, payload, png, png_chunk


def put(place, content: bytes, suffix: str = "png"):
    path = place.folder / f"{place.image_id}_segmentation.{suffix}"
    path.write_bytes(content)
    return path


def grey(place, lesion: int = 255) -> np.ndarray:
    return place.truth.astype(np.uint8) * lesion


SCORED = ("efp score --masks", "page: compare")  # a mask by its full name
IN_DATA = ("load_isic", "efp score", "efp train", "efp calibrate")


@kind("mask")
def right_mask(rng, place):
    return Case(put(place, encoded(grey(place), "PNG")), Outcome.READ, truth=place.truth)


@kind("mask")
def other_values(rng, place):
    values = grey(place, [3, 2, 128, 254, 100][place.seed % 5])
    return Case(put(place, encoded(values, "PNG")), Outcome.REFUSED)


@kind("mask")
def one_grey_pixel(rng, place):
    values = grey(place)
    values[tuple(rng.integers(0, values.shape))] = int(rng.integers(1, 255))
    return Case(put(place, encoded(values, "PNG")), Outcome.REFUSED)


@kind("mask", doors=IN_DATA)
def jpeg_mask(rng, place):
    """Ringing beside every edge."""
    return Case(put(place, encoded(grey(place), "JPEG", quality=75), "jpg"), Outcome.REFUSED)


@kind("mask")
def transparent_mask(rng, place):
    alpha = np.where(place.truth, 255, 0).astype(np.uint8)
    return Case(put(place, encoded(np.dstack([grey(place)] * 3 + [alpha]), "PNG")), Outcome.REFUSED)


@kind("mask")
def lesion_in_alpha_alone(rng, place):
    """White everywhere, the lesion is where it is opaque: read without alpha it would be a full mask."""
    white = np.full_like(grey(place), 255)
    return Case(put(place, encoded(np.dstack([white] * 3 + [grey(place)]), "PNG")), Outcome.REFUSED)


@kind("mask")
def opaque_alpha_mask(rng, place):
    opaque = np.full_like(grey(place), 255)
    path = put(place, encoded(np.dstack([grey(place)] * 3 + [opaque]), "PNG"))
    return Case(path, Outcome.READ, truth=place.truth)


@kind("mask")
def mask_of_another_size(rng, place):
    height, width = place.truth.shape
    size = [(height + 1, width), (height, width - 1), (width, height + 1), (1, 1)][place.seed % 4]
    picture = Image.fromarray(grey(place)).resize(size[::-1], Image.Resampling.NEAREST)
    return Case(put(place, encoded(picture, "PNG")), Outcome.REFUSED)


@kind("mask")
def mask_with_an_orientation(rng, place):
    number = 1 + place.seed % 8
    exif = Image.Exif()
    exif[ORIENTATION] = number
    path = put(place, encoded(STORED[number](grey(place)), "PNG", exif=exif))
    return Case(path, Outcome.JUDGED, truth=place.truth)


@kind("mask")
def truncated_mask(rng, place):
    return Case(put(place, cut(encoded(grey(place), "PNG", compress_level=0), rng, 0.02, 0.9)), Outcome.REFUSED)


@kind("mask")
def mask_with_flipped_bits(rng, place):
    return Case(put(place, flip_bits(encoded(grey(place), "PNG"), rng)), Outcome.JUDGED, truth=place.truth)


@kind("mask")
def mask_with_missing_rows(rng, place):
    """The header promises the image's size, the data holds its upper half: black below is no lesion."""
    height, width = place.truth.shape
    rows = b"".join(b"\0" + row.tobytes() for row in grey(place)[: height // 2])
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return Case(put(place, png(header, png_chunk(b"IDAT", zlib.compress(rows)))), Outcome.REFUSED)


@kind("mask")
def coloured_mask(rng, place):
    colour = np.array([[255, 0, 0], [0, 255, 0], [255, 255, 0]][place.seed % 3], np.uint8)
    return Case(put(place, encoded(place.truth[..., None] * colour, "PNG")), Outcome.REFUSED)


@kind("mask")
def mask_in_rgb(rng, place):
    return Case(put(place, encoded(np.dstack([grey(place)] * 3), "PNG")), Outcome.READ, truth=place.truth)


@kind("mask")
def mask_of_16_bits(rng, place):
    wide = place.truth.astype(np.uint16) * [65535, 255, 1][place.seed % 3]
    picture = Image.frombytes("I;16", wide.shape[::-1], wide.tobytes())
    return Case(put(place, encoded(picture, "PNG")), Outcome.REFUSED)


@kind("mask")
def mask_of_one_bit(rng, place):
    return Case(put(place, encoded(Image.fromarray(place.truth), "PNG")), Outcome.READ, truth=place.truth)


@kind("mask")
def palette_mask(rng, place):
    """By the colours of the palette, not by its indices."""
    picture = Image.fromarray(place.truth.astype(np.uint8), "P")
    white = place.seed % 2 == 0
    picture.putpalette([0, 0, 0, 255, 255, 255] if white else [10, 10, 10, 200, 200, 200])
    outcome = Outcome.READ if white else Outcome.REFUSED
    return Case(put(place, encoded(picture, "PNG")), outcome, truth=place.truth)


def of_zeros_and_ones(place):
    return put(place, encoded(grey(place, 1), "PNG"))


@kind("mask", doors=IN_DATA)
def mask_of_zeros_and_ones(rng, place):
    return Case(of_zeros_and_ones(place), Outcome.READ, truth=place.truth)


@kind("mask", doors=SCORED)
def compared_mask_of_zeros_and_ones(rng, place):
    return Case(of_zeros_and_ones(place), Outcome.REFUSED)


@kind("mask", doors=IN_DATA)
def mask_of_palette_indices(rng, place):
    """As annotation tools write it: the first colour is black, the second any."""
    picture = Image.fromarray(place.truth.astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 128, 0, 0])
    return Case(put(place, encoded(picture, "PNG")), Outcome.READ, truth=place.truth)


@kind("mask")
def inverted_palette_mask(rng, place):
    picture = Image.fromarray((~place.truth).astype(np.uint8), "P")
    picture.putpalette([255, 255, 255, 0, 0, 0])
    return Case(put(place, encoded(picture, "PNG")), Outcome.READ, truth=place.truth)


@kind("mask")
def empty_mask(rng, place):
    nothing = np.zeros_like(place.truth)
    return Case(put(place, encoded(nothing.astype(np.uint8), "PNG")), Outcome.READ, truth=nothing)


@kind("mask")
def full_mask(rng, place):
    everything = np.ones_like(place.truth)
    return Case(put(place, encoded(everything.astype(np.uint8) * 255, "PNG")), Outcome.READ, truth=everything)


@kind("mask")
def mask_of_no_bytes(rng, place):
    return Case(put(place, b""), Outcome.REFUSED)


@kind("mask")
def pickled_mask(rng, place):
    return Case(put(place, payload(place)), Outcome.REFUSED)


@kind("mask")
def photo_for_a_mask(rng, place):
    return Case(put(place, encoded(place.photo, "PNG")), Outcome.REFUSED)


@kind("mask")
def animated_mask(rng, place):
    frames = [Image.fromarray(grey(place)), Image.fromarray(255 - grey(place))]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    return Case(put(place, content), Outcome.REFUSED)


@kind("mask")
def inverted_mask_of_float(rng, place):
    picture = Image.fromarray(place.truth.astype(np.float32))
    return Case(put(place, encoded(picture, "TIFF")), Outcome.REFUSED)


@kind("mask")
def mask_bomb(rng, place):
    return Case(put(place, encoded(Image.new("1", (10_100, 10_100)), "PNG")), Outcome.REFUSED)


@kind("mask", doors=(*IN_DATA, "efp score --masks"))
def missing_mask(rng, place):
    return Case(place.folder / f"{place.image_id}_segmentation.png", Outcome.REFUSED, words=(place.image_id,))


@kind("mask", doors=IN_DATA)
def doubled_mask(rng, place):
    put(place, encoded(grey(place), "PNG"))
    (place.folder / f"{place.image_id}.png").write_bytes(encoded(grey(place), "PNG"))
    path = place.folder / f"{place.image_id}_segmentation.png"
    return Case(path, Outcome.REFUSED, words=(place.image_id,))


@kind("mask", doors=IN_DATA)
def mask_without_an_image(rng, place):
    """Left out without a word, a misnamed pair would be lost for ever."""
    put(place, encoded(grey(place), "PNG"))
    path = place.folder / "orphan_of_no_image_segmentation.png"
    path.write_bytes(encoded(grey(place), "PNG"))
    return Case(path, Outcome.NOTED, truth=place.truth, words=("orphan_of_no_image",))


@kind("mask")
def folder_named_as_a_mask(rng, place):
    path = place.folder / f"{place.image_id}_segmentation.png"
    path.mkdir()
    return Case(path, Outcome.REFUSED, words=(place.image_id,))


@kind("mask")
def pipe_named_as_a_mask(rng, place):
    path = place.folder / f"{place.image_id}_segmentation.png"
    os.mkfifo(path)
    return Case(path, Outcome.REFUSED, words=(place.image_id,))


@kind("mask")
def unreadable_mask(rng, place):
    path = put(place, encoded(grey(place), "PNG"))
    path.chmod(0)
    return Case(path, Outcome.REFUSED)


@kind("mask")
def mask_that_is_a_link_to_itself(rng, place):
    path = place.folder / f"{place.image_id}_segmentation.png"
    path.symlink_to(path)
    return Case(path, Outcome.REFUSED, words=(place.image_id,))
