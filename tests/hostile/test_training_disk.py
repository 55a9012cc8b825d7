"""Training on a disk that is full: one line, whole checkpoints, and --resume once there is room."""

import subprocess

import pytest
from hostile.test_training_kills import SMALL_TRAINING
from hostile.training_process import start_training

from efp_hf.metrics.rows import read_rows
from efp_hf.training.checkpoints import damage, newest_whole, numbered_checkpoints

DISK = 60_000_000  # bytes; three checkpoints are 54 million
FREE = (0, 3_000_000, 9_000_000, 15_000_000, 22_000_000, 30_000_000, 40_000_000, 54_000_000, 57_000_000)


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_training_on_a_full_disk_keeps_whole_checkpoints_and_goes_on(
    small_disk, tmp_path, synthetic_root, record_counts
):
    """Room for none, a part of the first, of the second and the third checkpoint, and of the final weights."""

    def train(output, *options: str) -> tuple[int, str]:
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        arguments = ["--data", str(synthetic_root), *SMALL_TRAINING, "--output", str(output), *options]
        process = start_training(arguments, log)
        process.join()
        return process.exitcode, log.read_text()

    assert train(tmp_path / "reference")[0] == 0
    expected = (tmp_path / "reference" / "model.safetensors").read_bytes()
    held = stopped = 0
    for number, free in enumerate(FREE):
        output, ballast = small_disk / f"run-{number}", small_disk / "ballast"
        ballast.write_bytes(bytes(DISK - free - 200_000))
        code, said = train(output)
        last = said.splitlines()[-1]
        if code != 0:
            stopped += 1
            assert code == 1 and last.startswith("efp train: "), said
            assert str(output) in last and "Mend it; " in last, last
            assert "Traceback" not in said
            assert all(damage(checkpoint) is None for checkpoint in numbered_checkpoints(output).values())
            assert not (output / "model.safetensors").exists()
            ballast.unlink()
            resume = newest_whole(output)[0] is not None
            assert ("go on with --resume" in last) == resume
            code, said = train(output, "--resume" if resume else "--overwrite")
        assert code == 0, said
        assert (output / "model.safetensors").read_bytes() == expected
        assert len(read_rows(output / "training.csv")) == 1
        held += 1
        subprocess.run(["rm", "-r", output], check=True)
    assert stopped >= 6
    record_counts("training on a full disk", len(FREE), held, stopped_by_the_disk=stopped)
