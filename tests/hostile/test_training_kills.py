"""Training is killed (SIGKILL) again and again, also while it saves, and goes on to the weights of an unkilled run."""

import random
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hostile.training_process import start_training

from efp_hf.metrics.rows import read_rows
from efp_hf.training.checkpoints import newest_whole

NUM_KILLS = 30
SMALL_TRAINING = (
    *("--encoder", "paper", "--image-size", "32", "--per-device-train-batch-size", "4", "--max-steps", "12"),
    *("--eval-strategy", "steps", "--eval-steps", "2", "--save-strategy", "steps", "--save-steps", "2"),
    *("--use-cpu", "--disable-tqdm"),
)


def half_saved(output: Path) -> set[int]:
    """Inodes of the checkpoints that have no state yet, and of the folder of the final weights."""
    found = set()
    for path in (*output.glob("checkpoint-*"), *output.glob(".saving")):
        with suppress(FileNotFoundError):  # a finished one, which goes
            if not (path / "trainer_state.json").exists():
                found.add(path.stat().st_ino)
    return found


def kill_while_saving(process, output: Path, saves_before: int, rng: random.Random) -> None:
    """Kill it some milliseconds into a save; those are let pass that were begun before, and `saves_before` more."""
    seen = half_saved(output)
    while process.is_alive():
        new = half_saved(output) - seen
        if new and saves_before == 0:
            time.sleep(rng.uniform(0, 0.05))
            break
        saves_before -= len(new)
        seen |= new
        time.sleep(0.0005)
    process.kill()
    process.join()


def kill_after(process, seconds: float) -> None:
    process.join(seconds)
    process.kill()
    process.join()


@pytest.mark.slow
def test_training_that_is_killed_again_and_again_ends_with_the_weights_of_an_unkilled_one(
    tmp_path, synthetic_root, record_counts
):
    rng = random.Random(17)
    log = tmp_path / "log"

    def train(output: Path, *options: str):
        return start_training(["--data", str(synthetic_root), *SMALL_TRAINING, "--output", str(output), *options], log)

    start_training(["--help"], log).join()  # the first one waits for the imports
    start = time.monotonic()
    reference = train(tmp_path / "reference")
    reference.join()
    seconds = time.monotonic() - start
    assert reference.exitcode == 0
    expected = (tmp_path / "reference" / "model.safetensors").read_bytes()

    kills = half = held = pending = runs = 0
    output = tmp_path / "run-0"
    while kills < NUM_KILLS or pending:
        resume = newest_whole(output)[0] is not None
        before = half_saved(output)
        process = train(output, "--resume" if resume else "--overwrite")
        if kills == NUM_KILLS:
            process.join()
        elif kills % 2:
            kill_while_saving(process, output, rng.randrange(3), rng)
        else:
            kill_after(process, rng.uniform(0, seconds))

        finished = process.exitcode == 0
        weights = output / "model.safetensors"
        assert finished or process.exitcode == -9, log.read_text()
        assert not weights.exists() or weights.read_bytes() == expected
        assert len(read_rows(output / "training.csv", missing_ok=True)) <= 1
        if finished:
            assert weights.read_bytes() == expected
            assert not half_saved(output)
            held, pending, runs = held + pending, 0, runs + 1
            output = tmp_path / f"run-{runs}"
        else:
            kills, pending, half = kills + 1, pending + 1, half + bool(half_saved(output) - before)
    assert "Traceback" not in log.read_text()
    assert half >= NUM_KILLS / 5
    record_counts("training killed", kills, held, in_the_middle_of_a_save=half, finished_runs=runs)
    assert held == kills
