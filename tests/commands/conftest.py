import csv
from dataclasses import dataclass

import pytest

from efp_hf.__main__ import main


@dataclass
class Ran:
    """What a command gave back and printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def efp(monkeypatch, tmp_path, capsys):
    """Runs `efp …` in `tmp_path`, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Ran(code, printed.out, printed.err)

    return run


@pytest.fixture
def rows_of():
    def read(path) -> list[dict]:
        with open(path, newline="") as file:
            return list(csv.DictReader(file))

    return read
