"""What the rows of the benchmark say."""

from efp_hf import speed
from efp_hf.metrics.rows import append_row
from efp_hf.study.benchmark.job import job_rows
from efp_hf.study.benchmark.metrics import MEAN_IOU, metric_rows
from efp_hf.study.benchmark.model import model_rows, profile_rows
from efp_hf.study.benchmark.systems import EFP, NANO, SEGFORMER
from efp_hf.study.benchmark.training import BARE_LOOP, training_rows


def write_run(results, part: str, started: str, rows: list[dict]) -> None:
    fixed = {"processor": "a CPU", "hardware": "a CPU", "torch": "2", "transformers": "5", "date": "today"}
    for row in rows:
        append_row(
            results / f"speed_{part}.csv",
            {"started": started, "threads": 2, "load_average": 0.1, "commit": "abc", **fixed, **row},
        )


def test_block_has_the_newest_run_and_the_goals(tmp_path):
    seconds = {(EFP, "torch"): [0.2], (EFP, "onnx"): [0.1], (SEGFORMER, "torch"): [0.9], (SEGFORMER, "onnx"): [0.2]}
    write_run(tmp_path, "model", "1", model_rows({key: [7] for key in seconds}, 1, 256))
    write_run(tmp_path, "model", "2", model_rows(seconds, 1, 256))
    write_run(tmp_path, "metrics", "2", metric_rows({"efp_hf": [1]}, {MEAN_IOU: "no network"}, 1000, 1024))
    for num_images, peak_mb, rates in (
        (50, 900, {(EFP, "torch"): 7, (SEGFORMER, "pipeline"): 1}),
        (500, 1080, {(EFP, "torch"): 9}),
    ):
        jobs = {key: [{"images_per_second": value, "peak_mb": peak_mb}] for key, value in rates.items()}
        write_run(tmp_path, "job", "2", job_rows(jobs, num_images, photo_mb=4))
    measured = [{"images_per_second": 8, "waiting_share": 0.1}]
    bare = [{"images_per_second": 10, "waiting_share": 0}]
    write_run(tmp_path, "training", "2", training_rows({"Trainer": measured, BARE_LOOP: bare}, 24, 16, 256))
    profile = {EFP: [{"encoder": 0.003, "rest": 0.001}]}
    write_run(tmp_path, "profile", "2", profile_rows(profile, 1, 256))
    block = speed.speed_block(tmp_path)
    assert "| system | PyTorch | ONNX Runtime |" in block
    assert "| EFP | 200.0 (4.50×) | 100.0 (9.00×) |" in block
    assert "7000" not in block
    assert "| EFP in ONNX Runtime, batch 1, times as fast as SegFormer-B0 in PyTorch | 9 | ≥ 8 | met |" in block
    assert "SegFormer-B0 in the same runtime | 2 | ≥ 2.5 | missed by 20% |" in block
    assert "waits for data | 0.1 | ≤ 0.05 | missed by 100% |" in block
    assert "mean_iou | – | ≥ 50 | not measured |" in block
    assert "| EFP, PyTorch | 50 | 7.0 | 7.0 – 7.0 | 7.00× | 900 |" in block
    assert "| EFP, PyTorch | 500 | 9.0 | 9.0 – 9.0 | – | 1080 |" in block
    assert "| Peak memory of 500 photos, times that of 50 | 1.2 | ≤ 1.1 | missed by 9% |" in block
    assert "the images a second of the pipeline | 7 | ≥ 6 | met |" in block
    assert "where EFP's time goes in PyTorch: encoder 75%, rest 25%" in block
    assert block.endswith("- not measured yet: limit")


def test_goal_that_is_nearly_met_is_not_missed_by_nothing():
    assert str(speed.Goal("x", 2.49, 2.5)) == "x: 2.49 (goal: at least 2.5, missed by 0.4%)"
    assert str(speed.Goal("x", 1.25, 2.5)) == "x: 1.25 (goal: at least 2.5, missed by 50%)"


def test_goals_are_of_both_networks_in_each_precision(tmp_path):
    seconds = {
        **{(EFP, "openvino"): [0.4], (EFP, "openvino bf16"): [0.2], (NANO, "openvino"): [0.1]},
        **{(SEGFORMER, "torch"): [2], (SEGFORMER, "openvino"): [0.8], (SEGFORMER, "openvino bf16"): [0.6]},
    }
    write_run(tmp_path, "model", "1", model_rows(seconds, 1, 256))
    found = {goal.text.removesuffix(" in"): goal.value for goal in speed.goals(tmp_path)}
    times = "batch 1, times as fast as SegFormer-B0 in"
    assert found == {
        f"EFP in OpenVINO, {times} PyTorch": 5,
        f"EFP in OpenVINO, {times} the same runtime": 2,
        f"EFP in OpenVINO bf16, {times} PyTorch": 10,
        f"EFP in OpenVINO bf16, {times} the same runtime": 3,
        f"EFP nano in OpenVINO, {times} PyTorch": 20,
        f"EFP nano in OpenVINO, {times} the same runtime": 8,
    }


def test_block_without_rows_says_how_to_get_them(tmp_path):
    assert speed.speed_block(tmp_path) == "Nothing is measured yet: `python scripts/benchmark.py all`."
    assert speed.goals(tmp_path) == []
