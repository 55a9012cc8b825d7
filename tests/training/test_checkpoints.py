import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from conftest import tiny_model
from transformers import TrainerState, TrainingArguments

from efp_hf import EFPForSegmentation, EFPImageProcessor
from efp_hf.data.folders import load_isic
from efp_hf.inference.checkpoint import load_checkpoint
from efp_hf.training.checkpoints import (
    check_network,
    check_own_checkpoints,
    check_settings,
    damage,
    keep_whole_best,
    newest_whole,
    save_trained,
)
from efp_hf.training.trainer import TRAINING_DEFAULTS, lesion_trainer

PROCESSOR = EFPImageProcessor(size={"height": 32, "width": 32})

NO_BEST = {"load_best_model_at_end": False}


def settings(folder, **changes) -> TrainingArguments:
    small = {
        "output_dir": str(folder),
        "num_train_epochs": 3,
        "per_device_train_batch_size": 14,
        "save_total_limit": None,
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return TrainingArguments(**{**TRAINING_DEFAULTS, **small, **changes})


def trainer_in(folder, data, **changes):
    torch.manual_seed(3)
    return lesion_trainer(tiny_model(), PROCESSOR, data, settings(folder, **changes), 1e-3)


@pytest.fixture(scope="module")
def data(synthetic_root):
    return load_isic(synthetic_root)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    """Three epochs of two steps, with all their checkpoints."""
    folder = tmp_path_factory.mktemp("training") / "run"
    trainer_in(folder, data).train()
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FILES = ("trainer_state.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")


@pytest.mark.parametrize("name", FILES)
def test_checkpoint_with_a_file_that_is_cut_empty_or_gone_is_not_whole(run, name):
    checkpoint = run / "checkpoint-6"
    assert damage(checkpoint) is None
    cut(checkpoint / name)
    assert damage(checkpoint) == f"{name} is damaged"
    (checkpoint / name).write_bytes(b"")
    assert damage(checkpoint) == f"{name} is damaged"
    (checkpoint / name).unlink()
    assert damage(checkpoint) == f"{name.replace('.pth', '*.pth')} is missing"


def test_checkpoint_with_a_flipped_bit_in_its_optimizer_is_not_whole(run):
    flip_a_byte(run / "checkpoint-6" / "optimizer.pt")
    assert damage(run / "checkpoint-6") == "optimizer.pt is damaged"


@pytest.mark.parametrize("state", ["[]", "{}x", '{"no_such_field": 1}', "null"])
def test_checkpoint_with_another_state_is_not_whole(run, state):
    (run / "checkpoint-6" / "trainer_state.json").write_text(state)
    assert damage(run / "checkpoint-6") == "trainer_state.json is damaged"


def test_pickle_of_a_checkpoint_runs_nothing(run, tmp_path):
    class Opens:
        def __reduce__(self):
            return open, (str(tmp_path / "run-by-pickle"), "w")

    torch.save({"state": Opens()}, run / "checkpoint-6" / "optimizer.pt")
    (run / "checkpoint-4" / "scheduler.pt").write_bytes(pickle.dumps(Opens()))
    assert damage(run / "checkpoint-6") == "optimizer.pt is damaged"
    assert damage(run / "checkpoint-4") == "scheduler.pt is damaged"
    assert not (tmp_path / "run-by-pickle").exists()


def test_newest_whole_checkpoint_is_found_by_its_number(run):
    assert newest_whole(run) == (run / "checkpoint-6", {})
    (run / "checkpoint-6" / "trainer_state.json").unlink()
    (run / "checkpoint-10").mkdir()
    (run / "checkpoint-old").mkdir()
    skipped = {"checkpoint-10": "trainer_state.json is missing", "checkpoint-6": "trainer_state.json is missing"}
    assert newest_whole(run) == (run / "checkpoint-4", skipped)
    assert newest_whole(run / "nowhere") == (None, {})


def test_checkpoint_of_another_network_is_refused(run):
    check_network(run / "checkpoint-6", tiny_model())
    with pytest.raises(ValueError, match="checkpoint-6 must hold the network that is to be trained, got .* of shape"):
        check_network(run / "checkpoint-6", tiny_model(head_size=8))


@pytest.mark.parametrize("kept", ["efp-isic 0123456789ab", "0123456789ab"])  # the second of an earlier version
def test_start_with_other_weights_is_refused_by_its_name_and_a_moved_one_is_not(run, kept):
    state_path = run / "checkpoint-6" / "trainer_state.json"
    state = json.loads(state_path.read_text())
    state["stateful_callbacks"]["RunSettings"] = {"args": {"settings": {"--checkpoint": kept, "--seed": 0}}}
    state_path.write_text(json.dumps(state))
    check_settings(run / "checkpoint-6", {"--checkpoint": "elsewhere/my base 0123456789ab", "--seed": 0})
    words = f"checkpoint-6 was trained with --checkpoint {kept}, got efp-isic ba9876543210."
    with pytest.raises(ValueError, match=words):
        check_settings(run / "checkpoint-6", {"--checkpoint": "efp-isic ba9876543210", "--seed": 0})
    with pytest.raises(ValueError, match="was trained with --seed 0, got 1."):
        check_settings(run / "checkpoint-6", {"--checkpoint": "efp-isic 0123456789ab", "--seed": 1})


def scores_of(folder: Path) -> dict[int, float]:
    state = TrainerState.load_from_json(folder / "checkpoint-6" / "trainer_state.json")
    return {entry["step"]: entry["eval_jaccard"] for entry in state.log_history if "eval_jaccard" in entry}


def test_best_checkpoint_is_the_best_that_is_whole(run, caplog):
    state = TrainerState.load_from_json(run / "checkpoint-6" / "trainer_state.json")
    scores = {2: 0.3, 4: 0.5, 6: 0.4}
    state.log_history = [{"step": step, "eval_jaccard": score} for step, score in scores.items()]
    state.best_global_step, state.best_metric = 4, 0.5
    state.best_model_checkpoint = "elsewhere/checkpoint-4"  # the folder was moved
    keep_whole_best(state, settings(run))
    assert (state.best_model_checkpoint, state.best_metric) == (str(run / "checkpoint-4"), 0.5)
    assert not caplog.records
    cut(run / "checkpoint-4" / "model.safetensors")
    keep_whole_best(state, settings(run))
    assert (state.best_model_checkpoint, state.best_metric) == (str(run / "checkpoint-6"), 0.4)
    assert "the best so far, cannot be used (model.safetensors is damaged): checkpoint-6 counts" in caplog.text
    for step in (2, 6):
        shutil.rmtree(run / f"checkpoint-{step}")
    keep_whole_best(state, settings(run))
    assert (state.best_model_checkpoint, state.best_metric, state.best_global_step) == (None, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("harm", [cut, Path.unlink])
def test_training_whose_best_checkpoint_is_damaged_ends_with_the_weights_of_another(run, data, harm):
    state_path = run / "checkpoint-4" / "trainer_state.json"
    state = json.loads(state_path.read_text())
    state |= {"best_global_step": 2, "best_metric": 2.0, "best_model_checkpoint": str(run / "checkpoint-2")}
    state_path.write_text(json.dumps(state))
    harm(run / "checkpoint-2" / "model.safetensors")
    trainer = trainer_in(run, data)
    trainer.train(resume_from_checkpoint=str(run / "checkpoint-4"))
    scores = {step: score for step, score in scores_of(run).items() if step != 2}
    best = max(scores, key=scores.get)
    assert trainer.state.best_model_checkpoint == str(run / f"checkpoint-{best}")
    saved = EFPForSegmentation.from_pretrained(run / f"checkpoint-{best}").state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in trainer.model.state_dict().items())


def test_saving_removes_checkpoints_of_an_abandoned_run_from_its_step_on(run, data):
    trainer = trainer_in(run, data)
    for name in ("optimizer.pt", "left-over"):
        (run / "checkpoint-4" / name).write_text("of an earlier run")
    trainer.create_optimizer_and_scheduler(4)
    trainer.state.global_step = 4
    trainer._save_checkpoint(trainer.model, None)
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    assert damage(run / "checkpoint-4") is None
    assert not (run / "checkpoint-4" / "left-over").exists()


def test_checkpoint_that_cannot_be_saved_leaves_nothing(tmp_path, data):
    trainer = trainer_in(tmp_path, data)
    trainer.create_optimizer_and_scheduler(2)
    trainer.state.global_step = 2
    trainer._save_rng_state = lambda folder: torch.save({}, Path(folder, "no", "such", "folder"))
    with pytest.raises(OSError, match=r"checkpoint-2: could not be saved, with [\d.]+ MB free there \(.*\)$"):
        trainer._save_checkpoint(trainer.model, None)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_final_weights_come_with_their_own_files_after_all_others(tmp_path, monkeypatch):
    save_trained(tiny_model(), PROCESSOR, tmp_path, {(64 * "0", "train")})
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(first) == {"config.json", "model.safetensors", "preprocessor_config.json", "training_images.csv"}

    renamed = []

    def replace_but_not_weights(path, target):
        renamed.append(path.name)
        if path.name == "model.safetensors":
            raise KeyboardInterrupt
        return Path.rename(path, target)

    monkeypatch.setattr(Path, "replace", replace_but_not_weights)
    with pytest.raises(KeyboardInterrupt):
        save_trained(tiny_model(head_size=8), PROCESSOR, tmp_path, None)
    assert renamed[-1] == "model.safetensors" and len(renamed) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "preprocessor_config.json"}
    with pytest.raises((OSError, ValueError), match=str(tmp_path)):
        load_checkpoint(tmp_path)


