import csv
from dataclasses import dataclass

import pytest
import torch

from efp_hf.__main__ import main
from efp_hf.inference.checkpoint import load_checkpoint
from efp_hf.training.prompts import with_prompt_encoder


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


@pytest.fixture
def prompted_checkpoint(tmp_path, tiny_checkpoint):
    """The tiny checkpoint with prompts that change something."""
    model, processor = load_checkpoint(tiny_checkpoint)
    model = with_prompt_encoder(model)
    for convolution in model.prompt_encoder.after:
        torch.nn.init.normal_(convolution.weight)
    model.save_pretrained(tmp_path / "prompted")
    processor.save_pretrained(tmp_path / "prompted")
    return tmp_path / "prompted"
