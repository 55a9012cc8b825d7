"""Counts of hostile trials go to the CSV file that `--record` names."""

import time

import pytest

from efp_hf.metrics.rows import append_row, provenance


@pytest.fixture
def record_counts(request):
    """
    `record_counts(part, tried, held, **notes)` appends a row of what was tried and what held to the file of
    `--record`; without the option it does nothing. The seconds are those since the test began.
    """
    start = time.perf_counter()

    def record(part: str, tried: int, held: int, **notes) -> None:
        path = request.config.getoption("--record")
        if path:
            row = {
                "part": part,
                "tried": tried,
                "held": held,
                "seconds": round(time.perf_counter() - start, 1),
                "notes": "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in notes.items()),
            }
            append_row(path, {**row, **provenance()})

    return record
