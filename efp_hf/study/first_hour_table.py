"""How long the steps of `examples/first_hour.py` took, and their commands."""

from pathlib import Path

from .tables import read_results, to_table

UNTRIED = "<!-- parsed only: CI runs them with the wheel -->"  # the tests of the pages read the commands alone


def first_hour_block(results: Path) -> str:
    """The newest row of each step: a table of times, and a block of the commands in their order."""
    rows = read_results(results / "first_hour.csv", missing_ok=True)
    if rows.empty:
        return "Nothing is measured yet: `python examples/first_hour.py FOLDER --record results/first_hour.csv`."
    rows = rows.drop_duplicates("step", keep="last")
    lines = [
        [row.step, f"`{row.makes}`", f"{row.processor_seconds:.0f}", f"{row.seconds:.0f}"] for row in rows.itertuples()
    ]
    row, total = rows.iloc[-1], rows["processor_seconds"].sum()
    note = (
        f"Measured on {row['hardware']}, {row['date']}, commit `{row['commit']}`: {total / 60:.1f} minutes of a "
        'processor in all. "Seconds" are those of the clock, and count what else the machine did.'
    )
    table = to_table("step | makes | seconds of a processor | seconds", lines)
    commands = "\n".join(f"{row.run}" for row in rows.itertuples())
    return f"{UNTRIED}\n```bash\n{commands}\n```\n\n{table}\n\n{note}"
