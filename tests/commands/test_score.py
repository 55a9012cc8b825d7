import errno
import shutil

import pytest

from efp_hf.data.folders import FOLDERS, load_isic
from efp_hf.data.split import SPLITS
from efp_hf.metrics import correction
from efp_hf.training.fingerprint import fingerprint_of, write_fingerprint


def test_score_of_a_checkpoint_is_the_score_of_its_masks(efp, tmp_path, synthetic_root, tiny_checkpoint, rows_of):
    images = synthetic_root / FOLDERS["train"][0]
    assert efp("predict", images, "--checkpoint", tiny_checkpoint).code == 0
    ran = efp("score", "--data", synthetic_root, "--checkpoint", tiny_checkpoint)
    assert ran.code == 0
    assert efp("score", "--data", synthetic_root, "--masks", "masks").code == 0
    by_model, by_masks = rows_of(tmp_path / "scores" / "scores.csv")
    assert (by_model["split"], by_model["images"]) == ("test", "8")
    scores = [name for name in by_model if name.startswith(("jaccard", "dice", "pooled", "hd95", "boundary"))]
    assert len(scores) >= 12
    assert {name: by_model[name] for name in scores} == {name: by_masks[name] for name in scores}
    assert f"{float(by_model['jaccard']):.4f}" in ran.out
    assert efp("score", "--data", synthetic_root, "--masks", "masks").code == 0  # a third row fits, too
    assert by_masks["command"] == "efp score --data synthetic --masks masks"


def test_score_of_the_truth_is_perfect(efp, tmp_path, synthetic_root, rows_of):
    shutil.copytree(synthetic_root / FOLDERS["train"][1], tmp_path / "truth")
    arguments = ("--data", synthetic_root, "--masks", "truth", "--split", "validation", "--output", "out")
    assert efp("score", *arguments).code == 0
    (row,) = rows_of(tmp_path / "out" / "scores.csv")
    assert float(row["jaccard"]) == float(row["pooled_mean_iou"]) == float(row["boundary_f1"]) == 1.0
    assert float(row["hd95"]) == 0.0


def test_score_names_what_is_wrong(efp, tmp_path, synthetic_root):
    data = ("--data", synthetic_root)
    assert "must be one of train, validation, test, got 'val'" in efp("score", *data, "--split", "val").err
    (tmp_path / "none").mkdir()
    ran = efp("score", *data, "--masks", "none")
    assert ran.code == 2 and "_segmentation.png: no such file" in ran.err
    both = efp("score", *data, "--masks", "none", "--checkpoint", "efp-isic")
    assert both.code == 2 and "not allowed with argument" in both.err
    assert not (tmp_path / "scores").exists()


def test_score_checks_its_arguments_before_it_reads_the_images(efp, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "dangling").symlink_to("nothing")
    for arguments, words in (
        (("--split", "val"), "got 'val'"),
        (("--checkpoint", "nowhere"), "nowhere: no checkpoint there"),
        (("--batch-size", "0"), "argument --batch-size: must be at least 1, got 0"),
        (("--output", "file"), "file is a file. Choose another --output."),
        (("--output", "file/below/it"), "file is a file. Choose another --output."),
        (("--output", "x" * 300), "xx cannot be used (File name too long). Choose another --output."),
        (("--output", "circle"), "circle cannot be used (Too many levels of symbolic links). Choose another"),
        (("--output", "dangling/below"), "dangling is a link to nothing. Choose another --output."),
    ):
        ran = efp("score", "--data", "/nowhere", *arguments)
        assert ran.code == 2 and words in ran.err and "/nowhere" not in ran.err


def test_help_names_the_splits_that_there_are(efp):
    first, second, third = SPLITS
    assert f"{first}, {second} or {third} (default" in efp("score", "--help").out


def test_score_checks_the_table_that_is_there_before_the_work(efp, tmp_path):
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "scores.csv").write_text("date,jaccard\n")
    ran = efp("score", "--data", "/nowhere")
    assert ran.code == 2 and "scores/scores.csv has the columns ['date', 'jaccard']" in ran.err


def test_score_that_cannot_be_written_has_broken_off(efp, monkeypatch, synthetic_root, tiny_checkpoint):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("efp_hf.metrics.rows.append_row", full)
    ran = efp("score", "--data", synthetic_root, "--checkpoint", tiny_checkpoint)
    assert ran.code == 1 and ran.err.endswith("efp score: [Errno 28] No space left on device\n")
    assert "jaccard " in ran.out


