"""
`efp predict` in several processes, as `accelerate launch` and `torchrun` start them: the files of one process's run.

  pytest -m "slow or not slow" tests/hostile/test_prediction_processes.py --record results/hostile.csv
"""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from hostile.prediction_process import exit_codes, files_of, start_prediction
from PIL import Image

from efp_hf.data.synthetic import draw_lesion
from efp_hf.inference.folder import share_of, stream_share
from efp_hf.inference.prediction_table import mask_paths, table_text


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eleven photos in two folders; ids that are there twice, one of them first as a file that is no image."""
    root = tmp_path_factory.mktemp("photos")
    for folder, numbers in (("a", range(8)), ("b", range(5, 10))):
        (root / folder).mkdir()
        for number in numbers:
            draw_lesion(number + ord(folder), 40 + number, 50)[0].save(root / folder / f"mole_{number}.jpg")
    (root / "a" / "mole_6.jpg").write_text("no picture")
    return root


def arguments(photos, checkpoint, output, *more):
    return [photos / "a", photos / "b", "--checkpoint", checkpoint, "--output", output, "--batch-size", 2, *more]


def write_shard(path, files, names=None) -> None:
    path.parent.mkdir(exist_ok=True)
    names = names or [file.stem for file in files]
    columns = {"image": [{"bytes": file.read_bytes(), "path": None} for file in files], "image_id": names}
    features = Features({"image": ImageFeature(), "image_id": Value("string")})
    Dataset.from_dict(columns, features=features).to_parquet(path)


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_shares_have_no_overlap_and_no_gap(count):
    files = [Path(f"{folder}/mole_{number}.jpg") for folder in "ab" for number in range(7)]
    shares = [share_of(files, number, count) for number in range(count)]
    assert sorted(path for share in shares for path in share) == sorted(files)
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 2  # two files an id


def test_images_whose_masks_are_called_alike_meet_in_one_process():
    labels = ("nucleus", "cell_nucleus", "old_cell_nucleus")
    files = [Path(f"{name}.png") for name in ("1", "1_cell", "2", "2_old", "2_old_cell", "=3", "'=3_cell")]
    for count in (2, 3, 5):
        shares = [share_of(files, number, count, labels) for number in range(count)]
        streamed = [
            [image.path for image in stream_share([(file.name, b"") for file in files], *place, {}, "", [], labels)]
            for place in ((number, count) for number in range(count))
        ]
        for of_processes in (shares, streamed):
            assert sorted(path for share in of_processes for path in share) == sorted(files)
            names = [
                {path for file in share for path in mask_paths(Path(), table_text(file.name), labels)}
                for share in of_processes
            ]
            assert len(set.union(*names)) == sum(map(len, names))
        assert sum(map(bool, shares)) == min(count, 3)


@pytest.mark.slow
def test_number_of_processes_changes_no_file(photos, tiny_checkpoint, tmp_path, record_counts):
    outputs, said = [], []
    for count in (1, 2, 3):
        output, log = tmp_path / f"by_{count}", tmp_path / f"log_{count}"
        codes = exit_codes(start_prediction(arguments(photos, tiny_checkpoint, output, "--overlays"), log, count))
        assert codes == [1] + [0] * (count - 1), log.read_text()
        outputs.append(files_of(output))
        said.append(log.read_text().replace(f"by_{count}", "output"))
    assert len(outputs[0]) == 2 * 10 + 1
    assert outputs[0]["predictions.csv"].decode().count("would overwrite") == 2
    held = 1 + sum(files == outputs[0] and text == said[0] for files, text in zip(outputs[1:], said[1:], strict=True))
    record_counts("predicting processes: 1, 2, 3", 3, held)
    assert held == 3


@pytest.mark.slow
def test_dataset_gives_the_masks_of_its_files_to_any_number_of_processes(photos, tiny_checkpoint, tmp_path):
    files = sorted((photos / "b").iterdir())
    for shard, chosen in enumerate((files[:2], files[2:])):
        write_shard(tmp_path / "data" / f"test-{shard}.parquet", chosen)
    log, asked = tmp_path / "log", ["--checkpoint", tiny_checkpoint, "--batch-size", 2, "--overlays", "--output"]
    assert exit_codes(start_prediction([photos / "b", *asked, tmp_path / "files"], log)) == [0]
    expected = files_of(tmp_path / "files")
    assert len(expected) == 2 * 5 + 1
    for count in (1, 2, 3):
        output = tmp_path / f"by_{count}"
        codes = exit_codes(start_prediction(["--data", tmp_path / "data", *asked, output], log, count))
        assert codes == [0] * count, log.read_text()
        assert files_of(output) == expected
    (output / "mole_8_segmentation.png").unlink()  # of a run that was stopped
    assert exit_codes(start_prediction(["--data", tmp_path / "data", *asked, output, "--resume"], log)) == [0]
    assert files_of(output) == expected
    write_shard(tmp_path / "data" / "test-0.parquet", files[3:])  # now another mole_8 comes first
    codes = exit_codes(start_prediction(["--data", tmp_path / "data", *asked, tmp_path / "doubled"], log, 2))
    assert codes == [1, 0] and log.read_text().count("its mask would overwrite that of mole_8.jpg") == 1


@pytest.mark.slow
def test_memory_of_a_streamed_prediction_does_not_grow_with_the_dataset(tiny_checkpoint, tmp_path, record_counts):
    photo = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photo)  # 270 KB
    peaks = {}
    for num_shards in (2, 20):
        for shard in range(num_shards):
            names = [f"mole_{shard}_{number}" for number in range(50)]
            write_shard(tmp_path / f"data_{num_shards}" / f"test-{shard:02d}.parquet", [photo] * 50, names)
        asked = ["--data", tmp_path / f"data_{num_shards}", "--checkpoint", tiny_checkpoint]
        (process,) = start_prediction([*asked, "--output", tmp_path / f"masks_{num_shards}"], tmp_path / "log")
        peak = 0
        while process.is_alive():
            with suppress(FileNotFoundError, ProcessLookupError):
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                peak = max(peak, pages * os.sysconf("SC_PAGE_SIZE"))
            process.join(0.02)
        assert process.exitcode == 0, (tmp_path / "log").read_text()
        peaks[50 * num_shards] = peak / 1e6
    notes = ", ".join(f"{number} images {peak:.0f} MB" for number, peak in peaks.items())
    record_counts("memory of a streamed prediction", 2, 1 + (peaks[1000] < peaks[100] + 60), peak=notes)
    assert peaks[1000] < peaks[100] + 60  # of 243 MB more that the files have


@pytest.mark.slow
def test_bad_arguments_are_said_once_by_two_processes(photos, tiny_checkpoint, tmp_path):
    log = tmp_path / "log"
    processes = start_prediction(arguments(photos, tiny_checkpoint, photos / "a", "--overwrite"), log, 2)
    assert exit_codes(processes) == [2, 2]
    assert log.read_text().count("must not be a folder that images are read from") == 1 == log.read_text().count("\n")


@pytest.mark.slow
def test_process_whose_neighbour_is_killed_says_so(photos, tiny_checkpoint, tmp_path):
    for number in range(200):
        shutil.copy(photos / "b" / "mole_9.jpg", tmp_path / f"photo_{number}.jpg")
    output, log = tmp_path / "masks", tmp_path / "log"
    asked = [tmp_path / "photo*.jpg", "--checkpoint", tiny_checkpoint, "--output", output, "--batch-size", 1]
    processes = start_prediction(asked, log, 2)
    while not (output / "predictions.part-1.csv").exists():
        processes[0].join(0.01)
    processes[1].kill()
    assert exit_codes(processes) == [1, -9]
    assert log.read_text().endswith(
        "efp predict: another process has ended before the work was done. Go on with --resume.\n"
    )
    assert exit_codes(start_prediction([*asked, "--resume"], log)) == [0]
    assert len(files_of(output)) == 201


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["accelerate.commands.launch --multi_gpu", "torch.distributed.run"])
def test_launchers_start_processes_that_share_the_work(photos, tiny_checkpoint, tmp_path, launcher):
    number = "--num_processes=2" if "accelerate" in launcher else "--nproc-per-node=2"
    command = [sys.executable, "-m", *launcher.split(), number, "-m", "efp_hf", "predict", photos / "b"]
    command += ["--checkpoint", tiny_checkpoint, "--output", tmp_path / "masks"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("5 masks in") == 1
    assert len(files_of(tmp_path / "masks")) == 6
