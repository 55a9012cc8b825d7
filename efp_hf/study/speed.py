"""What the rows of `results/speed_*.csv` say: the goals of the benchmark, and its block of the README."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

from ..metrics.rows import read_rows
from .benchmark.systems import EFP, NANO
from .benchmark.training import BARE_LOOP
from .card import to_table

FLOAT_RUNTIMES = ("torch", "onnx", "openvino")
BF16_RUNTIMES = ("openvino bf16",)
INT8_RUNTIMES = ("onnx int8", "openvino int8")
NAMES = {"torch": "PyTorch", "onnx": "ONNX Runtime", "openvino": "OpenVINO", "pipeline": "Transformers' pipeline"}
PARTS = ("model", "profile", "job", "training", "metrics", "limit")


def newest_run(results: Path, part: str) -> list[dict[str, str]]:
    """The rows of a part's last run; none where there is no file."""
    rows = read_rows(results / f"speed_{part}.csv", missing_ok=True)
    return [row for row in rows if row["started"] == rows[-1]["started"]]


def runtime_name(runtime: str) -> str:
    first, _, rest = runtime.partition(" ")
    return f"{NAMES.get(first, first)} {rest}".strip()


@dataclass(frozen=True)
class Goal:
    """A number that is wanted; `value` is `None` where it was not measured."""

    text: str
    value: float | None
    wanted: float
    at_most: bool = False

    def __str__(self) -> str:
        goal = f"goal: at {'most' if self.at_most else 'least'} {self.wanted:g}"
        if self.value is None:
            return f"{self.text}: not measured ({goal})"
        return f"{self.text}: {self.value:.3g} ({goal}, {self.verdict})"

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        if self.value <= self.wanted if self.at_most else self.value >= self.wanted:
            return "met"
        missed = abs(self.value / self.wanted - 1)
        return f"missed by {missed:.{'0' if missed >= 0.01 else '1'}%}"

    @property
    def line(self) -> list[str]:
        """Of a table: what, measured, wanted, and whether it was met."""
        measured = "–" if self.value is None else f"{self.value:.3g}"
        return [self.text, measured, f"{'≤' if self.at_most else '≥'} {self.wanted:g}", self.verdict]


def best(rows: list[dict], column: str, lowest: bool = False) -> dict | None:
    """The row with the highest or lowest number in the column, of those that have one."""
    rows = [row for row in rows if row[column]]
    return (min if lowest else max)(rows, key=lambda row: float(row[column])) if rows else None


def number(row: dict | None, column: str) -> float | None:
    return float(row[column]) if row and row[column] else None


def goals(results: Path) -> list[Goal]:
    """
    The goals of the parts that were measured: of the best runtime of EFP and EFP nano in each precision, of the better
    Trainer.
    """
    found = []
    model = [row for row in newest_run(results, "model") if row["batch_size"] == "1"]
    for system, runtimes in product((EFP, NANO), (FLOAT_RUNTIMES, BF16_RUNTIMES, INT8_RUNTIMES)):
        candidates = [row for row in model if row["system"] == system and row["runtime"] in runtimes]
        fastest = best(candidates, "median_ms", lowest=True)
        if fastest:
            name = runtime_name(fastest["runtime"])
            text = f"{system} in {name}, batch 1, times as fast as SegFormer-B0 in"
            found.append(Goal(f"{text} PyTorch", number(fastest, "over_segformer_torch"), 8))
            found.append(Goal(f"{text} the same runtime", number(fastest, "over_segformer_same_runtime"), 2.5))
    jobs = newest_run(results, "job")  # the first number of photos; the second one is measured once, for its memory
    job = best([row for row in jobs if row["system"] == EFP and row["images"] == jobs[0]["images"]], "over_pipeline")
    if job:
        text = f"Photos to masks in {runtime_name(job['runtime'])}, times the images a second of the pipeline"
        found.append(Goal(text, number(job, "over_pipeline"), 6))
        same = [row for row in jobs if (row["system"], row["runtime"]) == (EFP, job["runtime"])]
        text = f"Peak memory of {same[-1]['images']} photos, times that of {job['images']}"
        found.append(Goal(text, number(same[-1], "peak_mb") / number(job, "peak_mb"), 1.1, at_most=True))
    trainers = [row for row in newest_run(results, "training") if row["loop"] != BARE_LOOP]
    trainer = best(trainers, "share_of_bare_loop")
    if trainer:
        text = f"{trainer['loop']}, share of"
        found.append(Goal(f"{text} its time that it waits for data", number(trainer, "waiting_share"), 0.05, True))
        found.append(Goal(f"{text} the bare loop's images a second", number(trainer, "share_of_bare_loop"), 0.9))
    metrics = [row for row in newest_run(results, "metrics") if row["scorer"] == "efp_hf"]
    if metrics:
        text = "Counts and scores of masks, times as fast as evaluate's mean_iou"
        found.append(Goal(text, number(metrics[-1], "over_mean_iou"), 50))
    return found


