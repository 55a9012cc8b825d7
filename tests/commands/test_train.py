import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from efp_hf import EFPForSegmentation, EFPImageProcessor
from efp_hf.commands import precision
from efp_hf.data.folders import FOLDERS
from efp_hf.inference.checkpoint import weights_digest
from efp_hf.metrics.rows import append_row

TRAIN = (
    *("--encoder", "paper", "--image-size", "32", "--num-train-epochs", "2", "--per-device-train-batch-size", "14"),
    *("--use-cpu", "--disable-tqdm", "--output", "runs/first"),
)


@pytest.mark.slow
def test_train_saves_a_checkpoint_in_hub_layout_and_a_row(efp, tmp_path, synthetic_root, rows_of):
    ran = efp("train", "--data", synthetic_root, *TRAIN)
    assert ran.code == 0
    saved = tmp_path / "runs" / "first"
    EFPForSegmentation.from_pretrained(saved)
    assert EFPImageProcessor.from_pretrained(saved).size["height"] == 32
    assert not list(saved.glob("*.bin"))
    (row,) = rows_of(saved / "training.csv")
    assert (row["images"], row["seed"], row["encoder"], row["image_size"]) == ("28/4/8", "0", "paper", "32")
    assert row["command"].startswith("efp train --data synthetic --encoder paper")
    assert row["weights"] == weights_digest(saved)
    results = shutil.copy(REPOSITORY / "results" / "training.csv", tmp_path / "runs")
    append_row(results, row)  # as the results of the shipped checkpoints are copied
    assert rows_of(results)[-1] == row
    assert f"validation J {float(row['validation_jaccard']):.4f}" in ran.out
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]

    again = efp("train", "--data", synthetic_root, *TRAIN)
    assert again.code == 2 and "runs/first is not empty" in again.err
    assert efp("train", "--data", synthetic_root, *TRAIN, "--num-train-epochs", "3", "--resume").code == 0
    assert (saved / "checkpoint-6").is_dir()
    assert len(rows_of(saved / "training.csv")) == 2


@pytest.mark.slow
def test_train_fine_tunes_a_checkpoint(efp, tmp_path, synthetic_root, tiny_checkpoint):
    without_encoder = TRAIN[2:]
    assert efp("train", "--data", synthetic_root, *without_encoder, "--checkpoint", tiny_checkpoint).code == 0
    assert EFPForSegmentation.from_pretrained(tmp_path / "runs" / "first").config.pyramid_size == 6


@pytest.mark.parametrize("given", [("--encoder", "paper"), ("--no-encoder-weights",), ("--nano",)])
def test_train_refuses_model_arguments_beside_a_checkpoint(efp, synthetic_root, tiny_checkpoint, given):
    ran = efp(
        "train",
        "--data",
        synthetic_root,
        "--output",
        "runs/first",
        "--checkpoint",
        tiny_checkpoint,
        "--use-cpu",
        *given,
    )
    assert ran.code == 2 and f"`{given[0]}` must not be given with --checkpoint" in ran.err


@pytest.mark.slow
def test_fine_tuning_keeps_the_processor_of_the_checkpoint(efp, tmp_path, synthetic_root, tiny_checkpoint, rows_of):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    EFPImageProcessor(size={"height": 40, "width": 40}, threshold=0.4).save_pretrained(folder)
    arguments = ("--use-cpu", "--max-steps", "1", "--output", "runs/first")
    assert efp("train", "--data", synthetic_root, "--checkpoint", "./copy", *arguments).code == 0
    saved = EFPImageProcessor.from_pretrained(tmp_path / "runs" / "first")
    assert (saved.size["height"], saved.threshold) == (40, 0.4)
    assert rows_of(tmp_path / "runs" / "first" / "training.csv")[0]["image_size"] == "40"


@pytest.mark.slow
def test_train_draws_its_own_images_for_a_first_run(efp, tmp_path):
    assert efp("train", "--data", "synthetic", *TRAIN, "--max-steps", "1").code == 0
    drawn = tmp_path / "runs" / "first" / "synthetic-images" / FOLDERS["train"][0]
    assert len(list(drawn.glob("*.jpg"))) == 160


def test_train_names_a_folder_that_is_not_there(efp):
    ran = efp("train", "--data", "/nowhere", *TRAIN)
    assert ran.code == 2 and "/nowhere: no such folder" in ran.err


def test_train_refuses_to_remove_the_columns_of_the_images(efp, tmp_path, synthetic_root):
    ran = efp("train", "--data", synthetic_root, *TRAIN, "--remove-unused-columns")
    assert ran.code == 2 and ran.err.splitlines()[-1].startswith("efp train: `arguments` must have remove_unused")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--resume",), "`--resume` must have a checkpoint in runs/first, got none"),
        (("--output-dir", "o4"), "`--output-dir` must not be given"),
        (("--output_dir=o4",), "`--output-dir` must not be given"),
        (("--resume-from-checkpoint", "nowhere"), "must be a checkpoint-… folder of a training, got nowhere"),
        (("--dice-weight", "3"), "unrecognized arguments: --dice-weight 3"),
        (("--learning-rate", "fast"), "argument --learning_rate/--learning-rate: invalid float value: 'fast'"),
    ],
)
def test_train_refuses_before_it_reads_an_image(efp, tmp_path, given, words):
    ran = efp("train", "--data", "/nowhere", *TRAIN, *given)
    assert ran.code == 2 and words in ran.err
    assert len(ran.err.splitlines()) <= 2  # not the usage of a hundred fields
    assert not (tmp_path / "runs").exists()


def test_bf16_is_refused_where_the_processor_only_pretends(efp, monkeypatch, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(precision, "CPUINFO", cpuinfo)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    arguments = ("train", "--data", "/nowhere", "--output", "runs/first", "--encoder", "paper", "--bf16")
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16x\n")
    refused = efp(*arguments)
    assert refused.code == 2 and refused.err.count("\n") == 1
    assert "`--bf16` is about ten times slower than float32 on this processor" in refused.err
    assert "/nowhere: no such folder" in efp(*arguments, "--force-bf16").err
    for flags in ("flags\t\t: fpu avx512_bf16", "flags\t\t: fpu amx_bf16", "Features\t: fp asimd bf16"):
        cpuinfo.write_text(flags)
        assert "/nowhere: no such folder" in efp(*arguments).err, flags


def test_help_all_lists_the_fields_of_training_arguments(efp):
    ran = efp("train", "--help-all")
    assert ran.code == 0
    assert "--encoder-learning-rate" in ran.out and "--gradient-accumulation-steps" in ran.out
    assert "--gradient-accumulation-steps" not in efp("train", "--help").out


@pytest.mark.slow
def test_accelerate_launches_two_processes(tmp_path, synthetic_root):
    launch = (sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2")
    arguments = ("--max-steps", "2", "--disable-tqdm", "--encoder", "paper", "--image-size", "32", "--output", "run")
    ran = subprocess.run(
        [*launch, "-m", "efp_hf", "train", "--data", str(synthetic_root), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("saved run") == 1
    assert len((tmp_path / "run" / "training.csv").read_text().splitlines()) == 2
