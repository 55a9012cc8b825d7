import csv
import runpy
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, tiny_model

from efp_hf import EFPImageProcessor
from efp_hf.data.folders import load_isic
from efp_hf.metrics import confusion_counts, jaccard
from efp_hf.metrics.evaluation import grid_jaccards, model_masks
from efp_hf.metrics.rows import write_rows
from efp_hf.study import comparison as module
from efp_hf.study.comparison import (
    ABLATIONS,
    VARIANTS,
    Run,
    Track,
    choose_threshold,
    new_system,
    read_counts,
    score_images,
    train_system,
)
from efp_hf.study.cost import multiply_adds

SCRIPT = REPOSITORY / "scripts" / "compare.py"
PROCESSOR = EFPImageProcessor(size={"height": 32, "width": 32})
CPU = {"use_cpu": True}


@pytest.fixture(scope="module")
def data(synthetic_root):
    return load_isic(synthetic_root)


def test_ablations_change_one_thing_each():
    base = new_system(Run("scratch", "efp")).config.to_dict()
    for name, changes in ABLATIONS.items():
        if {"encoder", "image_size"} & set(changes):
            continue
        config = new_system(Run("scratch", "efp", variant=name)).config.to_dict()
        assert {key for key in base if config[key] != base[key]} == set(changes), name
        assert len(changes) == 1 or name in ("plain pyramid", "64 channels, 3x3", "wide, supervised attention"), name
    assert set().union(*VARIANTS.values()) == set(ABLATIONS)


def test_names_of_runs_are_file_names_of_their_own():
    names = [Run("pretrained", "efp", seed, variant).name for seed in (0, 1) for variant in ("", *ABLATIONS)]
    assert len(set(names)) == len(names)
    assert all(not set(name) & set(" :/,") for name in names)


def test_multiply_adds_of_one_convolution():
    class Model(torch.nn.Conv2d):
        pass

    assert multiply_adds(Model(3, 5, kernel_size=3, padding=1), image_size=8) == 3 * 5 * 9 * 64


def test_threshold_is_the_best_of_validation(data):
    model = tiny_model()
    threshold, value = choose_threshold(model, PROCESSOR, data["validation"])
    tried = grid_jaccards(data["validation"], model, PROCESSOR, list(module.THRESHOLDS))
    assert value == max(tried[candidate, False] for candidate in module.THRESHOLDS)
    assert tried[threshold, False] == value


def test_written_counts_are_those_of_the_masks(data, tmp_path):
    model = tiny_model()
    write_rows(score_images(model, PROCESSOR, data["test"]), tmp_path / "new" / "scores.csv")
    expected = [confusion_counts(mask, truth) for _, mask, truth in model_masks(data["test"], model, PROCESSOR)]
    assert np.array_equal(read_counts(tmp_path / "new" / "scores.csv"), expected)


@pytest.mark.slow
def test_stopped_training_goes_on_and_ends_with_the_same_weights(data, tmp_path):
    run, settings = Run("scratch", "efp"), {"image_size": 32, **CPU}
    whole, score = train_system(run, data, tmp_path / "whole", 1e-3, epochs=2, save_total_limit=None, **settings)
    stopped = tmp_path / "stopped"
    first = min((tmp_path / "whole").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    (stopped / first.name).parent.mkdir()
    first.rename(stopped / first.name)
    (stopped / "core_seconds.txt").write_text("1 5.0\n1 7.0\n")
    resumed, resumed_score = train_system(run, data, stopped, 1e-3, epochs=2, save_total_limit=None, **settings)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert resumed_score["jaccard"] == score["jaccard"]
    assert resumed_score["core_seconds"] > 7.0  # the epoch that ran twice counts once, the last time


@pytest.fixture
def compare(tmp_path, synthetic_root, monkeypatch, capsys):
    """Runs the script with tiny tracks; → what it printed."""
    monkeypatch.setitem(
        module.TRACKS, "scratch", Track(False, image_size=32, epochs=1, search_size=32, search_epochs=1)
    )
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        command = ["--data", str(synthetic_root), "--track", "scratch", "--use-cpu", *arguments]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *command])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return capsys.readouterr().out

    return run


def read_rows(path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_script_measures_a_system_once(compare, tmp_path, data):
    compare("--systems", "efp")
    for name in ("comparison.csv", "learning_rates.csv", "comparison/scratch-efp-seed0.csv"):
        rows = (read_rows(folder / "results" / name) for folder in (tmp_path, REPOSITORY))
        assert len({tuple(columns) for columns, *_ in rows}) == 1, name  # new rows fit below those that are there
    (row,) = read_rows(tmp_path / "results" / "comparison.csv")
    counts = read_counts(tmp_path / "results" / "comparison" / "scratch-efp-seed0.csv")
    assert float(row["jaccard"]) == pytest.approx(jaccard(counts).mean(), abs=1e-6)
    assert (row["system"], row["images"], row["variant"]) == ("efp", str(len(data["test"])), "")
    assert row["images_seen"] == str(len(data["train"]))
    searched = read_rows(tmp_path / "results" / "learning_rates.csv")
    assert [float(row["learning_rate"]) for row in searched] == list(module.LEARNING_RATES)
    best = max(searched, key=lambda row: float(row["validation_jaccard"]))
    assert row["learning_rate"] == best["learning_rate"]

    assert "scratch-efp-seed0: has its row" in compare("--systems", "efp")
    assert len(read_rows(tmp_path / "results" / "comparison.csv")) == 1
    assert len(read_rows(tmp_path / "results" / "learning_rates.csv")) == len(searched)


@pytest.mark.slow
def test_script_trains_variants_with_the_rate_of_the_system(compare, tmp_path):
    compare("--ablation", "no attention")
    (row,) = read_rows(tmp_path / "results" / "comparison.csv")
    assert (row["system"], row["variant"]) == ("efp", "no attention")
    assert (tmp_path / "results" / "comparison" / "scratch-efp-no-attention-seed0.csv").exists()
