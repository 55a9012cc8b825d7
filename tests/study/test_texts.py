import json

import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY

from efp_hf.inference.checkpoint import LESION_CHECKPOINTS, SHIPPED, weights_digest
from efp_hf.metrics.card import LABELS
from efp_hf.metrics.rows import append_row
from efp_hf.study.checkpoint_tables import score_table
from efp_hf.study.tables import last_row_about, read_results
from efp_hf.study.texts import fill, filled_texts

RESULTS = REPOSITORY / "results"
ROW = {
    **{name: 0.5 for name in LABELS},
    **{"jaccard": 0.8214, "jaccard_low": 0.80961, "jaccard_high": 0.83349},
    **{"images": 519, "split": "test", "split_seed": 0, "data": "isic2018", "image_size": "256x256"},
    **{"threshold": 0.5, "largest_region": True, "weights": "", "date": "", "commit": "", "hardware": ""},
}


def test_table_has_each_score_with_its_interval():
    table = score_table(pd.Series(ROW))
    assert "| Jaccard (J) | 0.821 | 0.810 – 0.833 |" in table
    assert "| pixel accuracy | 0.500 |  |" in table
    assert "519 images of the test split" in table and "largest region only: yes" in table
    assert "largest region only: no" in score_table(pd.Series({**ROW, "largest_region": False}))


def test_newest_row_of_the_same_weights_and_split_is_taken(tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    digest = weights_digest(checkpoint)
    for weights, split, value in [(digest, "test", 1), (digest, "test", 2), (digest, "train", 3), ("other", "test", 4)]:
        append_row(tmp_path / "scores.csv", {"weights": weights, "split": split, "jaccard": value})
    assert last_row_about(tmp_path / "scores.csv", checkpoint)["jaccard"] == 2
    (checkpoint / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ValueError, match="no row of the test split"):
        last_row_about(tmp_path / "scores.csv", checkpoint)


def test_names_of_digits_stay_text_and_empty_ones_stay_empty(tmp_path):
    rows = [("0123456789", "", 1.5), ("12e4567890", "", ""), ("abc", "384", 2)]
    for commit, variant, value in rows:
        append_row(tmp_path / "rows.csv", {"commit": commit, "variant": variant, "jaccard": value})
    frame = read_results(tmp_path / "rows.csv")
    assert frame["commit"].tolist() == ["0123456789", "12e4567890", "abc"] and frame["variant"].tolist() == [
        "",
        "",
        "384",
    ]
    assert frame["jaccard"].isna().tolist() == [False, True, False] and frame["jaccard"].sum() == 3.5


def test_block_is_replaced_and_nothing_else():
    text = "before\n<!-- scores -->\nold\n<!-- /scores -->\nafter\n"
    new = "before\n<!-- scores -->\nnew\n<!-- /scores -->\nafter\n"
    assert fill(text, {"scores": "new", "figure": "none here"}) == new == fill(new, {"scores": "new"})
    with pytest.raises(ValueError, match="must have the line <!-- /scores -->"):
        fill(text.replace("/scores", "/skores"), {"scores": "new"})


@pytest.fixture(scope="module")
def texts():
    return filled_texts(REPOSITORY, RESULTS)


@pytest.mark.slow
def test_printed_numbers_are_those_of_the_results(texts):
    assert [str(path.relative_to(REPOSITORY)) for path, text in texts.items() if path.read_text() != text] == []
    blocks = {
        "README.md": ("results", "checkpoints-short", "speed-short"),
        "docs/trust.md": ("groups",),
        "docs/study.md": (
            *("pretrained", "scratch", "ablation", "speed", "robustness", "checkpoints", "scores", "trust"),
        ),
    }
    for name, wanted in blocks.items():
        assert all(f"<!-- {block} -->\n" in texts[REPOSITORY / name] for block in wanted), name


@pytest.mark.slow
@pytest.mark.parametrize("name", LESION_CHECKPOINTS)
def test_card_of_a_checkpoint_is_about_it(name, texts):
    card = texts[SHIPPED / name / "README.md"]
    assert f'load_checkpoint("{name}")' in card and weights_digest(name) in card
    (others,) = set(LESION_CHECKPOINTS) - {name}
    assert weights_digest(others) not in card and f'"{others}"' not in card


@pytest.mark.slow
@pytest.mark.parametrize("name", LESION_CHECKPOINTS)
def test_metadata_of_a_card_has_the_newest_scores(name, texts):
    (model,) = yaml.safe_load(texts[SHIPPED / name / "README.md"].split("---\n")[1])["model-index"]
    (result,) = model["results"]
    assert model["name"] == name and result["dataset"]["split"] == "test"
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    score, trust = (last_row_about(RESULTS / file, SHIPPED / name) for file in ("scores.csv", "trust.csv"))
    assert values == {
        **{metric: score[metric] for metric in ("jaccard", "threshold_jaccard", "dice")},
        "expected_jaccard_mean": trust["mean_expected"],
        "expected_jaccard_rank_correlation": trust["rank_correlation"],
        "failure_auc": trust["failure_auc"],
        "failures": trust["failures"],
        "images": score["images"],
    }
    assert values["failures"] == round(score["failure_rate"] * score["images"])


@pytest.mark.parametrize("checkpoint", LESION_CHECKPOINTS)
@pytest.mark.parametrize("name", ["scores.csv", "trust.csv", "robustness.csv"])
def test_newest_rows_are_about_the_settings_of_the_checkpoint(name, checkpoint):
    processor = json.loads((SHIPPED / checkpoint / "preprocessor_config.json").read_text())
    row = last_row_about(RESULTS / name, SHIPPED / checkpoint)
    assert row["threshold"] == processor["threshold"]
    assert row["image_size"] == f"{processor['size']['height']}x{processor['size']['width']}"
    if name != "scores.csv":
        config = json.loads((SHIPPED / checkpoint / "config.json").read_text())
        assert row["temperature"] == config["temperature"]
        assert row["jaccard_temperature"] == processor["jaccard_temperature"]
