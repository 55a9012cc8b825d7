import numpy as np
import pytest

from efp_hf.inference.checkpoint import weights_digest
from efp_hf.metrics.rows import append_row, write_rows
from efp_hf.study.benchmark.model import model_rows
from efp_hf.study.benchmark.systems import EFP, SEGFORMER, UNET
from efp_hf.study.checkpoint_tables import robustness_table
from efp_hf.study.comparison import WIDE, Run
from efp_hf.study.comparison_tables import ablation_table, comparison_table, short_comparison_table, wide_table
from efp_hf.study.frontier_table import frontier_table
from efp_hf.study.robustness import CHANGES


def write_run(results, run: Run, hits: list[int]) -> None:
    """A run whose image k has `hits[k]` right lesion pixels of 10, so a Jaccard of `hits[k] / 10`."""
    rows = [
        {"image_id": str(k), "tp": hit, "fp": 0, "fn": 10 - hit, "tn": 90, "hd95": 0, "boundary_f1": 1}
        for k, hit in enumerate(hits)
    ]
    write_rows(rows, results / "comparison" / f"{run.name}.csv")
    row = {"track": run.track, "system": run.system, "variant": run.variant, "seed": run.seed}
    row |= {"parameters": 2_500_000, "multiply_adds": 1_230_000_000, "core_minutes": 30.4, "epochs": 12}
    row |= {"images_seen": 21792, "images": len(hits), "precision": "bf16", "hardware": "two cores"}
    row |= {"validation_jaccard": 0.8 + run.seed / 50}
    row |= {"failure_rate": np.mean([hit < 6.5 for hit in hits])}
    append_row(results / "comparison.csv", row)


def test_table_has_the_means_and_the_paired_difference(tmp_path):
    write_run(tmp_path, Run("pretrained", "efp"), [8, 9, 10, 6])
    write_run(tmp_path, Run("pretrained", "unet"), [7, 8, 9, 5])
    table = comparison_table(tmp_path, "pretrained")
    unet, efp = table.splitlines()[2:4]
    assert unet.startswith("| U-Net | 0.800 | **0.725** [")
    assert "| 0.600 |" in unet  # TJ: 7 + 8 + 9 of 40
    assert "| -0.100 [-0.100 … -0.100] |" in unet
    assert "| 2.5 M | 1.23 G | 30 | 1 | 78.5 / 84.2 |" in unet
    assert efp.startswith("| EFP | 0.800 | **0.825** [") and "| – |" in efp
    short = short_comparison_table(tmp_path).splitlines()
    assert short[2].startswith("| U-Net | 2.5 M | 1.23 G | **0.725** [") and short[2].endswith("| 0.832 | 25.0% |")
    assert "Not yet trained in this track: U-Net + attention, SegFormer, MaskFormer, EFP nano." in table


def test_seeds_are_averaged_for_each_image(tmp_path):
    write_run(tmp_path, Run("pretrained", "efp", seed=0), [8, 8])
    write_run(tmp_path, Run("pretrained", "efp", seed=1), [6, 6])
    write_run(tmp_path, Run("pretrained", "unet"), [7, 7])
    unet, efp = comparison_table(tmp_path, "pretrained").splitlines()[2:4]
    assert "| EFP | 0.810 | **0.700** [0.700 … 0.700]" in efp and "| 2 (0.600 – 0.800) | 85.4 / 89.6 |" in efp
    assert "| +0.000 [+0.000 … +0.000] |" in unet


def test_tracks_and_variants_are_not_mixed(tmp_path):
    write_run(tmp_path, Run("pretrained", "efp"), [8])
    write_run(tmp_path, Run("pretrained", "efp", variant="no attention"), [5])
    write_run(tmp_path, Run("scratch", "efp"), [2])
    assert "**0.800**" in comparison_table(tmp_path, "pretrained")
    assert "0.500" not in comparison_table(tmp_path, "pretrained")
    assert "**0.200**" in comparison_table(tmp_path, "scratch")
    ablation = ablation_table(tmp_path)
    assert "| no attention | 0.800 | **0.500**" in ablation and "| -0.300 [" in ablation
    assert "Not yet trained: no cross-scale" in ablation


