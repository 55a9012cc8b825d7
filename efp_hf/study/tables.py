"""Rows of `results/` as data frames, and a Markdown table."""

from pathlib import Path

import pandas as pd

from ..inference.checkpoint import weights_digest

# Digits may be all that they are made of; where they are empty, they are ""
TEXT_COLUMNS = ("commit", "weights", "variant", "image_id", "started", "note", "instruction_set")


def read_results(path: Path, missing_ok: bool = False) -> pd.DataFrame:
    """The rows of a CSV file, an empty number as NaN; with `missing_ok` no row and no column where there is no file."""
    if missing_ok and not path.is_file():
        return pd.DataFrame()
    frame = pd.read_csv(path, dtype=dict.fromkeys(TEXT_COLUMNS, str))
    text = [name for name in TEXT_COLUMNS if name in frame]
    return frame.fillna(dict.fromkeys(text, ""))


def find_rows(frame: pd.DataFrame, **wanted) -> pd.DataFrame:
    """The rows that have these values; none of an empty frame."""
    for name, value in wanted.items():
        frame = frame[frame[name] == value] if len(frame) else frame
    return frame


def last_row_about(path: Path, checkpoint: str | Path, split: str = "test") -> pd.Series:
    """
    The last row about these very weights on a split.

    Raises:
        ValueError: there is none.
    """
    rows = find_rows(read_results(path), weights=weights_digest(checkpoint), split=split)
    if rows.empty:
        raise ValueError(
            f"{path}: no row of the {split} split for {checkpoint} ({weights_digest(checkpoint)}). Measure it: "
            f"{path.parent / 'README.md'} says by which command."
        )
    return rows.iloc[-1]


def to_table(header: str, lines: list[list[str]]) -> str:
    """A Markdown table; `header` without its outer bars."""
    rule = "|".join("---" for _ in header.split("|"))
    return "\n".join([f"| {header} |", f"|{rule}|", *(f"| {' | '.join(line)} |" for line in lines)])
