import csv
from pathlib import Path

import pytest

from efp_hf.metrics.rows import append_row, provenance, shorten


def test_rows_are_appended_under_one_header(tmp_path):
    path = tmp_path / "results" / "scores.csv"
    for seed in (0, 1):
        append_row(path, {"seed": seed, "jaccard": 0.5 + seed})
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [["seed", "jaccard"], ["0", "0.5"], ["1", "1.5"]]


def test_row_with_other_columns_is_refused_and_nothing_written(tmp_path):
    path = tmp_path / "scores.csv"
    append_row(path, {"seed": 0, "jaccard": 0.5})
    before = path.read_text()
    with pytest.raises(ValueError, match=r"has the columns \['seed', 'jaccard'\], the row \['seed', 'dice'\]"):
        append_row(path, {"seed": 0, "dice": 0.5})
    assert path.read_text() == before


def test_provenance_names_command_versions_and_hardware(monkeypatch):
    monkeypatch.setattr("sys.argv", ["scripts/score.py", "--data", "/somewhere/else/isic2018", "--seed", "3"])
    row = provenance()
    assert row["command"] == "python scripts/score.py --data isic2018 --seed 3"
    assert all(row[name] for name in ("date", "efp_hf", "torch", "transformers", "hardware"))


def test_secrets_are_not_written(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "--hub_token", "hf_1", "--seed", "3", "--token=hf_2", "--key", "hf_3"])
    assert provenance()["command"] == "python train.py --hub_token '***' --seed 3 '--token=***' --key '***'"


def test_paths_of_the_machine_are_not_written():
    assert shorten("/home/somebody/images") == "images"
    assert shorten(str(Path.cwd() / "runs" / "efp")) == "runs/efp"
    assert shorten("checkpoints/efp-isic") == "checkpoints/efp-isic"
