import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from PIL import Image
from scipy.ndimage import label

from efp_hf.data.synthetic import draw_lesion
from efp_hf.inference import folder
from efp_hf.inference.checkpoint import load_checkpoint, segment
from efp_hf.inference.correction import Correction
from efp_hf.inference.output_folder import only_writer

EXAMPLES = REPOSITORY / "examples"


def test_predict_writes_a_mask_for_each_image(efp, tmp_path, tiny_checkpoint, rows_of):
    ran = efp("predict", EXAMPLES, "--checkpoint", tiny_checkpoint, "--overlays")
    assert ran.code == 0
    masks = sorted(path.name for path in (tmp_path / "masks").glob("*_segmentation.png"))
    assert masks == [f"synthetic_{number}_segmentation.png" for number in (1, 2, 3, 4)]
    assert len(list((tmp_path / "masks").glob("*_overlay.jpg"))) == 4
    assert len(rows_of(tmp_path / "masks" / "predictions.csv")) == 4
    assert "4 masks in masks" in ran.out


def test_threshold_and_region_are_those_of_the_call(efp, tmp_path, tiny_checkpoint):
    def mask(*options) -> np.ndarray:
        arguments = ("predict", EXAMPLES / "synthetic_1.jpg", "--checkpoint", tiny_checkpoint, "--overwrite")
        assert efp(*arguments, *options).code == 0
        return np.asarray(Image.open(tmp_path / "masks" / "synthetic_1_segmentation.png")) > 128

    assert mask("--threshold", "0.000001").all() and not mask("--threshold", "0.999999").any()
    model, processor = load_checkpoint(tiny_checkpoint)
    probabilities = segment([Image.open(EXAMPLES / "synthetic_1.jpg")], model, processor)[0]["probabilities"]
    high = str(float(probabilities.quantile(0.95)))
    assert label(mask("--threshold", high, "--no-largest-region"))[1] > 1
    assert label(mask("--threshold", high, "--largest-region"))[1] == 1


def test_predict_goes_on_after_a_bad_file_and_exits_with_one(efp, tmp_path, tiny_checkpoint):
    (tmp_path / "bad.jpg").write_text("no picture")
    ran = efp("predict", tmp_path / "bad.jpg", EXAMPLES / "synthetic_1.jpg", "--checkpoint", tiny_checkpoint)
    assert ran.code == 1
    assert (tmp_path / "masks" / "synthetic_1_segmentation.png").is_file()
    assert "failed:" in ran.err and "bad.jpg: not an image" in ran.err


def test_predict_does_not_touch_an_output_folder_that_is_not_empty(efp, tmp_path, tiny_checkpoint):
    arguments = ("predict", EXAMPLES / "synthetic_1.jpg", "--checkpoint", tiny_checkpoint)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "mine.txt").write_text("mine")
    ran = efp(*arguments)
    assert (
        ran.err
        == "efp predict: masks is not empty. Choose another --output, go on with --resume, or pass --overwrite.\n"
    )
    assert ran.code == 2
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["mine.txt"]
    assert efp(*arguments, "--overwrite").code == 0
    assert efp(*arguments, "--output", "masks/mine.txt").err.startswith("efp predict: masks/mine.txt is a file.")


def test_stopped_run_is_resumed(efp, tmp_path, tiny_checkpoint, rows_of):
    first, second = (EXAMPLES / f"synthetic_{number}.jpg" for number in (1, 2))
    assert efp("predict", first, "--checkpoint", tiny_checkpoint).code == 0
    mask = tmp_path / "masks" / "synthetic_1_segmentation.png"
    before = mask.stat().st_mtime_ns
    ran = efp("predict", first, second, "--checkpoint", tiny_checkpoint, "--resume")
    assert ran.code == 0 and "2 masks in masks" in ran.out
    assert mask.stat().st_mtime_ns == before
    assert [row["image"] for row in rows_of(tmp_path / "masks" / "predictions.csv")] == [first.name, second.name]


def test_full_disk_ends_the_run_in_a_sentence(efp, monkeypatch, tiny_checkpoint):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("efp_hf.inference.folder.write_mask", full)
    ran = efp("predict", EXAMPLES / "synthetic_1.jpg", "--checkpoint", tiny_checkpoint)
    assert ran.code == 1
    assert ran.err.endswith("No space left on device. Mend it, and go on with --resume.\n")


