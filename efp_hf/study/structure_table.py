"""What a checkpoint finds of the dermoscopic structures: a table and a figure of its newest scores."""

from pathlib import Path

import pandas as pd

from ..extras import needing
from ..inference.checkpoint import weights_digest
from ..lesion.structures import STRUCTURES
from ..metrics.card import LABEL_SCORES
from ..metrics.classes import MEAN_OF_LABELS, MICRO
from .figures import BLUE, STYLE
from .tables import find_rows, read_results, to_table

with needing("bench", __name__):
    from matplotlib import rc_context
    from matplotlib.figure import Figure


def newest_scores(results: Path, checkpoint: Path) -> pd.DataFrame:
    """The newest rows of these very weights on the test split, by structure; none where there are none."""
    if not (checkpoint / "model.safetensors").is_file():
        return pd.DataFrame()
    rows = read_results(results / LABEL_SCORES, missing_ok=True)
    rows = find_rows(rows, split="test", weights=weights_digest(checkpoint))
    return rows.drop_duplicates("label", keep="last").set_index("label") if len(rows) else rows


def structures_block(results: Path, checkpoint: Path) -> str:
    """A line a structure, one of the official micro-average and one of the mean; "" where nothing is scored."""
    rows = newest_scores(results, checkpoint)
    if rows.empty:
        return ""
    lines = []
    for structure in (*STRUCTURES, MICRO, MEAN_OF_LABELS):
        row = rows.loc[structure]
        official, auc = (
            with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in ("jaccard", "auc")
        )
        image_jaccard = f"{row['image_jaccard']:.3f}" if pd.notna(row["image_jaccard"]) else "–"
        name = structure.replace("_", " ")
        lines.append([name, str(row["images_with_it"]), official, f"{row['dice']:.3f}", image_jaccard, auc])
    note = (
        f"`{checkpoint.name}`, {row['images']} images of the test split (seed {row['split_seed']}) of {row['data']}, "
        f"ISIC 2018 Task 2; input {row['image_size']}. Weights `{row['weights']}`, {row['date']}, commit "
        f"`{row['commit']}`, {row['hardware']}; 10,000 bootstrap resamples over the images."
    )
    header = "structure | images with it | official J [95 %] | official Dice | J an image | present: AUC [95 %]"
    return f"{note}\n\n{to_table(header, lines)}"


def with_interval(value: float, low: float, high: float) -> str:
    return "–" if pd.isna(value) else f"{value:.3f} [{low:.3f} … {high:.3f}]"


@rc_context(STYLE)
def structure_figure(results: Path, checkpoint: Path) -> Figure:
    """
    The official J of each structure and the AUC of its presence.

    Raises:
        FileNotFoundError: the checkpoint has no row.
    """
    rows = newest_scores(results, checkpoint)
    if rows.empty:
        raise FileNotFoundError(
            f"{results / LABEL_SCORES}: no row about {checkpoint.name}. Run "
            f"`efp score --data ISIC_FOLDER --task structures --checkpoint {checkpoint.name}`."
        )
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
