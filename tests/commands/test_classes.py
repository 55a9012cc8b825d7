"""The commands with several classes, one after the other, as a person does who has a folder of them."""

import json
import shutil

import numpy as np
import pytest
import yaml
from conftest import ORGANS, draw_organs, tiny_model
from PIL import Image

from efp_hf import EFPConfig, EFPForSegmentation, EFPImageProcessor
from efp_hf.data.lesions import load_lesions
from efp_hf.inference.checkpoint import load_checkpoint
from efp_hf.inference.drawing import class_colors
from efp_hf.metrics.card import TILE, Extremes
from efp_hf.metrics.classes import MEAN
from efp_hf.training import trainer
from efp_hf.training.trainer import TRAINING_DEFAULTS

SMALL = ("--max-steps", 2, "--per-device-train-batch-size", 14, "--use-cpu", "--disable-tqdm")


@pytest.fixture
def mine(tmp_path, organs_checkpoint):
    return shutil.copytree(organs_checkpoint, tmp_path / "mine")


def test_train_keeps_all_but_the_head_and_names_the_classes(efp, tmp_path, organs_root, tiny_checkpoint, rows_of):
    call = ("train", "--data", organs_root, "--checkpoint", tiny_checkpoint, "--output", "run", *SMALL)
    ran = efp(*call, "--learning-rate", 0, "--encoder-learning-rate", 0)
    assert ran.code == 0
    assert "masks of class numbers for liver, spleen, kidney; 40 pairs: train 28" in ran.out
    line = (
        "has labels for lesion, the data liver, spleen, kidney: its encoder and pyramid are kept, its head starts anew."
    )
    assert line in ran.out and "before the training" not in ran.out
    config = EFPConfig.from_pretrained(tmp_path / "run")
    assert config.id2label == {0: "background", 1: "liver", 2: "spleen", 3: "kidney"}
    before = EFPForSegmentation.from_pretrained(tiny_checkpoint).state_dict()
    after = EFPForSegmentation.from_pretrained(tmp_path / "run").state_dict()
    kept = [name for name, value in before.items() if not name.endswith(("running_mean", "running_var", "tracked"))]
    changed = {name for name in kept if before[name].shape != after[name].shape or not before[name].equal(after[name])}
    assert changed == {"decoder.classifier.weight", "decoder.classifier.bias"}
    (row,) = rows_of(tmp_path / "run" / "training.csv")
    assert float(row["validation_jaccard"]) >= 0 and row["validation_threshold_jaccard"] == ""


def test_other_classes_are_learnt_at_the_rates_of_a_new_network(efp, tmp_path, organs_root, tiny_checkpoint, rows_of):
    call = ("train", "--data", organs_root, "--checkpoint", tiny_checkpoint, "--output", "run", *SMALL)
    assert efp(*call).code == 0
    (row,) = rows_of(tmp_path / "run" / "training.csv")
    assert (row["learning_rate"], row["encoder_learning_rate"]) == ("0.001", "0.0003")


def test_fine_tuning_says_its_start_and_takes_lower_rates(efp, tmp_path, organs_root, mine, rows_of):
    ran = efp("train", "--data", organs_root, "--checkpoint", "mine", "--output", "run", *SMALL)
    assert ran.code == 0 and "before the training: validation J 0." in ran.out and "starts anew" not in ran.out
    call = ("train", "--data", organs_root, "--checkpoint", "mine", "--output", "faster", *SMALL)
    assert efp(*call, "--learning_rate=0.002").code == 0
    found = [rows_of(tmp_path / folder / "training.csv")[0] for folder in ("run", "faster")]
    assert [row["learning_rate"] for row in found] == ["0.0003", "0.002"]
    assert {row["encoder_learning_rate"] for row in found} == {"0.0001"}


def test_prompts_and_a_review_are_refused(efp, organs_root, tiny_checkpoint, mine):
    ran = efp("train", "--data", organs_root, "--checkpoint", tiny_checkpoint, "--output", "run", "--prompts")
    assert ran.code == 2 and ran.err.endswith(
        "efp train: `--prompts` must have one class, which clicks tell from all else, got liver, spleen, kidney. "
        "Leave it out.\n"
    )
    ran = efp("review", organs_root / "images", "--checkpoint", "mine", "--output", "reviewed")
    assert ran.code == 2 and "A review must have a checkpoint of one class, got one of 3 (liver" in ran.err


