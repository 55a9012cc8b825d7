"""What the rows of the benchmark say."""

import pytest

from efp_hf.metrics.rows import append_row
from efp_hf.study.benchmark.job import job_rows
from efp_hf.study.benchmark.limit import limit_columns
from efp_hf.study.benchmark.metrics import MEAN_IOU, metric_rows
from efp_hf.study.benchmark.model import model_rows, profile_rows
from efp_hf.study.benchmark.systems import EFP, NANO, SEGFORMER
from efp_hf.study.benchmark.training import BARE_LOOP, training_rows
from efp_hf.study.speed_tables import short_speed_block, speed_block

SIZES = {EFP: 256, SEGFORMER: 256, NANO: 256}


def write_run(results, part: str, started: str, rows: list[dict]) -> None:
    fixed = {"processor": "a CPU", "hardware": "a CPU", "torch": "2", "transformers": "5", "date": "today"}
    for row in rows:
        append_row(
            results / f"speed_{part}.csv",
            {"started": started, "threads": 2, "load_average": 0.1, "commit": "0123", **fixed, **row},
        )


def write_jobs(results) -> None:
    for num_images, peak_mb, rates in (
        (50, 900, {(EFP, "torch"): 7, (SEGFORMER, "pipeline"): 1}),
        (500, 1080, {(EFP, "torch"): 9}),
    ):
        jobs = {key: [{"images_per_second": value, "peak_mb": peak_mb}] for key, value in rates.items()}
        write_run(results, "job", "2", job_rows(jobs, num_images, photo_mb=4))


def test_block_has_the_newest_run_of_each_part(tmp_path):
    seconds = {(EFP, "torch"): [0.2], (EFP, "onnx"): [0.1], (SEGFORMER, "torch"): [0.9], (SEGFORMER, "onnx"): [0.2]}
    write_run(tmp_path, "model", "1", model_rows({key: [7] for key in seconds}, 1, SIZES))
    write_run(tmp_path, "model", "2", model_rows(seconds, 1, SIZES))
    write_run(tmp_path, "metrics", "2", metric_rows({"efp_hf": [1], MEAN_IOU: [50]}, {}, 1000, 1024))
    write_jobs(tmp_path)
    measured = [{"images_per_second": 8, "waiting_share": 0.1}]
    bare = [{"images_per_second": 10, "waiting_share": 0}]
    write_run(tmp_path, "training", "2", training_rows({"Trainer": measured, BARE_LOOP: bare}, 24, 16, 256))
    profile = {EFP: [{"encoder": 0.003, "rest": 0.001}]}
    write_run(tmp_path, "profile", "2", profile_rows(profile, 1, 256))
    block = speed_block(tmp_path)
    assert "| system | PyTorch | ONNX Runtime |" in block
    assert "| EFP | 200.0 (4.50×) | 100.0 (9.00×) |" in block
    assert "7000" not in block
    assert "commit `0123`" in block
    assert "| EFP, PyTorch | 50 | 7 | 7 – 7 | 7.00× | 900 |" in block
    assert "| EFP, PyTorch | 500 | 9 | 9 – 9 | – | 1080 |" in block
    assert "where EFP's time goes in PyTorch: encoder 75%, rest 25%" in block
    assert "Trainer: 8 images of 256² a second, 80% of a bare loop's over tensors in memory; 10% of the time" in block
    assert "scoring of 1,000 masks of 1024² by efp_hf: 1 s, 50.00× as fast as evaluate mean_iou" in block
    assert block.endswith("- not measured yet: limit")

    peaks = {"copy_gb_s": 10.0, "conv3x3_gflops": 100.0, "conv1x1_gflops": 50.0}
    row = {"runtime": "onnx", "batch_size": 1, "image_size": 256, **limit_columns(10**9, 10**8, peaks, median_ms=60)}
    write_run(tmp_path, "limit", "2", [row, {**row, "batch_size": 8, "times_limit": 5.0}])
    block = speed_block(tmp_path)
    assert "EFP in ONNX Runtime, one image of 256²: 3.00 times what" in block and "(20 ms for the arithmetic" in block
    assert "5.00" not in block and "not measured yet" not in block


def test_scoring_without_its_peer_has_no_ratio(tmp_path):
    write_run(tmp_path, "metrics", "2", metric_rows({"efp_hf": [1]}, {MEAN_IOU: "no network"}, 1000, 1024))
    lines = speed_block(tmp_path).splitlines()
    assert lines[0] == "- scoring of 1,000 masks of 1024² by efp_hf: 1 s" and len(lines) == 2


def test_short_block_has_both_networks_at_their_input_beside_segformer_at_its_own(tmp_path):
    sizes = {EFP: 192, NANO: 128, SEGFORMER: 256}
    seconds = {
        **{(EFP, "torch"): [0.6], (EFP, "openvino"): [0.4], (NANO, "torch"): [0.3], (NANO, "openvino"): [0.1]},
        **{(SEGFORMER, "torch"): [2], (SEGFORMER, "openvino"): [0.8]},
    }
    write_run(tmp_path, "frontier", "1", model_rows(seconds, 1, sizes))
    write_jobs(tmp_path)
    assert short_speed_block(tmp_path).splitlines() == [
        "- EFP takes 400.0 ms for an image of 192², its input, in OpenVINO on a CPU, 2.00× as fast as SegFormer-B0 "
        "there at 256².",
        "- EFP nano takes 100.0 ms for an image of 128², its input, in OpenVINO on a CPU, 8.00× as fast as "
        "SegFormer-B0 there at 256².",
        "- From a folder of 12-megapixel photos EFP writes 7.0 masks a second in PyTorch, 7.00× as many as "
        "Transformers' pipeline with SegFormer-B0.",
    ]


@pytest.mark.parametrize("block", [speed_block, short_speed_block])
def test_block_without_rows_says_how_to_get_them(tmp_path, block):
    assert block(tmp_path) == "Nothing is measured yet: `python scripts/benchmark.py all`."
