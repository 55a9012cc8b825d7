import csv
import os
import shutil
from collections import Counter
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from efp_hf.data import hub, pairs
from efp_hf.data.duplicates import near_duplicates, perceptual_hash
from efp_hf.data.folders import FOLDERS, load_isic
from efp_hf.data.hub import load_hub_lesions
from efp_hf.data.names import find_pairs
from efp_hf.data.split import SPLITS, draw_split, get_split, read_groups

IMAGES, MASKS = FOLDERS["train"]
REAL_DATA = Path(os.environ.get("ISIC2018", Path(__file__).resolve().parents[2] / "shared" / "data" / "isic2018"))


def different_hashes(count: int) -> list[str]:
    """256-bit hashes that are about 128 bits apart from each other."""
    generator = np.random.default_rng(0)
    return [generator.bytes(32).hex() for _ in range(count)]


def entries(count: int) -> list[dict]:
    hashes = different_hashes(count)
    return [{"image_id": f"ISIC_{row:07d}", "hash": hashes[row]} for row in range(count)]


@pytest.fixture
def root(tmp_path, synthetic_root) -> Path:
    """A copy of the drawn images that a test may damage."""
    return Path(shutil.copytree(synthetic_root, tmp_path / "isic"))


def split_of(data) -> dict[str, str]:
    return {image_id: split for split in data for image_id in data[split]["image_id"]}


# The split


def test_every_image_is_on_exactly_one_side(synthetic_root):
    data = load_isic(synthetic_root)
    assert tuple(data) == SPLITS
    ids = [image_id for split in data for image_id in data[split]["image_id"]]
    assert sorted(ids) == sorted(path.stem for path in (synthetic_root / IMAGES).glob("*.jpg"))
    assert len(set(ids)) == len(ids) == 40


def test_split_has_the_shares_70_10_20():
    drawn = draw_split(entries(1000), {}, seed=0, splits=list(SPLITS))
    assert {split: len(rows) for split, rows in drawn.items()} == {"train": 700, "validation": 100, "test": 200}


def test_split_depends_on_the_seed_and_not_on_the_order():
    rows = entries(200)
    first = draw_split(rows, {}, seed=0, splits=list(SPLITS))
    assert draw_split(rows[::-1], {}, seed=0, splits=list(SPLITS)) == first
    assert draw_split(rows, {}, seed=1, splits=list(SPLITS)) != first


def test_split_of_seed_zero_is_written_down():
    """Scores of different versions are only comparable on the same split."""
    drawn = draw_split(entries(10), {}, seed=0, splits=list(SPLITS))
    assert [entry["image_id"][-1] for entry in drawn["test"]] == ["3", "9"]


def test_patients_and_lesions_stay_together():
    rows = entries(300)
    generator = np.random.default_rng(1)
    groups = {
        row["image_id"]: [f"patient_id:{generator.integers(120)}", f"lesion_id:{generator.integers(120)}"][
            : generator.integers(3)
        ]
        for row in rows
    }
    drawn = draw_split(rows, groups, seed=0, splits=list(SPLITS))
    sides = {}
    for split, members in drawn.items():
        for entry in members:
            for group in groups[entry["image_id"]]:
                sides.setdefault(group, set()).add(split)
    members = Counter(group for image_groups in groups.values() for group in image_groups)
    shared = [group for group, count in members.items() if count > 1]
    assert len(shared) > 30
    assert all(len(sides[group]) == 1 for group in shared)


def test_near_duplicates_stay_together():
    rows = entries(200)
    for row in range(0, 100, 2):  # each second image nearly equals the one before: one bit of its hash differs
        bits = bytearray.fromhex(rows[row]["hash"])
        bits[5] ^= 4
        rows[row + 1]["hash"] = bits.hex()
    drawn = draw_split(rows, {}, seed=0, splits=list(SPLITS))
    side = {entry["image_id"]: split for split, members in drawn.items() for entry in members}
    assert all(side[rows[row]["image_id"]] == side[rows[row + 1]["image_id"]] for row in range(0, 100, 2))


