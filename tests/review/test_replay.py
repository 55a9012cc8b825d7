"""A review played on true masks, and `scripts/review.py`."""

import csv
import runpy
import sys
from itertools import permutations

import numpy as np
import pytest
from conftest import REPOSITORY

from efp_hf.data.folders import load_isic
from efp_hf.inference.correction import Correction
from efp_hf.metrics.correction import click_scores, number_of_clicks
from efp_hf.metrics.evaluation import truth_mask
from efp_hf.review.replay import SHARES, replay, review_curve

ROWS = [
    {"expected_jaccard": expected, "before": before, "after": after, "clicks": clicks, "seconds": 0.5}
    for expected, before, after, clicks in [
        (0.9, 0.9, 0.9, 0),
        (0.2, 0.1, 0.9, 4),
        (0.8, 0.8, 0.85, 1),
        (0.5, 0.6, 0.6, 9),
    ]
]


def test_worst_first_counts_the_reviewed_at_their_new_jaccard():
    points = {point["share"]: point for point in review_curve(ROWS, "worst first")}
    assert points[0]["jaccard"] == (0.9 + 0.1 + 0.8 + 0.6) / 4 and points[0]["failure_rate"] == 2 / 4
    assert points[0.3]["reviewed"] == 1 and points[0.3]["jaccard"] == (0.9 + 0.9 + 0.8 + 0.6) / 4
    assert (points[0.5]["clicks"], points[0.5]["seconds"], points[0.5]["failure_rate"]) == (13, 1, 1 / 4)
    assert points[1]["jaccard"] == round((0.9 + 0.9 + 0.85 + 0.6) / 4, 4)


def test_random_order_is_the_mean_over_all_orders():
    two = [
        np.mean([row["after"] if n in first[:2] else row["before"] for n, row in enumerate(ROWS)])
        for first in permutations(range(4))
    ]
    points = {point["share"]: point for point in review_curve(ROWS, "random")}
    assert points[0.5]["jaccard"] == pytest.approx(np.mean(two), abs=1e-4) and points[0.5]["clicks"] == 7
    assert points[0]["jaccard"] == 0.6 and points[1]["failure_rate"] == 1 / 4


def test_clicks_end_when_the_mask_is_good_enough(synthetic_root, prompted):
    dataset = load_isic(synthetic_root)["validation"]
    rows = list(replay(dataset, *prompted, target=0.5))
    for row, played in zip(dataset, rows, strict=True):
        jaccards, _ = click_scores(Correction(row["image"], *prompted), truth_mask(row)).T
        clicks = 0 if jaccards[0] >= 0.5 else number_of_clicks(jaccards, 0.5)
        assert (played["clicks"], played["before"], played["after"]) == (clicks, jaccards[0], jaccards[clicks])
        assert played["seconds"] > 0 and 0 < played["expected_jaccard"] < 1
    easy = list(replay(dataset, *prompted, target=1e-9, seed=0))
    assert all(played["clicks"] == 0 for played in easy if played["before"] > 0)


def run_script(monkeypatch, *arguments):
    script = REPOSITORY / "scripts" / "review.py"
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
    runpy.run_path(str(script), run_name="__main__")


def test_script_appends_a_row_a_share_of_both_orders(
    monkeypatch, synthetic_root, prompted_checkpoint, tmp_path, capsys
):
    options = ["--data", synthetic_root, "--split", "validation", "--results", tmp_path, "--target", "0.5"]
    run_script(monkeypatch, *options, "--checkpoint", prompted_checkpoint)
    with (tmp_path / "review.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["order"], float(row["share"])) for row in rows] == [
        (order, share) for order in ("worst first", "random") for share in SHARES
    ]
    assert (
        rows[0]["jaccard"] == rows[len(SHARES)]["jaccard"] and rows[-1]["jaccard"] == rows[len(SHARES) - 1]["jaccard"]
    )
    assert rows[0]["clicks_lie"] == "middle" and float(rows[0]["target"]) == 0.5
    assert "s an image" in capsys.readouterr().out


def test_script_refuses_a_checkpoint_without_prompts(monkeypatch, synthetic_root, tiny_checkpoint, tmp_path):
    with pytest.raises(SystemExit, match="takes no clicks. Choose one trained with `efp train --prompts`."):
        run_script(monkeypatch, "--data", synthetic_root, "--checkpoint", tiny_checkpoint, "--results", tmp_path)
    assert not list(tmp_path.iterdir())
