"""Damage to image files, and strange files that are right."""

import io
import json
import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from ..damage import Case, Outcome, Place, cut, flip_bits, kind

ORIENTATION = 0x0112
# how a picture is stored so that a reader that obeys the tag sees it upright
STORED = {
    1: lambda photo: photo,
    2: lambda photo: photo[:, ::-1],
    3: lambda photo: photo[::-1, ::-1],
    4: lambda photo: photo[::-1],
    5: lambda photo: photo.transpose(1, 0, 2),
    6: lambda photo: np.rot90(photo),
    7: lambda photo: photo.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda photo: np.rot90(photo, -1),
}
SINGLE_FORMATS = {
    "JPEG": "jpg",
    "PNG": "png",
    "TIFF": "tif",
    "BMP": "bmp",
    "WEBP": "webp",
    "GIF": "png",
}  # by its content: no ending of GIF is looked for


def encoded(pixels: np.ndarray | Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.ascontiguousarray(pixels))
    if format == "WEBP":
        options = {"lossless": True, **options}
    picture.save(file, format, **options)
    return file.getvalue()


def put(place: Place, content: bytes, suffix: str = "jpg") -> Path:
    path = place.folder / f"{place.image_id}.{suffix}"
    path.write_bytes(content)
    return path


def jpeg(place: Place, **options) -> bytes:
    return encoded(place.photo, "JPEG", **{"quality": 90, **options})


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(header: bytes, *chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(chunks) + png_chunk(b"IEND", b"")


def scan_start(content: bytes) -> int:
    """Where the entropy-coded data of a JPEG begins."""
    marker = content.index(b"\xff\xda")
    return marker + 2 + struct.unpack(">H", content[marker + 2 : marker + 4])[0]


# Truncation, at each region


@kind("image")
def jpeg_cut_in_its_first_bytes(rng, place):
    return Case(put(place, jpeg(place)[: int(rng.integers(1, 20))]), Outcome.REFUSED)


@kind("image")
def jpeg_cut_in_its_tables(rng, place):
    content = jpeg(place)
    return Case(put(place, content[: int(rng.integers(20, scan_start(content)))]), Outcome.REFUSED)


@kind("image")
def jpeg_cut_in_its_data(rng, place):
    content = jpeg(place)
    return Case(put(place, content[: int(rng.integers(scan_start(content), len(content) - 20))]), Outcome.NOTED)


@kind("image")
def jpeg_without_its_end(rng, place):
    return Case(put(place, jpeg(place)[: -int(rng.integers(1, 3))]), Outcome.JUDGED)


@kind("image")
def progressive_jpeg_cut(rng, place):
    content = jpeg(place, progressive=True)
    return Case(put(place, cut(content, rng, 0.5, 0.98)), Outcome.NOTED)


@kind("image")
def jpeg_with_zeros_for_its_second_half(rng, place):
    content = jpeg(place)
    start = int(rng.integers(scan_start(content) + 10, len(content) - 100))
    return Case(put(place, content[:start] + bytes(len(content) - start)), Outcome.NOTED)


@kind("image")
def jpeg_with_a_hole(rng, place):
    content = jpeg(place)
    start = int(rng.integers(scan_start(content), len(content) - 200))
    return Case(put(place, content[:start] + content[start + 100 :]), Outcome.JUDGED)


@kind("image")
def png_cut(rng, place):
    return Case(put(place, cut(encoded(place.photo, "PNG"), rng, 0.01, 0.95), "png"), Outcome.REFUSED)


@kind("image")
def png_without_its_end(rng, place):
    return Case(put(place, encoded(place.photo, "PNG")[:-12], "png"), Outcome.JUDGED, place.photo)


@kind("image")
def tiff_cut(rng, place):
    content = encoded(place.photo, "TIFF", compression=str(rng.choice(["raw", "tiff_lzw", "tiff_deflate"])))
    return Case(put(place, cut(content, rng, 0.01, 0.95), "tif"), Outcome.REFUSED)


@kind("image")
def bmp_cut(rng, place):
    return Case(put(place, cut(encoded(place.photo, "BMP"), rng, 0.005, 0.95), "bmp"), Outcome.REFUSED)


@kind("image")
def webp_cut(rng, place):
    return Case(put(place, cut(encoded(place.photo, "WEBP"), rng, 0.01, 0.95), "webp"), Outcome.REFUSED)


@kind("image")
def gif_cut(rng, place):
    path = put(place, cut(encoded(Image.fromarray(place.photo).quantize(64), "GIF"), rng, 0.01, 0.9), "png")
    return Case(path, Outcome.REFUSED)


# Bits and bytes


def flipped(format: str, part: str) -> Callable:
    def write(rng, place):
        content = encoded(place.photo, format)
        middle = {"JPEG": scan_start(content) if format == "JPEG" else 0, "PNG": 41, "BMP": 54, "WEBP": 40}.get(
            format, 200
        )
        if format == "TIFF":  # Pillow's directory may lie behind the pixels: anywhere
            start, stop = 0, len(content)
        else:
            start, stop = (0, middle) if part == "header" else (middle, len(content))
        content = flip_bits(content, rng, start, stop, int(rng.integers(1, 6)))
        return Case(put(place, content, SINGLE_FORMATS[format]), Outcome.JUDGED)

    return write


for _format in ("JPEG", "PNG", "BMP", "WEBP"):
    for _part in ("header", "data"):
        kind("image", f"{_format} with bits flipped in its {_part}")(flipped(_format, _part))
kind("image", "TIFF with bits flipped")(flipped("TIFF", "all"))


@kind("image")
def jpeg_with_garbage_after_its_end(rng, place):
    clean = jpeg(place)
    path = put(place, clean + rng.bytes(int(rng.integers(1, 5000))))
    return Case(path, Outcome.JUDGED, np.asarray(Image.open(io.BytesIO(clean))))


@kind("image")
def png_with_garbage_after_its_end(rng, place):
    path = put(place, encoded(place.photo, "PNG") + rng.bytes(int(rng.integers(1, 5000))), "png")
    return Case(path, Outcome.READ, place.photo)


@kind("image")
def garbage_before_the_image(rng, place):
    return Case(put(place, b"\x00" + rng.bytes(int(rng.integers(1, 200))) + jpeg(place)), Outcome.REFUSED)


@kind("image")
def two_jpegs_in_a_file(rng, place):
    clean = jpeg(place)
    path = put(place, clean + encoded(place.photo[::-1, ::-1], "JPEG"))
    return Case(path, Outcome.JUDGED, np.asarray(Image.open(io.BytesIO(clean))))


@kind("image")
def random_bytes(rng, place):
    return Case(put(place, rng.bytes(int(rng.integers(1, 5000)))), Outcome.REFUSED)


@kind("image")
def empty_file(rng, place):
    return Case(put(place, b"", str(rng.choice(["jpg", "png", "tif"]))), Outcome.REFUSED)


# Headers that lie


@kind("image")
def png_whose_header_promises_more_rows(rng, place):
    """Without a check of the data's length the missing rows are black, without a word."""
    height, width, _ = place.photo.shape
    rows = b"".join(b"\0" + row.tobytes() for row in place.photo)
    header = struct.pack(">IIBBBBB", width, height * 2, 8, 2, 0, 0, 0)
    return Case(put(place, png(header, png_chunk(b"IDAT", zlib.compress(rows))), "png"), Outcome.NOTED)


@kind("image")
def png_with_a_wrong_checksum(rng, place):
    content = bytearray(encoded(place.photo, "PNG"))
    position = 29 if rng.random() < 0.5 else content.index(b"IEND") - 5  # of IHDR or of the last IDAT
    content[position] ^= 0xFF
    return Case(put(place, bytes(content), "png"), Outcome.JUDGED)


@kind("image")
def png_whose_compressed_data_is_garbage(rng, place):
    header = struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0)
    return Case(put(place, png(header, png_chunk(b"IDAT", rng.bytes(2000))), "png"), Outcome.REFUSED)


