import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY
from transformers import TrainerCallback, trainer

from efp_hf import EFPForSegmentation, EFPImageProcessor
from efp_hf.commands import precision, train
from efp_hf.data.folders import FOLDERS, load_isic
from efp_hf.data.synthetic import write_synthetic_isic
from efp_hf.inference.checkpoint import TRAINING_IMAGES, weights_digest
from efp_hf.inference.output_folder import only_writer
from efp_hf.metrics.rows import append_row
from efp_hf.training.fingerprint import fingerprint_of, read_fingerprint, write_fingerprint
from efp_hf.training.trainer import SegmentationScore

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


def test_save_strategy_that_would_not_save_an_early_stop_is_refused(efp, tmp_path, tiny_checkpoint):
    call = (
        "train",
        "--data",
        "/nowhere",
        "--checkpoint",
        tiny_checkpoint,
        "--output",
        "run",
        "--save-strategy",
        "best",
    )
    ran = efp(*call)
    assert ran.code == 2 and "`--save-strategy` must be 'epoch' or 'steps' with --checkpoint" in ran.err
    assert "got best" in ran.err and not (tmp_path / "run").exists()
    assert "/nowhere: no such folder" in efp(*call, "--load-best-model-at-end", "false").err  # then none ends early


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
def test_training_with_prompts_leaves_the_automatic_mask(efp, tmp_path, synthetic_root, tiny_checkpoint, rows_of):
    call = ("train", "--data", synthetic_root, *TRAIN[4:], "--checkpoint", tiny_checkpoint, "--prompts")
    ran = efp(*call)
    (row,) = rows_of(tmp_path / "runs" / "first" / "training.csv")
    assert ran.code == 0 and f"validation J after one click {float(row['validation_jaccard']):.4f}" in ran.out
    assert efp(*call, "--num-train-epochs", "3", "--resume").code == 0
    before = EFPForSegmentation.from_pretrained(tiny_checkpoint).state_dict()
    after = EFPForSegmentation.from_pretrained(tmp_path / "runs" / "first").state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not torch.equal(before["decoder.classifier.weight"], after["prompted_decoder.classifier.weight"])


def test_a_size_with_which_prompts_do_not_work_is_refused(efp, tmp_path, synthetic_root, tiny_checkpoint):
    call = ("train", "--data", synthetic_root, "--checkpoint", tiny_checkpoint, "--prompts", "--image-size", 200)
    ran = efp(*call, "--output", "run")
    assert ran.code == 2 and "must be a multiple of 32, got 200×200" in ran.err and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_teaching_prompts_goes_on_from_those_of_the_checkpoint(efp, tmp_path, synthetic_root, prompted_checkpoint):
    still = ("--learning-rate", "0", "--weight-decay", "0")
    call = ("train", "--data", synthetic_root, "--checkpoint", prompted_checkpoint, *SMALL, *still, "--prompts")
    assert efp(*call).code == 0
    before = EFPForSegmentation.from_pretrained(prompted_checkpoint).state_dict()
    after = EFPForSegmentation.from_pretrained(tmp_path / "run").state_dict()
    assert before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.slow
def test_fine_tuning_drops_the_prompts_and_says_how_to_teach_them_again(
    efp, tmp_path, synthetic_root, prompted_checkpoint, rows_of
):
    call = ("train", "--data", synthetic_root, "--checkpoint", "./prompted", *SMALL)
    ran = efp(*call, "--max-steps", "2")
    assert ran.code == 0
    line = "./prompted takes clicks and boxes; what is trained further here takes none. Teach it again afterwards: "
    (said,) = [printed for printed in ran.out.splitlines() if printed.startswith(line)]
    assert efp(*call, "--resume").code == 0
    model = EFPForSegmentation.from_pretrained(tmp_path / "run")
    assert model.config.prompt_size == 0 and not any("prompt" in name for name in model.state_dict())
    assert {row["parameters"] for row in rows_of(tmp_path / "run" / "training.csv")} == {str(model.num_parameters())}

    taught = shlex.split(said.removeprefix(line).removesuffix("…"))[1:]
    assert efp(*taught, "again", *SMALL[:-2]).code == 0
    assert EFPForSegmentation.from_pretrained(tmp_path / "again").config.prompt_size


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
        (("--resume-from-checkpoint", "nowhere"), "`--resume-from-checkpoint` must not be given"),
        (("--save-only-model",), "`--save-only-model` must not be given"),
        (("--save-strategy", "best"), "/nowhere: no such folder"),  # a new network's training does not end early
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


