"""Tables of the comparison and the ablation."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..metrics import bootstrap_interval, dice, jaccard, paired_bootstrap_interval, pooled_scores, threshold_jaccard
from .comparison import SYSTEMS, TRACKS, VARIANTS, WIDE, Run, read_counts
from .tables import find_rows, read_results, to_table

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


@dataclass(frozen=True)
class Trained:
    """A system or variant in a track: a row a seed, and `(num_seeds, num_images, 4)` counts of the test images."""

    rows: pd.DataFrame
    counts: np.ndarray

    def image_means(self, score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """A score of each test image, its mean over the seeds."""
        return score(self.counts).mean(axis=0)

    def mean(self, column: str) -> float:
        return float(self.rows[column].mean())

    def pooled(self, name: str) -> float:
        return float(np.mean([pooled_scores(counts)[name] for counts in self.counts]))


def read_comparison(results: Path, track: str) -> dict[tuple[str, str], Trained]:
    """(system, variant) → its runs in a track, from the rows of `comparison.csv` and the files of their images."""
    rows = find_rows(read_results(results / "comparison.csv", missing_ok=True), track=track)
    if rows.empty:
        return {}
    trained = {}
    for (system, variant), of_system in rows.groupby(["system", "variant"], sort=False):
        runs = [Run(track, system, seed, variant) for seed in of_system["seed"]]
        counts = [read_counts(results / "comparison" / f"{run.name}.csv") for run in runs]
        trained[system, variant] = Trained(of_system, np.stack(counts))
    return trained


def interval(low_high: tuple[float, float], sign: str = "") -> str:
    return " … ".join(f"{value:{sign}.3f}" for value in low_high)


def jaccard_cell(trained: Trained) -> str:
    jaccards = trained.image_means(jaccard)
    return f"**{jaccards.mean():.3f}** [{interval(bootstrap_interval(jaccards))}]"


def score_cells(trained: Trained) -> list[str]:
    """J of validation; of the test split J with its interval, TJ, Dice, pooled IoU, two-class IoU, failures."""
    return [
        f"{trained.mean('validation_jaccard'):.3f}",
        jaccard_cell(trained),
        f"{trained.image_means(threshold_jaccard).mean():.3f}",
        f"{trained.image_means(dice).mean():.3f}",
        f"{trained.pooled('pooled_iou'):.3f}",
        f"{trained.pooled('pooled_mean_iou'):.3f}",
        f"{trained.mean('failure_rate'):.1%}",
    ]


def difference(trained: Trained, reference: Trained | None) -> str:
    """The mean difference in J to the reference on the same images, with its interval."""
    if reference is None or trained is reference:
        return "–"
    values, reference_values = trained.image_means(jaccard), reference.image_means(jaccard)
    low_high = paired_bootstrap_interval(values, reference_values)
    return f"{(values - reference_values).mean():+.3f} [{interval(low_high, '+')}]"


def seeds_cell(trained: Trained) -> str:
    """Their number, and where there are several the lowest and the highest test J of one."""
    jaccards = jaccard(trained.counts).mean(axis=1)
    return f"{len(jaccards)} ({jaccards.min():.3f} – {jaccards.max():.3f})" if len(jaccards) > 1 else "1"


def cost_cells(trained: Trained) -> list[str]:
    first = trained.rows.iloc[0]
    return [f"{first['parameters'] / 1e6:.1f} M", f"{first['multiply_adds'] / 1e9:.2f} G"]


SCORE_HEADER = "validation J | J [95 %] | TJ | Dice | pooled IoU | IoU of two classes | failures"
COST_HEADER = "parameters | multiply-adds | core minutes"


def wide_cells(trained: Trained, reference: Trained | None) -> list[str]:
    return [
        *score_cells(trained),
        difference(trained, reference),
        *cost_cells(trained),
        f"{trained.mean('core_minutes'):.0f}",
        seeds_cell(trained),
    ]


def comparison_table(results: Path, track: str) -> str:
    """Every system of a track that has a row, with its difference to EFP; those without one are named below."""
    runs = read_comparison(results, track)
    measured = [system for system in SYSTEMS if (system, "") in runs]
    if not measured:
        return f"Nothing is measured yet: `python scripts/compare.py --track {track}`."
    lines = [
        [
            TITLES[system],
            *wide_cells(runs[system, ""], runs.get(("efp", ""))),
            " / ".join(map(str, PAPER[system])) if system in PAPER else "–",
        ]
        for system in measured
    ]
    header = f"system | {SCORE_HEADER} | J − EFP's [95 %] | {COST_HEADER} | seeds (their J) | paper's mIoU / mDice"
    some = next(iter(runs.values())).rows.iloc[0]
    note = (
        f"{TRACKS[track].image_size}² pixels, {some['epochs']} epochs ({some['images_seen']:,} images seen), "
        f"{some['images']} test images at their masks' own size, {some['precision']}, {some['hardware']}."
    )
    missing = [TITLES[system] for system in SYSTEMS if system not in measured]
    if missing:
        note += f" Not yet trained in this track: {', '.join(missing)}."
    return f"{to_table(header, lines)}\n\n{note}"


def wide_table(results: Path) -> str:
    """EFP from scratch with a wider encoder, and the better of the U-Nets trained in the same way."""
    runs = read_comparison(results, "wide")
    reference, unet = runs.get(("efp", WIDE)), runs.get(("unet_attention", ""))
    if reference is None or unet is None:
        return "Nothing is measured yet: `python scripts/compare.py --track wide`."
    lines = [
        [title, *wide_cells(trained, reference)]
        for title, trained in (("EFP, wide", reference), (TITLES["unet_attention"], unet))
    ]
    header = f"system | {SCORE_HEADER} | J − EFP's [95 %] | {COST_HEADER} | seeds (their J)"
    return to_table(header, lines)


def short_comparison_table(results: Path, track: str = "pretrained") -> str:
    """What [`comparison_table`] says in six columns."""
    runs = read_comparison(results, track)
    measured = {system: runs[system, ""] for system in SYSTEMS if (system, "") in runs}
    lines = [
        [
            TITLES[system],
            *cost_cells(trained),
            jaccard_cell(trained),
            f"{trained.image_means(dice).mean():.3f}",
            f"{trained.mean('failure_rate'):.1%}",
        ]
        for system, trained in measured.items()
    ]
    return to_table("system | parameters | multiply-adds | J [95 %] | Dice | failures", lines)


def variant_words(variant: str) -> str:
    """The name of a variant as a reader's."""
    if variant.isdigit():
        return f"input of {variant}²"
    return {"": "EFP", "lite2": "a larger encoder, lite2"}.get(variant, variant)