@kind("image")
def png_of_impossible_depth(rng, place):
    header = struct.pack(">IIBBBBB", 64, 48, int(rng.choice([0, 3, 7, 32])), int(rng.choice([2, 5, 7])), 0, 0, 0)
    return Case(put(place, png(header, png_chunk(b"IDAT", zlib.compress(bytes(10000)))), "png"), Outcome.REFUSED)


@kind("image")
def jpeg_whose_header_promises_more_rows(rng, place):
    content = bytearray(jpeg(place))
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 7] = struct.pack(">H", 2 * len(place.photo))
    return Case(put(place, bytes(content)), Outcome.NOTED)


@kind("image")
def jpeg_of_12_bits(rng, place):
    content = bytearray(jpeg(place))
    content[content.index(b"\xff\xc0") + 4] = 12
    return Case(put(place, bytes(content)), Outcome.REFUSED)


@kind("image")
def jpeg_without_a_table(rng, place):
    content = jpeg(place)
    start = content.index(rng.choice([b"\xff\xdb", b"\xff\xc4"]))
    length = struct.unpack(">H", content[start + 2 : start + 4])[0]
    return Case(put(place, content[:start] + content[start + 2 + length :]), Outcome.JUDGED)


@kind("image")
def bmp_whose_header_promises_more_rows(rng, place):
    content = bytearray(encoded(place.photo, "BMP"))
    content[22:26] = struct.pack("<i", 3 * len(place.photo))
    return Case(put(place, bytes(content), "bmp"), Outcome.NOTED)


