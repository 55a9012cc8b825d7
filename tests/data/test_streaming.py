"""Shards: Parquet and WebDataset files in a folder, read whole or streamed."""

import os
import pickle
import tarfile
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from efp_hf.data import hub
from efp_hf.data.files import as_boolean_mask
from efp_hf.data.folders import load_isic
from efp_hf.data.lesions import load_lesions
from efp_hf.data.pairs import FEATURES
from efp_hf.data.synthetic import draw_lesion
from efp_hf.training.fingerprint import fingerprint_of


def encoded(image: Image.Image, file_format: str) -> bytes:
    file = BytesIO()
    image.save(file, file_format)
    return file.getvalue()


def pair_files(seed: int) -> dict[str, bytes]:
    image, mask = draw_lesion(seed, 60, 80)
    return {"jpg": encoded(image, "JPEG"), "png": encoded(mask, "PNG")}


def write_tar(path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    with tarfile.open(path, "w") as shard:
        for key, files in samples.items():
            for suffix, content in files.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                shard.addfile(member, BytesIO(content))


@pytest.fixture
def webdataset(tmp_path) -> Path:
    folder = tmp_path / "webdataset"
    folder.mkdir()
    for split, seeds in (("train", range(3)), ("validation", range(3, 5)), ("test", range(5, 6))):
        write_tar(folder / f"{split}-0000.tar", {f"lesion_{seed}": pair_files(seed) for seed in seeds})
    return folder


def write_parquet(folder: Path, splits: dict[str, range], **columns) -> Path:
    (folder / "data").mkdir(parents=True)
    for split, seeds in splits.items():
        files = [pair_files(seed) for seed in seeds]
        rows = {
            "image": [{"path": None, "bytes": file["jpg"]} for file in files],
            "mask": [{"path": None, "bytes": file["png"]} for file in files],
            "image_id": [f"lesion_{seed}" for seed in seeds],
            **columns,
        }
        features = datasets.Features({**FEATURES, **{name: datasets.Value("string") for name in columns}})
        rows = {name: values for name, values in rows.items() if values is not None}
        features = datasets.Features({name: features[name] for name in rows})
        dataset = datasets.Dataset.from_dict(rows, features=features)
        dataset.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture
def parquet(tmp_path) -> Path:
    return write_parquet(tmp_path / "parquet", {"train": range(3), "validation": range(3, 5), "test": range(5, 6)})


def assert_equal(row: dict, other: dict) -> None:
    assert row["image_id"] == other["image_id"]
    assert np.array_equal(row["image"], other["image"]) and np.array_equal(row["mask"], other["mask"])


@pytest.mark.parametrize("layout", ["parquet", "webdataset"])
@pytest.mark.parametrize("max_side", [None, 40])
def test_streamed_rows_are_those_that_are_read_whole(layout, max_side, request):
    folder = request.getfixturevalue(layout)
    whole = load_lesions(folder, max_side=max_side)
    streamed = load_lesions(folder, max_side=max_side, streaming=True)
    assert {split: list(rows["image_id"]) for split, rows in whole.items()} == {
        "train": ["lesion_0", "lesion_1", "lesion_2"],
        "validation": ["lesion_3", "lesion_4"],
        "test": ["lesion_5"],
    }
    assert list(streamed) == list(whole)
    for split in whole:
        assert isinstance(streamed[split], datasets.IterableDataset) and streamed[split].features == FEATURES
        for row, other in zip(streamed[split], whole[split], strict=True):
            assert row["image"].size == ((80, 60) if max_side is None else (40, 30))
            assert_equal(row, other)


def test_streamed_pixels_are_those_of_the_files(parquet):
    row = next(iter(load_lesions(parquet, streaming=True)["train"]))
    files = pair_files(0)
    assert np.array_equal(row["image"], Image.open(BytesIO(files["jpg"])))
    assert np.array_equal(as_boolean_mask(row["mask"], ""), np.asarray(draw_lesion(0, 60, 80)[1]) > 0)


def test_stream_is_read_as_it_is_asked_for(parquet, monkeypatch):
    stream = load_lesions(parquet, streaming=True)["train"]
    read = []
    read_pair = hub.read_pair
    monkeypatch.setattr(hub, "read_pair", lambda *of: read.append(of[0]["image_id"]) or read_pair(*of))
    next(iter(stream))
    assert read == ["lesion_0"]


def test_rows_without_an_id_are_named_after_their_image(tmp_path):
    folder = write_parquet(tmp_path, {"train": range(3), "validation": range(1)}, image_id=None)
    data = load_lesions(folder, streaming=True)
    train, validation = ([row["image_id"] for row in data[split]] for split in ("train", "validation"))
    assert len(set(train)) == 3 and all(len(name) == 16 for name in train)
    assert validation == train[:1]


def test_streamed_images_have_the_fingerprint_of_those_that_are_read_whole(parquet):
    assert fingerprint_of(load_lesions(parquet, streaming=True)) == fingerprint_of(load_lesions(parquet))


def test_missing_splits_are_drawn_unless_they_are_streamed(tmp_path):
    folder = write_parquet(tmp_path, {"train": range(12)})
    assert sum(len(rows) for rows in load_lesions(folder).values()) == 12
    with pytest.raises(ValueError, match="must have the splits train and validation, got train: they cannot be drawn"):
        load_lesions(folder, streaming=True)


def test_other_splits_and_columns_are_refused_with_those_that_are_there(tmp_path):
    folder = write_parquet(tmp_path / "a", {"train": range(2), "validation": range(2)}, mask=None)
    with pytest.raises(ValueError, match=r"no column 'mask', got \['image', 'image_id'\]"):
        load_lesions(folder, streaming=True)
    folder = write_parquet(tmp_path / "b", {"train": range(2), "validation": range(2), "holdout": range(2)})
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        + "".join(f"  - split: {name}\n    path: data/{name}-*\n" for name in ("train", "validation", "holdout"))
        + "---\n"
    )
    with pytest.raises(
        ValueError, match="splits must be among train, validation, test, got train, validation, holdout"
    ):
        load_lesions(folder, streaming=True)