def test_termination_keeps_what_is_finished(efp, monkeypatch, tmp_path, tiny_checkpoint, rows_of):
    write_mask = folder.write_mask

    def terminated(mask, path):
        write_mask(mask, path)
        if path.name.startswith("synthetic_1"):
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(folder, "write_mask", terminated)
            ran = efp("predict", EXAMPLES, "--checkpoint", tiny_checkpoint, "--batch-size", 1)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ran.code == 130 and ran.err.endswith("efp predict: interrupted, go on with --resume\n")
    masks = len(list((tmp_path / "masks").glob("*_segmentation.png")))
    assert 1 <= masks == len(rows_of(tmp_path / "masks" / "predictions.csv")) < 4
    assert efp("predict", EXAMPLES, "--checkpoint", tiny_checkpoint, "--resume").code == 0
    assert len(rows_of(tmp_path / "masks" / "predictions.csv")) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["photo.jpg", "--resume", "--overwrite"], "argument --overwrite: not allowed with argument --resume"),
        (["photo.jpg", "--output", "file/masks"], "file is a file. Choose another --output."),
        (["photo.jpg", "--output", "dangling/masks"], "dangling is a link to nothing. Choose another --output."),
        (["nothing*.jpg"], "nothing*.jpg: no file matches"),
        (["photo.jpg", ""], "An image's name must not be empty."),
        (["photo.jpg", "--threshold", "nan"], "`threshold` must be a probability between 0 and 1, got nan"),
        (["photo.jpg", "--threshold", "50"], "`threshold` must be a probability between 0 and 1, got 50.0"),
        (["photo.jpg", "--checkpoint", "nowhere"], "nowhere: no checkpoint there"),
        (["photo.jpg", "--batch-size", "-1"], "argument --batch-size: must be at least 1, got -1"),
        (["photo.jpg", "--bf16"], "`bf16` must be used with a folder of OpenVINO"),
    ],
)
def test_predict_refuses_impossible_arguments_before_it_writes(efp, tmp_path, tiny_checkpoint, arguments, words):
    if "--checkpoint" not in arguments:
        arguments = [*arguments, "--checkpoint", tiny_checkpoint]
    (tmp_path / "file").write_text("")
    (tmp_path / "photo.jpg").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    ran = efp("predict", *arguments)
    assert ran.code == 2 and words in ran.err and ran.err.count("\n") == 1
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("checkpoint", ["efp-isic", "efp-isic-nano"])
def test_shipped_checkpoint_finds_the_drawn_lesions(efp, tmp_path, checkpoint):
    assert efp("predict", EXAMPLES, "--checkpoint", checkpoint).code == 0
    for number in (1, 2, 3, 4):
        name = f"synthetic_{number}_segmentation.png"
        mask = np.asarray(Image.open(tmp_path / "masks" / name)) > 128
        truth = np.asarray(Image.open(EXAMPLES / name)) > 128
        assert mask.shape == truth.shape
        assert (mask & truth).sum() / (mask | truth).sum() > 0.6, name