def spread(row: dict, unit: str) -> str:
    return f"{row[f'quartile1_{unit}']} – {row[f'quartile3_{unit}']}"


def times(ratio: str) -> str:
    return f"{float(ratio):.2f}×" if ratio else "–"


def run_note(row: dict) -> str:
    machine = ", ".join(
        dict.fromkeys([row["processor"], row["hardware"]])
    )  # the hardware is the GPU where there is one
    return (
        f"{machine}, {row['threads']} threads, load {row['load_average']} at the start, PyTorch {row['torch']}, "
        f"Transformers {row['transformers']}, {row['date']}, commit `{row['commit']}`"
    )


def model_table(rows: list[dict]) -> str:
    """A line a system, a column a runtime, of one image; quartiles and larger batches stay in the file."""
    cells = {(row["system"], row["runtime"]): row for row in rows if row["batch_size"] == "1"}
    systems, runtimes = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    lines = [
        [
            system,
            *(
                f"{float(row['median_ms']):.1f} ({times(row['over_segformer_torch'])})" if row else "–"
                for row in (cells.get((system, runtime)) for runtime in runtimes)
            ),
        ]
        for system in systems
    ]
    header = " | ".join(["system", *map(runtime_name, runtimes)])
    return (
        f"{to_table(header, lines)}\n\nMedian milliseconds of the model alone for one image of "
        f"{rows[0]['image_size']}², and how many times as fast that is as SegFormer-B0 in PyTorch (quartiles, batches "
        f"of 8: `results/speed_model.csv`); random weights but EFP's; U-Net, U-Net + attention and SegFormer's decoder "
        f"are on EFP's encoder, EFP nano on the first stages of it. {run_note(rows[0])}."
    )


def job_table(rows: list[dict]) -> str:
    lines = [
        [
            f"{row['system']}, {runtime_name(row['runtime'])}",
            row["images"],
            row["median_images_per_second"],
            spread(row, "images_per_second"),
            times(row["over_pipeline"]),
            row["peak_mb"],
        ]
        for row in rows
    ]
    header = "photos of 12 megapixels to masks | photos | images a second | quartiles | speed-up | peak MB"
    return f"{to_table(header, lines)}\n\nSegFormer-B0 with 256² input, EFP with its own. {run_note(rows[0])}."


def speed_block(results: Path) -> str:
    """The README's block: the model's table, the job's, that of the goals, and where the time goes."""
    runs = {part: newest_run(results, part) for part in PARTS}
    if not any(runs.values()):
        return "Nothing is measured yet: `python scripts/benchmark.py all`."
    blocks = [write(runs[part]) for part, write in (("model", model_table), ("job", job_table)) if runs[part]]
    blocks.append(to_table("goal | measured | wanted | ", [goal.line for goal in goals(results)]))
    lines = [
        f"- EFP in {runtime_name(row['runtime'])}, batch 1, {row['image_size']}²: {row['times_limit']} times what the "
        f"machine's peaks allow ({row['compute_ms']} ms for the arithmetic, {row['memory_ms']} ms for the bytes; "
        "below 1 where they stay in caches)"
        for row in runs["limit"]
        if row["batch_size"] == "1" and row["image_size"] == "256" and row["runtime"] in FLOAT_RUNTIMES
    ]
    for system in dict.fromkeys(row["system"] for row in runs["profile"]):
        shares = [f"{row['part']} {float(row['share']):.0%}" for row in runs["profile"] if row["system"] == system]
        lines.append(f"- where {system}'s time goes in PyTorch: {', '.join(shares)}")
    missing = [part for part in PARTS if not runs[part]]
    if missing:
        lines.append(f"- not measured yet: {', '.join(missing)}")
    return "\n\n".join([*blocks, "\n".join(lines)])
