"""`efp train`, `score` and `predict` of the structures of ISIC 2018, Task 2."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from efp_hf import EFPImageProcessor
from efp_hf.data.folders import FOLDERS, load_isic
from efp_hf.data.structures import STRUCTURE_FOLDERS
from efp_hf.inference.checkpoint import load_checkpoint
from efp_hf.lesion.structures import LABELS, MASK_NAME, STRUCTURES, structure_variety
from efp_hf.metrics.card import LABELS as LABELS_OF_A_CARD
from efp_hf.training.overlap import with_thresholds
from efp_hf.training.structures import with_structures


@pytest.fixture
def structure_checkpoint(tmp_path, tiny_checkpoint):
    model, processor = load_checkpoint(tiny_checkpoint)
    torch.manual_seed(3)
    with_structures(model).save_pretrained(tmp_path / "structures")
    with_thresholds(processor, 6, 1, [0.3, 0.4, 0.5, 0.5, 0.6]).save_pretrained(tmp_path / "structures")
    return tmp_path / "structures"


def test_a_lesion_checkpoint_learns_structures_and_is_scored(efp, tmp_path, structure_root, tiny_checkpoint, rows_of):
    options = ("--checkpoint", tiny_checkpoint, "--task", "structures", "--data", structure_root, "--use-cpu")
    options += ("--image-size", 64)
    ran = efp("train", *options, "--output", "run", "--num-train-epochs", 1, "--per-device-train-batch-size", 8)
    assert ran.code == 0, ran.err
    (row,) = rows_of(tmp_path / "run" / "training.csv")
    assert float(row["validation_micro_jaccard"]) >= 0 and float(row["validation_mean_jaccard"]) >= 0
    before, after = load_checkpoint(tiny_checkpoint)[0], load_checkpoint("run", allow_overlap=True)[0]
    assert after.config.shared_size == 32  # the lesion's encoder goes on at the size of its own checkpoint
    for name, tensor in before.decoder.state_dict().items():
        assert torch.equal(after.decoder.state_dict()[name], tensor)
    ran = efp("score", "--task", "structures", "--data", structure_root, "--checkpoint", "run")
    assert ran.code == 0, ran.err
    rows = rows_of(tmp_path / "scores" / "label_scores.csv")
    assert [row["label"] for row in rows] == [*STRUCTURES, "micro-average", "mean of the labels"]
    assert f"{float(rows[5]['jaccard']):.4f}" in ran.out and rows[0]["images"] == "8"
    (lesion,) = rows_of(tmp_path / "scores" / "scores.csv")
    assert f"the lesion's own J: {float(lesion['jaccard']):.4f}" in ran.out and lesion["weights"] == rows[0]["weights"]
    masks = ("predict", structure_root / FOLDERS["train"][0], "--checkpoint", "run")
    assert efp(*masks).code == efp("score", "--data", structure_root, "--masks", "masks").code == 0
    _, of_masks = rows_of(tmp_path / "scores" / "scores.csv")
    assert [lesion[name] for name in LABELS_OF_A_CARD] == [of_masks[name] for name in LABELS_OF_A_CARD]


def test_score_of_the_true_structures_is_perfect(efp, tmp_path, structure_root, rows_of):
    masks = ("--masks", structure_root / STRUCTURE_FOLDERS[0])
    assert efp("score", "--task", "structures", "--data", structure_root, *masks).code == 0
    rows = rows_of(tmp_path / "scores" / "label_scores.csv")
    assert {row["jaccard"] for row in rows} == {"1.0"}


def test_predicted_masks_have_the_names_of_tasks_1_and_2(efp, tmp_path, structure_root, structure_checkpoint, rows_of):
    photos = structure_root / FOLDERS["train"][0]
    ran = efp("predict", photos, "--checkpoint", structure_checkpoint, "--overlays")
    assert ran.code == 0, ran.err
    first = sorted(photos.iterdir())[0].stem
    names = [f"{first}_segmentation.png", *(MASK_NAME.format(first, name) for name in STRUCTURES)]
    masks = [np.asarray(Image.open(tmp_path / "masks" / name)) for name in names]
    row = rows_of(tmp_path / "masks" / "predictions.csv")[0]
    for label, mask in zip(LABELS, masks, strict=True):
        assert mask.shape == (64, 64) and set(np.unique(mask)) <= {0, 255}
        assert int(row[f"{label}_pixels"]) == np.count_nonzero(mask)
        assert 0 <= float(row[f"{label}_expected_jaccard"]) <= 1
    of_structures = ("--task", "structures", "--data", structure_root)
    assert efp("score", *of_structures, "--checkpoint", structure_checkpoint).code == 0
    assert efp("score", *of_structures, "--masks", "masks").code == 0
    rows = rows_of(tmp_path / "scores" / "label_scores.csv")
    assert [row["jaccard"] for row in rows[:7]] == [row["jaccard"] for row in rows[7:]]
    found = {name: mask > 0 for name, mask in zip(LABELS, masks, strict=True)}
    assert row["structure_variety"] == str(structure_variety(found))


def test_thresholds_are_chosen_on_validation(efp, tmp_path, structure_root, structure_checkpoint, rows_of):
    call = ("calibrate", "--checkpoint", structure_checkpoint, "--data", structure_root)
    ran = efp(*call)
    assert ran.code == 0 and "keeps thresholds [0.5, 0.3, 0.4, 0.5, 0.5, 0.6]. Add images" in ran.out
    ran = efp(*call, "--task", "structures", "--allow-few-images")
    assert ran.code == 0, ran.err
    rows = rows_of(tmp_path / "calibration" / "label_thresholds.csv")
    processor = EFPImageProcessor.from_pretrained(structure_checkpoint)
    assert [row["label"] for row in rows] == list(STRUCTURES)
    assert processor.threshold == [0.5, *(float(row["threshold"]) for row in rows)]
    assert processor.jaccard_temperature == [1.0, *(float(row["jaccard_temperature"]) for row in rows)]
    of_split = ("--task", "structures", "--data", structure_root, "--split", "validation")
    assert efp("score", *of_split, "--checkpoint", structure_checkpoint).code == 0
    scores = rows_of(tmp_path / "scores" / "label_scores.csv")
    found, chosen = ([float(row["jaccard"]) for row in of_one] for of_one in (scores[:5], rows))
    assert found == pytest.approx(chosen, abs=1e-5)


def test_a_lost_mask_of_a_structure_is_made_again(efp, tmp_path, structure_root, structure_checkpoint):
    photos = sorted((structure_root / FOLDERS["train"][0]).iterdir())[:2]
    assert efp("predict", *photos, "--checkpoint", structure_checkpoint).code == 0
    lost, kept = (tmp_path / "masks" / MASK_NAME.format(photo.stem, "streaks") for photo in photos)
    before = kept.stat().st_mtime_ns
    lost.unlink()
    assert efp("predict", *photos, "--checkpoint", structure_checkpoint, "--resume").code == 0
    assert lost.is_file() and kept.stat().st_mtime_ns == before


def test_masks_of_structures_are_no_photos(efp, tmp_path, structure_root, tiny_checkpoint):
    photos = tmp_path / "photos"
    photos.mkdir()
    for folder in (FOLDERS["train"][0], FOLDERS["train"][1], STRUCTURE_FOLDERS[0]):
        for path in sorted((structure_root / folder).iterdir())[:1]:
            shutil.copy(path, photos)
    assert "1 mask in masks" in efp("predict", photos, "--checkpoint", tiny_checkpoint).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "d", "--output", "o", "--task", "structures"], "must be used with --checkpoint"),
        (
            ["score", "--data", "d", "--task", "structures", "--prompts"],
            "`--prompts` must have one class, and no labels",
        ),
        (["score", "--data", "d", "--task", "structures"], "efp-isic must have the labels lesion, globules"),
    ],
)
def test_what_does_not_go_with_structures_is_said(efp, arguments, message):
    ran = efp(*arguments)
    assert ran.code == 2 and message in ran.err


def test_other_doors_refuse_labels_that_overlap(efp, structure_root, structure_checkpoint):
    for options in (("--to", "executorch"), ("--to", "onnx", "--int8", "--data", structure_root)):
        ran = efp("export", "--checkpoint", structure_checkpoint, "--output", "o", *options)
        assert ran.code == 2 and "it is exported to hub, onnx or openvino, without --int8." in ran.err
    ran = efp("review", structure_root / FOLDERS["train"][0], "--output", "o", "--checkpoint", structure_checkpoint)
    assert ran.code == 2 and "a review is of one. Pass a checkpoint for lesions, as efp-isic." in ran.err
    ran = efp("score", "--data", structure_root, "--checkpoint", structure_checkpoint, "--prompts")
    assert ran.code == 2 and "`efp predict` and `efp export` take such a checkpoint, and `efp app` one" in ran.err
    ran = efp("predict", structure_root / FOLDERS["train"][0], "--checkpoint", structure_checkpoint, "--threshold", 0.3)
    assert ran.code == 2 and "`--threshold` must have a checkpoint of one class, got one of 6" in ran.err
    assert len(load_isic(structure_root)["test"]) == 8


def test_card_has_the_scores_of_each_structure(efp, tmp_path, structure_root, structure_checkpoint, rows_of):
    of_structures = ("--task", "structures", "--data", structure_root, "--checkpoint", structure_checkpoint)
    ran = efp("score", *of_structures, "--card")
    assert ran.code == 0, ran.err
    card = (structure_checkpoint / "README.md").read_text()
    for row in rows_of(tmp_path / "scores" / "label_scores.csv"):
        value, low, high = (float(row[f"jaccard{end}"]) for end in ("", "_low", "_high"))
        assert f"| {row['label']}: Jaccard (J), over all images | {value:.3f} | {low:.3f} – {high:.3f} |" in card
    assert "globules: presence, area under" in card and "micro-average: presence" not in card
    assert "dermoscopy" in card and "lesion 0.5, globules 0.3, " in card and "allow_overlap=True" in card
    again = efp("card", "--checkpoint", structure_checkpoint, "--overwrite")
    assert again.code == 0
    after = (structure_checkpoint / "README.md").read_text()
    assert after.split("---\n", 2)[2] == card.split("---\n", 2)[2]  # the metadata differ in the license


SLOW_RUNTIMES = [pytest.param(runtime, marks=pytest.mark.slow) for runtime in ("onnx", "openvino")]


@pytest.mark.parametrize("runtime", ["hub", *SLOW_RUNTIMES])
def test_exported_folder_gives_the_same_masks(efp, tmp_path, structure_root, tiny_checkpoint, rows_of, runtime):
    model, processor = load_checkpoint(tiny_checkpoint)
    torch.manual_seed(6)
    with_structures(model, shared_size=32).save_pretrained("structures")
    processor = with_thresholds(processor, 6, 1, [0.3, 0.7, 0.5, 0.5, 0.6])
    processor.size = {"height": 64, "width": 64}
    processor.save_pretrained("structures")
    ran = efp("export", "--to", runtime, "--checkpoint", "structures", "--output", "exported")
    assert ran.code == 0, ran.err
    photos = sorted((structure_root / FOLDERS["train"][0]).iterdir())[:3]
    for checkpoint in ("structures", "exported"):
        assert efp("predict", *photos, "--checkpoint", checkpoint, "--output", f"of-{checkpoint}").code == 0
        score = ("score", "--task", "structures", "--data", structure_root, "--checkpoint", checkpoint)
        assert efp(*score).code == 0
    masks = sorted((tmp_path / "of-structures").glob("*.png"))
    assert len(masks) == 3 * len(LABELS)
    for path in masks:
        mine, theirs = (
            np.asarray(Image.open(folder / path.name)) for folder in (path.parent, tmp_path / "of-exported")
        )
        assert (mine != theirs).mean() < 1e-3
    models = [load_checkpoint(folder, allow_overlap=True)[0] for folder in ("structures", "exported")]
    with torch.inference_mode():  # of the very size at which PyTorch leaves out an interpolation
        mine, theirs = (model(pixel_values=torch.ones(1, 3, 32, 32)).logits for model in models)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4)
    rows = rows_of(tmp_path / "scores" / "label_scores.csv")
    for mine, theirs in zip(rows[:7], rows[7:], strict=True):
        assert float(mine["jaccard"]) == pytest.approx(float(theirs["jaccard"]), abs=1e-3)