def test_near_duplicates_are_found_by_their_distance():
    hashes = different_hashes(6)
    bits = bytearray.fromhex(hashes[1])
    bits[0] ^= 0b111
    hashes[4] = bits.hex()
    assert near_duplicates(hashes, bits_apart=3) == [(1, 4)]
    assert near_duplicates(hashes, bits_apart=2) == []


def test_recompressed_recoloured_image_is_a_near_duplicate(tmp_path, synthetic_root):
    paths = sorted((synthetic_root / IMAGES).glob("*.jpg"))[:10]
    hashes = [perceptual_hash(Image.open(path)) for path in paths]
    pixels = np.asarray(Image.open(paths[3])).astype(float) * [1.0, 0.85, 0.9] + 8
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((90, 70)).save(tmp_path / "copy.jpg", quality=60)
    hashes.append(perceptual_hash(Image.open(tmp_path / "copy.jpg")))
    assert (3, 10) in near_duplicates(hashes)


def test_metadata_of_the_archive_is_read(root):
    ids = sorted(path.stem for path in (root / IMAGES).glob("*.jpg"))
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["isic_id", "pixels_x", "patient_id", "lesion_id"])
        writer.writerows([image_id, 1024, "", ""] for image_id in ids[20:])
        writer.writerows([image_id, 1024, "IP_1", ""] for image_id in ids[:20])
    sides = split_of(load_isic(root))
    assert {sides[image_id] for image_id in ids[:20]} == {"train"}


def test_metadata_that_names_no_image_is_refused(root):
    (root / "metadata.csv").write_text("isic_id,patient_id\nISIC_9000000.jpg,p\n")
    with pytest.raises(ValueError, match="No image has its id in the metadata: ISIC_9000000 is not like"):
        load_isic(root)
    (root / "metadata.csv").write_text("name,patient_id\nISIC_9000000,p\n")
    with pytest.raises(ValueError, match="no column 'isic_id', got"):
        load_isic(root)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            "isic_id,age\nISIC_9000000,50\n",
            "has no column patient_id or lesion_id: images of one patient may be on two",
        ),
        ("isic_id,patient_id\nISIC_9000000,p\n", "images are not in the metadata, ISIC_9000001 for one"),
    ],
)
def test_metadata_that_keeps_patients_of_no_or_some_images_together_is_a_warning(root, caplog, table, words):
    load_isic(root)
    assert not caplog.records
    (root / "metadata.csv").write_text(table)
    load_isic(root)
    assert words in caplog.text


def test_metadata_saved_by_a_spreadsheet_is_read(tmp_path):
    (tmp_path / "metadata.csv").write_text("\ufeffisic_id,patient_id,lesion_id\na,p,\n", encoding="utf-8")
    assert read_groups(tmp_path / "metadata.csv") == {"a": ["patient_id:p"]}


def test_doubled_ids_are_refused():
    with pytest.raises(ValueError, match="`image_id` must be different for each image, got 1 ids for 2"):
        draw_split([{"image_id": "a", "hash": value} for value in different_hashes(2)], {}, 0, list(SPLITS))


def test_too_few_images_for_a_split_are_refused():
    with pytest.raises(ValueError, match="2 images are too few, or too alike, for a"):
        draw_split(entries(2), {}, seed=0, splits=list(SPLITS))


# Folders


def test_row_is_an_image_its_mask_and_its_id(synthetic_root):
    row = load_isic(synthetic_root)["train"][0]
    assert set(row) == {"image", "mask", "image_id"}
    assert row["image"].mode == "RGB" and row["image"].size == (64, 64)
    expected = Image.open(synthetic_root / MASKS / f"{row['image_id']}_segmentation.png")
    assert np.array_equal(row["mask"], expected)
    assert set(np.unique(row["mask"])) == {0, 255}