def test_calibrate_chooses_what_has_a_meaning(efp, tmp_path, organs_root, mine, rows_of):
    call = ("calibrate", "--checkpoint", "mine", "--data", organs_root, "--image-sizes", 32, 48)
    assert "mine keeps temperature 1.0. Add images" in efp(*call).out
    before = EFPImageProcessor.from_pretrained(mine)
    ran = efp(*call, "--allow-few-images")
    assert ran.code == 0 and "Several classes have no threshold, largest region or expected Jaccard" in ran.out
    tried = rows_of(tmp_path / "calibration" / "postprocessing.csv")
    assert [(row["image_size"], row["threshold"], row["largest_region"]) for row in tried] == [
        ("32", "", ""),
        ("48", "", ""),
    ]
    best = max(tried, key=lambda row: float(row["validation_jaccard"]))
    after = EFPImageProcessor.from_pretrained(mine)
    assert after.size["height"] == int(best["image_size"]) and after.threshold == before.threshold
    assert float(best["temperature"]) == EFPConfig.from_pretrained(mine).temperature != 1
    assert not (tmp_path / "calibration" / "jaccard_temperature.csv").exists()


def test_score_has_a_row_a_class_and_one_of_their_mean(efp, tmp_path, organs_root, mine, rows_of):
    score = ("score", "--data", organs_root)
    ran = efp(*score, "--checkpoint", "mine", "--card")
    assert ran.code == 0 and not (tmp_path / "scores" / "scores.csv").exists()
    rows = rows_of(tmp_path / "scores" / "class_scores.csv")
    assert [row["class"] for row in rows] == [*ORGANS, MEAN] and rows[0]["threshold"] == ""
    values = [float(row["jaccard"]) for row in rows]
    assert values[3] == pytest.approx(np.mean(values[:3]), abs=1e-5) and rows[3]["class_images"] == "8"
    assert f"liver                J {values[0]:.4f}  [" in ran.out
    _, metadata, body = (mine / "README.md").read_text().split("---\n", 2)
    metrics = yaml.safe_load(metadata)["model-index"][0]["results"][0]["metrics"]
    assert {"type": "jaccard", "name": f"{MEAN}: Jaccard (J)", "value": values[3]} in metrics
    assert "Segments liver, spleen, kidney in an image" in body and "lesion" not in body.lower().replace("efp", "")
    assert f"| kidney: Dice | {float(rows[2]['dice']):.3f} |" in body
    again = efp(*score, "--checkpoint", "mine", "--card")
    assert again.code == 2 and "mine/README.md is there" in again.err
    assert efp("card", "--checkpoint", "mine", "--overwrite").code == 0

    assert efp("predict", organs_root / "images", "--checkpoint", "mine").code == 0
    assert efp(*score, "--masks", "masks").code == 0
    of_masks = rows_of(tmp_path / "scores" / "class_scores.csv")[4:]
    assert [float(row["jaccard"]) for row in of_masks] == values
    truth = {row["image_id"]: row["mask"] for row in load_lesions(organs_root, max_side=None)["test"]}
    for image_id, mask in truth.items():
        mask.save(tmp_path / "masks" / f"{image_id}_segmentation.png")
    assert efp(*score, "--masks", "masks").code == 0
    assert {row["jaccard"] for row in rows_of(tmp_path / "scores" / "class_scores.csv")[8:]} == {"1.0"}


def test_score_of_other_classes_is_refused(efp, organs_root, synthetic_root, tiny_checkpoint, mine):
    ran = efp("score", "--data", organs_root, "--checkpoint", tiny_checkpoint)
    assert ran.code == 2 and "must segment the classes of the data, liver, spleen, kidney, got lesion." in ran.err
    ran = efp("score", "--data", synthetic_root, "--checkpoint", "mine")
    assert ran.code == 2 and "mine must segment the classes of the data, one class, got liver" in ran.err
    ran = efp("calibrate", "--data", synthetic_root, "--checkpoint", "mine")
    assert ran.code == 2 and "mine must segment the classes of the data, one class, got liver" in ran.err