def test_a_folder_that_is_not_there_is_said_without_a_request(efp, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("checkpoints/efp-isic", "nowhere", "./runs/mine", "a/b/c"):
        ran = efp("predict", EXAMPLES / "synthetic_1.jpg", "--checkpoint", name)
        assert ran.code == 2
        assert f"{name}: no checkpoint there" in ran.err and "efp-isic, efp-isic-nano" in ran.err


@pytest.mark.slow
def test_predict_needs_no_extra(tmp_path):
    """In a process that can import nothing of any extra."""
    program = """
import sys
from efp_hf.extras import EXTRAS
for modules in EXTRAS.values():
    sys.modules.update(dict.fromkeys(modules))
from efp_hf.__main__ import main
sys.exit(main(["predict", sys.argv[1]]))
"""
    example = str(EXAMPLES / "synthetic_1.jpg")
    ran = subprocess.run([sys.executable, "-c", program, example], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "masks" / "synthetic_1_segmentation.png").is_file()


@pytest.mark.parametrize("output", ["photos", "other/../photos", "link"])
def test_output_is_no_folder_that_images_are_read_from(efp, tmp_path, tiny_checkpoint, output):
    photos = tmp_path / "photos"
    photos.mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("photos")
    for name in ("synthetic_1.jpg", "synthetic_1_segmentation.png"):
        (photos / name).write_bytes((EXAMPLES / name).read_bytes())
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    for inputs in ("photos", "photos/*.jpg", "photos/synthetic_1.jpg"):
        for option in ("--overwrite", "--resume"):
            ran = efp("predict", inputs, "--checkpoint", tiny_checkpoint, "--output", output, option, "--overlays")
            assert ran.code == 2 and "--output must not be a folder that images are read from." in ran.err
    assert {path.name: path.read_bytes() for path in photos.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("synthetic_2_segmentation.png", "synthetic_2_segmentation.png could be replaced, and is not of `efp predict`"),
        ("synthetic_2_overlay.jpg", "synthetic_2_overlay.jpg could be replaced, and is not of `efp predict`"),
        ("another_segmentation.png", "another_segmentation.png could be replaced"),  # by the next run, of its image
        ("predictions.csv", "predictions.csv: another table than this version writes"),
    ],
)
def test_files_of_somebody_else_are_not_replaced(efp, tmp_path, tiny_checkpoint, name, words):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / name).write_text("mine")
    for option in ("--overwrite", "--resume"):
        ran = efp("predict", EXAMPLES, "--checkpoint", tiny_checkpoint, option)
        assert ran.code == 2 and words in ran.err and ran.err.count("\n") == 1
    assert [path.name for path in (tmp_path / "masks").iterdir()] == [name]
    assert (tmp_path / "masks" / name).read_text() == "mine"


def test_own_overlay_beside_masks_without_is_not_replaced(efp, tmp_path, tiny_checkpoint):
    drawn = tmp_path / "masks" / "synthetic_1_overlay.jpg"
    arguments = ("predict", EXAMPLES / "synthetic_1.jpg", "--checkpoint", tiny_checkpoint)
    assert efp(*arguments).code == 0
    Image.new("L", (8, 8)).save(drawn)
    before = drawn.read_bytes()
    for options in (["--overwrite"], ["--resume"], ["--overwrite", "--overlays"]):
        ran = efp(*arguments, *options)
        assert ran.code == 2 and "synthetic_1_overlay.jpg could be replaced, and is not of" in ran.err
    assert drawn.read_bytes() == before
    drawn.unlink()
    for options in (["--overwrite", "--overlays"], ["--resume"], ["--overwrite"]):  # the run's own may go
        assert efp(*arguments, *options).code == 0
    assert not drawn.exists()


def test_second_run_does_not_write_where_one_is_writing(efp, tmp_path, tiny_checkpoint):
    (tmp_path / "masks").mkdir()
    with only_writer(tmp_path / "masks"):
        ran = efp("predict", EXAMPLES, "--checkpoint", tiny_checkpoint, "--overwrite")
    assert ran.code == 2 and "masks: another `efp predict` writes there." in ran.err
    assert efp("predict", EXAMPLES, "--checkpoint", tiny_checkpoint, "--overwrite").code == 0


