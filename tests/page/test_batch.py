"""Many images: past bad files and bad zips."""

import csv
import io
import zipfile
from pathlib import Path

import pytest
from conftest import make_zip

from efp_hf.page import uploads
from efp_hf.page.batch import error_row, segment_batch, write_table
from efp_hf.page.markup import batch_html
from efp_hf.page.photo import segment_photo
from efp_hf.page.photo_results import write_mask_file


def test_batch_reports_a_bad_file_in_its_row_and_goes_on(tmp_path, loaded, photo_file):
    (tmp_path / "bad.jpg").write_text("no image")
    (tmp_path / "last.jpg").write_bytes(photo_file.read_bytes())
    steps = []
    batch = segment_batch(
        [photo_file, tmp_path / "bad.jpg", tmp_path / "last.jpg"],
        *loaded,
        tmp_path,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert [row["image"] for row in batch.rows] == ["photo.jpg", "bad.jpg", "last.jpg"]
    assert batch.rows[1]["error"].startswith("bad.jpg: not an image that can be read")
    assert not batch.rows[0]["error"] and not batch.rows[2]["error"]
    assert steps == [(1, 2), (2, 2)]
    with zipfile.ZipFile(batch.archive) as packed:
        assert sorted(packed.namelist()) == ["last_segmentation.png", "photo_segmentation.png", "predictions.csv"]
        table = list(csv.DictReader(io.StringIO(packed.read("predictions.csv").decode())))
    assert [row["error"] != "" for row in table] == [False, True, False]
    assert str(tmp_path) not in batch_html(batch)


def test_batch_masks_are_those_of_single_photos(tmp_path, loaded, photo_file):
    model, processor = loaded
    batch = segment_batch([photo_file], model, processor, tmp_path, threshold=0.4)
    single = write_mask_file(segment_photo(photo_file, model, processor), processor, tmp_path, 0.4)
    with zipfile.ZipFile(batch.archive) as packed:
        assert packed.read("photo_segmentation.png") == single.read_bytes()


def patch_zip(path: Path, old: bytes, new: bytes) -> Path:
    """Every occurrence of `old` in the file replaced by `new`, of the same length."""
    content = path.read_bytes()
    assert old in content and len(old) == len(new)
    path.write_bytes(content.replace(old, new))
    return path


def test_zip_leaves_out_what_is_no_photo(tmp_path, loaded, photo_file):
    photo = photo_file.read_bytes()
    names = ("a/one.jpg", "b/one.jpg", "notes.txt", "__MACOSX/._one.jpg", "a/one_segmentation.png")
    packed = make_zip(tmp_path / "photos.zip", dict.fromkeys(names, photo))
    batch = segment_batch([packed], *loaded, tmp_path)
    assert [row["image"] for row in batch.rows] == ["one.jpg", "one.jpg"]
    assert batch.left_out == 3
    assert batch.rows[1]["error"] == "one.jpg: its mask would overwrite that of one.jpg. Rename one of them."


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_of_another_method_that_lies_about_its_size_is_not_unpacked(tmp_path, loaded, method):
    """Of these `zipfile` would unpack 300 MB at once, before anything could count them."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", method) as packed:
        packed.writestr("zeros.png", bytes(3_000_000))
    patch_zip(path, (3_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    (row,) = segment_batch([path], *loaded, tmp_path).rows
    assert "packed in an unknown way" in row["error"]


def test_bad_member_of_a_zip_is_reported_in_its_row_and_stops_nothing(tmp_path, loaded, photo_file):
    photo = photo_file.read_bytes()
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as packed:
        packed.writestr("first.jpg", photo)
        packed.writestr("damaged.jpg", b"MARK" + photo)
        packed.writestr("last.jpg", photo)
    patch_zip(path, b"MARK", b"KRAM")  # its checksum is wrong now
    rows = segment_batch([path], *loaded, tmp_path).rows
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert rows[1]["error"].startswith("damaged.jpg: damaged, encrypted or packed in an unknown way")


def test_damaged_compression_is_reported_in_its_row(tmp_path, loaded, photo_file):
    path = make_zip(tmp_path / "photos.zip", {"good.jpg": photo_file.read_bytes(), "bad.png": b"x" * 5000})
    with zipfile.ZipFile(path) as packed:
        member = packed.getinfo("bad.png")
    content = bytearray(path.read_bytes())
    start = member.header_offset + 30 + len("bad.png")
    content[start : start + member.compress_size] = b"\xff" * member.compress_size
    path.write_bytes(content)
    rows = segment_batch([path], *loaded, tmp_path).rows
    assert [bool(row["error"]) for row in rows] == [False, True]


def test_long_names_in_a_zip_are_shortened(tmp_path, loaded, photo_file):
    path = make_zip(tmp_path / "photos.zip", {"ö" * 130 + ".jpg": photo_file.read_bytes()})
    batch = segment_batch([path], *loaded, tmp_path)
    assert [row["error"] for row in batch.rows] == [""]
    assert batch.rows[0]["image"] == "ö" * 75 + ".jpg"


def test_same_file_chosen_twice_is_segmented_once(tmp_path, loaded, photo_file):
    (row,) = segment_batch([photo_file, photo_file], *loaded, tmp_path).rows
    assert row["error"] == ""


def test_refused_batch_leaves_no_file(tmp_path, loaded, photo_file, monkeypatch):
    packed = make_zip(tmp_path / "photos.zip", {"one.jpg": photo_file.read_bytes()})
    monkeypatch.setattr(uploads, "MAX_FILES", 1)
    folder = tmp_path / "answer"
    folder.mkdir()
    with pytest.raises(ValueError, match="at most 1 images, got 2"):
        segment_batch([packed, photo_file], *loaded, folder)
    assert not list(folder.iterdir())


def test_name_that_a_spreadsheet_would_run_is_quoted(tmp_path):
    write_table([error_row(Path("=cmd().png"), "bad")], tmp_path / "table.csv")
    assert "'=cmd().png" in (tmp_path / "table.csv").read_text()


def test_mask_that_cannot_be_written_is_an_error_in_its_row(tmp_path, loaded, photo_file):
    path = tmp_path / f"{'n' * 245}.jpg"
    path.write_bytes(photo_file.read_bytes())
    good, bad = segment_batch([photo_file, path], *loaded, tmp_path).rows
    assert not good["error"] and "cannot be written" in bad["error"] and str(tmp_path) not in bad["error"]
