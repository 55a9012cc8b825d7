"""What a review played on true masks brings: the test images, worst first and in random order."""

from pathlib import Path

from ..inference.checkpoint import weights_digest
from .tables import find_rows, read_results, to_table

SHARES = {0.0: "none", 0.1: "10 %", 0.2: "20 %", 0.5: "50 %", 1.0: "all"}


def review_block(results: Path, checkpoint: Path) -> str:
    """Clicks an image, and J and failures of the folder after each of `SHARES`, of the newest rows."""
    rows = find_rows(
        read_results(results / "review.csv", missing_ok=True),
        weights=weights_digest(checkpoint),
        split="test",
        clicks_lie="middle",
    )
    if rows.empty:
        return "Nothing is measured yet: `python scripts/review.py --data ISIC_FOLDER`."
    newest = rows.drop_duplicates(["order", "share"], keep="last").set_index(["order", "share"])
    row = newest.iloc[-1]
    note = (
        f"Measured on the {row['images']} images of the test split of {row['data']} with `{checkpoint.name}`, by a "
        f"script that clicks into the middle of the largest error. An image takes {row['clicks_an_image']:.1f} clicks "
        f"in the mean until its mask has J {row['target']}. The script stops after 20 clicks: {1 - row['reached']:.0%} "
        "of the masks were then still below."
    )
    lines = []
    for share, words in SHARES.items():
        worst, random = newest.loc[("worst first", share)], newest.loc[("random", share)]
        jaccards = [f"{order['jaccard']:.3f}" for order in (worst, random)]
        lines.append([words, *jaccards, *(f"{order['failure_rate']:.1%}" for order in (worst, random))])
    header = "reviewed | J, worst first | J, random order | failures, worst first | failures, random order"
    return f"{note}\n\nThe mean J of the folder rises as images are reviewed:\n\n{to_table(header, lines)}"