@kind("image")
def bmp_from_the_top(rng, place):
    """A negative height: rows from the top."""
    content = bytearray(encoded(place.photo[::-1], "BMP"))
    content[22:26] = struct.pack("<i", -len(place.photo))
    return Case(put(place, bytes(content), "bmp"), Outcome.READ, place.photo)


@kind("image")
def tiff_whose_directory_points_at_itself(rng, place):
    content = bytearray(encoded(place.photo, "TIFF"))
    start = struct.unpack("<I", content[4:8])[0]
    entries = struct.unpack("<H", content[start : start + 2])[0]
    end = start + 2 + 12 * entries
    content[end : end + 4] = struct.pack("<I", start)
    return Case(put(place, bytes(content), "tif"), Outcome.JUDGED, place.photo)


@kind("image")
def tiff_whose_strips_lie_outside(rng, place):
    content = bytearray(encoded(place.photo, "TIFF"))
    start = struct.unpack("<I", content[4:8])[0]
    for entry in range(struct.unpack("<H", content[start : start + 2])[0]):
        at = start + 2 + 12 * entry
        if struct.unpack("<H", content[at : at + 2])[0] == 273:  # StripOffsets
            content[at + 8 : at + 12] = struct.pack("<I", 2**31 + int(rng.integers(2**20)))
    return Case(put(place, bytes(content), "tif"), Outcome.JUDGED)


# What is no image


def content_of(name: str, content: bytes | Callable) -> None:
    def write(rng, place):
        data = content(rng, place) if callable(content) else content
        return Case(put(place, data, str(rng.choice(["jpg", "png", "tif", "webp"]))), Outcome.REFUSED)

    kind("image", name)(write)


