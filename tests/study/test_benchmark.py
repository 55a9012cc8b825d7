"""All of the benchmark."""

import csv
import runpy
import sys
from functools import partial

import numpy as np
import pytest
from conftest import REPOSITORY
from transformers import SegformerConfig, SwinConfig

from efp_hf.study.benchmark import parts, systems
from efp_hf.study.benchmark.job import in_new_process, peak_memory_mb
from efp_hf.study.benchmark.metrics import MEAN_IOU
from efp_hf.study.benchmark.parts import PARTS
from efp_hf.study.benchmark.systems import EFP, MASKFORMER, NANO, ON_ENCODER, SEGFORMER


@pytest.mark.slow
def test_memory_of_the_parent_is_not_the_childs():
    alone = in_new_process(peak_memory_mb)
    ballast = np.ones(2 * 10**9, dtype=np.uint8)
    assert in_new_process(peak_memory_mb) < alone + 500 < ballast.nbytes / 1e6


@pytest.fixture
def shallow_systems(monkeypatch):
    """Every system with fewer blocks, an encoder of the same kind, and without what other tests try or that waits."""
    monkeypatch.setattr(systems, "ENCODER", "tf_mobilenetv3_small_minimal_100")
    monkeypatch.setattr(systems, "SegformerConfig", partial(SegformerConfig, depths=[1] * 4))
    monkeypatch.setattr(systems, "SwinConfig", partial(SwinConfig, depths=[1] * 4))
    monkeypatch.setattr(parts, "in_new_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(parts, "PAUSE", 0)


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_systems")
def test_quick_run_writes_rows_of_every_part(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--checkpoint", str(tiny_checkpoint), "--threads", "1", "--runtimes", "torch", "onnx"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "all", "--quick", *options])
    runpy.run_path(str(REPOSITORY / "scripts" / "benchmark.py"), run_name="__main__")
    rows = {}
    for part in PARTS:
        with (tmp_path / "runs" / "quick" / f"speed_{part}.csv").open(newline="") as file:
            rows[part] = list(csv.DictReader(file))
        assert {"command", "commit", "started", "processor", "instruction_set", "threads"} <= set(rows[part][0])
        with (REPOSITORY / "results" / f"speed_{part}.csv").open(newline="") as file:
            assert next(csv.reader(file)) == list(rows[part][0])
    assert [(row["system"], row["runtime"]) for row in rows["model"]] == [
        (EFP, "torch"),
        (EFP, "onnx"),
        (NANO, "torch"),
        (NANO, "onnx"),
        (SEGFORMER, "torch"),
        (SEGFORMER, "onnx"),
        (MASKFORMER, "torch"),
        *((system, runtime) for system in ON_ENCODER for runtime in ("torch", "onnx")),
    ]
    assert [row["images"] for row in rows["job"]] == ["2"] * 3 + ["4"] * 2
    assert len(rows["training"]) == 3 and len(rows["limit"]) == 4
    assert f"left out: {MEAN_IOU}" in capsys.readouterr().out