def test_wide_encoder_stands_beside_the_unet_that_was_trained_as_it_was(tmp_path):
    write_run(tmp_path, Run("wide", "efp", variant=WIDE), [8, 9])
    write_run(tmp_path, Run("scratch", "unet_attention"), [1, 1])
    assert wide_table(tmp_path).startswith("Nothing is measured yet")
    write_run(tmp_path, Run("wide", "unet_attention"), [7, 9])
    efp, unet = wide_table(tmp_path).splitlines()[2:]
    assert efp.startswith("| EFP, wide | 0.800 | **0.850** [") and "| – |" in efp
    assert unet.startswith("| U-Net + attention | 0.800 | **0.800** [") and "| -0.050 [-0.100 … +0.000] |" in unet


@pytest.mark.parametrize("table", [lambda path: comparison_table(path, "scratch"), ablation_table, wide_table])
def test_table_without_rows_says_how_to_get_them(tmp_path, table):
    assert table(tmp_path).startswith("Nothing is measured yet: `python scripts/compare.py")


def test_changed_images_are_those_of_these_weights_and_the_newest(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    weights = weights_digest(tmp_path)
    runs = [(weights, "test", 0.7), (weights, "validation", 0.9), (weights, "test", 0.8), ("other", "test", 0.9)]
    for digest, split, value in runs:
        scores = dict.fromkeys(("jaccard", "threshold_jaccard", "dice", "failure_rate", "expected_jaccard"), value)
        for change in CHANGES:
            append_row(tmp_path / "robustness.csv", {"weights": digest, "split": split, "change": change, **scores})
    lines = robustness_table(tmp_path, tmp_path).splitlines()[2:]
    assert lines == [f"| {change} | 0.800 | 0.800 | 0.800 | 80.0% | 0.800 |" for change in CHANGES]
    assert robustness_table(tmp_path, tmp_path, "train").startswith("Nothing is measured yet: `python scripts/measure")


def test_frontier_has_each_system_with_its_input_its_j_and_its_ratio_in_the_same_runtime(tmp_path):
    assert "benchmark.py frontier" in frontier_table(tmp_path)
    seconds = {
        **{(EFP, "torch"): [0.01], (EFP, "onnx"): [0.005], (UNET, "torch"): [0.08]},
        **{(SEGFORMER, "torch"): [0.04], (SEGFORMER, "onnx"): [0.01]},
    }
    fixed = {"processor": "a CPU", "hardware": "a CPU", "torch": "2", "transformers": "5", "date": "today"}
    fixed |= {"threads": 2, "load_average": 0.1, "commit": "0123"}
    for started, measured in (("1", {key: [7] for key in seconds}), ("2", seconds)):
        for row in model_rows(measured, 1, {EFP: 192, UNET: 192, SEGFORMER: 256}):
            append_row(tmp_path / "speed_frontier.csv", {"started": started, **fixed, **row})
    write_run(tmp_path, Run("pretrained", "efp"), [8, 9])
    write_run(tmp_path, Run("pretrained", "efp", variant="no attention"), [1, 1])
    write_run(tmp_path, Run("scratch", "unet"), [3, 3])
    lines = frontier_table(tmp_path).splitlines()
    assert lines[0] == "| system | input | J | PyTorch | ONNX Runtime |"
    assert lines[2] == "| EFP | 192² | 0.850 | 10.0 (4.00×) | 5.0 (2.00×) |"
    assert "| U-Net | 192² | – | 80.0 (0.50×) | – |" in lines
    assert "| SegFormer-B0 | 256² | – | 40.0 (1.00×) | 10.0 (1.00×) |" in lines