class Payload:
    """What an unpickler would run."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


def payload(place: Place) -> bytes:
    """A pickle that makes a folder, which is then seen as a new one."""
    return pickle.dumps(Payload(place.outside / "executed"))


content_of("text", "no image, but words: ünïcödé\n".encode())
content_of("HTML", b"<!DOCTYPE html><html><body>404 Not Found</body></html>")
content_of("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>')
content_of("pickle", lambda rng, place: payload(place))
content_of("JSON", b'{"error": "quota exceeded"}')
content_of("PDF", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n")
content_of("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n(/etc/passwd) (r) file\nshowpage\n")
content_of("zip", lambda rng, place: b"PK\x03\x04" + rng.bytes(400) + b"PK\x05\x06" + bytes(18))
content_of("pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
content_of("PPM", lambda rng, place: encoded(place.photo, "PPM"))
content_of("ICO", lambda rng, place: encoded(place.photo, "ICO"))
content_of("NumPy array", lambda rng, place: b"\x93NUMPY\x01\x00" + rng.bytes(500))
content_of("DICOM", lambda rng, place: bytes(128) + b"DICM" + rng.bytes(500))
content_of("HEIF", lambda rng, place: b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + rng.bytes(400))


# Metadata


def with_exif(place: Place, exif: bytes) -> bytes:
    """A JPEG with this APP1 segment."""
    clean = jpeg(place)
    segment = b"Exif\0\0" + exif
    return clean[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + clean[2:]


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@kind("image")
def exif_garbage(rng, place):
    start = b"II*\0\x08\0\0\0" if rng.random() < 0.5 else b""
    path = put(place, with_exif(place, start + rng.bytes(int(rng.integers(1, 400)))))
    return Case(path, Outcome.JUDGED, decoded(jpeg(place)))


@kind("image")
def exif_of_an_endless_directory(rng, place):
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    return Case(put(place, with_exif(place, exif)), Outcome.JUDGED, decoded(jpeg(place)))


@kind("image")
def exif_with_a_value_of_two_gigabytes(rng, place):
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 0x010F, 2, 2**31 - 1, 26) + bytes(4)
    return Case(put(place, with_exif(place, exif)), Outcome.JUDGED, decoded(jpeg(place)))


@kind("image")
def orientation_as_text(rng, place):
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHI4s", ORIENTATION, 2, 3, b"6\0\0\0") + bytes(4)
    return Case(put(place, with_exif(place, exif)), Outcome.JUDGED, decoded(jpeg(place)))


@kind("image")
def orientation_of_another_type(rng, place):
    """A rational number, two numbers, floats, undefined bytes."""
    type_, count, value = [(5, 1, b"\x1a\0\0\0"), (3, 2, b"\6\0\1\0"), (11, 1, b"\0\0\xc0\x40"), (7, 4, b"\6\0\0\0")][
        place.seed % 4
    ]
    entry = struct.pack("<HHI", ORIENTATION, type_, count) + value
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + bytes(4) + struct.pack("<II", 6, 1)
    return Case(put(place, with_exif(place, exif)), Outcome.JUDGED)


@kind("image")
def orientation_of_no_meaning(rng, place):
    exif = Image.Exif()
    exif[ORIENTATION] = [0, 9, 255, 65535][place.seed % 4]
    clean = jpeg(place)
    return Case(put(place, jpeg(place, exif=exif)), Outcome.JUDGED, decoded(clean))


def oriented(format: str) -> Callable:
    def write(rng, place):
        number = 1 + place.seed % 8 if place.seed < 8 else int(rng.integers(1, 9))
        exif = Image.Exif()
        exif[ORIENTATION] = number
        stored = np.ascontiguousarray(STORED[number](place.photo))
        content = encoded(stored, format, exif=exif)
        pixels = place.photo
        if format == "JPEG":  # lossy: what is stored, turned back
            undo = STORED[{6: 8, 8: 6}.get(number, number)]
            pixels = undo(decoded(encoded(stored, format)))
        return Case(put(place, content, SINGLE_FORMATS[format]), Outcome.READ, np.ascontiguousarray(pixels))

    return write


for _format in ("JPEG", "PNG", "TIFF", "WEBP"):
    kind("image", f"{_format} with an orientation")(oriented(_format))


@kind("image")
def icc_garbage(rng, place):
    format = ["JPEG", "PNG", "TIFF", "WEBP"][place.seed % 4]
    content = encoded(place.photo, format, icc_profile=rng.bytes(int(rng.integers(1, 100_000))))
    pixels = decoded(content) if format == "JPEG" else place.photo
    return Case(put(place, content, SINGLE_FORMATS[format]), Outcome.READ, pixels)


@kind("image")
def hundreds_of_markers(rng, place):
    clean = jpeg(place)
    marker = b"\xff\xee" + struct.pack(">H", 60002) + rng.bytes(60000)
    return Case(put(place, clean[:2] + marker * 30 + clean[2:]), Outcome.READ, decoded(clean))


@kind("image")
def png_with_a_text_bomb(rng, place):
    bomb = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(8_000_000)))
    clean = encoded(place.photo, "PNG")
    return Case(put(place, clean[:33] + bomb + clean[33:], "png"), Outcome.JUDGED, place.photo)


@kind("image")
def png_with_a_profile_bomb(rng, place):
    bomb = png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(8_000_000)))
    clean = encoded(place.photo, "PNG")
    return Case(put(place, clean[:33] + bomb + clean[33:], "png"), Outcome.JUDGED, place.photo)


# Colours and depths


@kind("image")
def cmyk_jpeg(rng, place):
    content = encoded(Image.fromarray(place.photo).convert("CMYK"), "JPEG", quality=95)
    return Case(put(place, content), Outcome.READ, decoded(content))


@kind("image")
def grey_image(rng, place):
    grey = Image.fromarray(place.photo).convert("L")
    return Case(put(place, encoded(grey, "PNG"), "png"), Outcome.READ, np.asarray(grey.convert("RGB")))


@kind("image")
def image_of_one_bit(rng, place):
    bits = Image.fromarray(place.photo).convert("1")
    return Case(put(place, encoded(bits, "PNG"), "png"), Outcome.READ, np.asarray(bits.convert("RGB")))


@kind("image")
def palette_image(rng, place):
    palette = Image.fromarray(place.photo).quantize(int(rng.integers(2, 256)))
    format = ["PNG", "BMP", "TIFF", "GIF"][place.seed % 4]
    content = encoded(palette, format)
    return Case(put(place, content, SINGLE_FORMATS[format]), Outcome.READ, np.asarray(palette.convert("RGB")))


def on_white(photo: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.round(photo * share + 255 * (1 - share)).astype(np.uint8)


@kind("image")
def opaque_alpha(rng, place):
    rgba = np.dstack([place.photo, np.full(place.photo.shape[:2], 255, np.uint8)])
    format = ["PNG", "TIFF", "WEBP"][place.seed % 3]
    return Case(put(place, encoded(rgba, format), SINGLE_FORMATS[format]), Outcome.READ, place.photo)


@kind("image")
def half_transparent(rng, place):
    alpha = rng.integers(0, 256, place.photo.shape[:2]).astype(np.uint8)
    path = put(place, encoded(np.dstack([place.photo, alpha]), "PNG"), "png")
    return Case(path, Outcome.READ, on_white(place.photo, alpha))


@kind("image")
def transparent_everywhere(rng, place):
    alpha = np.zeros(place.photo.shape[:2], np.uint8)
    if place.seed % 2:
        picture = Image.fromarray(np.dstack([place.photo[..., 0], alpha]), "LA")
    else:
        picture = Image.fromarray(np.dstack([place.photo, alpha]))
    return Case(put(place, encoded(picture, "PNG"), "png"), Outcome.REFUSED)


@kind("image")
def transparent_colour_of_a_palette(rng, place):
    palette = Image.fromarray(place.photo).quantize(16)
    content = encoded(palette, "PNG", transparency=int(rng.integers(16)))
    rgba = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))
    return Case(put(place, content, "png"), Outcome.READ, on_white(rgba[..., :3], rgba[..., 3]))


@kind("image")
def grey_of_16_bits(rng, place):
    grey = np.asarray(Image.fromarray(place.photo).convert("L"))
    wide = grey.astype(np.uint16) * 257
    wide[0, :2] = 0, 65535
    grey = grey.copy()
    grey[0, :2] = 0, 255
    format = ["PNG", "TIFF"][place.seed % 2]
    picture = Image.frombytes("I;16", wide.shape[::-1], wide.tobytes())
    return Case(
        put(place, encoded(picture, format), SINGLE_FORMATS[format]), Outcome.READ, np.dstack([grey, grey, grey])
    )


@kind("image")
def data_of_12_bits_in_16(rng, place):
    grey = np.asarray(Image.fromarray(place.photo).convert("L")).astype(np.uint16) * 16
    picture = Image.frombytes("I;16", grey.shape[::-1], grey.tobytes())
    format = ["PNG", "TIFF"][place.seed % 2]
    return Case(put(place, encoded(picture, format), SINGLE_FORMATS[format]), Outcome.REFUSED)


@kind("image")
def colour_of_16_bits(rng, place):
    height, width, _ = place.photo.shape
    wide = (place.photo.astype(np.uint16) * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path = put(place, png(header, png_chunk(b"IDAT", zlib.compress(rows))), "png")
    return Case(path, Outcome.JUDGED, place.photo)


@kind("image")
def colour_of_12_bits_in_16(rng, place):
    """A reader that takes the high byte sees a picture sixteen times too dark."""
    height, width, _ = place.photo.shape
    wide = (place.photo.astype(np.uint16) * 16).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path = put(place, png(header, png_chunk(b"IDAT", zlib.compress(rows))), "png")
    return Case(path, Outcome.JUDGED, place.photo)


@kind("image")
def pixels_of_32_bits(rng, place):
    grey = np.asarray(Image.fromarray(place.photo).convert("L"))
    wide = grey.astype(np.float32) / 255 if place.seed % 2 else grey.astype(np.int32) * 2**20
    return Case(put(place, encoded(Image.fromarray(wide), "TIFF"), "tif"), Outcome.REFUSED)


@kind("image")
def tiff_in_the_colours_of_print(rng, place):
    content = encoded(Image.fromarray(place.photo).convert(["CMYK", "LAB", "YCbCr"][place.seed % 3]), "TIFF")
    return Case(put(place, content, "tif"), Outcome.JUDGED)


# Several pictures, and sizes


@kind("image")
def animated(rng, place):
    format = ["GIF", "PNG", "WEBP"][place.seed % 3]
    frames = [Image.fromarray(np.roll(place.photo, shift, axis=1)) for shift in (0, 5, 9)]
    content = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    return Case(put(place, content, SINGLE_FORMATS[format]), Outcome.REFUSED)


@kind("image")
def several_pages(rng, place):
    pages = [Image.fromarray(place.photo)] * int(rng.integers(2, 200))
    return Case(put(place, encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]), "tif"), Outcome.REFUSED)


@kind("image")
def phone_photo_with_a_preview(rng, place):
    preview = Image.fromarray(place.photo[::2, ::2])
    content = encoded(place.photo, "MPO", save_all=True, append_images=[preview])
    with Image.open(io.BytesIO(content)) as first:
        pixels = np.asarray(first.convert("RGB"))
    return Case(put(place, content), Outcome.READ, pixels)


@kind("image")
def bomb_of_one_bit_a_pixel(rng, place):
    return Case(put(place, encoded(Image.new("1", (10_100, 10_100)), "PNG"), "png"), Outcome.REFUSED)


@kind("image")
def bomb_that_is_only_a_header(rng, place):
    if place.seed % 2:
        content = bytearray(jpeg(place))
        start = content.index(b"\xff\xc0")
        content[start + 5 : start + 9] = struct.pack(">HH", 65500, 65500)
        return Case(put(place, bytes(content)), Outcome.REFUSED)
    header = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    return Case(put(place, png(header, png_chunk(b"IDAT", zlib.compress(b"0"))), "png"), Outcome.REFUSED)


@kind("image")
def size_of_zero(rng, place):
    header = struct.pack(">IIBBBBB", 0, int(rng.integers(0, 100)), 8, 2, 0, 0, 0)
    return Case(put(place, png(header, png_chunk(b"IDAT", zlib.compress(b""))), "png"), Outcome.REFUSED)


@kind("image")
def one_row_or_column(rng, place):
    strip = [place.photo[:1], place.photo[:, :1], place.photo[:1, :1]][place.seed % 3]
    return Case(put(place, encoded(strip, "PNG"), "png"), Outcome.READ, np.ascontiguousarray(strip))


@kind("image", doors=("efp predict", "page: segment", "page: segment_many"))
def strip_longer_than_a_jpeg_can_be(rng, place):
    strip = np.resize(place.photo, (3, 70_000, 3))
    strip = strip if place.seed % 2 else np.ascontiguousarray(strip.transpose(1, 0, 2))
    return Case(put(place, encoded(strip, "PNG"), "png"), Outcome.JUDGED, strip)


@kind("image")
def large_photo(rng, place):
    """Decoded at a part of its size."""
    photo = np.asarray(Image.fromarray(place.photo).resize((1100, 800), Image.Resampling.BICUBIC))
    content = encoded(photo, "JPEG", quality=92)
    return Case(put(place, content), Outcome.READ, decoded(content))


@kind("image", doors=("efp predict", "page: segment"))
def sparse_file_of_gigabytes(rng, place):
    start = [b"", jpeg(place), encoded(place.photo, "PNG")][place.seed % 3]
    path = put(place, start, "png" if place.seed % 3 == 2 else "jpg")
    with path.open("r+b") as file:
        file.truncate(3 << 30)
    return Case(path, Outcome.JUDGED, None if not start else decoded(start))


# Kinds of encoding that are right


@kind("image")
def jpeg_of_an_unusual_kind(rng, place):
    options = [
        {"progressive": True},
        {"restart_marker_blocks": 1},
        {"subsampling": 2, "quality": 1},
        {"optimize": True, "comment": b"x" * 60_000},
        {"keep_rgb": True},
    ][place.seed % 5]
    content = jpeg(place, **options)
    return Case(put(place, content), Outcome.READ, decoded(content))


@kind("image")
def tiff_of_an_unusual_kind(rng, place):
    options = [
        {"compression": "tiff_lzw"},
        {"compression": "tiff_deflate"},
        {"compression": "packbits"},
        {"compression": "tiff_lzw", "big_tiff": True},
    ][place.seed % 4]
    return Case(put(place, encoded(place.photo, "TIFF", **options), "tif"), Outcome.READ, place.photo)


@kind("image")
def ending_of_another_format(rng, place):
    content, suffix = [
        (encoded(place.photo, "PNG"), "jpg"),
        (encoded(place.photo, "TIFF"), "png"),
        (encoded(place.photo, "BMP"), "webp"),
        (encoded(place.photo, "WEBP"), "tif"),
    ][place.seed % 4]
    return Case(put(place, content, suffix), Outcome.READ, place.photo)


@kind("image")
def ending_in_capitals(rng, place):
    return Case(
        put(place, encoded(place.photo, "PNG"), ["PNG", "TIFF", "JpG"][place.seed % 3]), Outcome.READ, place.photo
    )


# Names and what is no regular file


HOSTILE_NAMES = (
    "-rf",
    "--output",
    "~nobody-of-this-name",
    "new\nline",
    "\x1b[31mred",
    "$(touch executed)",
    "`touch executed`; rm x",
    "=HYPERLINK(1)",
    'comma, "quote" \'',
    "%s%n{0}{path}",
    "[a-z]*?",
    " space at both ends ",
    "\u202egnp.fdp",
    "e\u0301 not composed",
    "\U0001f9d1 emoji",
    "CON",
    "tab\tbed",
    "a..",
    "back\\slash",
    "x" * 200,
)


@kind("image")
def hostile_name(rng, place):
    name = HOSTILE_NAMES[place.seed % len(HOSTILE_NAMES)]
    path = place.folder / f"{name}.png"
    path.write_bytes(encoded(place.photo, "PNG"))
    return Case(path, Outcome.READ, place.photo)


# names in a zip, and of uploads, are cut before the page sees them
NAMED_BY_A_FILE_SYSTEM = ("efp predict", "load_isic", "efp score", "efp train")


@kind("image", doors=NAMED_BY_A_FILE_SYSTEM)
def name_too_long_for_its_mask(rng, place):
    path = place.folder / f"{'n' * int(rng.integers(236, 252))}.png"
    path.write_bytes(encoded(place.photo, "PNG"))
    return Case(path, Outcome.JUDGED, place.photo, words=("n" * 50,))


@kind("image", doors=(*NAMED_BY_A_FILE_SYSTEM, "page: segment"))
def name_that_is_not_utf8(rng, place):
    path = Path(os.fsdecode(os.fsencode(place.folder) + b"/latin\xe4\xff.png"))
    path.write_bytes(encoded(place.photo, "PNG"))
    return Case(path, Outcome.JUDGED, place.photo, words=("latin",))


@kind("image")
def folder_named_as_an_image(rng, place):
    """A folder of photos has none in it, a dataset has a mask without an image."""
    path = place.folder / f"{place.image_id}.png"
    path.mkdir()
    return Case(path, Outcome.NOTED)


@kind("image")
def pipe(rng, place):
    path = place.folder / f"{place.image_id}.jpg"
    os.mkfifo(path)
    return Case(path, Outcome.REFUSED)


@kind("image")
def unreadable(rng, place):
    path = put(place, encoded(place.photo, "PNG"), "png")
    path.chmod(0)
    return Case(path, Outcome.REFUSED)


@kind("image")
def link_to_nothing(rng, place):
    path = place.folder / f"{place.image_id}.jpg"
    path.symlink_to(place.outside / "nothing.jpg")
    return Case(path, Outcome.REFUSED)


@kind("image")
def link_to_itself(rng, place):
    path = place.folder / f"{place.image_id}.jpg"
    path.symlink_to(path)
    return Case(path, Outcome.REFUSED)


@kind("image")
def link_to_a_device(rng, place):
    path = place.folder / f"{place.image_id}.jpg"
    path.symlink_to("/dev/zero")
    return Case(path, Outcome.REFUSED)


@kind("image")
def link_to_a_good_file(rng, place):
    target = place.outside / "elsewhere.png"
    target.write_bytes(encoded(place.photo, "PNG"))
    path = place.folder / f"{place.image_id}.png"
    path.symlink_to(target)
    return Case(path, Outcome.READ, place.photo)


@kind("image", doors=("efp predict",))
def another_file_of_the_same_name(rng, place):
    """Two files that want one mask: the second is an error, the first keeps its mask."""
    first = sorted(place.folder.iterdir())[0]
    path = place.folder / f"{first.stem}.webp"  # behind the first one, in any order
    path.write_bytes(encoded(place.photo, "PNG"))
    return Case(path, Outcome.REFUSED)


@kind("image", doors=("efp predict", "load_isic", "efp score"))
def file_that_is_not_looked_for(rng, place):
    name = [".hidden.png", "Thumbs.db", "ISIC_1_superpixels.png", "notes.txt", ".DS_Store"][place.seed % 5]
    (place.folder / name).write_bytes(rng.bytes(100))
    return Case(place.folder / name, Outcome.UNSEEN)


@kind("image")
def metadata_of_png_that_lies(rng, place):
    info = PngImagePlugin.PngInfo()
    info.add_text("XML:com.adobe.xmp", "<x:xmpmeta>" + "<" * 1000)
    info.add_text("Software", json.dumps({"a": "b" * 1000}))
    content = encoded(Image.fromarray(place.photo), "PNG", pnginfo=info)
    return Case(put(place, content, "png"), Outcome.READ, place.photo)


@kind("image", doors=("efp predict", "load_isic", "page: segment"))
def hard_link(rng, place):
    """A hard link to a good file: it is the same photo under another name."""
    target = place.outside / "linked.png"
    target.write_bytes(encoded(place.photo, "PNG"))
    path = place.folder / f"{place.image_id}.png"
    try:
        os.link(target, path)
    except OSError:
        shutil.copyfile(target, path)
    return Case(path, Outcome.READ, place.photo)
