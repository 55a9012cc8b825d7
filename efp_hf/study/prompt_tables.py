"""Tables of what clicks and boxes bring: the shipped checkpoints, GrabCut beside them, and what was published."""

from pathlib import Path

import pandas as pd

from ..inference.checkpoint import weights_digest
from .tables import find_rows, read_results, to_table

PUBLISHED = (
    "Published, and not measured here: MedSAM, 94 M parameters, a box a lesion, on 519 images of ISIC 2018. With its "
    "decoder tuned on ISIC 2018 it has Dice 0.941 and IoU 0.892, without tuning Dice 0.900 "
    "([arXiv:2606.18707](https://arxiv.org/abs/2606.18707))."
)

# heading of a short table → what `prompts.csv` calls it
SHORT = {
    "1 click": ("1 clicks", "in the middle"),
    "3 clicks": ("3 clicks", "in the middle"),
    "5 clicks": ("5 clicks", "in the middle"),
    "a box": ("box", "0% off"),
}


def prompts_block(results: Path, checkpoints: tuple[Path, ...]) -> str:
    """What `efp score --prompts` measured of each checkpoint on the test split, and the published peer."""
    return "\n\n".join([*(prompt_tables(results, checkpoint) for checkpoint in checkpoints), PUBLISHED])


def short_cells(results: Path, checkpoint: Path) -> list[str]:
    """J of the test split after each of `SHORT`; a dash where there is no row."""
    rows = newest_rows(results / "prompts.csv", checkpoint, "prompts")
    return ["–" if rows.empty else f"{rows['jaccard'][kind]:.3f}" for kind in SHORT.values()]


def prompt_tables(results: Path, checkpoint: Path) -> str:
    """Scores after clicks and in boxes, and the clicks that a wanted J takes."""
    prompts, clicks = (
        newest_rows(results / f"{name}.csv", checkpoint, key)
        for name, key in (("prompts", "prompts"), ("number_of_clicks", "target"))
    )
    if prompts.empty or clicks.empty:
        return (
            f"`{checkpoint.name}` is not yet measured: "
            f"`efp score --data ISIC_FOLDER --prompts --checkpoint {checkpoint.name}`."
        )
    lines = []
    for (kind, place), row in prompts.drop("anywhere", level="place").iterrows():
        anywhere = prompts["jaccard"].get((kind, "anywhere"))
        lines.append(
            [
                prompt_words(kind, place),
                with_interval(row, "jaccard", 3),
                "–" if pd.isna(row.expected_jaccard) else f"{row.expected_jaccard:.3f}",
                f"{row.dice:.3f}",
                f"{row.failure_rate:.1%}",
                "–" if anywhere is None else f"{anywhere:.3f}",
            ]
        )
    scores = to_table("given | J [95 %] | expected J | Dice | failures | J, clicks anywhere", lines)
    lines = [
        [f"{target:.2f}"]
        + [
            text
            for row in (clicks.loc[(target, place)] for place in ("in the middle", "anywhere"))
            for text in (with_interval(row, "clicks", 2), f"{row.never:.1%}")
        ]
        for target in clicks.index.unique("target")
    ]
    numbers = to_table("J wanted | clicks [95 %] | never | clicks anywhere [95 %] | never", lines)
    row = prompts.iloc[-1]
    note = (
        f"`{checkpoint.name}`, {row['images']} images of the {row['split']} split (seed {row['split_seed']}) of "
        f"{row['data']}, each at its mask's own size; weights `{row['weights']}`, {row['date']}, commit "
        f"`{row['commit']}`, {row['hardware']}."
    )
    return f"{note}\n\n{scores}\n\n{numbers}"


def newest_rows(path: Path, checkpoint: Path, key: str) -> pd.DataFrame:
    """The last row of each `key` and place about these very weights on the test split, by the two of them."""
    rows = find_rows(read_results(path, missing_ok=True), weights=weights_digest(checkpoint), split="test")
    return rows if rows.empty else rows.drop_duplicates([key, "place"], keep="last").set_index([key, "place"])


def prompt_words(kind: str, place: str) -> str:
    """The names of `prompts.csv` as a reader's."""
    if kind.endswith("clicks"):
        return {"0 clicks": "nothing", "1 clicks": "1 click"}.get(kind, kind)
    box = "exact box" if place == "0% off" else f"box up to {place}"
    return f"GrabCut, {box}" if kind.endswith("GrabCut") else box


def with_interval(row: pd.Series, name: str, digits: int) -> str:
    return f"{row[name]:.{digits}f} [{row[f'{name}_low']:.{digits}f} … {row[f'{name}_high']:.{digits}f}]"
