import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from efp_hf.data.files import (
    REPAIRED,
    as_boolean_mask,
    open_image,
    read_image,
    read_mask,
    upright_size,
    write_atomically,
)


def noise(height: int = 24, width: int = 36, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_image_is_read_as_upright_rgb(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    noise().save(tmp_path / "photo.png", exif=exif)
    image = read_image(tmp_path / "photo.png")
    assert image.mode == "RGB"
    assert np.array_equal(image, noise().transpose(Image.Transpose.ROTATE_270))
    with open_image(tmp_path / "photo.png") as header:
        assert upright_size(header) == image.size[::-1] == (36, 24)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_usual_mode_is_converted(tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 9), 40_000, dtype=np.uint16))
    else:
        image = noise(8, 9).convert(mode)
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    image.save(path)
    read = read_image(path)
    assert (read.mode, read.size) == ("RGB", (9, 8))
    if mode == "I;16":
        assert np.unique(read).tolist() == [round(40_000 / 257)]


def test_large_jpeg_is_decoded_at_reduced_scale_but_not_below_the_need(tmp_path):
    noise(400, 640).save(tmp_path / "large.jpg")
    assert read_image(tmp_path / "large.jpg").size == (640, 400)
    assert read_image(tmp_path / "large.jpg", min_size=100).size == (160, 100)
    assert min(read_image(tmp_path / "large.jpg", min_size=101).size) >= 101


def truncated(path):
    noise(200, 200).save(path)
    path.write_bytes(path.read_bytes()[:-4000])


def animated(path):
    noise().save(path, save_all=True, append_images=[noise(seed=1)])


def with_exif(exif: bytes):
    """Writes a photo with these bytes as its EXIF data."""
    return lambda path: noise().save(path, exif=b"Exif\x00\x00" + exif)


# one entry: the orientation (0x0112) as text (type 2) of four bytes
ORIENTATION_IN_WORDS = b"II*\x00\x08\x00\x00\x00" + struct.pack("<HHHI4sI", 1, 0x0112, 2, 4, b"abc\x00", 0)


@pytest.mark.parametrize("min_size", [None, 20, 60, 100])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}], ids=str)
def test_jpeg_has_the_pixels_that_pillow_reads(tmp_path, min_size, options):
    noise(243, 317).save(tmp_path / "photo.jpg", quality=90, **options)
    with Image.open(tmp_path / "photo.jpg") as photo:
        if min_size is not None:
            photo.draft(None, (min_size, min_size))
        assert np.array_equal(np.asarray(read_image(tmp_path / "photo.jpg", min_size)), np.asarray(photo))


def test_repaired_jpeg_says_so_and_a_whole_one_does_not(tmp_path):
    noise(64, 64).save(tmp_path / "photo.jpg")
    assert REPAIRED not in read_image(tmp_path / "photo.jpg").info
    data = bytearray((tmp_path / "photo.jpg").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4] = b"\xff\xd0\x00\x11"
    (tmp_path / "photo.jpg").write_bytes(data)
    assert "damaged JPEG data was repaired (Corrupt" in read_image(tmp_path / "photo.jpg").info[REPAIRED]


