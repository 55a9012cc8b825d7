"""All of the benchmark."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY

from efp_hf.study.benchmark.job import in_new_process, peak_memory_mb
from efp_hf.study.benchmark.metrics import MEAN_IOU
from efp_hf.study.benchmark.parts import PARTS
from efp_hf.study.benchmark.systems import EFP, MASKFORMER, NANO, ON_ENCODER, SEGFORMER


@pytest.mark.slow
def test_memory_of_the_parent_is_not_the_childs():
    alone = in_new_process(peak_memory_mb)
    ballast = np.ones(2 * 10**9, dtype=np.uint8)
    assert in_new_process(peak_memory_mb) < alone + 500 < ballast.nbytes / 1e6


@pytest.mark.slow
def test_quick_run_writes_rows_of_every_part(tiny_checkpoint, tmp_path):
    command = [sys.executable, REPOSITORY / "scripts" / "benchmark.py", "all", "--quick", "--checkpoint"]
    options = [tiny_checkpoint, "--threads", "1", "--runtimes", "torch", "onnx"]
    run = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
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
    assert f"left out: {MEAN_IOU}" in run.stdout
