"""What a checkpoint finds of the dermoscopic structures: a table and a figure of its newest scores."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ..extras import needing
from ..inference.checkpoint import weights_digest
from ..lesion.structures import STRUCTURES, title_of
from ..metrics.card import LABEL_SCORES
from ..metrics.classes import MEAN_OF_LABELS, MICRO
from ..metrics.scores import NUM_RESAMPLES
from .figures import BLUE, STYLE
from .tables import find_rows, read_results, to_table

with needing("bench", __name__):
    from matplotlib import rc_context
    from matplotlib.figure import Figure

FAIR_AUC, CHANCE = 0.7, 0.5
DEFINITIONS = """\
- A pigment network is a mesh of dark lines, a negative network one of light lines around dark patches. Globules are
  round and dark, milia-like cysts round and whitish. Streaks are dark lines that run outwards at the lesion's edge.
- The official J and Dice add up the pixels of each image, as shares of it, over all images. The micro-average, by which
  the challenge ranks, adds them up over the structures, too. The last two rows count images with any structure.
- J an image is the mean of the images in which the structure is or was found.
- The AUC says how often an image with the structure has a higher probability somewhere than one without it."""


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
        lines.append(
            [title_of(structure), str(row["images_with_it"]), official, f"{row['dice']:.3f}", image_jaccard, auc]
        )
    note = (
        f"`{checkpoint.name}`, {row['images']} images of the test split (seed {row['split_seed']}) of {row['data']}, "
        f"ISIC 2018 Task 2; input {row['image_size']}. Weights `{row['weights']}`, {row['date']}, commit "
        f"`{row['commit']}`, {row['hardware']}; {NUM_RESAMPLES:,} bootstrap resamples over the images."
    )
    header = "structure | images with it | official J [95 %] | official Dice | J an image | present: AUC [95 %]"
    return f"{note}\n\n{to_table(header, lines)}\n\n{DEFINITIONS}\n\n{presence_sentence(rows)}"


def presence_sentence(rows: pd.DataFrame) -> str:
    """Of which structures the highest probability in an image tells whether they are there, by the intervals."""
    lowest = rows.loc[list(STRUCTURES), "auc_low"]
    fair, by_chance = (listed(lowest.index[is_so]) for is_so in (lowest >= FAIR_AUC, lowest <= CHANCE))
    sentences = []
    if fair:
        sentences.append(
            f"The highest probability in an image tells fairly well whether {fair} are there: the interval of the AUC "
            f"lies above {FAIR_AUC}."
        )
    if by_chance:
        sentences.append(f"Whether {by_chance} are there is not told better than by chance.")
    return " ".join(sentences)


def listed(structures: Iterable[str]) -> str:
    *others, last = [title_of(name) for name in structures] or [""]
    return f"{', '.join(others)} and {last}" if others else last


def expected_sentence(results: Path, checkpoint: Path) -> str:
    """How far the expected J of structures is from the real one on validation; "" where nothing is calibrated."""
    rows = find_rows(
        read_results(results / "label_thresholds.csv", missing_ok=True), weights=weights_digest(checkpoint)
    )
    if rows.empty:
        return ""
    errors = rows.drop_duplicates("label", keep="last")["jaccard_error"]
    return (
        f"The expected J of a structure's mask says little: on {rows.iloc[-1]['images']} validation images it is "
        f"{errors.min():.2f} to {errors.max():.2f} off, as a root mean square."
    )


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
        f"{title_of(name)}, in {rows.loc[name, 'images_with_it']} of {rows.loc[name, 'images']}" for name in STRUCTURES
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
