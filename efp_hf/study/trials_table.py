"""The table of hostile trials: what the tests under tests/hostile tried, and what held."""

import re
from pathlib import Path

from .tables import read_results, to_table

ALL_OF_THEM = re.compile(r".*: (\d+) of \1")  # of a note: said by the columns already


def trials_table(results: Path) -> str:
    """A row a part with its newest counts, sorted by name."""
    rows = read_results(results / "hostile.csv").drop_duplicates("part", keep="last").sort_values("part")
    lines = []
    for row in rows.fillna({"notes": ""}).itertuples():
        notes = [note for note in row.notes.split("; ") if not ALL_OF_THEM.fullmatch(note)]
        lines.append([row.part, f"{row.tried:,}", f"{row.held:,}", ", ".join(notes)])
    return to_table("part | tried | held | counted beside it", lines)