def short_ablation_table(results: Path, track: str = "pretrained") -> str:
    """What [`ablation_table`] says in six columns."""
    runs = read_comparison(results, track)
    reference = runs.get(("efp", ""))
    lines = [
        [
            variant_words(variant),
            cost_cells(runs["efp", variant])[1],
            jaccard_cell(runs["efp", variant]),
            difference(runs["efp", variant], reference),
            f"{runs['efp', variant].mean('failure_rate'):.1%}",
            seeds_cell(runs["efp", variant]),
        ]
        for variant in ("", *VARIANTS[track])
        if ("efp", variant) in runs
    ]
    return to_table("variant | multiply-adds | J [95 %] | J − EFP's [95 %] | failures | seeds (their J)", lines)


def ablation_table(results: Path, track: str = "pretrained") -> str:
    """EFP with one thing changed, with the difference to EFP as it is; variants without a row are named below."""
    runs = read_comparison(results, track)
    reference = runs.get(("efp", ""))
    measured = [variant for variant in ("", *VARIANTS[track]) if ("efp", variant) in runs]
    if reference is None or len(measured) < 2:
        return f"Nothing is measured yet: `python scripts/compare.py --track {track} --ablation`."
    lines = [[variant or "EFP", *wide_cells(runs["efp", variant], reference)] for variant in measured]
    header = f"variant | {SCORE_HEADER} | J − EFP's [95 %] | {COST_HEADER} | seeds (their J)"
    missing = [variant for variant in VARIANTS[track] if variant not in measured]
    note = f"\n\nNot yet trained: {', '.join(missing)}." if missing else ""
    return to_table(header, lines) + note
