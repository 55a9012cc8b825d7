"""PNG files whose data ends early."""

import io
import struct
import zlib

import numpy as np
import pytest
from hostile.kinds.images import png, png_chunk
from PIL import Image

from efp_hf.data.files import read_image, read_mask
from efp_hf.data.png import num_bytes


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_mask_of_missing_rows_is_refused(tmp_path, rows):
    header = struct.pack(">IIBBBBB", 6, 4, 8, 0, 0, 0, 0)
    data = b"".join(b"\0" + bytes([255, 255, 0, 0, 0, 0]) for _ in range(rows))
    path = tmp_path / "mask.png"
    path.write_bytes(png(header, png_chunk(b"IDAT", zlib.compress(data))))
    if rows == 4:
        assert np.count_nonzero(read_mask(path)) == 8
    else:
        with pytest.raises(ValueError, match=r"mask.png: .* truncated \(its last rows are missing\)"):
            read_mask(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (9, 16)])
def test_bytes_of_the_pixels_are_those_that_a_writer_makes(mode, size):
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    content = file.getvalue()
    start = content.index(b"IDAT")
    (length,) = struct.unpack(">I", content[start - 4 : start])
    data = zlib.decompress(content[start + 4 : start + 4 + length])
    assert num_bytes(*struct.unpack(">IIBBBBB", content[16:29])) == len(data)


def test_bytes_of_an_interlaced_picture_are_those_of_its_seven():
    # 5×5 in bytes with a filter's number a row: 1 row of 1; 1 of 1; 1 of 2; 2 of 1; 1 of 3; 3 of 2; 2 of 5
    assert num_bytes(5, 5, 8, 0, 0, 0, 1) == 2 + 2 + 3 + 2 * 2 + 4 + 3 * 3 + 2 * 6


def test_black_photo_that_is_whole_is_read(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "black.png")
    assert read_image(tmp_path / "black.png").size == (40, 30)


def test_colours_of_12_bits_in_16_are_refused(tmp_path):
    path = tmp_path / "dark.png"
    for most, is_refused in ((4095, True), (65535, False)):
        pixels = np.linspace(0, most, 4 * 6 * 3).reshape(4, 18).astype(">u2")
        data = b"".join(b"\0" + row.tobytes() for row in pixels)
        header = struct.pack(">IIBBBBB", 6, 4, 16, 2, 0, 0, 0)
        path.write_bytes(png(header, png_chunk(b"IDAT", zlib.compress(data))))
        if is_refused:
            with pytest.raises(ValueError, match="dark.png: the image must use its 16 bits"):
                read_image(path)
        else:
            assert np.asarray(read_image(path)).max() == 255
