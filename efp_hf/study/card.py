"""Numbers of `results/` into the model card and the README."""

import re
from pathlib import Path

from ..inference.checkpoint import weights_digest
from ..metrics.rows import read_rows

LABELS = {
    "jaccard": "Jaccard (J)",
    "threshold_jaccard": "threshold Jaccard (TJ, the challenge's ranking)",
    "dice": "Dice",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "pixel accuracy",
    "pooled_iou": "lesion IoU, pooled over all pixels",
    "pooled_dice": "lesion Dice, pooled over all pixels",
    "pooled_mean_iou": "mean IoU of the two classes, pooled",
    "hd95": "HD95, share of the image's diagonal (lower is better)",
    "boundary_f1": "boundary F1",
    "failure_rate": "failures: share of images with J < 0.65 (lower is better)",
    "worst_decile_jaccard": "mean J of the worst tenth",
}


def rows_of(checkpoint: str | Path, rows: list[dict[str, str]], split: str) -> list[dict[str, str]]:
    """Those that are about these very weights on a split."""
    digest = weights_digest(checkpoint)
    return [row for row in rows if row["weights"] == digest and row["split"] == split]


def trust_sentence(row: dict[str, str]) -> str:
    """What a row of `results/trust.csv` says of the expected Jaccard, in a sentence."""
    return (
        f"On the {row['images']} images of the {row['split']} split, its rank correlation with the real Jaccard is "
        f"{float(row['rank_correlation']):.2f}, and a low one finds the {row['failures']} failures (J < 0.65) with an "
        f"area under the curve of {float(row['failure_auc']):.2f}; in the mean {float(row['mean_expected']):.2f} is "
        f"expected and {float(row['mean_real']):.2f} is real."
        + (
            f" The probabilities' expected calibration error is {float(row['calibration_error']):.3f} over all pixels "
            f"and {float(row['border_calibration_error']):.3f} over those near the true borders."
            if row["calibration_error"]
            else ""
        )
    )


def newest_score(results: Path, checkpoint: Path, split: str = "test") -> dict[str, str]:
    """
    The newest row of `results/scores.csv` about these very weights.

    Raises:
        ValueError: there is none.
    """
    rows = rows_of(checkpoint, read_rows(results), split)
    if not rows:
        raise ValueError(
            f"{results}: no row of the {split} split for {checkpoint} ({weights_digest(checkpoint)}). "
            "Run scripts/score.py."
        )
    return rows[-1]


def to_table(header: str, lines: list[list[str]]) -> str:
    """A Markdown table; `header` without its outer bars."""
    rule = "|".join("---" for _ in header.split("|"))
    return "\n".join([f"| {header} |", f"|{rule}|", *(f"| {' | '.join(line)} |" for line in lines)])


def score_table(row: dict[str, str]) -> str:
    """A Markdown table of a row: each score with its 95 % interval where it has one."""
    lines = []
    for name, label in LABELS.items():
        interval = f"{float(row[f'{name}_low']):.3f} – {float(row[f'{name}_high']):.3f}" if f"{name}_low" in row else ""
        lines.append([label, f"{float(row[name]):.3f}", interval])
    note = (
        f"{row['images']} images of the {row['split']} split (seed {row['split_seed']}) of {row['data']}, each at its "
        f"mask's own size; input {row['image_size']}, threshold {row['threshold']}, largest region only: "
        f"{'yes' if row['largest_region'] == 'True' else 'no'}. Weights `{row['weights']}`, {row['date']}, "
        f"commit `{row['commit']}`, {row['hardware']}; 10,000 bootstrap resamples over the images."
    )
    return f"{to_table('score | value | 95 % interval', lines)}\n\n{note}"


def fill(text: str, blocks: dict[str, str]) -> str:
    """
    `text` with each block between `<!-- name -->` and `<!-- /name -->` replaced.

    Raises:
        ValueError: a block that the text does not have.
    """
    for name, block in blocks.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"The text must have the lines <!-- {name} --> and <!-- /{name} -->.")
        text = pattern.sub(lambda found, block=block: f"{found[1]}{block}\n{found[2]}", text)
    return text
