"""The commands with labels that overlap, one after the other, as a person does who has a folder a label."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from conftest import CELL_LABELS, draw_cell
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from efp_hf import EFPConfig, EFPForSegmentation, EFPImageProcessor
from efp_hf.metrics.classes import MEAN_OF_LABELS, MICRO
from efp_hf.metrics.overlap import THRESHOLDS
from efp_hf.training import trainer
from efp_hf.training.trainer import TRAINING_DEFAULTS

SMALL = ("--max-steps", 2, "--per-device-train-batch-size", 7, "--use-cpu", "--disable-tqdm")
ROWS = [*CELL_LABELS, MICRO, MEAN_OF_LABELS]


@pytest.fixture
def mine(tmp_path, cells_checkpoint):
    return shutil.copytree(cells_checkpoint, tmp_path / "mine")


def test_train_keeps_all_but_the_head_which_gets_a_sigmoid_a_label(efp, tmp_path, cells_root, tiny_checkpoint, rows_of):
    call = ("train", "--data", cells_root, "--checkpoint", tiny_checkpoint, "--output", "run", *SMALL)
    ran = efp(*call, "--learning-rate", 0, "--encoder-learning-rate", 0)
    assert ran.code == 0, ran.err
    assert "labels that overlap: membrane, nucleus (not in 14 images without its mask); 40 pairs: train 28" in ran.out
    line = "has labels for lesion, the data membrane, nucleus, which overlap: its encoder and pyramid are kept"
    assert line in ran.out and "before the training" not in ran.out
    config = EFPConfig.from_pretrained(tmp_path / "run")
    assert config.labels_overlap and config.num_added_labels == 0 and list(config.id2label.values()) == [*CELL_LABELS]
    before = EFPForSegmentation.from_pretrained(tiny_checkpoint).state_dict()
    after = EFPForSegmentation.from_pretrained(tmp_path / "run").state_dict()
    assert before.keys() == after.keys()
    kept = [name for name in before if not name.endswith(("running_mean", "running_var", "tracked"))]
    changed = {name for name in kept if not torch.equal(before[name], after[name])}
    assert changed == {"decoder.classifier.weight", "decoder.classifier.bias"}
    processor = EFPImageProcessor.from_pretrained(tmp_path / "run")
    assert processor.labels_overlap and not processor.largest_region and set(processor.threshold) <= set(THRESHOLDS)
    (row,) = rows_of(tmp_path / "run" / "training.csv")
    assert row["validation_jaccard"] == row["validation_mean_jaccard"] and float(row["validation_micro_jaccard"]) >= 0


def test_steps_of_a_longer_training_are_counted_of_the_images_that_an_epoch_draws(
    efp, tmp_path, cells_root, tiny_checkpoint, monkeypatch, rows_of
):
    monkeypatch.setitem(TRAINING_DEFAULTS, "num_train_epochs", 1)
    monkeypatch.setattr(trainer, "NEW_CLASSES_STEPS", 2)
    call = ("train", "--data", cells_root, "--checkpoint", tiny_checkpoint, "--output", "run", "--use-cpu")
    call += ("--per-device-train-batch-size", 14, "--eval-strategy", "epoch", "--save-strategy", "epoch")
    ran = efp(*call)
    assert ran.code == 0 and "28 images are few for classes that" in ran.out and "up to 2 epochs" in ran.out, ran.err
    assert rows_of(tmp_path / "run" / "training.csv")[0]["epochs"] == "2.0"
    checkpoints = {path.name for path in (tmp_path / "run").glob("checkpoint-*")}
    assert checkpoints == {"checkpoint-1", "checkpoint-2"}  # half of the 28, in a step an epoch


def test_fine_tuning_says_its_start_takes_lower_rates_and_is_resumed(efp, tmp_path, cells_root, mine, rows_of):
    call = ("train", "--data", cells_root, "--checkpoint", "mine", "--output", "run", *SMALL)
    ran = efp(*call)
    assert ran.code == 0 and "before the training: validation J 0." in ran.out and "starts anew" not in ran.out
    (row,) = rows_of(tmp_path / "run" / "training.csv")
    assert (row["learning_rate"], row["encoder_learning_rate"]) == ("0.0003", "0.0001")
    ran = efp(*call, "--resume", "--max-steps", 4)
    assert ran.code == 0 and len(rows_of(tmp_path / "run" / "training.csv")) == 2, ran.err


def test_one_class_may_start_from_labels_that_overlap(efp, tmp_path, synthetic_root, mine):
    call = ("train", "--data", synthetic_root, "--checkpoint", "mine", "--output", "run", *SMALL)
    ran = efp(*call)
    assert ran.code == 0 and "mine has labels for membrane, nucleus, the data one class: its encoder" in ran.out
    config, processor = (kind.from_pretrained(tmp_path / "run") for kind in (EFPConfig, EFPImageProcessor))
    assert not config.labels_overlap and not processor.labels_overlap and processor.threshold == 0.5
    assert processor.size["height"] == 32


def test_prompts_and_data_without_overlap_are_refused(efp, cells_root, organs_root, tiny_checkpoint):
    call = ("train", "--checkpoint", tiny_checkpoint, "--output", "run")
    ran = efp(*call, "--data", cells_root, "--prompts")
    assert ran.code == 2 and "`--prompts` must be used with classes" in ran.err
    assert "got membrane, nucleus, which overlap. Leave it out." in ran.err
    ran = efp(*call, "--data", cells_root, "--compare", "unet")
    assert ran.code == 2 and "`--compare` must be used with classes" in ran.err
    ran = efp(*call, "--data", organs_root, "--labels-overlap")
    assert ran.code == 2 and "organs: labels that overlap must have a mask each" in ran.err
    ran = efp(*call, "--data", cells_root, "--labels-overlap", "--prompts")
    assert ran.code == 2 and "`--labels-overlap` must be used without --task structures, --prompts" in ran.err


def test_calibrate_chooses_a_threshold_a_label(efp, tmp_path, cells_root, mine, rows_of):
    call = ("calibrate", "--checkpoint", "mine", "--data", cells_root)
    before = EFPImageProcessor.from_pretrained(mine).threshold
    assert f"mine keeps thresholds {before}. Add images, or pass --allow-few-images" in efp(*call).out
    assert EFPImageProcessor.from_pretrained(mine).threshold == before
    ran = efp(*call, "--allow-few-images")
    assert ran.code == 0, ran.err
    rows = rows_of(tmp_path / "calibration" / "label_thresholds.csv")
    after = EFPImageProcessor.from_pretrained(mine)
    assert [row["label"] for row in rows] == [*CELL_LABELS] and rows[0]["images"] == "4"
    assert after.threshold == [float(row["threshold"]) for row in rows]
    assert after.jaccard_temperature == [float(row["jaccard_temperature"]) for row in rows]
    efp("score", "--checkpoint", "mine", "--data", cells_root, "--split", "validation")
    scores = rows_of(tmp_path / "scores" / "label_scores.csv")
    found = [float(row["jaccard"]) for row in scores[:2]]
    assert found == pytest.approx([float(row["jaccard"]) for row in rows], abs=1e-5)
    ran = efp(*call, "--image-sizes", 32)
    assert ran.code == 2 and "`--image-sizes` must be left out where labels overlap" in ran.err


def test_score_has_a_row_a_label_and_two_of_all(efp, tmp_path, cells_root, mine, rows_of):
    score = ("score", "--data", cells_root)
    ran = efp(*score, "--checkpoint", "mine", "--card")
    assert ran.code == 0, ran.err
    assert [path.name for path in (tmp_path / "scores").iterdir()] == ["label_scores.csv"]
    rows = rows_of(tmp_path / "scores" / "label_scores.csv")
    assert [row["label"] for row in rows] == ROWS and [row["threshold"] for row in rows] == ["0.5", "0.4", "", ""]
    values = [float(row["jaccard"]) for row in rows]
    assert values[3] == pytest.approx((values[0] + values[1]) / 2, abs=1e-5) and rows[0]["images"] == "8"
    assert f"{values[2]:.4f}  [{float(rows[2]['jaccard_low']):.4f}, " in ran.out
    _, metadata, body = (mine / "README.md").read_text().split("---\n", 2)
    assert "over all images; the micro-average" in body and "ISIC" not in body
    metrics = yaml.safe_load(metadata)["model-index"][0]["results"][0]["metrics"]
    assert {"type": "jaccard", "name": f"{MICRO}: Jaccard (J), over all images", "value": values[2]} in metrics
    assert "Segments membrane, nucleus in an image" in body and "thresholds membrane 0.5, nucleus 0.4; " in body
    assert "a boolean mask for each of model.config.id2label, the size" in body and "{" not in body
    assert efp("card", "--checkpoint", "mine", "--overwrite").code == 0

    assert efp("predict", cells_root / "images", "--checkpoint", "mine").code == 0
    assert efp(*score, "--masks", "masks").code == 0
    of_masks = rows_of(tmp_path / "scores" / "label_scores.csv")[4:]
    assert [float(row["jaccard"]) for row in of_masks] == values
    for number in range(40):
        masks = draw_cell(number)[1]
        for label in CELL_LABELS:
            mask = masks.get(label, np.zeros((64, 80), bool))
            Image.fromarray(mask).save(tmp_path / "masks" / f"cell_{number:02d}_{label}.png")
    assert efp(*score, "--masks", "masks").code == 0
    assert {row["jaccard"] for row in rows_of(tmp_path / "scores" / "label_scores.csv")[8:]} == {"1.0"}


def test_score_of_other_labels_is_refused(efp, cells_root, organs_root, tiny_checkpoint, mine):
    ran = efp("score", "--data", cells_root, "--checkpoint", tiny_checkpoint)
    assert ran.code == 2 and "must segment the classes of the data, membrane, nucleus, got lesion." in ran.err
    ran = efp("score", "--data", organs_root, "--checkpoint", "mine")
    assert ran.code == 2 and "organs: labels that overlap must have a mask each" in ran.err


def test_predict_writes_a_mask_a_label_and_its_numbers(efp, tmp_path, cells_root, mine, rows_of):
    call = ("predict", cells_root / "images", "--checkpoint", "mine", "--overlays")
    assert efp(*call).code == 0
    rows = rows_of(tmp_path / "masks" / "predictions.csv")
    units = ("pixels", "share", "probability", "expected_jaccard")
    columns = [f"{label}_{unit}" for label in CELL_LABELS for unit in units]
    assert list(rows[0]) == ["image", "height", "width", *columns, "note", "error", "made_by"]
    for row in rows[:3]:
        for label in CELL_LABELS:
            mask = Image.open(tmp_path / "masks" / row["image"].replace(".png", f"_{label}.png"))
            assert mask.mode == "L" and mask.size == (80, 64)
            assert int(row[f"{label}_pixels"]) == np.count_nonzero(mask)
    overlay = Image.open(tmp_path / "masks" / "cell_00_overlay.jpg")
    assert overlay.width >= 80 and overlay.height > 64  # with the legend
    before = (tmp_path / "masks" / "predictions.csv").read_bytes()
    lost = tmp_path / "masks" / "cell_03_nucleus.png"
    lost.unlink()
    (tmp_path / "masks" / ".17-18-cell_04_nucleus.png").write_text("of a killed run")
    assert efp(*call, "--resume").code == 0
    assert lost.is_file() and not (tmp_path / "masks" / ".17-18-cell_04_nucleus.png").exists()
    assert sorted((tmp_path / "masks" / "predictions.csv").read_bytes().split()) == sorted(before.split())


def test_predict_replaces_no_mask_of_another_image_or_person(efp, tmp_path, mine):
    model = EFPForSegmentation.from_pretrained(mine)
    model.config.id2label = {0: "nucleus", 1: "old_nucleus"}
    model.save_pretrained(mine)
    for name in ("a", "a_old"):
        draw_cell(1)[0].save(tmp_path / f"{name}.png")
    ran = efp("predict", tmp_path / "a.png", tmp_path / "a_old.png", "--checkpoint", "mine")
    assert ran.code == 1 and "a_old.png: its mask would overwrite that of a.png. Rename one of them." in ran.err
    (tmp_path / "bad.png").write_text("no picture")
    (tmp_path / "masks" / "bad_nucleus.png").write_text("mine")  # beside a table that does not name it
    before = {path: path.read_bytes() for path in (tmp_path / "masks").iterdir()}
    for option in ("--overwrite", "--resume"):
        ran = efp("predict", tmp_path / "bad.png", "--checkpoint", "mine", option)
        assert ran.code == 2 and "bad_nucleus.png could be replaced, and is not of `efp predict`" in ran.err
    assert {path: path.read_bytes() for path in (tmp_path / "masks").iterdir()} == before


def test_an_export_for_the_hub_is_loaded_by_the_auto_classes(efp, tmp_path, mine):
    assert efp("export", "--to", "hub", "--checkpoint", "mine", "--output", "hub").code == 0
    model = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "hub").eval()
    processor = AutoImageProcessor.from_pretrained(tmp_path / "hub")
    inputs = processor(draw_cell(1)[0], return_tensors="pt")
    (found,) = processor.post_process_semantic_segmentation(model(**inputs), [(64, 80)])
    assert found.shape == (2, 64, 80) and found.dtype == torch.bool
    assert json.loads((tmp_path / "hub" / "config.json").read_text())["id2label"] == {"0": "membrane", "1": "nucleus"}


def test_the_page_and_a_review_are_of_other_labels(efp, cells_root, mine):
    ran = efp("app", "--checkpoint", "mine")
    assert ran.code == 2 and "of labels that overlap the page takes the lesion and its structures, got" in ran.err
    ran = efp("review", cells_root / "images", "--output", "o", "--checkpoint", "mine")
    assert ran.code == 2 and "a review is of one. Pass a checkpoint for lesions, as efp-isic." in ran.err


def test_data_says_its_labels(efp, cells_root):
    ran = efp("data", cells_root, "--sheet", "sheet.png")
    assert ran.code == 0 and "labels that overlap: membrane, nucleus (not in 14 images without its mask)" in ran.out
    assert "label nucleus: in 26 of 40 images, there " in ran.out