def test_official_validation_and_test_folders_are_used(root):
    for split, ids in (("validation", slice(0, 5)), ("test", slice(5, 12))):
        images, masks = FOLDERS[split]
        (root / images).mkdir()
        (root / masks).mkdir()
        for path in sorted((root / IMAGES).glob("*.jpg"))[ids][: 12 if split == "test" else 5]:
            path.rename(root / images / path.name)
            mask = f"{path.stem}_segmentation.png"
            (root / MASKS / mask).rename(root / masks / mask)
    data = load_isic(root)
    assert len(data["validation"]) == len(list((root / FOLDERS["validation"][0]).iterdir())) == 5
    assert len(data["test"]) == len(list((root / FOLDERS["test"][0]).iterdir()))
    assert len(data["train"]) == 40 - len(data["validation"]) - len(data["test"])


def test_missing_test_folder_is_drawn_from_training(root):
    images, masks = FOLDERS["validation"]
    shutil.copytree(root / IMAGES, root / images)
    shutil.copytree(root / MASKS, root / masks)
    data = load_isic(root)
    assert len(data["validation"]) == 40
    assert len(data["train"]) + len(data["test"]) == 40 and len(data["test"]) > 4


def test_own_folders_of_images_and_masks_are_read(root):
    (root / IMAGES).rename(root / "images")
    (root / MASKS).rename(root / "masks")
    for path in (root / "masks").iterdir():
        path.rename(path.with_name(path.name.replace("_segmentation", "")))
    assert len(load_isic(root)["train"]) == 28


def test_large_originals_are_reduced_once(tmp_path, monkeypatch):
    from efp_hf.data.synthetic import draw_lesion

    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for seed in range(12):
        image, mask = draw_lesion(seed, 150, 200)
        image.save(tmp_path / "images" / f"{seed}.jpg")
        mask.save(tmp_path / "masks" / f"{seed}_segmentation.png")
    native = load_isic(tmp_path, max_side=None)["train"][0]
    assert native["image"].size == native["mask"].size == (200, 150)
    reduced = load_isic(tmp_path, max_side=100)["train"][0]
    assert reduced["image"].size == reduced["mask"].size == (100, 75)
    assert set(np.unique(reduced["mask"])) <= {0, 255}
    small = np.asarray(native["mask"].resize((100, 75), Image.Resampling.NEAREST))
    assert np.array_equal(small, reduced["mask"])

    monkeypatch.setattr(pairs, "check_pair", lambda *args: pytest.fail("read a second time"))
    assert np.array_equal(load_isic(tmp_path, max_side=100)["train"][0]["image"], reduced["image"])


def test_split_does_not_depend_on_the_size_that_is_asked_for(tmp_path):
    """A JPEG is decoded at another scale for training than for scoring; its hash must not be."""
    from efp_hf.data.synthetic import draw_lesion

    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for seed in range(10):
        image, mask = draw_lesion(seed, 60, 90)
        image.resize((1800, 1200)).save(tmp_path / "images" / f"{seed}.jpg")
        mask.resize((1800, 1200), Image.Resampling.NEAREST).save(tmp_path / "masks" / f"{seed}.png")
    found = find_pairs(tmp_path / "images", tmp_path / "masks")
    hashes = [
        [entry["hash"] for entry in pairs.check_and_cache(found, max_side, tmp_path / "cache")]
        for max_side in (None, 512, 100)
    ]
    assert hashes[0] == hashes[1] == hashes[2]


