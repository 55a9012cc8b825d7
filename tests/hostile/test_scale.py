"""
Memory and time from 1,000 to 100,000 generated images (of .tar shards, and to score: to 20,000).

    pytest -m slow tests/hostile/test_scale.py --record results/hostile.csv
"""

import os
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from efp_hf.data.duplicates import HASH_BITS_APART, near_duplicates
from efp_hf.data.pairs import FEATURES

pytestmark = pytest.mark.slow

FEW, MANY = 1000, 100_000
SIDE = 8
PROCESS = Path(__file__).with_name("scale_process.py")


def draw_files(number: int) -> tuple[bytes, bytes]:
    """A JPEG of noise and a PNG of a square, as small as images get: the time goes to their number."""
    noise = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[2:6, 2:6] = 255
    files = BytesIO(), BytesIO()
    Image.fromarray(noise).save(files[0], "JPEG")
    Image.fromarray(mask).save(files[1], "PNG")
    return files[0].getvalue(), files[1].getvalue()


def write_parquet(path: Path) -> None:
    files = [draw_files(number) for number in range(FEW)]
    rows = {name: [{"path": None, "bytes": pair[at]} for pair in files] for at, name in enumerate(("image", "mask"))}
    rows["image_id"] = [f"lesion_{number}" for number in range(FEW)]
    datasets.Dataset.from_dict(rows, features=FEATURES).to_parquet(path)


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w") as shard:
        for number in range(FEW):
            for suffix, content in zip(("jpg", "png"), draw_files(number), strict=True):
                member = tarfile.TarInfo(f"lesion_{number}.{suffix}")
                member.size = len(content)
                shard.addfile(member, BytesIO(content))


def write_folder(root: Path, names: int) -> None:
    """`FEW` different pairs, each with so many names: links, so that the files are read once and the names all."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(FEW):
        for folder, suffix, content in zip(("images", "masks"), ("jpg", "png"), draw_files(number), strict=True):
            paths = [root / folder / f"{number:04d}_{name:03d}.{suffix}" for name in range(names)]
            paths[0].write_bytes(content)
            for path in paths[1:]:
                path.symlink_to(paths[0])


def run_process(what: str, folder: Path) -> tuple[int, float, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(folder / "datasets")}
    ran = subprocess.run([sys.executable, PROCESS, what, folder], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr[-2000:]
    count, first, last = ran.stdout.split()
    return int(count), float(first), float(last)


@pytest.mark.parametrize(
    ("write", "suffix", "images"), [(write_parquet, "parquet", MANY), (write_tar, "tar", MANY // 5)]
)
def test_streaming_takes_the_memory_of_the_first_thousand(tmp_path, record_counts, write, suffix, images):
    shard = tmp_path / f"validation-00000-of-00001.{suffix}"
    write(shard)
    for number in range(images // FEW):
        os.link(shard, tmp_path / f"train-{number:05d}-of-{images // FEW:05d}.{suffix}")
    count, first, last = run_process("stream", tmp_path)
    record_counts(f"memory: streaming {suffix}", images, count, megabytes_after_1000=first, megabytes_in_the_end=last)
    assert count == images
    assert last - first < 40


def test_loading_a_folder_takes_little_more_than_its_list(tmp_path, record_counts):
    write_folder(tmp_path / "few", 1)
    write_folder(tmp_path / "many", MANY // FEW)
    count, first, last = run_process("load", tmp_path)
    record_counts("memory: loading a folder", MANY, count, megabytes_after_1000=first, megabytes_in_the_end=last)
    assert count == MANY
    assert last - first < 500  # the files' names and hashes: less than 5 kB an image


def test_scoring_takes_the_memory_of_the_first_thousand(tmp_path, record_counts):
    images = MANY // 5  # a score of one takes as long as reading five
    write_folder(tmp_path / "few", 1)
    for path in (tmp_path / "few" / "masks").iterdir():
        path.rename(path.with_name(f"{path.stem}_segmentation.png"))
    (tmp_path / "count").write_text(str(images))
    count, first, last = run_process("score", tmp_path)
    record_counts("memory: scoring", images, count, megabytes_after_1000=first, megabytes_in_the_end=last)
    assert count == images
    assert last - first < 100


def test_near_duplicates_are_found_in_time_that_is_not_quadratic(record_counts):
    seconds = {}
    for count in (10_000, 30_000, MANY):
        generator = np.random.default_rng(count)
        bits = generator.integers(0, 2, (count, 256)).astype(np.uint8)
        copies = count // 10
        for copy in range(copies):
            bits[-1 - copy] = bits[copy]
            bits[-1 - copy, generator.choice(256, generator.integers(1, HASH_BITS_APART + 1), replace=False)] ^= 1
        hashes = [row.tobytes().hex() for row in np.packbits(bits, axis=1)]
        start = time.process_time()
        pairs = set(near_duplicates(hashes))
        seconds[count] = time.process_time() - start
        found = sum((copy, count - 1 - copy) in pairs for copy in range(copies))
        record_counts(f"near-duplicates among {count}", copies, found, core_seconds=round(seconds[count], 1))
        assert found >= 0.999 * copies and len(pairs) == found
    assert seconds[MANY] < 60
    assert seconds[MANY] / seconds[30_000] < (MANY / 30_000) ** 2