def test_predict_writes_labels_in_colours_and_their_areas(efp, tmp_path, organs_root, mine, rows_of):
    call = ("predict", organs_root / "images", "--checkpoint", "mine", "--overlays")
    assert efp(*call).code == 0
    rows = rows_of(tmp_path / "masks" / "predictions.csv")
    areas = [f"{name}_{unit}" for name in ORGANS for unit in ("pixels", "share")]
    assert list(rows[0]) == ["image", "height", "width", *areas, "note", "error", "made_by"]
    seen = set()
    for row in rows:
        mask = Image.open(tmp_path / "masks" / row["image"].replace(".png", "_segmentation.png"))
        labels = np.asarray(mask)
        assert mask.mode == "P" and labels.shape == (64, 80) and labels.max() <= 3
        assert mask.getpalette()[:12] == class_colors(3).ravel().tolist()
        for label, name in enumerate(ORGANS, start=1):
            assert int(row[f"{name}_pixels"]) == (labels == label).sum()
            assert float(row[f"{name}_share"]) == pytest.approx((labels == label).mean(), abs=1e-6)
        seen |= set(labels.ravel().tolist())
    assert len(seen) > 2
    overlay = Image.open(tmp_path / "masks" / "organ_00_overlay.jpg")
    assert overlay.width >= 80 and overlay.height > 64  # with the legend
    before = (tmp_path / "masks" / "predictions.csv").read_bytes()
    (tmp_path / "masks" / "organ_03_segmentation.png").unlink()
    assert efp(*call, "--resume").code == 0
    assert sorted((tmp_path / "masks" / "predictions.csv").read_bytes().split()) == sorted(before.split())


@pytest.mark.parametrize(
    "option", [("--threshold", 0.4), ("--largest-region",), ("--points", "3,4"), ("--box", "1,2,3,4")]
)
def test_predict_refuses_what_several_classes_have_not(efp, organs_root, mine, option):
    ran = efp("predict", organs_root / "images" / "organ_00.png", "--checkpoint", "mine", *option)
    assert ran.code == 2 and f"`{option[0]}` must have a checkpoint of one class, got one of 3" in ran.err


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_exported_classes_are_those_of_the_checkpoint(efp, tmp_path, organs_root, mine, runtime, package):
    pytest.importorskip(package)
    id2label = EFPConfig.from_pretrained(mine).id2label
    tiny_model(use_cross_scale=False, id2label=id2label).save_pretrained(mine)  # traced in half the time
    exported = f"exports/mine-{runtime}"
    ran = efp("export", "--to", runtime, "--checkpoint", "mine")
    assert ran.code == 0 and f"{exported}: " in ran.out
    photo = organs_root / "images" / "organ_00.png"
    call = ("predict", photo, "--checkpoint", exported, "--runtime", runtime, "--output", "by_export")
    assert efp(*call).code == 0
    assert efp("predict", photo, "--checkpoint", "mine", "--output", "by_torch").code == 0
    found, expected = (
        np.asarray(Image.open(tmp_path / folder / "organ_00_segmentation.png")) for folder in ("by_export", "by_torch")
    )
    assert (found == expected).mean() > 0.999 and len(np.unique(expected)) > 2
    config = json.loads((tmp_path / exported / "config.json").read_text())
    assert list(config["id2label"].values()) == ["background", *ORGANS]


def test_export_for_the_hub_takes_the_classes_along(efp, tmp_path, mine):
    assert efp("export", "--to", "hub", "--checkpoint", "mine", "--output", "hub").code == 0
    assert EFPConfig.from_pretrained(tmp_path / "hub").id2label[3] == "kidney"


def test_data_says_its_classes(efp, tmp_path, organs_root):
    ran = efp("data", organs_root, "--sheet", "sheet.png")
    assert ran.code == 0 and "class 3 kidney: in 20 of 40 images, there " in ran.out


