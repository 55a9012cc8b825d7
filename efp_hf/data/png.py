"""Whether a PNG holds all of its rows: Pillow leaves those that are missing black, without a word."""

import os
import struct
import zlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of the colour types
# left, top and steps of the seven pictures of an interlaced file
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
CHUNK = 1 << 20


def check_rows(image: Image.Image, source: str | Path | BinaryIO) -> None:
    """
    Args:
        image: decoded by Pillow. The file is read again only where its last row is 0, or where it is interlaced.
        source: its file.

    Raises:
        ValueError: the data, whole by itself, ends before the last row.
    """
    width, height = image.size
    has_end = not image.info.get("interlace") and np.asarray(image.crop((0, height - 1, width, height))).any()
    if has_end:
        return
    with opened(source) as file:
        file.seek(8)  # behind the signature
        missing, inflate = 0, zlib.decompressobj()
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            data = file.read(length)
            file.seek(4, os.SEEK_CUR)  # the checksum
            if name == b"IHDR":
                missing = num_bytes(*struct.unpack(">IIBBBBB", data))
            while name == b"IDAT" and data and missing > 0 and not inflate.eof:
                try:
                    missing -= len(inflate.decompress(data, CHUNK))
                except zlib.error as error:
                    raise ValueError(str(error)) from error
                data = inflate.unconsumed_tail
    if missing > 0:
        raise ValueError("its last rows are missing")


def png_depth(source: str | Path | BinaryIO) -> int:
    """Bits of a channel."""
    with opened(source) as file:
        file.seek(24)
        return file.read(1)[0]


def opened(source: str | Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    return open(source, "rb") if isinstance(source, str | Path) else nullcontext(source)


def num_bytes(width: int, height: int, depth: int, colours: int, compression: int, filters: int, interlace: int) -> int:
    """Of the pixels that a header promises; each row begins with the number of its filter."""
    total = 0
    for left, top, across, down in PASSES if interlace else [(0, 0, 1, 1)]:
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * depth * CHANNELS[colours] + 7) // 8)
    return total
