"""The table of hostile trials: what the tests under tests/hostile tried, and what held."""

from pathlib import Path

from .tables import read_results, to_table


def trials_table(results: Path) -> str:
    """A row a part with its newest counts, sorted by name."""
    rows = read_results(results / "hostile.csv").drop_duplicates("part", keep="last").sort_values("part")
    lines = [
        [row.part, f"{row.tried:,}", f"{row.held:,}", "" if isinstance(row.notes, float) else row.notes]
        for row in rows.itertuples()
    ]
    return to_table("part | tried | held | counted beside it", lines)
