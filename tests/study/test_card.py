import json
import runpy

import pytest
from conftest import REPOSITORY

from efp_hf.inference.checkpoint import weights_digest
from efp_hf.metrics.rows import append_row
from efp_hf.study.card import LABELS, fill, newest_score, score_table

CHECKPOINT = REPOSITORY / "efp_hf" / "checkpoints" / "efp-isic"
CHECKPOINTS = sorted((REPOSITORY / "efp_hf" / "checkpoints").glob("*/"))

ROW = {
    **{name: "0.5" for name in LABELS},
    **{"jaccard": "0.8214", "jaccard_low": "0.80961", "jaccard_high": "0.83349"},
    **{"images": "519", "split": "test", "split_seed": "0", "data": "isic2018", "image_size": "256x256"},
    **{"threshold": "0.5", "largest_region": "True", "weights": "", "date": "", "commit": "", "hardware": ""},
}


def test_table_has_each_score_with_its_interval():
    table = score_table(ROW)
    assert "| Jaccard (J) | 0.821 | 0.810 – 0.833 |" in table
    assert "| pixel accuracy | 0.500 |  |" in table
    assert "519 images of the test split" in table and "largest region only: yes" in table


def test_newest_row_of_the_same_weights_and_split_is_taken(tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    digest = weights_digest(checkpoint)
    for weights, split, value in [(digest, "test", 1), (digest, "test", 2), (digest, "train", 3), ("other", "test", 4)]:
        append_row(tmp_path / "scores.csv", {"weights": weights, "split": split, "jaccard": value})
    assert newest_score(tmp_path / "scores.csv", checkpoint)["jaccard"] == "2"
    (checkpoint / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ValueError, match="no row of the test split"):
        newest_score(tmp_path / "scores.csv", checkpoint)


def test_block_is_replaced_and_nothing_else():
    text = "before\n<!-- scores -->\nold\n<!-- /scores -->\nafter\n"
    assert fill(text, {"scores": "new"}) == "before\n<!-- scores -->\nnew\n<!-- /scores -->\nafter\n"
    with pytest.raises(ValueError, match="must have the lines <!-- figure -->"):
        fill(text, {"figure": "new"})


@pytest.mark.skipif(not CHECKPOINT.is_dir(), reason="no checkpoint in this clone")
@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.name)
def test_card_of_a_checkpoint_is_the_model_card_with_its_own_numbers(checkpoint):
    card = (REPOSITORY / "model_card.md").read_text()
    written = (checkpoint / "README.md").read_text()
    assert written == runpy.run_path(str(REPOSITORY / "scripts" / "write_card.py"))["card_of"](checkpoint, card)
    assert f'checkpoint = "checkpoints/{checkpoint.name}"' in written and weights_digest(checkpoint) in written


@pytest.mark.skipif(not CHECKPOINT.is_dir(), reason="no checkpoint in this clone")
@pytest.mark.parametrize("name", ["README.md", "model_card.md"])
def test_printed_numbers_are_those_of_the_results(name):
    text = (REPOSITORY / name).read_text()
    script = runpy.run_path(str(REPOSITORY / "scripts" / "write_card.py"))
    blocks = script["blocks"]() | script["blocks_of"](CHECKPOINT)
    printed = {block: blocks[block] for block in blocks if f"<!-- {block} -->" in text}
    assert {"scores", "trust", "pretrained", "scratch"} <= set(printed)
    assert fill(text, printed) == text


@pytest.mark.skipif(not CHECKPOINT.is_dir(), reason="no checkpoint in this clone")
@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.name)
@pytest.mark.parametrize("name", ["scores.csv", "trust.csv", "robustness.csv"])
def test_newest_rows_are_about_the_settings_of_the_checkpoint(name, checkpoint):
    processor = json.loads((checkpoint / "preprocessor_config.json").read_text())
    row = newest_score(REPOSITORY / "results" / name, checkpoint)
    assert float(row["threshold"]) == processor["threshold"]
    assert row["image_size"] == f"{processor['size']['height']}x{processor['size']['width']}"
    if name != "scores.csv":
        config = json.loads((checkpoint / "config.json").read_text())
        assert float(row["temperature"]) == config["temperature"]
        assert float(row["jaccard_temperature"]) == processor["jaccard_temperature"]
