"""What the rows of `results/speed_*.csv` say."""

from pathlib import Path

import pandas as pd

from .benchmark.metrics import MEAN_IOU
from .benchmark.systems import EFP, FLOAT_RUNTIMES, NANO, SEGFORMER
from .benchmark.training import BARE_LOOP
from .tables import find_rows, read_results, to_table

RUNTIME_NAMES = {
    "torch": "PyTorch",
    "onnx": "ONNX Runtime",
    "openvino": "OpenVINO",
    "pipeline": "Transformers' pipeline",
}
NOTHING = "Nothing is measured yet: `python scripts/benchmark.py all`."


def newest_run(results: Path, part: str) -> pd.DataFrame:
    """The rows of a part's last run; none where there is no file."""
    rows = read_results(results / f"speed_{part}.csv", missing_ok=True)
    return find_rows(rows, started=rows["started"].iloc[-1]) if len(rows) else rows


def runtime_name(runtime: str) -> str:
    first, _, rest = runtime.partition(" ")
    return f"{RUNTIME_NAMES.get(first, first)} {rest}".strip()


def times(ratio: float) -> str:
    return "–" if pd.isna(ratio) else f"{ratio:.2f}×"


def run_note(rows: pd.DataFrame) -> str:
    row = rows.iloc[0]
    machine = ", ".join(dict.fromkeys([row["processor"], row["hardware"]]))  # the hardware is a GPU where there is one
    return (
        f"{machine}, {row['threads']} threads, load {row['load_average']:.1f} at the start, PyTorch {row['torch']}, "
        f"Transformers {row['transformers']}, {row['date']}, commit `{row['commit']}`"
    )


def model_table(rows: pd.DataFrame) -> str:
    """A line a system, a column a runtime, of one image; quartiles and larger batches stay in the file."""
    cells = {(row.system, row.runtime): row for row in find_rows(rows, batch_size=1).itertuples()}
    systems, runtimes = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))

    def cell(system: str, runtime: str) -> str:
        row = cells.get((system, runtime))
        return f"{row.median_ms:.1f} ({times(row.over_segformer_torch)})" if row else "–"

    lines = [[system, *(cell(system, runtime) for runtime in runtimes)] for system in systems]
    header = " | ".join(["system", *map(runtime_name, runtimes)])
    return (
        f"{to_table(header, lines)}\n\nMedian milliseconds of the model alone for one image of "
        f"{rows['image_size'].iloc[0]}², and how many times as fast that is as SegFormer-B0 in PyTorch (quartiles, "
        f"batches of 8: `results/speed_model.csv`); random weights but EFP's; U-Net, U-Net + attention and SegFormer's "
        f"decoder are on EFP's encoder, EFP nano on the first stages of it. {run_note(rows)}."
    )


def job_table(rows: pd.DataFrame) -> str:
    """A line a system in a runtime with a number of photos."""
    lines = [
        [
            f"{row.system}, {runtime_name(row.runtime)}",
            f"{row.images}",
            f"{row.median_images_per_second:.4g}",
            f"{row.quartile1_images_per_second:.4g} – {row.quartile3_images_per_second:.4g}",
            times(row.over_pipeline),
            f"{row.peak_mb}",
        ]
        for row in rows.itertuples()
    ]
    header = "photos of 12 megapixels to masks | photos | images a second | quartiles | speed-up | peak MB"
    return f"{to_table(header, lines)}\n\nSegFormer-B0 with 256² input, EFP with its own. {run_note(rows)}."


def limit_lines(rows: pd.DataFrame) -> list[str]:
    rows = find_rows(rows, batch_size=1, image_size=256)
    return [
        f"EFP in {runtime_name(row.runtime)}, one image of {row.image_size}²: {row.times_limit:.2f} times what the "
        f"machine's peaks allow ({row.compute_ms:.4g} ms for the arithmetic, {row.memory_ms:.4g} ms for the bytes; "
        "below 1 where they stay in caches)"
        for row in rows.itertuples()
        if row.runtime in FLOAT_RUNTIMES
    ]


def profile_lines(rows: pd.DataFrame) -> list[str]:
    return [
        f"where {system}'s time goes in PyTorch: "
        + ", ".join(f"{row.part} {row.share:.0%}" for row in parts.itertuples())
        for system, parts in rows.groupby("system", sort=False)
    ]


def training_lines(rows: pd.DataFrame) -> list[str]:
    return [
        f"training with {row.loop}: {row.median_images_per_second:.3g} images of {row.image_size}² a second, "
        f"{row.share_of_bare_loop:.0%} of a bare loop's over tensors in memory; {row.waiting_share:.0%} of the time it "
        "waits for data"
        for row in rows.itertuples()
        if row.loop != BARE_LOOP
    ]


def metrics_lines(rows: pd.DataFrame) -> list[str]:
    return [
        f"scoring of {row.masks:,} masks of {row.size}² by {row.scorer}: {row.median_s:.3g} s"
        + (
            ""
            if pd.isna(row.over_mean_iou) or row.scorer == MEAN_IOU
            else f", {times(row.over_mean_iou)} as fast as {MEAN_IOU}"
        )
        for row in rows.itertuples()
        if not pd.isna(row.median_s)
    ]


LINES = {"limit": limit_lines, "profile": profile_lines, "training": training_lines, "metrics": metrics_lines}
PRINTED = ("model", "job", *LINES)


def speed_block(results: Path) -> str:
    """The table of the model, that of the job, and a line for each of the other numbers."""
    runs = {part: newest_run(results, part) for part in PRINTED}
    measured = {part: rows for part, rows in runs.items() if len(rows)}
    if not measured:
        return NOTHING
    blocks = [write(measured[part]) for part, write in (("model", model_table), ("job", job_table)) if part in measured]
    lines = [line for part, write in LINES.items() if part in measured for line in write(measured[part])]
    if len(measured) < len(PRINTED):
        lines.append(f"not measured yet: {', '.join(part for part in PRINTED if part not in measured)}")
    return "\n\n".join([*blocks, "\n".join(f"- {line}" for line in lines)])


def short_speed_block(results: Path) -> str:
    """Three lines: EFP and EFP nano at their own input against SegFormer-B0 in the same runtime, and the job's."""
    frontier, job = newest_run(results, "frontier"), newest_run(results, "job")
    if frontier.empty or job.empty:
        return NOTHING
    lines, peer = [], find_rows(frontier, system=SEGFORMER)["image_size"].iloc[0]
    for system in (EFP, NANO):
        rows = find_rows(frontier, system=system)
        row = rows.loc[rows["median_ms"].idxmin()]
        lines.append(
            f"{system} takes {row['median_ms']:.1f} ms for an image of {row['image_size']}², its input, in "
            f"{runtime_name(row['runtime'])} on {row['processor']}, {times(row['over_segformer_same_runtime'])} as "
            f"fast as {SEGFORMER} there at {peer}²."
        )
    row = job.loc[job["over_pipeline"].idxmax()]
    lines.append(
        f"From a folder of 12-megapixel photos {row['system']} writes {row['median_images_per_second']:.1f} masks a "
        f"second in {runtime_name(row['runtime'])}, {times(row['over_pipeline'])} as many as Transformers' pipeline "
        f"with {SEGFORMER}."
    )
    return "\n".join(f"- {line}" for line in lines)