def test_checkpoint_folders_of_others_are_named_and_those_of_killed_trainings_are_not(tmp_path):
    own, killed, foreign = (tmp_path / f"checkpoint-{step}" for step in (2, 4, 6))
    half_written = (".tmpHG0dR2", ".7-8-training_images.csv")
    names = {
        own: ("trainer_state.json", "notes.txt"),
        killed: ("training_args.bin", "model.safetensors", *half_written),
    }
    for folder, files in names.items():
        folder.mkdir()
        for name in files:
            (folder / name).write_text("")
    check_own_checkpoints(tmp_path)
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("")
    save_trained(tiny_model(), PROCESSOR, tmp_path / "checkpoint-900", {(64 * "0", "train")})  # somebody's own
    with pytest.raises(ValueError, match="got checkpoint-900, checkpoint-6 without trainer_state.json. Move it away"):
        check_own_checkpoints(tmp_path)


def test_training_says_that_weights_are_its_own_before_it_writes_them(tmp_path, data):
    trainer = trainer_in(tmp_path, data)

    def killed(*_, **__):
        raise KeyboardInterrupt

    trainer.model.save_pretrained = killed
    with pytest.raises(KeyboardInterrupt):
        trainer.save_model(tmp_path / "checkpoint-2")
    assert [path.name for path in (tmp_path / "checkpoint-2").iterdir()] == ["training_args.bin"]


def test_training_leaves_the_checkpoint_folders_of_others(tmp_path, data):
    foreign = tmp_path / "checkpoint-9"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("")
    trainer_in(tmp_path, data, max_steps=1, save_strategy="steps", save_steps=1, eval_strategy="no", **NO_BEST).train()
    assert (foreign / "thesis.tex").exists() and damage(tmp_path / "checkpoint-1") is None
