"""
`efp predict` into a place that gives out: one line, what is there is whole, and --resume finishes when there is space.

  pytest -m "slow or not slow" tests/hostile/test_prediction_disk.py --record results/hostile.csv
"""

import csv
import errno
import os
import shutil
import subprocess

import numpy as np
import pytest
from hostile.prediction_process import exit_codes, files_of, start_prediction
from PIL import Image

from efp_hf.__main__ import main
from efp_hf.data.synthetic import draw_lesion
from efp_hf.inference import folder

SIZES_IN_KB = (8, 16, 24, 32, 48, 64, 96, 128)  # of file systems; the masks and the table need more


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(20):
        draw_lesion(number, 400, 300)[0].save(folder / f"mole_{number:02d}.jpg")
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of so many KB, or makes it larger."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(size: int, option: str = "") -> None:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k{option}", "tmpfs", str(disk)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root can mount a file system")

    yield disk, mount
    while subprocess.run(["umount", str(disk)], capture_output=True).returncode == 0:
        pass


def check_whole(output) -> None:
    """Each row has its whole mask, each mask, but one that is being written at the end, its row; nothing is hidden."""
    names = {path.name for path in output.iterdir()} - {"predictions.csv"}
    with (output / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    masks = {row["image"].replace(".jpg", "_segmentation.png") for row in rows if not row["error"]}
    assert masks <= names and len(names - masks) <= 1
    for name in names:
        assert not name.startswith(".")
        assert np.asarray(Image.open(output / name)).shape == (400, 300)
    assert all(row["made_by"] and None not in row and None not in row.values() for row in rows)


@pytest.mark.slow
def test_full_disk_ends_in_a_line_and_is_resumed_with_more_space(
    photos, tiny_checkpoint, tmp_path, small_disk, record_counts
):
    disk, mount = small_disk
    whole, log = tmp_path / "whole", tmp_path / "log"
    arguments = [photos, "--checkpoint", tiny_checkpoint, "--threshold", "0.52", "--output"]
    assert exit_codes(start_prediction([*arguments, whole], log)) == [0]
    held = stopped = 0
    for size in SIZES_IN_KB:
        for num_processes in (1, 2) if size == SIZES_IN_KB[3] else (1,):
            mount(size)
            log.write_text("")
            codes = exit_codes(start_prediction([*arguments, disk / "masks"], log, num_processes))
            if codes != [0]:
                stopped += 1
                assert set(codes) <= {1, 130}
                lines = [line for line in log.read_text().splitlines() if "No space left on device" in line]
                assert 1 <= len(lines) <= num_processes and "Traceback" not in log.read_text()
                assert all(line.endswith("Mend it, and go on with --resume.") for line in lines)
            if num_processes == 1 and (disk / "masks" / "predictions.csv").exists():
                check_whole(disk / "masks")
            subprocess.run(["mount", "-o", "remount,size=4096k", str(disk)], check=True)
            assert exit_codes(start_prediction([*arguments, disk / "masks", "--resume"], log)) == [0], log.read_text()
            held += files_of(disk / "masks") == files_of(whole)
            subprocess.run(["umount", str(disk)], check=True)
    tried = len(SIZES_IN_KB) + 1
    record_counts("prediction on a full disk", tried, held, stopped=stopped, kilobytes=" ".join(map(str, SIZES_IN_KB)))
    assert held == tried
    assert stopped > tried / 2


@pytest.fixture
def efp(tmp_path, photos, tiny_checkpoint, capsys):
    """Runs `efp predict` of the photos into `tmp_path/masks` in this process → exit code and what it said."""

    def run(*more) -> tuple[int, str]:
        arguments = ["predict", photos, "--checkpoint", tiny_checkpoint, "--output", tmp_path / "masks", *more]
        capsys.readouterr()
        return main([*map(str, arguments)]), capsys.readouterr().err

    return run


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT", "EROFS", "EIO", "EACCES", "ESTALE"])
def test_place_that_fails_half_way_ends_the_run_at_once(efp, tmp_path, monkeypatch, number):
    write_mask, calls = folder.write_mask, []

    def failing(mask, path):
        calls.append(path)
        if len(calls) > 3:
            raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)), str(path))
        write_mask(mask, path)

    with monkeypatch.context() as patched:
        patched.setattr(folder, "write_mask", failing)
        code, said = efp()
    assert code == 1 and said.endswith(". Mend it, and go on with --resume.\n") and said.count("efp predict:") == 1
    assert len(calls) == 4 and len(files_of(tmp_path / "masks")) == 3 + 1
    check_whole(tmp_path / "masks")
    assert efp("--resume") == (0, "")
    assert len(files_of(tmp_path / "masks")) == 20 + 1


def test_folder_that_is_removed_meanwhile_ends_the_run_at_once(efp, tmp_path, monkeypatch):
    write_mask, calls = folder.write_mask, []

    def removing(mask, path):
        calls.append(path)
        if len(calls) == 3:
            shutil.rmtree(tmp_path / "masks")
        write_mask(mask, path)

    with monkeypatch.context() as patched:
        patched.setattr(folder, "write_mask", removing)
        code, said = efp()
    assert code == 1 and "No such file or directory" in said and "masks" in said
    assert len(calls) == 3 and not (tmp_path / "masks").exists()
    assert efp("--resume") == (0, "")
    assert len(files_of(tmp_path / "masks")) == 20 + 1


@pytest.mark.slow
def test_read_only_folder_is_refused_before_the_work(photos, tiny_checkpoint, tmp_path, small_disk):
    disk, mount = small_disk
    mount(1024, ",ro")
    log = tmp_path / "log"
    for output in (disk, disk / "masks"):
        codes = exit_codes(start_prediction([photos, "--checkpoint", tiny_checkpoint, "--output", output], log))
        assert codes == [2]
    assert log.read_text().count("cannot be written to. Choose another --output.\n") == 2 == log.read_text().count("\n")
