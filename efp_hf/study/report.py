"""Tables of the README and the cards: comparison, ablation, checkpoints, changed images."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from ..inference.checkpoint import load_checkpoint, weights_digest
from ..metrics import bootstrap_interval, dice, jaccard, paired_bootstrap_interval, pooled_scores, threshold_jaccard
from ..metrics.rows import read_rows
from .card import newest_score, rows_of, to_table
from .comparison import ABLATIONS, SYSTEMS, TRACKS, Run, multiply_adds, read_counts
from .robustness import CHANGES

TITLES = {
    "unet": "U-Net",
    "unet_attention": "U-Net + attention",
    "segformer": "SegFormer",
    "maskformer": "MaskFormer",
    "efp": "EFP",
    "efp_nano": "EFP nano",
}
# mIoU and mDice of the paper's Table 1, in percent
PAPER = {
    "unet": (78.5, 84.2),
    "unet_attention": (80.1, 85.7),
    "segformer": (82.6, 87.4),
    "maskformer": (83.2, 88.0),
    "efp": (85.4, 89.6),
}


def read_comparison(results: Path, track: str) -> dict[tuple[str, str], list[dict]]:
    """The rows of `comparison.csv` by (system, variant): one a seed, each with the `counts` of its test images."""
    runs = {}
    for row in read_rows(results / "comparison.csv", missing_ok=True):
        if row["track"] == track:
            run = Run(track, row["system"], int(row["seed"]), row["variant"])
            row["counts"] = read_counts(results / "comparison" / f"{run.name}.csv")
            runs.setdefault((row["system"], row["variant"]), []).append(row)
    return runs


def image_means(rows: list[dict], score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A score of each test image, its mean over the seeds."""
    return np.mean([score(row["counts"]) for row in rows], axis=0)


def seed_mean(rows: list[dict], value: Callable[[dict], float]) -> float:
    return float(np.mean([value(row) for row in rows]))


def interval(low_high: tuple[float, float], sign: str = "") -> str:
    return " … ".join(f"{value:{sign}.3f}" for value in low_high)


def scores_of(rows: list[dict]) -> list[str]:
    """J of validation; of the test split J with its interval, TJ, Dice, pooled IoU, two-class IoU, failures."""
    jaccards = image_means(rows, jaccard)
    return [
        f"{seed_mean(rows, lambda row: float(row['validation_jaccard'])):.3f}",
        f"**{jaccards.mean():.3f}** [{interval(bootstrap_interval(jaccards))}]",
        f"{image_means(rows, threshold_jaccard).mean():.3f}",
        f"{image_means(rows, dice).mean():.3f}",
        f"{seed_mean(rows, lambda row: pooled_scores(row['counts'])['pooled_iou']):.3f}",
        f"{seed_mean(rows, lambda row: pooled_scores(row['counts'])['pooled_mean_iou']):.3f}",
        f"{seed_mean(rows, lambda row: float(row['failure_rate'])):.1%}",
    ]


def difference(rows: list[dict], reference: list[dict] | None) -> str:
    """The mean difference in J to the reference on the same images, with its interval."""
    if reference is None or rows is reference:
        return "–"
    values, reference_values = image_means(rows, jaccard), image_means(reference, jaccard)
    low_high = paired_bootstrap_interval(values, reference_values)
    return f"{(values - reference_values).mean():+.3f} [{interval(low_high, '+')}]"


def seeds_of(rows: list[dict]) -> str:
    """Their number, and where there are several the lowest and the highest test J of one."""
    jaccards = sorted(float(jaccard(row["counts"]).mean()) for row in rows)
    return f"{len(rows)} ({jaccards[0]:.3f} – {jaccards[-1]:.3f})" if len(rows) > 1 else "1"


def cost_of(rows: list[dict]) -> list[str]:
    return [
        f"{float(rows[0]['parameters']) / 1e6:.1f} M",
        f"{float(rows[0]['multiply_adds']) / 1e9:.2f} G",
        f"{seed_mean(rows, lambda row: float(row['core_minutes'])):.0f}",
    ]


SCORE_HEADER = "validation J | J [95 %] | TJ | Dice | pooled IoU | IoU of two classes | failures"
COST_HEADER = "parameters | multiply-adds | core minutes"


