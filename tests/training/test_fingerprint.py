import csv
import os
from pathlib import Path

import datasets
import pytest
from PIL import Image

from efp_hf.data.duplicates import bits_between, hash_words
from efp_hf.data.folders import load_isic
from efp_hf.data.synthetic import draw_lesion
from efp_hf.inference.checkpoint import SHIPPED_CHECKPOINTS
from efp_hf.inference.export import save_for_hub
from efp_hf.training.fingerprint import (
    SAME_IMAGE_BITS,
    TRAINING_IMAGES,
    check_same_split,
    fingerprint_of,
    hash_image,
    image_hashes,
    read_fingerprint,
    shared_images,
    write_fingerprint,
)

SHARED_DATA = Path(os.environ.get("ISIC2018", Path(__file__).resolve().parents[2] / "shared" / "data" / "isic2018"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Of a checkpoint, as far as a fingerprint goes."""
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def other_bits(value: str, count: int) -> str:
    """A hash that differs from another one in its first `count` bits."""
    return f"{int(value, 16) ^ ((1 << count) - 1) << (256 - count):064x}"


def test_fingerprint_is_of_the_images_that_were_seen(synthetic_root, folder):
    data = load_isic(synthetic_root)
    fingerprint = fingerprint_of(data)
    assert {split for _, split in fingerprint} == {"train", "validation"}
    assert len(fingerprint) == len(data["train"]) + len(data["validation"])
    hashes = [image_hashes(data[split]) for split in data]
    assert [len(shared_images(values, fingerprint)) for values in hashes] == [28, 4, 0]
    write_fingerprint(folder, fingerprint)
    assert read_fingerprint(folder) == fingerprint


def test_file_holds_hashes_alone_sorted(synthetic_root, folder):
    write_fingerprint(folder, fingerprint_of(load_isic(synthetic_root)))
    with (folder / TRAINING_IMAGES).open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["hash", "split"]
    assert rows == sorted(rows) and all(len(value) == 64 and int(value, 16) for value, _ in rows)
    assert "ISIC" not in (folder / TRAINING_IMAGES).read_text()


def test_hash_of_a_file_of_its_bytes_and_of_its_pixels_are_one(tmp_path):
    image, _ = draw_lesion(0, 600, 800)
    image.save(tmp_path / "a.jpg", exif=rotated())
    by_path = hash_image({"path": str(tmp_path / "a.jpg"), "bytes": None})
    assert by_path == hash_image({"path": None, "bytes": (tmp_path / "a.jpg").read_bytes()})
    upright = image.transpose(Image.Transpose.ROTATE_270)
    assert bits_between(hash_words([by_path]), hash_words([hash_image(upright)])) <= 6


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_stream_has_the_hashes_of_its_images(synthetic_root):
    data = load_isic(synthetic_root)["test"]
    assert image_hashes(data.to_iterable_dataset()) == image_hashes(data)


def test_copies_are_shared_up_to_the_bits_that_are_allowed():
    seen = "5" * 64
    fingerprint = {(seen, "train"), ("a" * 64, "validation")}
    hashes = [other_bits(seen, bits) for bits in (SAME_IMAGE_BITS + 1, 0, SAME_IMAGE_BITS)]
    assert shared_images(hashes, fingerprint) == [1, 2]
    assert shared_images([], fingerprint) == []


def test_copy_that_was_reduced_and_saved_again_is_shared(tmp_path):
    files = []
    for seed in range(6):
        image, _ = draw_lesion(seed, 300, 400)
        image.resize((256, 256)).save(tmp_path / f"{seed}.jpg", quality=60)
        files.append({"path": str(tmp_path / f"{seed}.jpg"), "bytes": None})
    fingerprint = {(hash_image(draw_lesion(seed, 300, 400)[0]), "train") for seed in (1, 4)}
    assert shared_images([hash_image(file) for file in files], fingerprint) == [1, 4]


def test_checkpoint_without_a_fingerprint_does_not_say(folder):
    assert read_fingerprint(folder) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hash,split\n",
        b"hash\n" + b"5" * 64 + b"\n",
        b"hash,split\n" + b"5" * 64 + b",train\n" + b"5" * 30,
        b"hash,split\n" + b"5" * 64 + b",test\n",
        b"hash,split\n" + b"G" * 64 + b",train\n",
        b"\xff\xfe\x00",
        b"\x00" * 200,
    ],
)
def test_damaged_fingerprint_is_refused_in_a_sentence(folder, content):
    (folder / TRAINING_IMAGES).write_bytes(content)
    with pytest.raises(ValueError, match=r"training_images.csv must (be|have) .* got .*Copy the checkpoint again"):
        read_fingerprint(folder)


@pytest.mark.parametrize("name", SHIPPED_CHECKPOINTS)
def test_shipped_checkpoints_carry_their_fingerprint(name):
    fingerprint = read_fingerprint(name)
    splits = [split for _, split in fingerprint]
    assert (splits.count("train"), splits.count("validation")) == (1816, 259)


def test_folder_for_the_hub_carries_the_fingerprint(loaded, tmp_path):
    write_fingerprint(tmp_path, {("5" * 64, "train")})
    save_for_hub(*loaded, tmp_path / "hub", fingerprint=tmp_path / TRAINING_IMAGES)
    assert read_fingerprint(tmp_path / "hub") == {("5" * 64, "train")}


# The real images, where they are at hand


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the ISIC 2018 images are not on this machine")
def test_split_of_seed_zero_shares_no_image_and_another_many():
    fingerprint = read_fingerprint("efp-isic")
    hashes = image_hashes(load_isic(SHARED_DATA)["test"])
    assert len(hashes) == 519 and shared_images(hashes, fingerprint) == []
    assert len(shared_images(image_hashes(load_isic(SHARED_DATA, seed=1)["test"]), fingerprint)) > 400


@pytest.mark.slow
@pytest.mark.skipif(
    not SHARED_DATA.with_name("isic2018-native").is_dir(), reason="the native images are not on this machine"
)
def test_originals_are_shared_with_their_copies_and_no_others():
    paths = sorted(SHARED_DATA.with_name("isic2018-native").joinpath("images").glob("*.jpg"))
    originals = image_hashes(
        datasets.Dataset.from_dict({"image": list(map(str, paths))}).cast_column("image", datasets.Image())
    )
    copies = {row["image_id"]: row["image"] for split in load_isic(SHARED_DATA).values() for row in split}
    own = hash_words([hash_image(copies.pop(path.stem)) for path in paths])
    others = {(hash_image(image), "train") for image in copies.values()}
    assert max(bits_between(own, hash_words(originals))) <= 14
    found = {paths[position].stem for position in shared_images(originals, others)}
    assert found == {"ISIC_0000164", "ISIC_0000165", "ISIC_0000171"}  # photos that the archive has twice


def test_run_is_not_resumed_with_its_training_images_in_validation(synthetic_root, folder, tmp_path):
    data, other = load_isic(synthetic_root), load_isic(synthetic_root, seed=1)
    write_fingerprint(folder, fingerprint_of(data))
    check_same_split(folder, None, data)
    with pytest.raises(ValueError, match="Resume with the --split-seed and the data that it was started with"):
        check_same_split(folder, None, other)
    base = tmp_path / "base"  # what the base had seen before is no sign of another split
    base.mkdir()
    (base / "config.json").write_text("{}")
    write_fingerprint(base, fingerprint_of(data))
    check_same_split(folder, base, other)
