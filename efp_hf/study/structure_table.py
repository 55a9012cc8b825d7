"""The table of dermoscopic structures, of the rows that `efp score --task structures` writes."""

from pathlib import Path

import pandas as pd

from ..inference.checkpoint import weights_digest
from .tables import find_rows, read_results, to_table


def structures_block(results: Path, checkpoint: Path) -> str:
    """
    The newest scores of the test split: of these very weights, or, where they have none, of the checkpoint that was
    trained for structures, which is named. "" where no row is there.
    """
    rows = find_rows(read_results(results / "structure_scores.csv", missing_ok=True), split="test")
    own = find_rows(rows, weights=weights_digest(checkpoint))
    rows = own if len(own) else rows
    if rows.empty:
        return ""
    last = rows.iloc[-1]
    rows = find_rows(rows, weights=last["weights"], scored=last["scored"]).drop_duplicates("structure", keep="last")
    lines = [
        [
            row.structure,
            str(row.images_with_it),
            with_interval(row.jaccard, row.jaccard_low, row.jaccard_high),
            f"{row.dice:.3f}",
            f"{row.image_jaccard:.3f}" if pd.notna(row.image_jaccard) else "–",
            with_interval(row.auc, row.auc_low, row.auc_high),
        ]
        for row in rows.itertuples()
    ]
    header = "structure | images with it | official J [95 %] | official Dice | J an image | present: AUC [95 %]"
    note = (
        f"{last['images']} images of the {last['split']} split of {last['data']}, ISIC 2018 Task 2, by "
        f"`{last['scored']}`. Weights `{last['weights']}`, {last['date']}, commit `{last['commit']}`, "
        f"{last['hardware']}."
    )
    return f"{note}\n\n{to_table(header, lines)}"


def with_interval(value: float, low: float, high: float) -> str:
    return "–" if pd.isna(value) else f"{value:.3f} [{low:.3f} … {high:.3f}]"
