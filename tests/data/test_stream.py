import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from datasets import Dataset, Features, Image, Value

from efp_hf.data.stream import stream_images
from efp_hf.data.synthetic import draw_lesion


def jpeg(number: int) -> bytes:
    file = BytesIO()
    draw_lesion(number, 40, 50)[0].save(file, "JPEG")
    return file.getvalue()


def write_parquet(path: Path, images: list[bytes | None], ids: list[str] | None = None) -> None:
    path.parent.mkdir(exist_ok=True)
    columns = {"image": [image and {"bytes": image, "path": None} for image in images]} | (
        {"image_id": ids} if ids else {}
    )
    features = {"image": Image()} | ({"image_id": Value("string")} if ids else {})
    Dataset.from_dict(columns, features=Features(features)).to_parquet(path)


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))


def test_shards_give_the_files_that_were_put_in(tmp_path):
    images = [jpeg(number) for number in range(5)]
    for shard, numbers in enumerate((range(3), range(3, 5))):
        ids = [f"mole_{number}" for number in numbers]
        write_parquet(tmp_path / "parquet" / f"test-{shard}.parquet", [images[number] for number in numbers], ids)
        members = {f"mole_{number}.jpg": images[number] for number in numbers}
        write_tar(tmp_path / "tar" / f"test-{shard}.tar", members)
    expected = [(f"mole_{number}.jpg", images[number]) for number in range(5)]
    assert list(stream_images(tmp_path / "parquet")) == expected
    assert list(stream_images(tmp_path / "tar", "test")) == expected


def test_images_without_an_id_are_named_after_their_content(tmp_path):
    write_parquet(tmp_path / "a" / "test.parquet", [jpeg(1), jpeg(2), jpeg(1)])
    names = [name for name, _ in stream_images(tmp_path / "a")]
    assert names[0] == names[2] != names[1] and len(names[0]) == 16 + len(".jpg")


def test_ids_stay_inside_a_folder_and_rows_without_bytes_are_empty(tmp_path):
    write_parquet(tmp_path / "a" / "test.parquet", [jpeg(1), None], ["../../etc/mole", "gone"])
    assert list(stream_images(tmp_path / "a")) == [(".._.._etc_mole.jpg", jpeg(1)), ("gone.jpg", b"")]


def test_what_cannot_be_streamed_is_named(tmp_path):
    write_parquet(tmp_path / "a" / "train.parquet", [jpeg(1)])
    write_parquet(tmp_path / "a" / "test.parquet", [jpeg(1)])
    with pytest.raises(ValueError, match="`split` must be one of train, test of .* got None. Pass --split."):
        stream_images(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        with pytest.raises(FileNotFoundError, match=f"{name}: no folder with Parquet or WebDataset"):
            stream_images(tmp_path / name)
    (tmp_path / "text").mkdir()
    Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "text" / "test.parquet")
    with pytest.raises(ValueError, match="no column with images .* got text"):
        stream_images(tmp_path / "text")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "test.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="bad: the dataset cannot be read"):
        stream_images(tmp_path / "bad")


def test_shard_that_is_damaged_further_on_ends_the_stream_by_name(tmp_path):
    for shard in range(2):
        write_tar(tmp_path / "a" / f"test-{shard}.tar", {f"mole_{shard}.jpg": jpeg(shard)})
    cut = tmp_path / "a" / "test-1.tar"
    cut.write_bytes(cut.read_bytes()[:700])
    stream = stream_images(tmp_path / "a")
    assert next(stream)[0] == "mole_0.jpg"
    with pytest.raises(OSError, match="a: the dataset cannot be read further than 1 images"):
        list(stream)