def test_names_move_no_cursor_and_begin_no_formula(efp, tmp_path, tiny_checkpoint, rows_of):
    photos = tmp_path / "photos"
    photos.mkdir()
    names = ["-1.jpg", "=1+1.jpg", "a\nb.jpg", "b\u2028.jpg", os.fsdecode(b"caf\xe9.jpg"), "plain.jpg"]
    for name in names:
        (photos / name).write_bytes((EXAMPLES / "synthetic_1.jpg").read_bytes())
    (photos / "\x1b[2Jbad\n.jpg").write_text("no picture")
    ran = efp("predict", photos, "--checkpoint", tiny_checkpoint)
    assert ran.code == 1 and "photos/\\x1b[2Jbad\\n.jpg: not an image" in ran.err
    table = tmp_path / "masks" / "predictions.csv"
    shown = ["\\x1b[2Jbad\\n.jpg", "'-1.jpg", "'=1+1.jpg", "a\\nb.jpg", "b\\u2028.jpg", "caf\\xe9.jpg", "plain.jpg"]
    assert [row["image"] for row in rows_of(table)] == shown
    (photos / "\x1b[2Jbad\n.jpg").write_bytes((EXAMPLES / "synthetic_2.jpg").read_bytes())
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "masks").glob("*.png")}
    assert efp("predict", photos, "--checkpoint", tiny_checkpoint, "--resume").code == 0
    assert [row["image"] for row in rows_of(table)] == shown
    assert len(times) == 6 and {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.parametrize("change", ["other folder", "edited"])
def test_resume_takes_no_mask_of_another_image(efp, tmp_path, tiny_checkpoint, change):
    for folder_name, number in (("b", 2), ("a", 1)):  # of the same size, and the one of b is older
        (tmp_path / folder_name).mkdir()
        draw_lesion(number, 60, 80)[0].save(tmp_path / folder_name / "mole.jpg", "BMP")
    assert efp("predict", "b", "--checkpoint", tiny_checkpoint, "--output", "expected").code == 0
    assert efp("predict", "a", "--checkpoint", tiny_checkpoint).code == 0
    if change == "edited":
        content = (tmp_path / "b" / "mole.jpg").read_bytes()
        (tmp_path / "a" / "mole.jpg").write_bytes(content)
    resumed = "b" if change == "other folder" else "a"
    assert efp("predict", resumed, "--checkpoint", tiny_checkpoint, "--resume").code == 0
    for name in ("mole_segmentation.png", "predictions.csv"):
        assert (tmp_path / "masks" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()


@pytest.mark.parametrize(
    ("file", "setting"),
    [("preprocessor_config.json", {"image_mean": [0.1, 0.2, 0.3]}), ("config.json", {"temperature": 9})],
)
def test_resume_takes_no_mask_of_other_settings(efp, tmp_path, tiny_checkpoint, file, setting):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    photo = EXAMPLES / "synthetic_1.jpg"
    assert efp("predict", photo, "--checkpoint", folder).code == 0
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | setting))
    assert efp("predict", photo, "--checkpoint", folder, "--resume").code == 0
    assert efp("predict", photo, "--checkpoint", folder, "--output", "expected").code == 0
    for name in ("synthetic_1_segmentation.png", "predictions.csv"):
        assert (tmp_path / "masks" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()


def test_pipes_folders_and_links_to_nothing_fail_by_name(efp, tmp_path, tiny_checkpoint):
    photos = tmp_path / "photos"
    photos.mkdir()
    os.mkfifo(photos / "pipe.jpg")
    (photos / "folder.png").mkdir()
    (photos / "loop.jpg").symlink_to("loop.jpg")
    (photos / "zero.jpg").symlink_to("/dev/zero")
    (photos / "good.jpg").write_bytes((EXAMPLES / "synthetic_1.jpg").read_bytes())
    ran = efp("predict", photos, "--checkpoint", tiny_checkpoint)
    assert ran.code == 1 and ran.out == "1 mask in masks\n" and ran.err.count("failed: ") == 4


def test_images_that_do_not_fit_into_memory_are_said_so(efp, monkeypatch, tiny_checkpoint):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(folder, "segment_read", full)
    ran = efp("predict", EXAMPLES, "--checkpoint", tiny_checkpoint)
    assert ran.code == 1 and ran.err.endswith("Go on with --resume and a smaller --batch-size.\n")


def test_clicks_and_box_make_the_mask_that_a_correction_has(efp, tmp_path, prompted_checkpoint, rows_of):
    photo = EXAMPLES / "synthetic_1.jpg"
    call = ("predict", photo, "--checkpoint", prompted_checkpoint)
    assert efp(*call, "--points", "310,220", "80,95,0", "--box", "100,90,450,350", "--threshold", 0.4).code == 0
    mask = np.asarray(Image.open(tmp_path / "masks" / "synthetic_1_segmentation.png")) > 128
    model, processor = load_checkpoint(prompted_checkpoint)
    image, size = folder.read_for_model(photo, processor)
    correction = Correction(image, model, processor, size)
    found = correction.segment([(310, 220, 1), (80, 95, 0)], (100, 90, 450, 350), threshold=0.4)
    assert np.array_equal(mask, found["probabilities"].numpy() > 0.4)
    (row,) = rows_of(tmp_path / "masks" / "predictions.csv")
    assert "points [(310.0, 220.0, 1), (80.0, 95.0, 0)], box (100.0, 90.0, 450.0, 350.0)" in row["made_by"]
    automatic = efp(*call, "--output", "automatic", "--threshold", 0.4)
    assert automatic.code == 0
    other = np.asarray(Image.open(tmp_path / "automatic" / "synthetic_1_segmentation.png")) > 128
    assert not np.array_equal(mask, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--points", "10,20,2"), "a click is X,Y, or X,Y,0 for background, got '10,20,2'"),
        (("--points", "10,nan"), "a click is X,Y, or X,Y,0 for background, got '10,nan'"),
        (("--points", "-inf,5"), "a click is X,Y, or X,Y,0 for background, got '-inf,5'"),
        (("--points", "60,45", "photo.jpg"), "got 'photo.jpg'. A photo goes before --points"),
        (("--points", "-5,x"), "argument --points"),
        (("--box", "1,2,3"), "a box is L,T,R,B with L < R and T < B, got '1,2,3'"),
        (("--box", "30,10,20,40"), "a box is L,T,R,B with L < R and T < B, got '30,10,20,40'"),
        (("--points", "10,20", "--overwrite"), "must be of one photo"),
    ],
)
def test_prompts_that_cannot_be_are_refused(efp, prompted_checkpoint, options, message):
    photos = sorted(EXAMPLES.glob("synthetic_[12].jpg"))
    ran = efp("predict", *photos, "--checkpoint", prompted_checkpoint, *options)
    assert ran.code == 2 and message in ran.err


