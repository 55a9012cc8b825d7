"""Folders of images and masks in which something is wrong: named, all of it, or borne."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from efp_hf.data import names, pairs
from efp_hf.data.folders import FOLDERS, load_isic
from efp_hf.data.split import read_groups

IMAGES, MASKS = FOLDERS["train"]


@pytest.fixture
def root(tmp_path, synthetic_root) -> Path:
    """A copy of the drawn images that a test may damage."""
    return Path(shutil.copytree(synthetic_root, tmp_path / "isic"))


def ids(data) -> set[str]:
    return {image_id for split in data for image_id in data[split]["image_id"]}


def test_all_pairs_that_cannot_be_used_are_named_at_once(root):
    for number in range(12):
        path = root / IMAGES / f"ISIC_9{number:06d}.jpg"
        path.write_bytes(path.read_bytes()[:-300])
    Image.new("L", (60, 64)).save(root / MASKS / "ISIC_9000020_segmentation.png")
    with pytest.raises(ValueError) as error:
        load_isic(root)
    message = str(error.value)
    assert message.startswith("13 of 40 pairs cannot be used: ISIC_9000000, ISIC_9000001, ")
    assert "ISIC_9000009, … (13 in all). The first: " in message and "ISIC_9000010" not in message
    assert "ISIC_9000000.jpg: the file is damaged or truncated" in message


def test_all_doubled_images_are_named(root):
    for number in (3, 5, 8):
        Image.new("RGB", (64, 64)).save(root / IMAGES / f"ISIC_9{number:06d}.png")
    with pytest.raises(ValueError, match="ISIC_9000003: two images, .* So it is with ISIC_9000005, ISIC_9000008."):
        load_isic(root)


def test_masks_without_an_image_are_named_in_a_warning(root, caplog):
    for number in (3, 5):
        (root / IMAGES / f"ISIC_9{number:06d}.jpg").unlink()
    (root / IMAGES / "ISIC_9000000_superpixels.png").write_bytes(b"as in the official archives")
    assert len(ids(load_isic(root))) == 38
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"2 masks of {root / MASKS} have no image in {root / IMAGES}" in record.getMessage()
    assert "ISIC_9000003_segmentation.png, ISIC_9000005_segmentation.png" in record.getMessage()


def test_repaired_images_are_named_in_a_warning_also_from_the_cache(root, caplog):
    path = root / IMAGES / "ISIC_9000003.jpg"
    data = bytearray(path.read_bytes())
    data[-400:-390] = b"\xff\xd3" * 5  # restart markers where none belong
    path.write_bytes(data)
    for _ in range(2):
        caplog.clear()
        assert len(ids(load_isic(root))) == 40
        assert "1 images have damaged JPEG data, which was repaired: ISIC_9000003" in caplog.text


def link_to_nothing(path: Path):
    path.unlink()
    path.symlink_to("nothing.jpg")


def link_in_a_circle(path: Path):
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize("damage", [link_to_nothing, link_in_a_circle])
@pytest.mark.parametrize("kind", ["image", "mask"])
def test_links_that_lead_nowhere_are_named(root, damage, kind):
    path = root / IMAGES / "ISIC_9000003.jpg" if kind == "image" else root / MASKS / "ISIC_9000003_segmentation.png"
    damage(path)
    with pytest.raises(FileNotFoundError, match=f"{path}: no such file"):
        load_isic(root)


def test_file_that_vanishes_while_the_folder_is_read_is_named(root, monkeypatch):
    match_folders = names.match_folders

    def find_and_lose(*folders):
        found = match_folders(*folders)
        (root / IMAGES / "ISIC_9000003.jpg").unlink()
        return found

    monkeypatch.setattr("efp_hf.data.folders.match_folders", find_and_lose)
    with pytest.raises(FileNotFoundError, match="ISIC_9000003.jpg: no such file"):
        load_isic(root)


def test_folders_that_are_called_as_images_are_no_images(root):
    (root / IMAGES / "more.jpg").mkdir()
    (root / MASKS / "more.png").mkdir()
    assert len(ids(load_isic(root))) == 40


def test_file_names_that_are_not_utf8_are_refused(root):
    folder = os.fsencode(root / IMAGES)
    os.rename(os.path.join(folder, b"ISIC_9000003.jpg"), os.path.join(folder, b"l\xe9sion.jpg"))
    with pytest.raises(ValueError, match=r"file names must be UTF-8, got 'l\\udce9sion.jpg'. Rename them"):
        load_isic(root)


def test_home_of_nobody_is_no_such_folder():
    with pytest.raises(FileNotFoundError, match="~nobody-of-that-name/isic: no such folder"):
        load_isic("~nobody-of-that-name/isic")


# metadata.csv


def test_metadata_in_latin_1_is_read(tmp_path):
    text = "isic_id,patient_id,diagnosis\na,p1,nævus\nb,pé,x\nc,pè,x\n"
    (tmp_path / "metadata.csv").write_bytes(text.encode("latin-1"))
    groups = read_groups(tmp_path / "metadata.csv")
    assert groups["a"] == ["patient_id:p1"]
    assert len({tuple(group) for group in groups.values()}) == 3


def test_quotation_mark_that_stays_open_is_refused(tmp_path):
    path = tmp_path / "metadata.csv"
    path.write_text('isic_id,patient_id\na,p1\nb,"p2\n' + "c,p3\n" * csv.field_size_limit())
    with pytest.raises(
        ValueError, match=r"metadata.csv, line \d+: field larger than field limit .*quotation mark open"
    ):
        read_groups(path)


def test_metadata_that_cannot_be_read_is_not_passed_over(tmp_path):
    (tmp_path / "metadata.csv").symlink_to("nothing")
    with pytest.raises(FileNotFoundError, match="metadata.csv"):
        read_groups(tmp_path / "metadata.csv")


# The cache


@pytest.fixture
def large(tmp_path) -> Path:
    """Pairs that are reduced and kept."""
    from efp_hf.data.synthetic import write_synthetic_isic

    return write_synthetic_isic(tmp_path / "large", num_images=12, height=80, width=80)


def cut(path: Path):
    path.write_bytes(path.read_bytes()[:50])


def empty(path: Path):
    path.write_bytes(b"")


def other_json(path: Path):
    path.write_text(json.dumps(["image"]))


def wrong_keys(path: Path):
    path.write_text(json.dumps({"image": 3, "hash": None}))


def wrong_hash(path: Path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "hash": "5"}))


def binary(path: Path):
    path.write_bytes(b"\xff\x00")


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        *((".json", damage) for damage in (cut, empty, other_json, wrong_keys, wrong_hash, binary)),
        *((suffix, damage) for suffix in (".jpg", ".png") for damage in (cut, empty, Path.unlink)),
    ],
)
def test_damaged_cache_is_made_again(large, tmp_path, suffix, damage):
    cache = tmp_path / "cache"
    before = load_isic(large, max_side=40, cache_dir=cache)
    for path in cache.glob(f"*{suffix}"):
        damage(path)
    again = load_isic(large, max_side=40, cache_dir=cache)
    for split in before:
        for image_id, row in zip(before[split]["image_id"], again[split], strict=True):
            assert row["image_id"] == image_id and row["image"].size == row["mask"].size == (40, 40)
            assert set(np.unique(row["mask"])) == {0, 255}


def test_cache_that_cannot_be_written_is_named(large, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file/cache cannot keep what was read .* set HF_DATASETS_CACHE"):
        load_isic(large, cache_dir=tmp_path / "file" / "cache")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pairs, "write_atomically", full)
    with pytest.raises(OSError, match="cache cannot keep what was read .*No space left on device"):
        load_isic(large, cache_dir=tmp_path / "cache")
