"""Tables of the shipped checkpoints: their costs, their scores, how far they can be trusted."""

from pathlib import Path

import pandas as pd

from ..inference.checkpoint import weights_digest
from ..metrics.card import LABELS
from ..metrics.scores import NUM_RESAMPLES
from .cost import checkpoint_costs
from .image_tables import NOT_MEASURED, groups_table, read_images, skin_table
from .prompt_tables import SHORT, prompt_tables, short_cells
from .tables import find_rows, last_row_about, read_results, to_table


def score_table(row: pd.Series) -> str:
    """A Markdown table of a row of `scores.csv`: each score with its 95 % interval where it has one."""
    lines = []
    for name, label in LABELS.items():
        interval = f"{row[f'{name}_low']:.3f} – {row[f'{name}_high']:.3f}" if f"{name}_low" in row else ""
        lines.append([label, f"{row[name]:.3f}", interval])
    note = (
        f"{row['images']} images of the {row['split']} split (seed {row['split_seed']}) of {row['data']}, each at its "
        f"mask's own size; input {row['image_size']}, threshold {row['threshold']}, largest region only: "
        f"{'yes' if row['largest_region'] else 'no'}. Weights `{row['weights']}`, {row['date']}, "
        f"commit `{row['commit']}`, {row['hardware']}; {NUM_RESAMPLES:,} bootstrap resamples over the images."
    )
    return f"{to_table('score | value | 95 % interval', lines)}\n\n{note}"


def trust_sentence(row: pd.Series) -> str:
    """What a row of `trust.csv` says of the expected Jaccard and of the probabilities."""
    return (
        f"On the {row['images']} images of the {row['split']} split, its rank correlation with the real Jaccard is "
        f"{row['rank_correlation']:.2f}, and a low one finds the {row['failures']} failures (J < 0.65) with an "
        f"area under the curve of {row['failure_auc']:.2f}; in the mean {row['mean_expected']:.2f} is "
        f"expected and {row['mean_real']:.2f} is real. The probabilities' expected calibration error is "
        f"{row['calibration_error']:.3f} over all pixels and {row['border_calibration_error']:.3f} over those near the "
        "true borders."
    )


def robustness_table(results: Path, checkpoint: Path, split: str = "test") -> str:
    """Scores of a checkpoint under each change of light, camera and file, from the newest run of the script."""
    measured = read_results(results / "robustness.csv", missing_ok=True)
    rows = find_rows(measured, weights=weights_digest(checkpoint), split=split)
    if rows.empty:
        return "Nothing is measured yet: `python scripts/measure.py robustness`."
    rows = rows.drop_duplicates("change", keep="last")
    lines = [
        [
            row.change,
            *(f"{score:.3f}" for score in (row.jaccard, row.threshold_jaccard, row.dice)),
            f"{row.failure_rate:.1%}",
            f"{row.expected_jaccard:.3f}",
        ]
        for row in rows.itertuples()
    ]
    return to_table("change | J | TJ | Dice | failures | expected J", lines)


def megabytes(checkpoint: Path) -> str:
    return f"{(checkpoint / 'model.safetensors').stat().st_size / 1e6:.1f}"


def checkpoints_table(results: Path, checkpoints: tuple[Path, ...]) -> str:
    """A line a checkpoint: its costs, and its scores on the test split."""
    exported = read_results(results / "runtimes.csv")
    quantized = exported[exported["exported"].str.endswith("int8")]
    lines = []
    for checkpoint in checkpoints:
        score, trust = (last_row_about(results / name, checkpoint) for name in ("scores.csv", "trust.csv"))
        int8 = find_rows(quantized, weights=weights_digest(checkpoint))["megabytes"]
        lines.append(
            [
                f"`{checkpoint.name}`",
                *checkpoint_costs(checkpoint),
                megabytes(checkpoint),
                f"{int8.min():.1f}" if len(int8) else "–",
                *(f"{score[name]:.3f}" for name in ("jaccard", "threshold_jaccard", "dice", "pooled_mean_iou")),
                f"{score['failure_rate']:.1%}",
                f"{trust['border_calibration_error']:.3f}",
            ]
        )
    header = (
        "checkpoint | parameters | multiply-adds | MB | MB in int8 | J | TJ | Dice | IoU of two classes | failures | "
        "calibration error near the borders"
    )
    return to_table(header, lines)


def short_checkpoints_table(results: Path, checkpoints: tuple[Path, ...]) -> str:
    """What [`checkpoints_table`] says in six columns, and J with clicks or a box."""
    lines = []
    for checkpoint in checkpoints:
        score = last_row_about(results / "scores.csv", checkpoint)
        scores = [f"{score[name]:.3f}" for name in ("jaccard", "threshold_jaccard", "dice")]
        costs = [checkpoint_costs(checkpoint)[0], megabytes(checkpoint)]
        lines.append([f"`{checkpoint.name}`", *costs, *scores, *short_cells(results, checkpoint)])
    with_prompts = " | ".join(f"J, {given}" for given in SHORT)
    return to_table(f"checkpoint | parameters | MB | J | TJ | Dice | {with_prompts}", lines)


def groups_block(results: Path, checkpoint: Path) -> str:
    """J and failures of the test images with an unusual lesion, and by the colour of the skin."""
    images = read_images(results, checkpoint)
    if images is None:
        return NOT_MEASURED.format(checkpoint.name)
    return f"{groups_table(images)}\n\n{skin_table(images)}"


def checkpoint_blocks(results: Path, checkpoint: Path) -> dict[str, str]:
    """Name → Markdown of what is said of one checkpoint."""
    return {
        "scores": score_table(last_row_about(results / "scores.csv", checkpoint)),
        "clicks": prompt_tables(results, checkpoint),
        "trust": trust_sentence(last_row_about(results / "trust.csv", checkpoint)),
        "robustness": robustness_table(results, checkpoint),
        "groups": groups_block(results, checkpoint),
    }
