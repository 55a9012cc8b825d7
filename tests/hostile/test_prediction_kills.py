"""
`efp predict` killed at random moments: resumed, it has written what an uninterrupted run writes, and nothing else.

  pytest -m slow tests/hostile/test_prediction_kills.py --record results/hostile.csv
"""

import random
import time

import pytest
from hostile.prediction_process import exit_codes, files_of, start_prediction
from PIL import Image

from efp_hf.data.synthetic import draw_lesion

NUM_IMAGES = 40
NUM_KILLS = 30
NUM_TERMINATIONS = 5
NUM_KILLS_OF_TWO = 6

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Some photos, one of them twice under one id, and one that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(NUM_IMAGES - 2):
        draw_lesion(number, 48 + number, 64)[0].save(folder / f"mole_{number:02d}.jpg")
    draw_lesion(99, 50, 50)[0].save(folder / "mole_07.png")
    (folder / "mole_20x.jpg").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(photos, tiny_checkpoint, tmp_path_factory):
    """The files of a run that nobody stops, and the seconds that it takes."""
    output = tmp_path_factory.mktemp("whole") / "masks"
    arguments = [photos, "--checkpoint", tiny_checkpoint, "--output", output, "--overlays"]
    for more in ([], ["--overwrite"]):  # the first one waits for the imports of the parent
        start = time.perf_counter()
        assert exit_codes(start_prediction([*arguments, *more], output.parent / "log")) == [1]
    assert len(files_of(output)) == 2 * (NUM_IMAGES - 2) + 1
    return files_of(output), time.perf_counter() - start


def is_whole(output) -> bool:
    """Every file has its last name, and every picture can be decoded."""
    for path in output.glob("*"):
        if path.suffix != ".csv":
            with Image.open(path) as picture:
                picture.load()
    return True


def test_killed_prediction_is_resumed_to_the_same_files(
    photos, tiny_checkpoint, uninterrupted, tmp_path, record_counts
):
    expected, seconds = uninterrupted
    moments = random.Random(0)
    held = midway = 0
    for trial in range(NUM_KILLS):
        output, log = tmp_path / f"masks_{trial}", tmp_path / "log"
        arguments = [photos, "--checkpoint", tiny_checkpoint, "--output", output, "--overlays"]
        (process,) = start_prediction(arguments, log)
        time.sleep(moments.uniform(0, seconds))
        process.kill()
        process.join()
        found = files_of(output) if output.exists() else {}
        midway += 1 < len(found) < len(expected)
        assert exit_codes(start_prediction([*arguments, "--resume"], log)) == [1], log.read_text()
        held += is_whole(output) and files_of(output) == expected
    record_counts("prediction killed", NUM_KILLS, held, killed_half_way=midway)
    assert held == NUM_KILLS
    assert midway > NUM_KILLS / 3


def test_terminated_prediction_ends_cleanly_and_is_resumed(
    photos, tiny_checkpoint, uninterrupted, tmp_path, record_counts
):
    expected, seconds = uninterrupted
    moments = random.Random(1)
    held = 0
    for trial in range(NUM_TERMINATIONS):
        output, log = tmp_path / f"masks_{trial}", tmp_path / f"log_{trial}"
        arguments = [photos, "--checkpoint", tiny_checkpoint, "--output", output, "--overlays", "--batch-size", 2]
        (process,) = start_prediction(arguments, log)
        while not (output / "mole_00_segmentation.png").exists():
            time.sleep(0.01)
        time.sleep(moments.uniform(0, seconds / 4))
        process.terminate()
        ended = exit_codes([process]) == [130] and log.read_text().endswith("interrupted, go on with --resume\n")
        masks = {name for name in files_of(output) if name.endswith("_segmentation.png")}
        rows = (output / "predictions.csv").read_text().splitlines()[1:]
        rows_of_masks = {
            f"{row.split('.')[0]}_segmentation.png" for row in rows if "image of" in row and ",,,,,,," not in row
        }
        assert exit_codes(start_prediction([*arguments, "--resume"], log)) == [1]
        held += ended and masks == rows_of_masks and files_of(output) == expected
    record_counts("prediction terminated", NUM_TERMINATIONS, held)
    assert held == NUM_TERMINATIONS


def test_killed_processes_are_resumed_by_another_number_of_them(
    photos, tiny_checkpoint, uninterrupted, tmp_path, record_counts
):
    expected, seconds = uninterrupted
    moments = random.Random(2)
    held = with_parts = 0
    for trial in range(NUM_KILLS_OF_TWO):
        output, log = tmp_path / f"masks_{trial}", tmp_path / "log"
        arguments = [photos, "--checkpoint", tiny_checkpoint, "--output", output, "--overlays", "--batch-size", 2]
        processes = start_prediction(arguments, log, num_processes=2)
        while not (output / "predictions.part-1.csv").exists():
            time.sleep(0.01)
        time.sleep(moments.uniform(0, seconds / 4))
        for process in processes:
            process.kill()
            process.join()
        with_parts += (output / "predictions.part-1.csv").exists()
        number = 1 + trial % 3
        codes = exit_codes(start_prediction([*arguments, "--resume"], log, num_processes=number))
        assert codes == [1] + [0] * (number - 1), log.read_text()
        held += is_whole(output) and files_of(output) == expected
    record_counts("two predicting processes killed", NUM_KILLS_OF_TWO, held, killed_half_way=with_parts)
    assert held == NUM_KILLS_OF_TWO
    assert with_parts > 1