BAD_FILES = {
    "garbage.png": (with_exif(b"garbage that is no TIFF header"), "garbage.png: the file is damaged .*not a TIFF file"),
    "words.jpg": (with_exif(ORIENTATION_IN_WORDS), "words.jpg: .*The EXIF orientation must be a number .*got 'abc'"),
    "twelve.png": (
        lambda path: Image.fromarray(np.full((4, 4), 4095, np.uint16)).save(path),
        "twelve.png: `image` must use its 16 bits, got values up to 4095",
    ),
    "nothing.png": (lambda path: Image.new("RGBA", (4, 4)).save(path), "nothing.png: `image` must not be transparent"),
    "missing.jpg": (lambda path: None, "missing.jpg: no such file"),
    "empty.jpg": (lambda path: path.touch(), "empty.jpg: the file is empty"),
    "text.jpg": (lambda path: path.write_text("not a picture"), "text.jpg: not an image that can be read"),
    "cut.jpg": (truncated, r"cut.jpg: the file is damaged or truncated"),
    "cut.png": (truncated, r"cut.png: the file is damaged or truncated"),
    "moving.gif": (animated, "moving.gif: the file holds several images"),
    "pages.tif": (animated, "pages.tif: the file holds several images"),
    "float.tif": (lambda path: Image.new("F", (4, 4)).save(path), "float.tif: `image` must have 8 or 16 bits"),
    "folder.jpg": (lambda path: path.mkdir(), "folder.jpg: no such file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_refused_by_name(tmp_path, name):
    make, words = BAD_FILES[name]
    make(tmp_path / name)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        read_image(tmp_path / name)


def test_too_many_pixels_are_refused_before_decoding(tmp_path, monkeypatch):
    noise(40, 50).save(tmp_path / "wide.png")
    monkeypatch.setattr(Image.Image, "load", lambda *args: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="wide.png: the image has 40×50 pixels, more than 1999"):
        read_image(tmp_path / "wide.png", max_pixels=1999)


def test_decompression_bomb_is_refused(tmp_path, monkeypatch):
    noise(40, 50).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(ValueError, match="bomb.png: the image has more than"):
        read_image(tmp_path / "bomb.png")


def test_phone_photo_with_a_preview_is_read_as_its_first_picture(tmp_path):
    noise(64, 64).save(tmp_path / "phone.mpo", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    (tmp_path / "phone.mpo").rename(tmp_path / "phone.jpg")
    assert read_image(tmp_path / "phone.jpg").size == (64, 64)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB"])
def test_mask_is_read_as_booleans(tmp_path, mode):
    lesion = np.zeros((6, 7), dtype=bool)
    lesion[2:4, 3:] = True
    Image.fromarray(lesion.astype(np.uint8) * 255).convert(mode).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    assert mask.dtype == bool
    assert np.array_equal(mask, lesion)


@pytest.mark.parametrize("value", [1, 128, 254])
def test_mask_with_another_value_is_refused_with_the_value(tmp_path, value):
    grey = np.zeros((4, 4), dtype=np.uint8)
    grey[1, 2] = value
    Image.fromarray(grey).save(tmp_path / "mask.png")
    with pytest.raises(
        ValueError, match=rf"mask.png: a mask must hold 0 \(background\) and 255 \(foreground\), got {value}"
    ):
        read_mask(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=f"ISIC_1: .* got {value}"):
        as_boolean_mask(Image.fromarray(grey), "ISIC_1")


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_mask_is_refused(tmp_path, mode):
    """Its transparent pixels would be white to one reader and black to the other."""
    Image.new(mode, (4, 4)).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="mask.png: a mask must not be transparent"):
        read_mask(tmp_path / "mask.png")
    opaque = Image.new("L", (4, 4), 255).convert(mode)
    assert as_boolean_mask(opaque, "opaque").all()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about the damage
def test_random_damage_is_read_or_refused_by_name(tmp_path):
    generator = np.random.default_rng(0)
    for suffix in ("jpg", "png", "tif", "webp"):
        exif = Image.Exif()
        exif[0x0112] = 6
        noise().save(tmp_path / f"whole.{suffix}", exif=exif)
        whole = (tmp_path / f"whole.{suffix}").read_bytes()
        for _ in range(150):
            damaged = bytearray(whole)
            for position in generator.integers(0, min(len(whole), 300), 6):
                damaged[position] = generator.integers(256)
            (tmp_path / f"damaged.{suffix}").write_bytes(damaged)
            try:
                assert read_image(tmp_path / f"damaged.{suffix}").mode == "RGB"
            except ValueError as error:
                assert f"damaged.{suffix}" in str(error)


def test_truncated_mask_is_refused_by_name(tmp_path):
    truncated(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="mask.png: the file is damaged or truncated"):
        read_mask(tmp_path / "mask.png")


def test_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("before")

    def half_write(partial):
        partial.write_text("ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, half_write)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]
    write_atomically(target, lambda partial: partial.write_text("after"))
    assert target.read_text() == "after"


def test_one_file_may_be_written_by_several_threads(tmp_path):
    def write(partial: Path):
        partial.write_text("whole")
        together.wait()  # nobody gives it its name before all have written

    together = Barrier(4, timeout=5)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: write_atomically(tmp_path / "table.csv", write), range(4)))
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_pages_of_a_file_are_not_counted(tmp_path, monkeypatch):
    """Counting reads them all, which takes a minute for a small file of many pages."""
    path = tmp_path / "pages.tif"
    page = Image.new("L", (4, 4))
    page.save(path, save_all=True, append_images=[page] * 50)
    read = []
    monkeypatch.setattr(TiffImageFile, "_setup", lambda self, setup=TiffImageFile._setup: (read.append(1), setup(self)))
    with pytest.raises(ValueError, match="several images"):
        open_image(path)
    assert len(read) < 5


def test_formats_that_start_other_programs_are_refused(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match="photo.jpg: not an image that can be read"):
        open_image(path)
