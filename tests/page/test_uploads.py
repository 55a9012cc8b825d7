"""What people send: what is refused and what is unpacked."""

import zipfile

import pytest
from conftest import make_zip
from PIL import Image

from efp_hf.page import uploads
from efp_hf.page.photo import segment_photo
from efp_hf.page.uploads import collect_files, directory_bytes, open_zip, unpack


def test_zip_writes_nothing_outside_of_its_folder(tmp_path):
    packed = make_zip(
        tmp_path / "evil.zip", {"../../escaped.png": b"1", "/tmp/absolute.png": b"2", "..\\win.png": b"3"}
    )
    files, _, _ = collect_files([packed], tmp_path / "deep" / "unpacked")
    assert [file.name for file in files] == ["escaped.png", "absolute.png", "win.png"]
    assert all(file.resolve().is_relative_to(tmp_path / "deep" / "unpacked") for file in files)


def test_zip_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_BATCH_BYTES", 1_000_000)
    packed = make_zip(tmp_path / "bomb.zip", {"zeros.png": bytes(2_000_000)})
    assert packed.stat().st_size < 5000
    with pytest.raises(ValueError, match="must unpack to at most 1 MB, got 2 MB"):
        collect_files([packed], tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


def test_zip_with_a_large_directory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "photos.zip", {f"{k}.txt": b"" for k in range(100)})
    monkeypatch.setattr(uploads, "MAX_DIRECTORY_BYTES", 1000)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(ValueError, match="photos.zip: the zip has too many entries"):
        open_zip(path)


def test_directory_is_as_large_as_it_is(tmp_path):
    path = make_zip(tmp_path / "photos.zip", {"a.txt": b"1", "bb.txt": b"2"})
    with zipfile.ZipFile(path) as packed:
        start = packed.start_dir
    assert directory_bytes(path) == path.stat().st_size - 22 - start


def test_bytes_are_counted_as_they_come(tmp_path):
    path = make_zip(tmp_path / "photos.zip", {"zeros.png": bytes(3_000_000)})
    with zipfile.ZipFile(path) as packed:
        with pytest.raises(ValueError, match="must unpack to at most"):
            unpack(packed, packed.infolist()[0], tmp_path / "zeros.png", max_bytes=1_500_000)
    assert (tmp_path / "zeros.png").stat().st_size <= 1_500_000


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_FILES", 2)
    packed = make_zip(tmp_path / "photos.zip", {f"{k}.png": b"" for k in range(3)})
    for files in ([packed], [tmp_path / f"{k}.png" for k in range(3)]):
        with pytest.raises(ValueError, match="A batch must have at most 2 images, got 3"):
            collect_files(files, tmp_path / "unpacked")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no zip", "broken.zip: the zip is damaged"), (None, "There is no image in the zip")],
)
def test_unusable_zips_are_refused(tmp_path, content, message):
    path = make_zip(tmp_path / "broken.zip", {"notes.txt": b"text"})
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        collect_files([path], tmp_path / "unpacked")


@pytest.mark.parametrize("damage", ["text", "empty", "truncated", "animated"])
def test_bad_photo_is_named_without_the_servers_folder(tmp_path, loaded, photo_file, damage):
    path = tmp_path / "bad.png"
    if damage == "animated":
        frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    else:
        content = {"text": b"no image", "empty": b"", "truncated": photo_file.read_bytes()[:1500]}[damage]
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^bad.png: ") as caught:
        segment_photo(path, *loaded)
    assert str(tmp_path) not in str(caught.value)


def test_no_photo_is_said(loaded):
    with pytest.raises(ValueError, match="There is no photo yet"):
        segment_photo(None, *loaded)


def test_photo_of_too_many_pixels_is_refused(loaded, photo_file, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_UPLOAD_PIXELS", 90 * 120 - 1)
    with pytest.raises(ValueError, match=r"^photo.jpg: the image has 90×120 pixels, more than 10799"):
        segment_photo(photo_file, *loaded)


def test_decompression_bomb_is_refused(tmp_path, loaded):
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"^bomb.png: the image has"):
        segment_photo(path, *loaded)


def test_large_file_is_refused(loaded, photo_file, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_FILE_BYTES", 1000)
    with pytest.raises(ValueError, match=r"^photo.jpg: the file has 0 MB, more than"):
        segment_photo(photo_file, *loaded)
