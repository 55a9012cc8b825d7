"""The shipped checkpoints' cards."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import REPOSITORY
from safetensors.torch import load_file

from efp_hf.inference.checkpoint import (
    LESION_CHECKPOINTS,
    SHIPPED,
    SHIPPED_CHECKPOINTS,
    STRUCTURE_CHECKPOINT,
    weights_digest,
)
from efp_hf.metrics.card import DEFINITIONS, LABELS
from efp_hf.study.image_tables import distribution_table, fault, groups_table, skin_table, worst_table
from efp_hf.study.images import images_path
from efp_hf.study.model_card import STRUCTURE_TEMPLATE, TEMPLATE, hours, lesion_start, render_card, training_runs

RESULTS = REPOSITORY / "results"
CARDS = [REPOSITORY / "model_card.md", *(SHIPPED / name / "README.md" for name in SHIPPED_CHECKPOINTS)]
# digits of names, which are no measured numbers
NAMES = ("ISIC 2016 and 2017", "ISIC 2018", "Task 1", "Task 2", "et al. 2025", "Apache-2.0", "CC-0", "95 %")
MAX_LINES = 90  # two screens


def body(card: str) -> str:
    return card.split("---\n", 2)[2]


@pytest.mark.parametrize("template", [TEMPLATE, STRUCTURE_TEMPLATE])
def test_template_holds_no_number_of_its_own(template):
    text = template.read_text().split("## Citation")[0]
    text = re.sub(r"{{.*?}}|{%.*?%}|`[^`\n]*`", "", text)
    for name in NAMES:
        text = text.replace(name, "")
    assert [line for line in text.splitlines() if re.search(r"\d", line)] == []


@pytest.mark.parametrize("card", CARDS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_card_has_a_table_within_two_screens_and_names_nobody(card):
    lines = body(card.read_text()).splitlines()
    assert next(number for number, line in enumerate(lines) if line.startswith("|")) <= MAX_LINES
    assert not re.search(r"(?<![\w.])(?:org|ORG|OWNER)/", card.read_text()) and "{{" not in card.read_text()


@pytest.mark.parametrize("name", SHIPPED_CHECKPOINTS)
def test_metadata_names_what_is_on_the_hub(name):
    metadata = yaml.safe_load((SHIPPED / name / "README.md").read_text().split("---\n")[1])
    assert (metadata["pipeline_tag"], metadata["library_name"]) == ("image-segmentation", "transformers")
    assert metadata["license"] == "apache-2.0" and "datasets" not in metadata
    assert metadata["base_model"] == (
        "timm/tf_efficientnet_lite0.in1k"
        if name in LESION_CHECKPOINTS
        else lesion_start(training_runs(RESULTS, SHIPPED / name))[0]
    )


def test_lesion_network_beside_structures_is_that_of_the_checkpoint_before():
    name, runs = lesion_start(training_runs(RESULTS, SHIPPED / STRUCTURE_CHECKPOINT))
    card = (SHIPPED / STRUCTURE_CHECKPOINT / "README.md").read_text()
    before, after = (load_file(SHIPPED / of_one / "model.safetensors") for of_one in (name, STRUCTURE_CHECKPOINT))
    is_kept = all(torch.equal(after[key], tensor) for key, tensor in before.items() if key in after)
    assert len(runs) >= 1 and is_kept == ("bit for bit" in card)
    with pytest.raises(ValueError, match="must have made efp-isic or efp-isic-nano, got the weights"):
        lesion_start(runs)
    assert {key.split(".")[0] for key in before.keys() - after.keys()} == {"prompt_encoder", "prompted_decoder"}


@pytest.mark.slow
def test_another_row_makes_another_card(tmp_path):
    results = shutil.copytree(RESULTS, tmp_path / "results")
    checkpoint = SHIPPED / "efp-isic"
    card = (checkpoint / "README.md").read_text()
    assert render_card(results, checkpoint) == card
    weights = weights_digest(checkpoint)
    for name, column in (("scores", "hd95"), ("trust", "failure_auc"), ("robustness", "dice"), ("prompts", "dice")):
        path = results / f"{name}.csv"
        rows = pd.read_csv(path, dtype=str)
        rows.loc[(rows["weights"] == weights) & (rows["split"] == "test"), column] = "0.123456"
        rows.to_csv(path, index=False)
        changed, card = render_card(results, checkpoint), card
        assert changed != card, name
        card = changed
    images = pd.read_csv(images_path(results, weights))
    images.assign(tp=images["tp"] // 2).to_csv(images_path(results, weights), index=False)
    assert render_card(results, checkpoint) != card


@pytest.mark.slow
def test_card_of_structures_is_of_the_rows_of_both_tasks(tmp_path):
    results = shutil.copytree(RESULTS, tmp_path / "results")
    checkpoint = SHIPPED / STRUCTURE_CHECKPOINT
    card = (checkpoint / "README.md").read_text()
    assert render_card(results, checkpoint) == card and "CC BY-NC" in card and "## Not for whom" in card
    for name, column in (("scores", "hd95"), ("label_scores", "auc"), ("label_thresholds", "jaccard_error")):
        path = results / f"{name}.csv"
        rows = pd.read_csv(path, dtype=str)
        rows.loc[rows["weights"] == weights_digest(checkpoint), column] = "0.123456"
        rows.to_csv(path, index=False)
        changed, card = render_card(results, checkpoint), card
        assert changed != card, name
        card = changed


@pytest.mark.slow
def test_card_for_the_hub_calls_the_model_by_its_id_in_its_code():
    shipped, published = (body(render_card(RESULTS, SHIPPED / "efp-isic", repo)) for repo in (None, "me/efp"))
    code = re.findall(r"```.*?```", published, re.DOTALL)
    assert 'load_checkpoint("me/efp")' in published and not any("efp-isic" in block for block in code)
    changed = [line for line in published.splitlines() if line not in shipped.splitlines()]
    assert len(changed) == 3  # the commands that made the numbers stay as they ran


def test_runs_lead_to_the_weights_and_their_hours_are_counted(tmp_path):
    runs = training_runs(RESULTS, SHIPPED / "efp-isic")
    assert [run["weights"] for run in runs] == ["556ca0ff2d9d", weights_digest("efp-isic")]
    assert hours(90, "AMD EPYC, 2 cores") == (3, 0) and hours(90, "NVIDIA H200") == (0, 1.5)
    (tmp_path / "training.csv").write_text("weights,checkpoint\nother,\n")
    with pytest.raises(ValueError, match="must have the run that made"):
        training_runs(tmp_path, SHIPPED / "efp-isic")


def test_each_score_has_a_definition():
    assert DEFINITIONS.keys() == LABELS.keys()


@pytest.fixture
def images() -> pd.DataFrame:
    """Ten images of 100 pixels, whose lesion covers 10, 11, … of them; the first mask misses it, the rest are right."""
    lesion = np.arange(10, 20)
    found = lesion.copy()
    found[0] = 0
    return pd.DataFrame(
        {
            "image_id": [f"i{number}" for number in range(10)],
            "tp": found,
            "fp": 0,
            "fn": lesion - found,
            "tn": 100 - lesion,
            "expected_jaccard": 0.9,
            "lesion_share": lesion / 100,
            "border": [0.0] * 9 + [0.2],
            "regions": 1,
            "contrast": lesion.astype(float),
            "ita": [60.0] * 6 + [50.0, 30.0, 0.0, -50.0],
            "jaccard": found / lesion,
        }
    )


def test_distribution_counts_each_image_once(images):
    rows = distribution_table(images).splitlines()[2:]
    assert [int(row.split("|")[2]) for row in rows] == [1, 0, 0, 0, 9]
    assert rows[0] == "| 0 to 0.5 | 1 | 10.0% | 0.90 |"


def test_groups_and_the_worst_image_say_what_is_unusual(images):
    groups = groups_table(images)
    assert "| all images | 10 | 0.900 [" in groups and "| 1 (10%) |" in groups
    assert "| lesion among the palest tenth | 1 | 0.000 | 1 (100%) |" in groups
    assert "| lesion leaves the picture | 1 | 1.000 | 0 (0%) |" in groups
    worst = worst_table(images).splitlines()[2]
    assert worst.startswith("| `i0` | 0.00 | 0.90 | 10.0% | misses the lesion | among the smallest tenth;")
    assert (fault(50, 20, 10), fault(50, 10, 20)) == ("too large", "too small")


def test_skin_groups_hold_each_image_once(images):
    rows = skin_table(images).splitlines()[2:]
    assert [int(row.split("|")[2]) for row in rows] == [6, 1, 1, 0, 1, 1]
    assert "| dark, ITA up to -30° | 1 |" in rows[-1]
