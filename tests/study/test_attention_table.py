from efp_hf.inference.checkpoint import SHIPPED, weights_digest
from efp_hf.metrics.rows import append_row
from efp_hf.study.attention_table import attention_table

CHECKPOINTS = (SHIPPED / "efp-isic-nano",)


def write_row(results, run: str, area: float, weights: str = "0") -> None:
    row = {
        "split": "validation",
        "run": run,
        "weights": weights,
        **{f"area_{level}": area for level in (1, 2, 3, 4)},
        "jaccard": 0.8,
    }
    append_row(results / "attention.csv", {**row, "jaccard_of_mean_attention": 0.7, "jaccard_of_equal_pairs": 0.75})


def test_seeds_are_averaged_and_the_newest_row_of_a_checkpoint_counts(tmp_path):
    for seed, area in enumerate((0.4, 0.6)):
        write_row(tmp_path, f"small-efp-supervised-attention-seed{seed}", area)
    write_row(tmp_path, "small-efp-attention-0.1-seed0", 0.99)
    for area in (0.1, 0.9):
        write_row(tmp_path, "efp-isic-nano", area, weights_digest(CHECKPOINTS[0]))
    lines = attention_table(tmp_path, CHECKPOINTS).splitlines()[2:]
    assert lines == [
        "| `efp-isic-nano` | 1 | 0.90 | 0.90 | 0.90 | 0.90 | 0.800 | 0.700 | 0.750 |",
        "| EFP, supervised attention | 2 | 0.50 | 0.50 | 0.50 | 0.50 | 0.800 | 0.700 | 0.750 |",
    ]


def test_without_rows_the_command_is_named(tmp_path):
    assert attention_table(tmp_path, CHECKPOINTS) == "Nothing is measured yet: `python scripts/measure.py attention`."
