"""Accuracy beside speed: each system with the input that its J is stated for."""

from pathlib import Path

from ..metrics import jaccard
from .benchmark.systems import EFP, NANO, ON_ENCODER
from .comparison_tables import read_comparison
from .speed_tables import newest_run, run_note, runtime_name, times
from .tables import to_table

COMPARED = {EFP: "efp", NANO: "efp_nano"} | ON_ENCODER  # the benchmark's systems in `comparison.csv`


def frontier_table(results: Path) -> str:
    """A line a system: its input, J of the test split, milliseconds in each runtime and its ratio to SegFormer-B0's."""
    rows = newest_run(results, "frontier")
    if rows.empty:
        return "Nothing is measured yet: `python scripts/benchmark.py frontier`."
    runs, runtimes = read_comparison(results, "pretrained"), list(dict.fromkeys(rows["runtime"]))
    lines = []
    for system, measured in rows.groupby("system", sort=False):
        trained = runs.get((COMPARED.get(system), ""))
        cells = {
            row.runtime: f"{row.median_ms:.1f} ({times(row.over_segformer_same_runtime)})"
            for row in measured.itertuples()
        }
        lines.append(
            [
                system,
                f"{measured['image_size'].iloc[0]}²",
                f"{trained.image_means(jaccard).mean():.3f}" if trained else "–",
                *(cells.get(runtime, "–") for runtime in runtimes),
            ]
        )
    header = " | ".join(["system", "input", "J", *map(runtime_name, runtimes)])
    return (
        f"{to_table(header, lines)}\n\nJ of the test split, in the comparison with the encoder from ImageNet; median "
        "milliseconds of the model alone for one image, and how many times as fast that is as SegFormer-B0 in the same "
        f"runtime. {run_note(rows)}."
    )
