"""The commands of `examples/first_hour.py`, which `.ci/wheel` runs, and the page about them."""

import csv
import runpy
import shlex
from unittest.mock import patch

import pytest
from conftest import REPOSITORY

from efp_hf.__main__ import main
from efp_hf.study.first_hour_table import first_hour_table

SCRIPT = runpy.run_path(str(REPOSITORY / "examples" / "first_hour.py"), run_name="first_hour")
STEPS, Step, seconds_of = (SCRIPT[name] for name in ("STEPS", "Step", "seconds_of"))


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_each_command_is_one_that_efp_has(step):
    program, name, *arguments = shlex.split(step.command)
    if program == "efp":
        with patch(f"efp_hf.commands.{name}.run", return_value=0):
            assert main([name, *arguments]) == 0
    else:
        assert (program, name, arguments[0]) == ("python", "-m", "efp_hf.data.synthetic")


def test_page_has_the_commands_of_the_script():
    page = (REPOSITORY / "docs" / "first-hour.md").read_text()
    assert [step.command for step in STEPS if step.command not in page] == []


def test_recorded_steps_are_those_of_the_script():
    with (REPOSITORY / "results" / "first_hour.csv").open(newline="") as file:
        recorded = {row["step"]: (row["run"], row["makes"]) for row in csv.DictReader(file)}
    assert recorded == {step.name: (step.command, step.makes) for step in STEPS}
    table = first_hour_table(REPOSITORY / "results")
    assert table in (REPOSITORY / "docs" / "first-hour.md").read_text() and all(
        f"| {step} |" in table for step in recorded
    )


def test_a_step_that_makes_nothing_is_an_error(tmp_path):
    seconds, used = seconds_of(Step("", "python -c \"open('made', 'w')\"", "made"), tmp_path)
    assert 0 < seconds and 0 <= used
    with pytest.raises(RuntimeError, match="other must be there afterwards"):
        seconds_of(Step("", "python -c pass", "other"), tmp_path)
    with pytest.raises(RuntimeError, match="ended with 3"):
        seconds_of(Step("", "python -c 'raise SystemExit(3)'", "made"), tmp_path)