def test_relative_folder_means_the_one_it_meant(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    data = load_isic(root.name)
    monkeypatch.chdir(root)
    assert data["train"][0]["image"].size == (64, 64)
    assert load_isic(root)["train"][0]["image"].size == (64, 64)


def test_changed_file_is_read_again(root):
    before = load_isic(root)
    image_id = before["train"]["image_id"][0]
    path = root / MASKS / f"{image_id}_segmentation.png"
    Image.new("L", (64, 64), 7).save(path)
    with pytest.raises(ValueError, match=f"{image_id}.*got 7"):
        load_isic(root)


def remove_mask(root: Path, image_id: str):
    (root / MASKS / f"{image_id}_segmentation.png").unlink()


def double_mask(root: Path, image_id: str):
    shutil.copy(root / MASKS / f"{image_id}_segmentation.png", root / MASKS / f"{image_id}.png")


def double_image(root: Path, image_id: str):
    Image.new("RGB", (64, 64)).save(root / IMAGES / f"{image_id}.png")


def other_size(root: Path, image_id: str):
    Image.new("L", (60, 64)).save(root / MASKS / f"{image_id}_segmentation.png")


def strange_value(root: Path, image_id: str):
    Image.new("L", (64, 64), 3).save(root / MASKS / f"{image_id}_segmentation.png")


def cut_image(root: Path, image_id: str):
    path = root / IMAGES / f"{image_id}.jpg"
    path.write_bytes(path.read_bytes()[:-300])


def no_image(root: Path, image_id: str):
    for path in (root / IMAGES).iterdir():
        path.unlink()


def no_mask_folder(root: Path, image_id: str):
    shutil.rmtree(root / MASKS)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove_mask, "1 images have no mask in .*: ISIC_9000003"),
        (double_mask, "ISIC_9000003: two masks"),
        (double_image, "ISIC_9000003: two images"),
        (other_size, "ISIC_9000003: image is 64×64, mask 64×60. A mask must have the size of its image"),
        (
            strange_value,
            r"ISIC_9000003_segmentation.png: a mask must hold 0 \(background\) and 255 \(foreground\), got 3",
        ),
        (cut_image, "ISIC_9000003.jpg: the file is damaged or truncated"),
        (no_image, f"{IMAGES}: no image in the folder"),
        (no_mask_folder, f"{MASKS}: no such folder"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_damaged_folder_is_refused_by_name(root, damage, words):
    damage(root, "ISIC_9000003")
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        load_isic(root)


def test_folder_that_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"neither {IMAGES} nor images is there"):
        load_isic(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        load_isic(tmp_path / "nowhere")


def test_wrong_split_name_is_refused_with_the_right_ones(synthetic_root):
    data = load_isic(synthetic_root)
    assert get_split(data, "validation").num_rows == len(data["validation"])
    with pytest.raises(ValueError, match="`split` must be one of train, validation, test, got 'val'"):
        get_split(data, "val")


# The Hub


def encoded(image: Image.Image, file_format: str) -> dict:
    """As the Hub stores an image."""
    file = BytesIO()
    image.save(file, file_format)
    return {"path": None, "bytes": file.getvalue()}


@pytest.fixture
def hub_folder(tmp_path, synthetic_root) -> Path:
    """A dataset as the Hub stores it: parquet files that hold the images."""
    rows = load_isic(synthetic_root)["train"]
    rows = rows.rename_columns({"image": "photo", "mask": "annotation"}).remove_columns("image_id")
    rows = rows.add_column("patient_id", [f"p{row // 4}" for row in range(len(rows))])
    (tmp_path / "data").mkdir()
    rows.to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    return tmp_path


def test_dataset_of_the_hub_gives_the_same_columns_and_splits(hub_folder, synthetic_root):
    data = load_hub_lesions(
        "parquet", "photo", "annotation", data_files=str(hub_folder / "data" / "*.parquet"), cache_dir=str(hub_folder)
    )
    assert tuple(data) == SPLITS
    assert data["train"].features == load_isic(synthetic_root)["train"].features
    assert sum(len(data[split]) for split in data) == 28
    row = data["test"][0]
    assert row["image"].size == row["mask"].size == (64, 64)
    patients = {split: {int(name[-7:]) // 4 for name in data[split]["image_id"]} for split in data}
    assert not patients["train"] & patients["test"]


def test_images_of_the_hub_are_reduced_as_those_of_a_folder(hub_folder):
    files = {"data_files": str(hub_folder / "data" / "*.parquet"), "cache_dir": str(hub_folder)}
    full = load_hub_lesions("parquet", "photo", "annotation", max_side=None, **files)
    data = load_hub_lesions("parquet", "photo", "annotation", max_side=40, **files)
    assert data["test"].features == full["test"].features
    assert data["test"]["image_id"] == full["test"]["image_id"]
    row, full_row = data["test"][0], full["test"][0]
    assert full_row["image"].size == (64, 64)
    assert row["image"].size == row["mask"].size == (40, 40)
    assert set(np.unique(row["mask"])) == {0, 255}
    assert abs(np.mean(row["mask"]) - np.mean(full_row["mask"])) < 5 and np.mean(row["mask"]) > 5
    assert abs(np.mean(row["image"]) - np.mean(full_row["image"])) < 5


def test_images_of_the_hub_that_are_small_enough_keep_their_bytes(hub_folder):
    image = Image.effect_noise((40, 40), 60).convert("RGB")
    rows = {"image": [encoded(image, "JPEG")], "mask": [encoded(Image.new("L", (40, 40)), "PNG")]}
    features = datasets.Features({name: datasets.Image() for name in rows})
    for split in SPLITS:
        (hub_folder / split).mkdir()
        datasets.Dataset.from_dict(rows, features=features).to_parquet(hub_folder / split / "0.parquet")
    files = {split: str(hub_folder / split / "0.parquet") for split in SPLITS}
    data = load_hub_lesions("parquet", max_side=40, data_files=files, cache_dir=str(hub_folder))
    stored = data["train"].cast_column("image", datasets.Image(decode=False))[0]["image"]["bytes"]
    assert stored == rows["image"][0]["bytes"]


def test_mask_of_another_size_on_the_hub_is_named():
    row = {
        "image_id": "train_0000003",
        "image": encoded(Image.new("RGB", (40, 30)), "JPEG"),
        "mask": encoded(Image.new("L", (40, 31)), "PNG"),
    }
    with pytest.raises(ValueError, match="train_0000003: image is 30×40, mask 31×40. A mask must have the size"):
        hub.reduce_row(row, max_side=32)


def test_missing_column_is_refused_with_those_that_are_there(hub_folder):
    with pytest.raises(ValueError, match=r"no column 'image', got \['photo', 'annotation', 'patient_id'\]"):
        load_hub_lesions("parquet", data_files=str(hub_folder / "data" / "*.parquet"), cache_dir=str(hub_folder))


# The real images, where they are at hand


@pytest.mark.skipif(not (REAL_DATA / IMAGES).is_dir(), reason="the ISIC 2018 images are not on this machine")
def test_real_split_is_the_one_written_down_and_keeps_every_known_group_together():
    data = load_isic(REAL_DATA)
    assert {split: len(data[split]) for split in data} == {"train": 1816, "validation": 259, "test": 519}
    sides = split_of(data)
    with (REPOSITORY / "results" / "split_isic2018.csv").open(newline="") as file:
        assert {row["image_id"]: row["split"] for row in csv.DictReader(file)} == sides
    groups = read_groups(REAL_DATA / "metadata.csv")
    by_group = {}
    for image_id, side in sides.items():
        for group in groups[image_id]:
            by_group.setdefault(group, set()).add(side)
    assert all(len(group_sides) == 1 for group_sides in by_group.values())
    known_duplicates = [("ISIC_0012222", "ISIC_0016003"), ("ISIC_0000171", "ISIC_0015124")]
    assert all(sides[one] == sides[other] for one, other in known_duplicates)
    assert isinstance(data["train"].features["mask"], datasets.Image)