SMALL = (
    *("--image-size", "32", "--per-device-train-batch-size", "8", "--max-steps", "6", "--save-total-limit", "3"),
    *("--eval-strategy", "steps", "--eval-steps", "2", "--save-strategy", "steps", "--save-steps", "2"),
    *("--use-cpu", "--disable-tqdm", "--output", "run"),
)


@pytest.mark.slow
def test_resume_goes_on_from_the_newest_whole_checkpoint_and_says_so(efp, tmp_path, synthetic_root, tiny_checkpoint):
    arguments = ("train", "--data", synthetic_root, "--checkpoint", tiny_checkpoint, *SMALL)
    assert efp(*arguments).code == 0
    output = tmp_path / "run"
    files = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    assert {"model.safetensors", "training.csv"} <= files.keys()

    again = efp(*arguments, "--resume")
    assert again.code == 0 and "run is finished: nothing was left to train, and nothing is changed" in again.out
    assert {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()} == files

    (output / "checkpoint-6" / "trainer_state.json").unlink()
    resumed = efp(*arguments, "--resume")
    assert resumed.code == 0
    line = "efp train: goes on from checkpoint-4, without newer ones (checkpoint-6: trainer_state.json is missing)"
    assert line in resumed.err.splitlines()
    assert (output / "model.safetensors").read_bytes() == files["model.safetensors"]

    other = efp(
        *(option for option in arguments if option not in ("--checkpoint", tiny_checkpoint)), "--nano", "--resume"
    )
    assert other.code == 2 and "checkpoint-6 must hold the network that is to be trained" in other.err

    for option, value in {"--learning-rate": "0.01", "--seed": "5"}.items():
        other = efp(*arguments, "--max-steps", "8", option, value, "--resume")
        assert other.code == 2 and f"checkpoint-6 was trained with {option} " in other.err, other.err

    start = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    call = [start if option is tiny_checkpoint else option for option in arguments]
    assert efp(*call, "--resume").code == 0  # the same weights elsewhere
    shutil.copy(output / "model.safetensors", start)
    other = efp(*call, "--max-steps", "8", "--resume")
    digests = [
        f"{name} {weights_digest(folder)}"
        for name, folder in ((tiny_checkpoint.name, tiny_checkpoint), ("base", start))
    ]
    assert other.code == 2 and f"--checkpoint {digests[0]}, got {digests[1]}. Resume" in other.err, other.err

    for checkpoint in output.glob("checkpoint-*"):
        (checkpoint / "optimizer.pt").write_bytes(b"")
    refused = efp(*arguments, "--resume")
    assert refused.code == 2
    assert "must have a checkpoint in run, got none that is whole (checkpoint-6: optimizer.pt is damaged" in refused.err