def test_folder_of_files_is_not_streamed(synthetic_root, tmp_path):
    with pytest.raises(ValueError, match="a stream must come from the Hub or from Parquet or WebDataset"):
        load_lesions(synthetic_root, streaming=True)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        load_lesions(tmp_path / "nowhere")
    assert load_lesions(synthetic_root)["test"][0]["image_id"] == load_isic(synthetic_root)["test"][0]["image_id"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"jpg": pair_files(0)["jpg"][:-200]}, "lesion_1: the file is damaged or truncated"),
        ({"jpg": b""}, "lesion_1: the file is empty"),
        ({"jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n"}, "lesion_1: not an image that can be read"),
        ({"png": encoded(Image.new("L", (80, 60), 7), "PNG")}, "lesion_1: a mask must hold 0 .* got 7"),
        ({"png": encoded(Image.new("L", (80, 61)), "PNG")}, "lesion_1: image is 60×80, mask 61×80"),
    ],
)
def test_damaged_rows_of_a_stream_are_named(tmp_path, damage, words):
    write_tar(tmp_path / "train.tar", {"lesion_0": pair_files(0), "lesion_1": pair_files(1) | damage})
    write_tar(tmp_path / "validation.tar", {"lesion_2": pair_files(2)})
    with pytest.raises(ValueError, match=words):
        list(load_lesions(tmp_path, streaming=True)["train"])


@pytest.mark.parametrize("content", [b"", b"garbage" * 900, None])
@pytest.mark.parametrize("layout", ["parquet", "webdataset"])
def test_damaged_shard_is_refused_in_a_sentence(layout, content, request):
    folder = request.getfixturevalue(layout)
    shard = next(path for path in folder.rglob("train*"))
    shard.write_bytes(shard.read_bytes()[:3000] if content is None else content)
    with pytest.raises(ValueError, match=f"{folder}: a file is damaged .* Copy it again"):
        load_lesions(folder)


def test_row_without_a_mask_is_named(tmp_path):
    # the columns of a WebDataset are those of its first five rows
    samples = {f"lesion_{seed}": pair_files(seed) for seed in range(7)}
    del samples["lesion_6"]["png"]
    write_tar(tmp_path / "train.tar", samples)
    write_tar(tmp_path / "validation.tar", samples)
    with pytest.raises(ValueError, match="lesion_6: the row must have `mask`, got none"):
        list(load_lesions(tmp_path, streaming=True)["train"])


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("streaming", [True, False])
def test_pickles_in_shards_are_not_opened(tmp_path, streaming):
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    for split in ("train", "validation", "test"):
        write_tar(tmp_path / f"{split}.tar", {"a": {**pair_files(0), "pyd": bomb, "pickle": bomb, "pkl": bomb}})
    rows = list(load_lesions(tmp_path, streaming=streaming)["train"])
    assert [set(row) for row in rows] == [{"image", "mask", "image_id"}]
    for number, suffix in enumerate(("pth", "npy")):  # decoded by `datasets`, which refuses pickled objects
        folder = tmp_path / str(number)
        folder.mkdir()
        for split in ("train", "validation", "test"):
            write_tar(folder / f"{split}.tar", {"a": {**pair_files(0), suffix: bomb}})
        with pytest.raises((ValueError, pickle.UnpicklingError)):
            list(load_lesions(folder, streaming=streaming)["train"])
    assert not (tmp_path / "exploded").exists()
