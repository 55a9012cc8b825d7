"""How long the steps of `examples/first_hour.py` took."""

from pathlib import Path

from .tables import read_results, to_table


def first_hour_table(results: Path) -> str:
    """The newest row of each step, in their order, and where they were measured."""
    rows = read_results(results / "first_hour.csv", missing_ok=True)
    if rows.empty:
        return "Nothing is measured yet: `python examples/first_hour.py FOLDER --record results/first_hour.csv`."
    rows = rows.drop_duplicates("step", keep="last")
    lines = [
        [row.step, f"`{row.makes}`", f"{row.processor_seconds:.0f}", f"{row.seconds:.0f}"] for row in rows.itertuples()
    ]
    row, minutes = rows.iloc[-1], rows["processor_seconds"].sum() / 60
    note = (
        f"Measured on {row['hardware']}, {row['date']}, commit `{row['commit']}`: {minutes:.1f} minutes of a processor "
        "in all. The seconds of the clock count what else the machine did."
    )
    return f"{to_table('step | makes | seconds of a processor | seconds of the clock', lines)}\n\n{note}"
