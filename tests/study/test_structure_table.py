"""Table and figure of the structures, from rows as `efp score --task structures` writes them."""

import pandas as pd
import pytest

from efp_hf.inference.checkpoint import weights_digest
from efp_hf.lesion.structures import STRUCTURES
from efp_hf.metrics.card import LABEL_SCORES
from efp_hf.metrics.classes import MEAN_OF_LABELS, MICRO
from efp_hf.metrics.rows import append_row
from efp_hf.study.structure_table import (
    DEFINITIONS,
    expected_sentence,
    presence_sentence,
    structure_figure,
    structures_block,
)


@pytest.fixture
def results(tmp_path):
    """Rows of three runs: of other weights, and of these twice."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    row = {"images": 40, "split": "test", "data": "isic", "split_seed": 0, "image_size": "256x256", "date": "today"}
    row |= {"commit": "abc", "hardware": "a processor"}
    for weights, jaccard in (("other", 0.9), (weights_digest(tmp_path), 0.1), (weights_digest(tmp_path), 0.3)):
        for number, structure in enumerate((*STRUCTURES, MICRO, MEAN_OF_LABELS)):
            auc = "" if structure == MICRO else 0.8
            values = {"jaccard": jaccard + number / 100, "dice": 0.5, "image_jaccard": 0.2, "auc": auc}
            intervals = {f"{name}_{end}": values[name] for name in values for end in ("low", "high")}
            of_one = {"label": structure, "images_with_it": number + 1, "weights": weights}
            append_row(tmp_path / LABEL_SCORES, row | of_one | values | intervals)
    return tmp_path


def test_newest_rows_of_these_weights_are_shown(results):
    lines = structures_block(results, results).splitlines()
    assert lines[4] == "| globules | 1 | 0.300 [0.300 … 0.300] | 0.500 | 0.200 | 0.800 [0.800 … 0.800] |"
    assert lines[9] == "| micro-average | 6 | 0.350 [0.350 … 0.350] | 0.500 | 0.200 | – |"
    assert len(lines) == 2 + len(STRUCTURES) + 2 + 2 + len(DEFINITIONS.splitlines()) + 3
    assert lines[-1].startswith(
        "The highest probability in an image tells fairly well whether globules, milia-like cysts,"
    )
    assert expected_sentence(results, results) == ""
    for error, weights in ((0.9, "other"), (0.1, weights_digest(results)), (0.3, weights_digest(results))):
        row = {"images": 40, "weights": weights, "label": f"of {error}", "jaccard_error": error}
        append_row(results / "label_thresholds.csv", row)
    assert "on 40 validation images it is 0.10 to 0.30 off" in expected_sentence(results, results)
    figure = structure_figure(results, results)
    assert [bar.get_xdata()[0] for bar in figure.axes[0].lines[::3]] == pytest.approx(
        [0.3, 0.31, 0.32, 0.33, 0.34, 0.35]
    )


def test_structures_whose_presence_is_told_by_chance_are_named(results):
    rows = pd.DataFrame({"auc_low": [0.71, 0.5, 0.6, 0.7, 0.69]}, index=list(STRUCTURES))
    fair, by_chance = presence_sentence(rows).split(" Whether ")
    assert "whether globules and pigment network are there" in fair and by_chance.startswith("milia-like cysts are")


def test_weights_that_were_not_scored_have_no_table_and_the_figure_names_them(results):
    (results / "model.safetensors").write_bytes(b"others")
    assert structures_block(results, results) == ""
    with pytest.raises(FileNotFoundError, match=r"no row about .* Run `efp score --data ISIC_FOLDER --task structures"):
        structure_figure(results, results)