@pytest.mark.parametrize("prompts", [("--points", "302,284"), ("--points", "301.99,283.99"), ("--box", "0,0,302,284")])
def test_the_border_of_a_photo_may_be_clicked(efp, tmp_path, prompted_checkpoint, prompts):
    _, processor = load_checkpoint(prompted_checkpoint)
    processor.size = {"height": 192, "width": 192}
    processor.save_pretrained(prompted_checkpoint)
    draw_lesion(0, 284, 302)[0].save(tmp_path / "photo.png")
    call = ("predict", tmp_path / "photo.png", "--checkpoint", prompted_checkpoint)
    assert efp(*call, *prompts).code == 0
    assert efp(*call, "--output", "automatic").code == 0
    masks = [(tmp_path / name / "photo_segmentation.png").read_bytes() for name in ("masks", "automatic")]
    assert masks[0] != masks[1]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (("--points", "5000,20"), "must lie in the photo of 600×450 pixels, got (5000, 20)"),
        (("--points", "-5,20"), "must lie in the photo of 600×450 pixels, got (-5, 20)"),
        (("--box", "-5,20,60,80"), "must be (left, top, right, bottom) in the photo of 600×450 pixels"),
    ],
)
def test_prompts_outside_of_the_photo_are_refused_before_anything_is_made(
    efp, tmp_path, prompted_checkpoint, prompts, message
):
    ran = efp("predict", EXAMPLES / "synthetic_1.jpg", "--checkpoint", prompted_checkpoint, *prompts)
    assert ran.code == 2 and message in ran.err and not (tmp_path / "masks").exists()


def test_a_box_without_lesion_is_noted(efp, tmp_path, prompted_checkpoint, rows_of):
    model, _ = load_checkpoint(prompted_checkpoint)
    model.prompted_decoder.classifier.bias.data.fill_(-50)
    model.save_pretrained(prompted_checkpoint)
    ran = efp("predict", EXAMPLES / "synthetic_1.jpg", "--checkpoint", prompted_checkpoint, "--box", "5,5,60,80")
    (row,) = rows_of(tmp_path / "masks" / "predictions.csv")
    assert ran.code == 0 and row["note"] == "no lesion found in the box"
    assert row["lesion_pixels"] == "0" and float(row["expected_jaccard"]) == 0


def test_a_checkpoint_without_prompts_says_so(efp, tiny_checkpoint):
    ran = efp("predict", EXAMPLES / "synthetic_1.jpg", "--checkpoint", tiny_checkpoint, "--points", "10,20")
    assert ran.code == 2 and "must take clicks and boxes, and does not" in ran.err