@pytest.fixture
def cells(tmp_path, tiny_checkpoint):
    """A checkpoint of one class that is no lesion, and drawings of it."""
    model, processor = load_checkpoint(tiny_checkpoint)
    model.config.id2label, model.config.label2id = {0: "background", 1: "cell"}, {"background": 0, "cell": 1}
    processor.largest_region = True
    model.save_pretrained(tmp_path / "mine")
    processor.save_pretrained(tmp_path / "mine")
    for folder in ("images", "masks"):
        (tmp_path / "drawn" / folder).mkdir(parents=True)
    for number in range(20):
        image, labels = draw_organs(number)
        image.save(tmp_path / "drawn" / "images" / f"c{number}.png")
        Image.fromarray((labels == 1).astype(np.uint8) * 255).save(tmp_path / "drawn" / "masks" / f"c{number}.png")
    (tmp_path / "drawn" / "classes.txt").write_text("cell")
    return tmp_path / "drawn"


def test_one_class_of_another_name_has_no_words_of_lesions(efp, tmp_path, cells):
    assert efp("score", "--data", cells, "--checkpoint", "mine", "--card").code == 0
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "cell IoU, pooled over all pixels" in card and "Segments cell in an image" in card
    assert not [word for word in ("lesion", "skin", "dermoscopy", "challenge", "- medical") if word in card]
    for options in ((), ("--resume",)):
        assert efp("predict", cells / "images", "--checkpoint", "mine", *options).code == 0
    header = (tmp_path / "masks" / "predictions.csv").read_text().splitlines()[0]
    assert "cell_pixels,cell_share" in header and "lesion" not in header


def test_card_shows_the_worst_and_the_best_masks_of_the_split(efp, tmp_path, cells):
    score = ("score", "--data", cells, "--checkpoint", "mine", "--split", "train")
    assert efp(*score).code == 0 and not (tmp_path / "mine" / "masks.png").exists()
    assert efp(*score, "--card").code == 0
    card, figure = (tmp_path / "mine" / name for name in ("README.md", "masks.png"))
    assert "](masks.png)" in card.read_text() and Image.open(figure).size == (4 * TILE, 2 * (TILE + 16))
    assert efp("export", "--to", "hub", "--checkpoint", "mine", "--output", "hub").code == 0
    assert (tmp_path / "hub" / "masks.png").read_bytes() == figure.read_bytes()
    figure.unlink()
    assert efp("card", "--checkpoint", "mine", "--split", "train", "--overwrite").code == 0
    assert "masks.png" not in card.read_text()
    card.unlink()
    figure.write_bytes(b"a picture of somebody's")
    ran = efp(*score, "--card")
    assert ran.code == 2 and "masks.png is there, and no card's. Move it away" in ran.err


def test_extremes_are_the_lowest_and_the_highest():
    extremes = Extremes()
    for row, jaccard in enumerate((0.5, 0.9, 0.1, 0.6, 0.2, 0.8, 0.3, 0.7, 0.4, 0.55, 1.0)):
        extremes.add(jaccard, row, np.zeros(1), np.zeros(1))
    assert [found[0] for found in extremes.found] == [0.1, 0.2, 0.3, 0.4, 0.7, 0.8, 0.9, 1.0]


@pytest.mark.slow
def test_other_class_than_the_checkpoint_s_keeps_all_regions_and_few_images_get_more_epochs(
    efp, tmp_path, cells, tiny_checkpoint, monkeypatch, rows_of
):
    monkeypatch.setitem(TRAINING_DEFAULTS, "num_train_epochs", 1)
    monkeypatch.setattr(trainer, "NEW_CLASSES_STEPS", 2)
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "lesions")
    EFPImageProcessor(size={"height": 32, "width": 32}, largest_region=True).save_pretrained(folder)
    train = ("train", "--data", cells, "--checkpoint", "./lesions", "--use-cpu", "--output")
    ran = efp(*train, "run")
    assert ran.code == 0 and "./lesions calls its label lesion; its head is kept, for cell." in ran.out
    assert not EFPImageProcessor.from_pretrained(tmp_path / "run").largest_region
    assert "14 images are few for classes that ./lesions does not know: up to 2 epochs" in ran.out
    assert efp(*train, "short", "--num-train-epochs", "1").code == 0
    assert [float(rows_of(f"{folder}/training.csv")[0]["epochs"]) for folder in ("run", "short")] == [2, 1]