@pytest.fixture
def trained_checkpoint(tmp_path, synthetic_root, tiny_checkpoint):
    """Trained on the `train` split of seed 0, chosen on `validation`."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "trained")
    write_fingerprint(folder, fingerprint_of(load_isic(synthetic_root)))
    return folder


def test_score_that_nobody_reads_is_in_the_table(
    efp, monkeypatch, tmp_path, synthetic_root, trained_checkpoint, rows_of
):
    class Closed:
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Closed())
    ran = efp("score", "--data", synthetic_root, "--checkpoint", trained_checkpoint)
    assert ran.code == 1 and ran.err.endswith("efp score: nobody reads what is printed\n")
    assert len(rows_of(tmp_path / "scores" / "scores.csv")) == 1


def test_test_split_with_training_images_is_refused(efp, tmp_path, synthetic_root, trained_checkpoint, rows_of):
    arguments = ("--data", synthetic_root, "--checkpoint", trained_checkpoint)
    assert efp("score", *arguments).code == 0
    ran = efp("score", *arguments, "--split-seed", "1")
    assert ran.code == 2
    assert "of the 8 images are among those that" in ran.err and "(ISIC_90000" in ran.err
    assert "--allow-training-images" in ran.err and ran.err.count("\n") == 1
    ran = efp("score", *arguments, "--split-seed", "1", "--allow-training-images")
    assert ran.code == 0 and "of the 8 images are among those that" in ran.out
    ran = efp("score", *arguments, "--split", "validation")
    assert ran.code == 0 and "4 of the 4 images are among" in ran.out
    none, some, all_of_them = rows_of(tmp_path / "scores" / "scores.csv")
    assert none["training_images"] == "0" and all_of_them["training_images"] == "4"
    assert 0 < int(some["training_images"]) <= 8


def test_unknown_training_images_are_said_to_be(efp, tmp_path, synthetic_root, tiny_checkpoint, rows_of):
    ran = efp("score", "--data", synthetic_root, "--checkpoint", tiny_checkpoint)
    assert ran.code == 0 and ran.out.count("has no training_images.csv: whether these images trained it is not") == 1
    assert rows_of(tmp_path / "scores" / "scores.csv")[0]["training_images"] == ""


def test_damaged_fingerprint_is_refused_before_the_images_are_read(efp, trained_checkpoint):
    (trained_checkpoint / "training_images.csv").write_text("hash,split\n5555,train\n")
    ran = efp("score", "--data", "/nowhere", "--checkpoint", trained_checkpoint)
    assert ran.code == 2 and "training_images.csv must have the columns hash and split" in ran.err


def test_masks_have_no_training_images(efp):
    ran = efp("score", "--data", "/nowhere", "--masks", "masks", "--allow-training-images")
    assert ran.code == 2 and "`--allow-training-images` must be used with a checkpoint, got --masks" in ran.err


def test_prompts_are_scored_with_grabcut_beside(
    efp, monkeypatch, tmp_path, synthetic_root, prompted_checkpoint, rows_of
):
    monkeypatch.setattr(correction, "MAX_CLICKS", 3)
    monkeypatch.setattr(correction, "CLICKS", (0, 1, 3))
    call = (
        "score",
        "--data",
        synthetic_root,
        "--split",
        "validation",
        "--prompts",
        "--checkpoint",
        prompted_checkpoint,
    )
    ran = efp(*call)
    assert ran.code == 0, ran.err
    rows = rows_of(tmp_path / "scores" / "prompts.csv")
    given = [(row["prompts"], row["place"]) for row in rows]
    assert len(given) == len(set(given)) == 2 * 3 + 2 * 3
    for name in ("box", "box, GrabCut"):
        assert [place for kind, place in given if kind == name] == ["0% off", "5% off", "10% off"]
    by_box = {row["place"]: float(row["jaccard"]) for row in rows if row["prompts"] == "box, GrabCut"}
    assert by_box["0% off"] > 0.6 and f"box, GrabCut 0% off         J {by_box['0% off']:.4f}" in ran.out
    assert len(rows_of(tmp_path / "scores" / "number_of_clicks.csv")) == 6
    assert {row["images"] for row in rows} == {"4"}


def test_a_table_of_other_columns_is_refused_before_the_clicks(efp, tmp_path, synthetic_root, prompted_checkpoint):
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "number_of_clicks.csv").write_text("target,clicks\n")
    ran = efp(
        "score", "--data", synthetic_root, "--split", "validation", "--prompts", "--checkpoint", prompted_checkpoint
    )
    assert ran.code == 2 and "number_of_clicks.csv has the columns ['target', 'clicks']" in ran.err
    assert not (tmp_path / "scores" / "prompts.csv").exists()


def test_a_checkpoint_without_prompts_is_not_scored_with_them(efp, synthetic_root, tiny_checkpoint):
    ran = efp("score", "--data", synthetic_root, "--prompts", "--checkpoint", tiny_checkpoint)
    assert ran.code == 2 and "must take prompts to be scored with them" in ran.err
