"""What the shipped checkpoint for dermoscopic structures finds of them: a table and a figure of its newest scores."""

from pathlib import Path

import pandas as pd

from ..extras import needing
from ..inference.checkpoint import weights_digest
from ..lesion.structures import STRUCTURES
from ..metrics.structures import MEAN, MICRO
from .figures import BLUE, STYLE
from .tables import find_rows, read_results, to_table

with needing("bench", __name__):
    from matplotlib import rc_context
    from matplotlib.figure import Figure

SCORES = "structure_scores.csv"


def newest_scores(results: Path, checkpoint: Path, split: str = "test") -> pd.DataFrame:
    """
    The newest rows of these very weights on a split, by structure.

    Raises:
        FileNotFoundError: there are none.
    """
    rows = read_results(results / SCORES, missing_ok=True)
    if (checkpoint / "model.safetensors").is_file():
        rows = find_rows(rows, weights=weights_digest(checkpoint), split=split)
    if rows.empty:
        raise FileNotFoundError(
            f"{results / SCORES}: no row about {checkpoint.name}. Run "
            f"`efp score --data ISIC_FOLDER --task structures --checkpoint {checkpoint.name}`."
        )
    return rows.drop_duplicates("structure", keep="last").set_index("structure")


def structure_table(results: Path, checkpoint: Path) -> str:
    """A line a structure, one of the official micro-average and one of the mean, with 95 % intervals."""
    rows = newest_scores(results, checkpoint)
    lines = []
    for structure in (*STRUCTURES, MICRO, MEAN):
        row = rows.loc[structure]
        official, auc = (
            f"{row[name]:.3f} [{row[f'{name}_low']:.3f} … {row[f'{name}_high']:.3f}]" if pd.notna(row[name]) else "–"
            for name in ("jaccard", "auc")
        )
        image_jaccard = f"{row['image_jaccard']:.3f}" if pd.notna(row["image_jaccard"]) else "–"
        name = structure.replace("_", " ")
        lines.append([name, str(row["images_with_it"]), official, f"{row['dice']:.3f}", image_jaccard, auc])
    note = (
        f"`{checkpoint.name}`, {row['images']} images of the test split (seed {row['split_seed']}) of {row['data']}, "
        f"input {row['image_size']}. Weights `{row['weights']}`, {row['date']}, commit `{row['commit']}`, "
        f"{row['hardware']}; 10,000 bootstrap resamples over the images."
    )
    header = "structure | images with it | J, official [95 %] | Dice, official | J an image | AUC of presence [95 %]"
    return f"{to_table(header, lines)}\n\n{note}"


@rc_context(STYLE)
def structure_figure(results: Path, checkpoint: Path) -> Figure:
    """The official J of each structure beside the share of images that have it, and the AUC of its presence."""
    rows = newest_scores(results, checkpoint)
    shown = [*STRUCTURES, MICRO]
    figure = Figure(figsize=(8, 3.2))
    panels = figure.subplots(1, 2, sharey=True)
    names = [
        f"{name.replace('_', ' ')}, in {rows.loc[name, 'images_with_it']} of {rows.loc[name, 'images']}"
        for name in STRUCTURES
    ]
    for panel, score, title in zip(panels, ("jaccard", "auc"), ("official J", "AUC of its presence"), strict=True):
        of_each = rows.loc[shown, [score, f"{score}_low", f"{score}_high"]].to_numpy(float)
        for place, (value, low, high) in enumerate(of_each):
            panel.errorbar(value, place, xerr=[[value - low], [high - value]], color=BLUE, marker="o", capsize=3)
        panel.set(xlabel=f"{title}, 95 % interval", xlim=(0, 1))
    panels[1].axvline(0.5, color="0.6", linewidth=1, linestyle="dashed")  # chance
    panels[0].set_yticks(range(len(shown)), [*names, "micro-average"])
    panels[0].invert_yaxis()
    return figure