def test_start_within_the_output_is_refused_before_anything_is_removed(efp, tmp_path, synthetic_root, tiny_checkpoint):
    start = shutil.copytree(tiny_checkpoint, tmp_path / "run" / "checkpoint-1")
    (start / "trainer_state.json").write_text("{}")
    for name in ("run/checkpoint-1", start, "run/../run/checkpoint-1"):
        ran = efp("train", "--data", synthetic_root, *SMALL, "--overwrite", "--checkpoint", name)
        assert (
            ran.code == 2
            and f"`--checkpoint` must not lie in --output, where the training writes, got {name}" in ran.err
        )
    assert (start / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_image_that_becomes_unreadable_is_named_in_a_line(
    efp, tmp_path, synthetic_root, tiny_checkpoint, monkeypatch, workers
):
    data = shutil.copytree(synthetic_root, tmp_path / "data")
    damaged = sorted((data / FOLDERS["train"][0]).glob("*.jpg"))[0]
    load = train.load_training_data

    def load_and_damage(arguments):
        loaded = load(arguments)
        damaged.write_bytes(damaged.read_bytes()[:900])
        return loaded

    monkeypatch.setattr(train, "load_training_data", load_and_damage)
    arguments = ("--data", data, "--checkpoint", tiny_checkpoint, *SMALL, "--dataloader-num-workers", workers)
    ran = efp("train", *arguments)
    assert ran.code == 1 and "Traceback" not in ran.err
    last = ran.err.splitlines()[-1]
    assert last.startswith(f"efp train: {damaged}: the file is gone or damaged (")
    assert last.endswith("Copy it again. Mend it; no checkpoint was saved: start again.")


@pytest.mark.slow
def test_training_that_is_terminated_says_how_it_goes_on_and_stops_as_early(
    efp, tmp_path, synthetic_root, tiny_checkpoint, monkeypatch, rows_of
):
    class TerminatedAtStep(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == self.step:
                os.kill(os.getpid(), signal.SIGTERM)

    class Score(SegmentationScore):  # the first is the best
        def __call__(self, evaluated, compute_result=False):
            return super().__call__(evaluated, compute_result) | {"jaccard": 0.5}

    callback = TerminatedAtStep()
    monkeypatch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [*trainer.DEFAULT_CALLBACKS, callback])
    monkeypatch.setattr("efp_hf.training.trainer.SegmentationScore", Score)
    monkeypatch.setattr("efp_hf.training.trainer.FINE_TUNING_PATIENCE", 2)
    arguments = ("train", "--data", synthetic_root, "--checkpoint", tiny_checkpoint, *SMALL, "--max-steps", "20")
    arguments += ("--save-total-limit", "1")
    callback.step = 1
    ran = efp(*arguments)
    assert ran.code == 130
    assert ran.err.endswith("efp train: interrupted, no checkpoint was saved: start again\n")
    callback.step = 5
    ran = efp(*arguments, "--overwrite")
    assert ran.code == 130 and ran.err.endswith("efp train: interrupted, go on with --resume\n")
    callback.step = None
    assert efp(*arguments, "--resume").code == 0
    output = tmp_path / "run"
    assert {path.name for path in output.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-6"}
    (row,) = rows_of(output / "training.csv")
    assert row["epochs"] == "1.5"  # 6 steps of 4: what was trained

    files = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    ran = efp(*arguments, "--resume")
    assert ran.code == 0 and "run is finished: nothing was left to train, and nothing is changed" in ran.out
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == files

    shutil.copy(tiny_checkpoint / "model.safetensors", output)  # as of a run that was killed before it was saved,
    append_row(output / "training.csv", row | {"weights": weights_digest(output)})  # and one before that had ended
    assert efp(*arguments, "--resume").code == 0
    assert rows_of(output / "training.csv")[-1]["weights"] == weights_digest(output) == row["weights"]
    callback.step = 1
    ran = efp(*arguments, "--overwrite", "--seed", "1")  # the checkpoints of another run are none of this one
    assert ran.code == 130 and ran.err.endswith("efp train: interrupted, no checkpoint was saved: start again\n")


@pytest.mark.slow
def test_trained_weights_carry_the_fingerprint_of_their_images(efp, tmp_path, synthetic_root, tiny_checkpoint):
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    arguments = ("train", "--data", synthetic_root, "--checkpoint", "./base", *SMALL, "--max-steps", "2")
    assert efp(*arguments).code == 0
    assert read_fingerprint(tmp_path / "run") is None  # nobody knows what the base has seen
    before = {("0" * 64, "train")}
    write_fingerprint(base, before)
    assert efp(*arguments, "--overwrite").code == 0
    images = fingerprint_of(load_isic(synthetic_root))
    assert len(images) == 32
    assert read_fingerprint(tmp_path / "run") == images | before
    assert read_fingerprint(tmp_path / "run" / "checkpoint-2") == images | before


def test_run_that_is_resumed_with_other_images_has_seen_those_of_before(efp, tmp_path, synthetic_root, tiny_checkpoint):
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    write_fingerprint(base, {("0" * 64, "train")})
    others = write_synthetic_isic(tmp_path / "others", num_images=20, height=64, width=64, seed=7)
    arguments = ("train", "--checkpoint", "./base", *SMALL)
    assert efp(*arguments, "--data", synthetic_root, "--max-steps", "2").code == 0
    before = read_fingerprint(tmp_path / "run")
    (base / TRAINING_IMAGES).unlink()
    assert efp(*arguments, "--data", others, "--max-steps", "4", "--resume").code == 0
    assert read_fingerprint(tmp_path / "run") == before | fingerprint_of(load_isic(others))


def test_run_is_resumed_at_its_own_image_size(efp, synthetic_root, tiny_checkpoint):
    arguments = ("train", "--data", synthetic_root, "--checkpoint", tiny_checkpoint, *SMALL, "--max-steps", "2")
    assert efp(*arguments).code == 0
    ran = efp(*arguments, "--resume", "--image-size", "64", "--max-steps", "4")
    assert (
        ran.code == 2 and "checkpoint-2 must have the size of the images" in ran.err and "got 32 instead of" in ran.err
    )


def test_second_training_does_not_write_where_one_is_writing(efp, tmp_path, synthetic_root, tiny_checkpoint):
    arguments = ("train", "--data", synthetic_root, "--checkpoint", tiny_checkpoint, *SMALL, "--max-steps", "1")
    (tmp_path / "run").mkdir()
    with only_writer(tmp_path / "run"):
        ran = efp(*arguments)
    assert ran.code == 2 and "run: another `efp train` writes there." in ran.err
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--prompts",)])
def test_train_streams_shards(efp, tmp_path, synthetic_root, tiny_checkpoint, rows_of, more):
    data = load_isic(synthetic_root)
    (tmp_path / "shards").mkdir()
    for split in ("train", "validation"):
        data[split].to_parquet(tmp_path / "shards" / f"{split}-0.parquet")
    ran = efp("train", "--data", "./shards", "--streaming", "--checkpoint", tiny_checkpoint, *SMALL, *more)
    assert ran.code == 0
    (row,) = rows_of(tmp_path / "run" / "training.csv")
    assert (row["images"], row["epochs"]) == ("streamed", "6 steps")


def test_streaming_needs_a_number_of_steps_and_shards(efp, tiny_checkpoint):
    arguments = ("--checkpoint", tiny_checkpoint, "--use-cpu", "--output", "run")
    ran = efp("train", "--data", "./shards", "--streaming", *arguments)
    assert ran.code == 2 and "`--max-steps` must be given with --streaming" in ran.err
    ran = efp("train", "--data", "synthetic", "--streaming", "--max-steps", "2", *arguments)
    assert ran.code == 2 and "`--streaming` must have a folder of shards or a Hub id, got synthetic" in ran.err


@pytest.mark.slow
def test_accelerate_launches_two_processes(tmp_path, synthetic_root, prompted_checkpoint, rows_of):
    """
    With `--cpu` it would start one alone; `--multi_gpu` starts as many as it is told, with processors as well. With
    prompts, as tests/hostile/test_processes.py trains without them.
    """
    network = ("--checkpoint", "./prompted", "--prompts")
    launch = (sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
    arguments = ("--num-train-epochs", "1", "--disable-tqdm", *network, "--image-size", "32", "--output", "run")
    ran = subprocess.run(
        [*launch, "-m", "efp_hf", "train", "--data", str(synthetic_root), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("saved run") == 1
    (row,) = rows_of(tmp_path / "run" / "training.csv")
    assert row["batch_size"] == "32"  # 16 in each of them


COMPARED = ("--compare", "unet", *SMALL)


def compared_line(ran) -> str:
    return next(line for line in ran.out.splitlines() if line.startswith("J of the "))


@pytest.mark.slow
def test_unet_is_trained_alike_and_its_score_stands_beside_ones_own(efp, tmp_path, synthetic_root, tiny_checkpoint):
    call = ("train", "--data", synthetic_root, "--checkpoint", tiny_checkpoint)
    alone = efp(*call, *SMALL, "--output", "alone")
    ran = efp(*call, *COMPARED)
    assert alone.code == ran.code == 0
    weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("alone", "run")]
    assert weights[0] == weights[1]  # one's own training is not touched by it
    assert re.fullmatch(
        r"J of the 4 images of validation: this training 0\.\d{4}, U-Net 0\.\d{4}, the start 0\.\d{4}",
        compared_line(ran),
    )


@pytest.mark.slow
def test_comparison_goes_on_where_it_was_stopped(efp, tmp_path, synthetic_root, tiny_checkpoint, rows_of):
    call = ("train", "--data", synthetic_root, "--checkpoint", tiny_checkpoint, *COMPARED)
    whole = efp(*call)
    table, unet = tmp_path / "run" / "training.csv", tmp_path / "run" / train.UNET_FOLDER
    (own,), (row,) = rows_of(table), rows_of(unet / "training.csv")
    assert (row["learning_rate"], row["encoder_learning_rate"]) == ("0.001", "0.0003")  # its decoder is new
    assert (own["learning_rate"], own["images"], own["seed"]) == ("0.0003", row["images"], row["seed"])
    assert f"U-Net {float(row['validation_jaccard']):.4f}" in compared_line(whole)
    trained = (unet / "model.safetensors").read_bytes()

    for path in (unet / "model.safetensors", unet / "training.csv", unet / "checkpoint-6" / "trainer_state.json"):
        path.unlink()  # as of a run that was killed there
    resumed = efp(*call, "--resume")
    assert resumed.code == 0 and "run is finished: nothing was left to train" in resumed.out
    assert compared_line(resumed) == compared_line(whole)
    assert (unet / "model.safetensors").read_bytes() == trained and len(rows_of(table)) == 1

    call = (*call, "--seed", "1")
    alone = call[: call.index("--compare")] + call[call.index("--compare") + 2 :]
    assert efp(*alone, "--overwrite").code == 0
    again = efp(*call, "--resume")  # nothing of the run before is gone on from
    assert again.code == 0 and f"run/{train.UNET_FOLDER} is finished" not in again.out
    assert [row["seed"] for row in rows_of(unet / "training.csv")] == ["0", "1"]


@pytest.mark.slow
def test_unet_of_several_classes_and_a_new_network_has_no_start(efp, organs_root):
    ran = efp("train", "--data", organs_root, "--encoder", "paper", "--nano", *COMPARED, "--max-steps", "2")
    assert ran.code == 0 and "U-Net" in compared_line(ran) and "the start" not in compared_line(ran)


@pytest.mark.parametrize(
    "other", [("--prompts",), ("--streaming", "--max-steps", "2"), ("--task", "structures"), ("--compare", "detr")]
)
def test_comparison_is_refused_where_there_is_none(efp, tmp_path, tiny_checkpoint, other):
    ran = efp("train", "--data", "/nowhere", "--checkpoint", tiny_checkpoint, *COMPARED, *other)
    assert ran.code == 2 and "--compare" in ran.err and not (tmp_path / "run").exists()
