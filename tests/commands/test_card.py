import shutil

import pytest
import yaml

from efp_hf.data.folders import FOLDERS, load_isic
from efp_hf.metrics.card import length_of
from efp_hf.training.fingerprint import fingerprint_of, write_fingerprint


def test_card_holds_the_newest_scores_of_the_checkpoint(efp, tmp_path, synthetic_root, tiny_checkpoint, rows_of):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "runs" / "mine")
    card = ("card", "--checkpoint", "runs/mine")
    assert "scores/scores.csv" in efp(*card).err
    for split in ("test", "validation"):
        assert efp("score", "--checkpoint", "runs/mine", "--data", synthetic_root, "--split", split).code == 0
    ran = efp(*card, "--license", "cc-by-4.0")
    assert ran.code == 0 and ran.out == "runs/mine/README.md\n"
    text = (folder / "README.md").read_text()
    _, metadata, body = text.split("---\n", 2)
    metadata = yaml.safe_load(metadata)
    row = rows_of(tmp_path / "scores" / "scores.csv")[0]
    assert (metadata["license"], metadata["pipeline_tag"]) == ("cc-by-4.0", "image-segmentation")
    assert metadata["library_name"] == "transformers" and "dermoscopy" in metadata["tags"]
    (index,) = metadata["model-index"]
    assert index["name"] == "mine"
    values = {metric["type"]: metric["value"] for result in index["results"] for metric in result["metrics"]}
    assert values["jaccard"] == float(row["jaccard"]) and values["hd95"] == float(row["hd95"])
    low, high = float(row["jaccard_low"]), float(row["jaccard_high"])
    assert f"| Jaccard (J) | {float(row['jaccard']):.3f} | {low:.3f} – {high:.3f} |" in body
    assert "efp score --checkpoint runs/mine --data synthetic --split test" in body
    assert f"`{row['weights']}`" in body and 'load_checkpoint("mine")' in body
    assert body.count("efp export") == 1  # which folders have the code; a published card has it already

    again = efp(*card)
    assert again.code == 2 and "runs/mine/README.md is there. Pass --overwrite" in again.err
    assert efp(*card, "--split", "validation", "--overwrite").code == 0
    assert "4 images of the validation split" in (folder / "README.md").read_text()
    assert efp("score", "--checkpoint", "runs/mine", "--data", synthetic_root, "--split-seed", "1").code == 0
    assert efp(*card, "--overwrite").code == 0
    assert "of the test split (seed 1)" in (folder / "README.md").read_text()


def test_card_says_that_training_images_were_scored(efp, tmp_path, synthetic_root, tiny_checkpoint):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "mine")
    write_fingerprint(folder, fingerprint_of(load_isic(synthetic_root)))
    score = ("score", "--checkpoint", "mine", "--data", synthetic_root)
    assert efp(*score).code == efp("card", "--checkpoint", "mine").code == 0
    assert "of these images are among" not in (folder / "README.md").read_text()
    assert efp(*score, "--split-seed", "1", "--allow-training-images").code == 0
    assert efp("card", "--checkpoint", "mine", "--overwrite").code == 0
    assert (
        "of these images are among those that the model was trained or chosen on" in (folder / "README.md").read_text()
    )


def test_card_is_not_made_of_the_scores_of_other_weights(efp, tmp_path, synthetic_root, tiny_checkpoint):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "mine")
    assert efp("score", "--checkpoint", "efp-isic-nano", "--data", synthetic_root).code == 0
    ran = efp("card", "--checkpoint", "mine")
    assert ran.code == 2 and "no row of the test split for mine" in ran.err
    assert not (folder / "README.md").exists()


@pytest.mark.parametrize("text", ['{\n"jaccard": 1\n}', "weights,split\n,test\n", b"\xff\n\xff"])
def test_card_refuses_a_file_of_no_scores(efp, tmp_path, tiny_checkpoint, text):
    shutil.copytree(tiny_checkpoint, tmp_path / "mine")
    (tmp_path / "some.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    ran = efp("card", "--checkpoint", "mine", "--scores", "some.json")
    assert ran.code == 2 and ran.err.startswith("efp card: some.json must hold the scores that `efp score` writes")
    assert ran.err.count("\n") == 1


def test_card_says_how_scores_are_made(efp, tmp_path, tiny_checkpoint):
    shutil.copytree(tiny_checkpoint, tmp_path / "mine")
    ran = efp("card", "--checkpoint", "mine", "--scores", "out/scores.csv")
    assert ran.code == 2 and "Run `efp score --output out --checkpoint mine --data …` first." in ran.err


def test_card_is_not_made_of_the_scores_of_masks(efp, tmp_path, synthetic_root, tiny_checkpoint):
    exported = shutil.copytree(tiny_checkpoint, tmp_path / "exported")
    (exported / "model.safetensors").unlink()
    shutil.copytree(synthetic_root / FOLDERS["train"][1], tmp_path / "truth")
    assert efp("score", "--data", synthetic_root, "--masks", "truth").code == 0
    ran = efp("card", "--checkpoint", "exported")
    assert ran.code == 2 and "of a folder of masks or of an exported model are no checkpoint's" in ran.err


@pytest.mark.parametrize(
    ("epochs", "words"), [("36.0", "36.0 epochs"), ("1.5", "1.5 epochs"), ("0.0023", "0.0023 epochs"), ("9 steps",) * 2]
)
def test_card_says_how_long_was_trained(epochs, words):
    assert length_of({"epochs": epochs}) == words
