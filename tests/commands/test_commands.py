"""The command lines, each run as a person does, in this process."""

import csv
import runpy
import shutil
import sys

import numpy as np
import pytest
from conftest import REPOSITORY, tiny_model
from PIL import Image

from efp_hf import EFPForSegmentation, EFPImageProcessor
from efp_hf.data.folders import FOLDERS
from efp_hf.metrics.calibration import JACCARD_TEMPERATURES
from efp_hf.study.robustness import CHANGES

SHIPPED = REPOSITORY / "efp_hf" / "checkpoints" / "efp-isic"


@pytest.fixture
def run_script(monkeypatch, tmp_path):
    """Runs `scripts/<name>` in `tmp_path` → its exit code or message."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments) -> int | str | None:
        monkeypatch.setattr(sys, "argv", [f"scripts/{name}", *map(str, arguments)])
        try:
            runpy.run_path(str(REPOSITORY / "scripts" / name), run_name="__main__")
        except SystemExit as exit:
            return exit.code
        return 0

    return run


def rows_of(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# predict.py


def test_predict_writes_a_mask_for_each_image(run_script, tmp_path, tiny_checkpoint, capsys):
    code = run_script("predict.py", REPOSITORY / "examples", "--checkpoint", tiny_checkpoint, "--overlays")
    assert code == 0
    masks = sorted(path.name for path in (tmp_path / "masks").glob("*_segmentation.png"))
    assert masks == [f"synthetic_{number}_segmentation.png" for number in (1, 2, 3, 4)]
    assert len(rows_of(tmp_path / "masks" / "predictions.csv")) == 4
    assert "4 masks in masks" in capsys.readouterr().out


def test_predict_goes_on_after_a_bad_file_and_exits_with_one(run_script, tmp_path, tiny_checkpoint, capsys):
    (tmp_path / "bad.jpg").write_text("no picture")
    example = REPOSITORY / "examples" / "synthetic_1.jpg"
    assert run_script("predict.py", tmp_path / "bad.jpg", example, "--checkpoint", tiny_checkpoint) == 1
    assert (tmp_path / "masks" / "synthetic_1_segmentation.png").is_file()
    assert "failed:" in (errors := capsys.readouterr().err) and "bad.jpg: not an image" in errors


def test_predict_does_not_touch_an_output_folder_that_is_not_empty(run_script, tmp_path, tiny_checkpoint):
    example = REPOSITORY / "examples" / "synthetic_1.jpg"
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "mine.txt").write_text("mine")
    message = run_script("predict.py", example, "--checkpoint", tiny_checkpoint)
    assert message == "masks is not empty. Choose another --output, or pass --overwrite."
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["mine.txt"]
    assert run_script("predict.py", example, "--checkpoint", tiny_checkpoint, "--overwrite") == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing*.jpg"], "nothing*.jpg: no file matches"),
        (["photo.jpg", "--threshold", "50"], "`threshold` must be a probability between 0 and 1, got 50.0"),
        (["photo.jpg", "--checkpoint", "nowhere"], "nowhere: no checkpoint there"),
        (["photo.jpg", "--batch-size", "-1"], "`--batch-size` must be at least 1, got -1"),
    ],
)
def test_predict_refuses_impossible_arguments_before_it_writes(run_script, tmp_path, tiny_checkpoint, arguments, words):
    if "--checkpoint" not in arguments:
        arguments = [*arguments, "--checkpoint", tiny_checkpoint]
    assert words in run_script("predict.py", *arguments)
    assert not (tmp_path / "masks").exists()


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="no checkpoint in this clone")
def test_shipped_checkpoint_finds_the_drawn_lesions(run_script, tmp_path):
    assert run_script("predict.py", REPOSITORY / "examples") == 0
    for number in (1, 2, 3, 4):
        name = f"synthetic_{number}_segmentation.png"
        mask = np.asarray(Image.open(tmp_path / "masks" / name)) > 128
        truth = np.asarray(Image.open(REPOSITORY / "examples" / name)) > 128
        assert mask.shape == truth.shape
        assert (mask & truth).sum() / (mask | truth).sum() > 0.6, name


# train.py


TRAIN = (
    *("--encoder", "paper", "--image_size", "32", "--num_train_epochs", "2", "--per_device_train_batch_size", "14"),
    *("--use_cpu", "True", "--disable_tqdm", "True", "--results", "results/training.csv", "--output_dir", "runs/first"),
)


@pytest.mark.slow
def test_train_saves_a_checkpoint_in_hub_layout_and_a_row(run_script, tmp_path, synthetic_root, capsys):
    assert run_script("train.py", "--data", synthetic_root, *TRAIN) == 0
    saved = tmp_path / "runs" / "first"
    EFPForSegmentation.from_pretrained(saved)
    assert EFPImageProcessor.from_pretrained(saved).size["height"] == 32
    assert not list(saved.glob("*.bin"))
    (row,) = rows_of(tmp_path / "results" / "training.csv")
    assert (row["images"], row["seed"], row["encoder"], row["image_size"]) == ("28/4/8", "0", "paper", "32")
    assert f"validation J {float(row['validation_jaccard']):.4f}" in capsys.readouterr().out

    assert "runs/first is not empty" in run_script("train.py", "--data", synthetic_root, *TRAIN)
    resumed = run_script(
        "train.py", "--data", synthetic_root, *TRAIN, "--num_train_epochs", "3", "--resume_from_checkpoint", "True"
    )
    assert resumed == 0
    assert (saved / "checkpoint-6").is_dir()
    assert len(rows_of(tmp_path / "results" / "training.csv")) == 2


@pytest.mark.slow
def test_train_fine_tunes_a_checkpoint(run_script, tmp_path, synthetic_root, tiny_checkpoint):
    without_encoder = TRAIN[2:]
    assert run_script("train.py", "--data", synthetic_root, *without_encoder, "--checkpoint", tiny_checkpoint) == 0
    assert EFPForSegmentation.from_pretrained(tmp_path / "runs" / "first").config.pyramid_size == 6


def test_train_refuses_model_arguments_beside_a_checkpoint(run_script, synthetic_root, tiny_checkpoint):
    arguments = ("--data", synthetic_root, "--output_dir", "runs/first", "--checkpoint", tiny_checkpoint)
    message = run_script("train.py", *arguments, "--dice_weight", "3")
    assert "`--dice_weight` must not be given with --checkpoint" in message


@pytest.mark.slow
def test_fine_tuning_keeps_the_processor_of_the_checkpoint(run_script, tmp_path, synthetic_root, tiny_checkpoint):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    EFPImageProcessor(size={"height": 40, "width": 40}, threshold=0.4).save_pretrained(folder)
    arguments = ("--use_cpu", "True", "--max_steps", "1", "--output_dir", "runs/first", "--results", "training.csv")
    assert run_script("train.py", "--data", synthetic_root, "--checkpoint", "./copy", *arguments) == 0
    saved = EFPImageProcessor.from_pretrained(tmp_path / "runs" / "first")
    assert (saved.size["height"], saved.threshold) == (40, 0.4)
    assert rows_of(tmp_path / "training.csv")[0]["image_size"] == "40"


@pytest.mark.slow
def test_train_draws_its_own_images_for_a_first_run(run_script, tmp_path):
    assert run_script("train.py", "--data", "synthetic", *TRAIN, "--max_steps", "1") == 0
    assert len(list((tmp_path / "runs" / "synthetic-images" / FOLDERS["train"][0]).glob("*.jpg"))) == 160


def test_train_names_a_folder_that_is_not_there(run_script):
    assert "/nowhere: no such folder" in run_script("train.py", "--data", "/nowhere", *TRAIN)


# score.py and choose_postprocessing.py


def test_score_of_a_checkpoint_is_the_score_of_its_masks(run_script, tmp_path, synthetic_root, tiny_checkpoint, capsys):
    images = synthetic_root / FOLDERS["train"][0]
    assert run_script("predict.py", images, "--checkpoint", tiny_checkpoint) == 0
    data = ("--data", synthetic_root, "--results", "results/scores.csv")
    assert run_script("score.py", *data, "--checkpoint", tiny_checkpoint) == 0
    assert run_script("score.py", *data, "--masks", "masks") == 0
    by_model, by_masks = rows_of(tmp_path / "results" / "scores.csv")
    assert (by_model["split"], by_model["images"]) == ("test", "8")
    scores = [name for name in by_model if name.startswith(("jaccard", "dice", "pooled", "hd95", "boundary"))]
    assert len(scores) >= 12
    assert {name: by_model[name] for name in scores} == {name: by_masks[name] for name in scores}
    assert f"{float(by_model['jaccard']):.4f}" in capsys.readouterr().out


def test_score_of_the_truth_is_perfect(run_script, tmp_path, synthetic_root):
    shutil.copytree(synthetic_root / FOLDERS["train"][1], tmp_path / "truth")
    arguments = ("--data", synthetic_root, "--masks", "truth", "--split", "validation", "--results", "scores.csv")
    assert run_script("score.py", *arguments) == 0
    (row,) = rows_of(tmp_path / "scores.csv")
    assert float(row["jaccard"]) == float(row["pooled_mean_iou"]) == float(row["boundary_f1"]) == 1.0
    assert float(row["hd95"]) == 0.0


def test_robustness_has_a_row_a_change_and_begins_with_the_plain_score(
    run_script, tmp_path, synthetic_root, tiny_checkpoint
):
    data = ("--data", synthetic_root, "--checkpoint", tiny_checkpoint)
    assert run_script("score.py", *data, "--results", "scores.csv") == 0
    assert run_script("measure_robustness.py", *data, "--results", "robustness.csv") == 0
    rows = rows_of(tmp_path / "robustness.csv")
    assert [row["change"] for row in rows] == list(CHANGES)
    assert rows[0]["jaccard"] == rows_of(tmp_path / "scores.csv")[0]["jaccard"]
    assert len({row["jaccard"] for row in rows}) > 5


def test_parts_give_a_row_each_also_where_there_is_no_attention(run_script, tmp_path, synthetic_root, tiny_checkpoint):
    data = ("--data", synthetic_root, "--results", "parts.csv")
    assert run_script("measure_parts.py", *data, "--checkpoint", tiny_checkpoint) == 0
    tiny_model(use_spatial_attention=False).save_pretrained(tmp_path / "plain")
    EFPImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "plain")
    assert run_script("measure_parts.py", *data, "--checkpoint", "plain") == 0
    rows = rows_of(tmp_path / "parts.csv")
    assert [row["replaced"] for row in rows].count("none") == 2 and len(rows) == 7 + 6
    assert all(row["split"] == "validation" for row in rows)
    assert all(0 < float(row["attention_4"]) < 1 for row in rows[:7]) and rows[7]["attention_4"] == ""


def test_score_names_what_is_wrong(run_script, tmp_path, synthetic_root):
    data = ("--data", synthetic_root, "--results", "scores.csv")
    assert "must be one of train, validation, test, got 'val'" in run_script("score.py", *data, "--split", "val")
    (tmp_path / "none").mkdir()
    assert "_segmentation.png: no such file" in run_script("score.py", *data, "--masks", "none")
    assert not (tmp_path / "scores.csv").exists()


def test_postprocessing_is_chosen_on_validation_and_kept(run_script, tmp_path, synthetic_root, tiny_checkpoint):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    arguments = ("--data", synthetic_root, "--image-sizes", 32, 48, "--results", "tried.csv")
    assert run_script("choose_postprocessing.py", "copy", *arguments) == 0
    tried = rows_of(tmp_path / "tried.csv")
    assert len(tried) == 2 * 7 * 2
    best = max(tried, key=lambda row: float(row["validation_jaccard"]))
    chosen = EFPImageProcessor.from_pretrained(folder)
    assert (chosen.size["height"], chosen.threshold, str(chosen.largest_region)) == (
        int(best["image_size"]),
        float(best["threshold"]),
        best["largest_region"],
    )
    temperatures = rows_of(tmp_path / "jaccard_temperature.csv")
    assert [float(row["jaccard_temperature"]) for row in temperatures] == list(JACCARD_TEMPERATURES)
    closest = min(temperatures, key=lambda row: float(row["jaccard_error"]))
    assert chosen.jaccard_temperature == float(closest["jaccard_temperature"]) != 1
    assert float(closest["mean_real"]) == pytest.approx(float(best["validation_jaccard"]), abs=1e-5)