def comparison_table(results: Path, track: str) -> str:
    """Every system of a track that has a row, with its difference to EFP; those without one are named below."""
    runs = read_comparison(results, track)
    lines, missing = [], []
    for system in SYSTEMS:
        rows = runs.get((system, ""))
        if rows is None:
            missing.append(TITLES[system])
            continue
        lines.append(
            [
                TITLES[system],
                *scores_of(rows),
                difference(rows, runs.get(("efp", ""))),
                *cost_of(rows),
                seeds_of(rows),
                " / ".join(map(str, PAPER[system])) if system in PAPER else "–",
            ]
        )
    if not lines:
        return f"Nothing is measured yet: `python scripts/compare.py --track {track}`."
    header = f"system | {SCORE_HEADER} | J − EFP's [95 %] | {COST_HEADER} | seeds (their J) | paper's mIoU / mDice"
    some = next(iter(runs.values()))[0]
    note = (
        f"{TRACKS[track].image_size}² pixels, {some['epochs']} epochs ({int(some['images_seen']):,} images seen), "
        f"{some['images']} test images at their masks' own size, {some['precision']}, {some['hardware']}."
    )
    if missing:
        note += f" Not yet trained in this track: {', '.join(missing)}."
    return f"{to_table(header, lines)}\n\n{note}"


def ablation_table(results: Path, track: str = "pretrained") -> str:
    """EFP with one thing changed, with the difference to EFP as it is; variants without a row are named below."""
    runs = read_comparison(results, track)
    reference = runs.get(("efp", ""))
    measured = [variant for variant in ("", *ABLATIONS) if ("efp", variant) in runs]
    if reference is None or len(measured) < 2:
        return f"Nothing is measured yet: `python scripts/compare.py --track {track} --ablation`."
    lines = [
        [variant or "EFP", *scores_of(rows), difference(rows, reference), *cost_of(rows), seeds_of(rows)]
        for variant in measured
        for rows in [runs["efp", variant]]
    ]
    header = f"variant | {SCORE_HEADER} | J − EFP's [95 %] | {COST_HEADER} | seeds (their J)"
    missing = [variant for variant in ABLATIONS if variant not in measured]
    note = f"\n\nNot yet trained: {', '.join(missing)}." if missing else ""
    return to_table(header, lines) + note


@cache
def costs(checkpoint: Path) -> tuple[str, str]:
    """Parameters, and multiply-adds of an image of the checkpoint's own input size."""
    model, processor = load_checkpoint(checkpoint, runtime="torch")
    size = processor.size["height"]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"{parameters / 1e6:.2f} M", f"{multiply_adds(model.cpu(), size) / 1e9:.2f} G at {size}²"


def checkpoints_table(results: Path, checkpoints: tuple[Path, ...]) -> str:
    """A line a checkpoint: its costs, and its scores on the test split."""
    quantized = [row for row in read_rows(results / "runtimes.csv") if row["exported"].endswith("int8")]
    lines = []
    for checkpoint in checkpoints:
        score, trust = (newest_score(results / name, checkpoint) for name in ("scores.csv", "trust.csv"))
        int8 = [float(row["megabytes"]) for row in quantized if row["weights"] == weights_digest(checkpoint)]
        lines.append(
            [
                f"`{checkpoint.name}`",
                *costs(checkpoint),
                f"{(checkpoint / 'model.safetensors').stat().st_size / 1e6:.1f}",
                f"{min(int8):.1f}" if int8 else "–",
                *(f"{float(score[name]):.3f}" for name in ("jaccard", "threshold_jaccard", "dice", "pooled_mean_iou")),
                f"{float(score['failure_rate']):.1%}",
                f"{float(trust['border_calibration_error']):.3f}",
            ]
        )
    header = (
        "checkpoint | parameters | multiply-adds | MB | MB in int8 | J | TJ | Dice | IoU of two classes | failures | "
        "calibration error near the borders"
    )
    return to_table(header, lines)


def robustness_table(results: Path, checkpoint: Path, split: str = "test") -> str:
    """Scores of a checkpoint under each change of light, camera and file, from the newest run of the script."""
    rows = rows_of(checkpoint, read_rows(results / "robustness.csv", missing_ok=True), split)[-len(CHANGES) :]
    if not rows:
        return "Nothing is measured yet: `python scripts/measure_robustness.py`."
    lines = [
        [
            row["change"],
            *(f"{float(row[name]):.3f}" for name in ("jaccard", "threshold_jaccard", "dice")),
            f"{float(row['failure_rate']):.1%}",
            f"{float(row['expected_jaccard']):.3f}",
        ]
        for row in rows
    ]
    return to_table("change | J | TJ | Dice | failures | expected J", lines)
