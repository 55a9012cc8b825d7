import copy
import csv
import errno
import os
import struct
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import efp_hf.inference.folder
from efp_hf.data.synthetic import draw_lesion
from efp_hf.inference.checkpoint import load_checkpoint, segment
from efp_hf.inference.drawing import outline_lesion
from efp_hf.inference.folder import (
    Prediction,
    find_images,
    predict_files,
    table_row,
    unfinished,
    write_mask,
    write_predictions,
)
from efp_hf.inference.prediction_table import (
    COLUMNS,
    PredictionTable,
    columns_for,
    finished_rows,
    is_written,
    start_table,
)


@pytest.fixture
def folder(tmp_path):
    """Five images of different sizes, one large, and their neighbours that are none."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, size in enumerate([(40, 60), (64, 64), (33, 47), (400, 600), (50, 40)]):
        draw_lesion(seed, *size)[0].save(folder / f"mole_{seed}.jpg")
    draw_lesion(0, 40, 60)[1].save(folder / "mole_0_segmentation.png")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.jpg").touch()
    return folder


# What is predicted


def test_folder_gives_its_images_without_masks_and_other_files(folder, caplog):
    names = [f"mole_{seed}.jpg" for seed in range(5)]
    assert [path.name for path in find_images([str(folder)])] == names and not caplog.text
    (folder / "mole_9.NPY").touch()
    assert [path.name for path in find_images([str(folder)])] == names
    assert "1 .npy files are left out beside images: mole_9.NPY." in caplog.text


def test_glob_image_and_folder_give_each_file_once(folder):
    found = find_images([f"{folder}/*_1.jpg", str(folder / "mole_3.jpg"), str(folder)])
    assert [path.stem for path in found] == ["mole_1", "mole_3", "mole_0", "mole_2", "mole_4"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "no image in the folder"),
        ("none*.jpg", "no file matches"),
        (None, "No image was"),
        ("photoz", "photoz: no such file or folder"),
        (f"{'x' * 300}.jpg", "no such file or folder"),
    ],
)
def test_nothing_to_predict_is_an_error(tmp_path, name, words):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=words):
        find_images([] if name is None else [str(tmp_path / name)])


def test_file_whose_name_looks_like_a_glob_is_found(tmp_path):
    draw_lesion(0, 32, 32)[0].save(tmp_path / "mole[1].jpg")
    assert find_images([str(tmp_path / "mole[1].jpg")]) == [tmp_path / "mole[1].jpg"]


# Segmentation


def test_batches_give_the_masks_of_single_images(folder, loaded):
    files = find_images([str(folder)])
    batched = list(predict_files(files, *loaded, batch_size=3))
    single = list(predict_files(files, *loaded, batch_size=1))
    assert [prediction.path for prediction in batched] == files
    for one, other, path in zip(batched, single, files, strict=True):
        assert one.mask.shape == Image.open(path).size[::-1]
        assert one.mask.dtype == bool
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_mask_of_a_file_is_the_mask_of_its_pixels(folder, loaded):
    model, processor = loaded
    path = folder / "mole_1.jpg"
    prediction = next(predict_files([path], model, processor))
    result = segment([Image.open(path)], model, processor)[0]
    assert np.array_equal(prediction.mask, result["segmentation"].numpy() == 1)
    assert np.array_equal(prediction.mask, prediction.probabilities > processor.threshold)


def test_large_photo_at_reduced_scale_gives_nearly_the_same_probabilities(folder, loaded):
    path = folder / "mole_3.jpg"
    prediction = next(predict_files([path], *loaded))
    whole = segment([Image.open(path)], *loaded)[0]["probabilities"].numpy()
    assert np.abs(prediction.probabilities - whole).mean() < 0.02


def test_threshold_and_region_choice_reach_the_masks(folder, loaded):
    path = folder / "mole_1.jpg"
    areas = [next(predict_files([path], *loaded, threshold=threshold)).mask.sum() for threshold in (0.01, 0.5, 0.99)]
    assert areas[0] > areas[1] > areas[2]


def test_rotated_photo_gets_a_mask_for_its_upright_view(tmp_path, loaded):
    exif = Image.Exif()
    exif[0x0112] = 6
    draw_lesion(0, 40, 60)[0].save(tmp_path / "photo.jpg", exif=exif)
    assert next(predict_files([tmp_path / "photo.jpg"], *loaded)).mask.shape == (60, 40)


def test_bad_file_stops_nothing_and_says_why(folder, loaded):
    (folder / "mole_1.jpg").write_bytes(b"")
    (folder / "mole_3.jpg").write_text("no picture")
    predictions = list(predict_files([*find_images([str(folder)]), folder / "gone.jpg"], *loaded, batch_size=2))
    assert [prediction.error is None for prediction in predictions] == [True, False, True, False, True, False]
    assert "mole_1.jpg: the file is empty" in predictions[1].error
    assert "gone.jpg: no such file" in predictions[5].error


def test_turned_photo_is_segmented_like_its_upright_twin(tmp_path, loaded):
    upright = draw_lesion(1, 40, 64)[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        found = segment([turned], *loaded)[0]["segmentation"]
    assert torch.equal(found, segment([upright], *loaded)[0]["segmentation"])


# Writing


def test_masks_overlays_and_table_are_written(folder, loaded, tmp_path):
    output = tmp_path / "masks"
    output.mkdir()
    files = find_images([str(folder)])
    expected = {prediction.path.stem: prediction for prediction in predict_files(files, *loaded)}
    assert write_predictions(predict_files(files, *loaded), output, overlays=True) == []
    assert {path.name for path in output.iterdir()} == {"predictions.csv"} | {
        f"mole_{seed}_{kind}" for seed in range(5) for kind in ("segmentation.png", "overlay.jpg")
    }
    with (output / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [path.name for path in files]
    for row in rows:
        mask = Image.open(output / row["image"].replace(".jpg", "_segmentation.png"))
        assert mask.mode == "L" and mask.size == Image.open(folder / row["image"]).size
        assert set(np.unique(mask)) <= {0, 255}
        assert np.array_equal(np.asarray(mask) == 255, expected[row["image"][:-4]].mask)
        assert int(row["lesion_pixels"]) == np.count_nonzero(mask)


def test_files_of_the_same_name_do_not_overwrite_each_other(folder, loaded, tmp_path):
    other = tmp_path / "other" / "mole_1.png"
    other.parent.mkdir()
    draw_lesion(9, 40, 32)[0].save(other)
    failed = write_predictions(predict_files([folder / "mole_1.jpg", other], *loaded), tmp_path)
    assert [prediction.path for prediction in failed] == [other]
    assert "its mask would overwrite that of" in failed[0].error
    assert Image.open(tmp_path / "mole_1_segmentation.png").size == (64, 64)


def test_interrupted_run_keeps_the_rows_of_its_masks(folder, loaded, tmp_path):
    def interrupted():
        yield from predict_files([folder / "mole_0.jpg"], *loaded)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(interrupted(), tmp_path)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["mole_0.jpg"]
    assert (tmp_path / "mole_0_segmentation.png").is_file()


def test_mask_that_cannot_be_written_stops_the_run_and_gets_no_row(folder, loaded, tmp_path, monkeypatch):
    def write_once(mask, path):
        if path.exists() or any(tmp_path.glob("*_segmentation.png")):
            raise OSError(errno.ENOSPC, "No space left on device")
        write_mask(mask, path)

    monkeypatch.setattr(efp_hf.inference.folder, "write_mask", write_once)
    with pytest.raises(OSError, match="No space left"):
        write_predictions(predict_files(find_images([str(folder)]), *loaded), tmp_path)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["mole_0.jpg"]


def rows_of(output: Path) -> list[dict]:
    with (output / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_file_whose_mask_cannot_be_written_does_not_stop_the_others(folder, loaded, tmp_path):
    long = folder / f"mole_{'x' * 240}.jpg"
    (folder / "mole_0.jpg").rename(long)
    strip = folder / "strip.png"
    Image.new("RGB", (3, 70_000), (200, 150, 130)).save(strip)
    files = [long, strip, folder / "mole_1.jpg"]
    output = tmp_path / "masks"
    output.mkdir()
    failed = write_predictions(predict_files(files, *loaded), output, overlays=True)
    assert [prediction.path for prediction in failed] == [long, strip]
    assert "cannot be written" in failed[0].error and "too long" in failed[0].error
    rows = rows_of(output)
    assert [row["image"] for row in rows] == [path.name for path in files]
    assert [bool(row["error"]) for row in rows] == [True, True, False]
    assert {path.name for path in output.iterdir()} == {
        "predictions.csv",
        "mole_1_segmentation.png",
        "mole_1_overlay.jpg",
    }


def test_name_that_is_no_utf8_gets_a_mask_and_a_readable_row(folder, loaded, tmp_path):
    name = folder / os.fsdecode(b"caf\xe9.jpg")
    (folder / "mole_0.jpg").rename(name)
    output = tmp_path / "masks"
    output.mkdir()
    assert write_predictions(predict_files([name], *loaded), output) == []
    assert rows_of(output)[0]["image"] == "caf\\xe9.jpg"
    assert (output / os.fsdecode(b"caf\xe9_segmentation.png")).is_file()


def test_mask_of_an_earlier_run_does_not_stay_beside_an_image_that_failed(folder, loaded, tmp_path):
    output = tmp_path / "masks"
    output.mkdir()
    files = find_images([str(folder)])
    write_predictions(predict_files(files, *loaded), output, overlays=True)
    files[1].write_text("no picture")
    assert [failure.path for failure in write_predictions(predict_files(files, *loaded), output)] == [files[1]]
    assert not (output / "mole_1_segmentation.png").exists() and not (output / "mole_1_overlay.jpg").exists()
    assert (output / "mole_2_segmentation.png").is_file()
    assert not (output / "mole_2_overlay.jpg").exists()  # it showed the mask that was replaced


def test_bad_file_of_the_same_name_leaves_the_good_ones_mask(folder, loaded, tmp_path):
    bad = tmp_path / "mole_1.png"
    bad.write_text("no picture")
    output = tmp_path / "masks"
    output.mkdir()
    for files in ([folder / "mole_1.jpg", bad], [bad, folder / "mole_1.jpg"]):
        write_predictions(predict_files(files, *loaded), output)
        assert (output / "mole_1_segmentation.png").is_file()


def test_resumed_run_does_what_is_not_done_and_whole(folder, loaded, tmp_path):
    whole, output = tmp_path / "whole", tmp_path / "masks"
    whole.mkdir(), output.mkdir()
    files = find_images([str(folder)])
    write_predictions(predict_files(files, *loaded), whole)

    files[4].rename(tmp_path / "away.jpg")
    write_predictions(predict_files(files, *loaded), output)  # the last file failed
    (tmp_path / "away.jpg").rename(files[4])
    mask = output / "mole_0_segmentation.png"
    mask.write_bytes(mask.read_bytes()[:-40])  # cut
    (output / "mole_1_segmentation.png").unlink()
    Image.new("L", (3, 3)).save(output / "mole_2_segmentation.png")  # of another image
    (output / ".4711-mole_3_segmentation.png").write_bytes(b"of a killed run")
    (output / ".mine.png").write_bytes(b"mine")
    table = output / "predictions.csv"
    table.write_bytes(table.read_bytes() + b"mole_7.jpg,64,6")  # a row cut by a kill

    assert unfinished(files, finished_rows(output)) == [files[0], files[1], files[2], files[4]]
    assert (
        write_predictions(
            predict_files(unfinished(files, finished_rows(output)), *loaded), output, finished=finished_rows(output)
        )
        == []
    )
    assert sorted(row["image"] for row in rows_of(output)) == [path.name for path in files]
    assert {path.name for path in output.iterdir()} == {path.name for path in whole.iterdir()} | {".mine.png"}
    for path in whole.glob("*.png"):
        assert (output / path.name).read_bytes() == path.read_bytes()
    assert unfinished(files, finished_rows(output)) == []


def test_masks_of_other_weights_or_without_an_overlay_are_not_finished(folder, loaded, tmp_path):
    write_predictions(predict_files([folder / "mole_1.jpg"], *loaded), tmp_path, made_by="weights a")
    assert list(finished_rows(tmp_path, "weights a")) == ["mole_1.jpg"]
    assert finished_rows(tmp_path, "weights b") == {}
    assert finished_rows(tmp_path, "weights a", overlays=True) == {}


def test_files_that_a_table_names_or_that_say_so_were_written_here(folder, loaded, tmp_path):
    (folder / "mole_1.jpg").write_text("no picture")
    write_predictions(predict_files(find_images([str(folder)]), *loaded), tmp_path, overlays=True)
    drawn = tmp_path / "mole_1_segmentation.png"
    Image.new("L", (8, 8)).save(drawn)  # its row has an error
    Image.new("L", (8, 8)).save(tmp_path / "mole_2_segmentation.png")  # named, as one of an older version
    for ending in ("segmentation.png", "overlay.jpg"):
        (tmp_path / f"mole_3_{ending}").rename(tmp_path / f"killed_{ending}")
    is_own = is_written(tmp_path)
    assert [path.name for path in tmp_path.glob("*_*") if not is_own(path)] == [drawn.name]
    (tmp_path / "photo.png").write_bytes(drawn.read_bytes())
    (tmp_path / "killed_segmentation.png").rename(tmp_path / "killed_nucleus.png")
    assert find_images([str(tmp_path)]) == [tmp_path / "photo.png"]
    note = PngInfo()
    note.add_text("comment", "mine")
    Image.new("L", (8, 8)).save(tmp_path / "noted_segmentation.png", pnginfo=note)
    bomb = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + bomb + struct.pack(">II", crc32(bomb), 0) + b"IDAT"
    (tmp_path / "bomb_segmentation.png").write_bytes(bomb)
    os.mkfifo(tmp_path / "pipe_segmentation.png")  # nobody writes to it
    assert not any(is_own(tmp_path / f"{stem}_segmentation.png") for stem in ("noted", "bomb", "pipe"))
    for stem in ("mole_2", "mole_4"):
        (tmp_path / f"{stem}_segmentation.png").unlink()
    (tmp_path / "mole_2_segmentation.png").write_bytes(bomb)
    os.mkfifo(tmp_path / "mole_4_segmentation.png")
    assert sorted(finished_rows(tmp_path)) == ["mole_0.jpg"]
    (tmp_path / "predictions.csv").write_text("another table")
    assert len(find_images([str(tmp_path)])) == 6
    (tmp_path / "predictions.csv").write_text("image,hei")  # cut by a full disk
    assert is_written(tmp_path)(tmp_path / "killed_nucleus.png")
    (tmp_path / "predictions.csv").unlink()
    assert not any(map(is_written(tmp_path), tmp_path.iterdir()))
    start_table(tmp_path, [], columns_for(("nucleus", "cell"), overlap=True))
    row = {"image": "b.png", "nucleus_pixels": 3}
    with PredictionTable(tmp_path / "predictions.csv", columns=columns_for(("nucleus", "cell"), overlap=True)) as table:
        table.append(row)
    is_own = is_written(tmp_path)
    own = ("b_nucleus.png", "b_cell.png", "b_overlay.jpg", "b_segmentation.png", "a_cell.png")
    assert [is_own(tmp_path / name) for name in own] == [True, True, False, False, False]


def test_second_file_of_a_finished_name_is_another_one(folder, loaded, tmp_path):
    other = tmp_path / "other" / "mole_1.jpg"
    other.parent.mkdir()
    other.write_bytes((folder / "mole_2.jpg").read_bytes())
    files = [folder / "mole_1.jpg", other]
    write_predictions(predict_files(files, *loaded), tmp_path)
    assert unfinished(files, finished_rows(tmp_path)) == [other]
    assert len(write_predictions(predict_files([other], *loaded), tmp_path, finished=finished_rows(tmp_path))) == 1
    assert [bool(row["error"]) for row in rows_of(tmp_path)] == [False, True]


def test_table_of_another_version_is_not_resumed(folder, loaded, tmp_path):
    (tmp_path / "predictions.csv").write_text("image,height\nmole.jpg,3\n")
    with pytest.raises(ValueError, match=r"predictions.csv: another table than this version writes. Choose another"):
        finished_rows(tmp_path)
    assert (tmp_path / "predictions.csv").read_text() == "image,height\nmole.jpg,3\n"


def test_image_whose_logits_are_not_finite_fails_alone(folder, loaded):
    model, processor = loaded
    files = find_images([str(folder)])[:3]
    broken = copy.deepcopy(model)

    def spoil(module, inputs, outputs):
        outputs.logits[1, 1, 0, 0] = float("nan")

    broken.register_forward_hook(spoil)
    predictions = list(predict_files(files, broken, processor, batch_size=3))
    assert [prediction.error is None for prediction in predictions] == [True, False, True]
    assert "mole_1.jpg: `outputs.logits[0]` must be finite, got NaN or infinity" in predictions[1].error


def test_repaired_jpeg_has_a_note(folder, loaded, tmp_path):
    path = folder / "mole_1.jpg"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4] = b"\xff\xd0\x00\x11"  # a marker where there is none
    path.write_bytes(data)
    assert write_predictions(predict_files([path, folder / "mole_2.jpg"], *loaded), tmp_path) == []
    assert rows_of(tmp_path)[0]["note"].startswith("damaged JPEG data was repaired (Corrupt JPEG data")
    assert rows_of(tmp_path)[1]["note"] == ""


def test_home_of_nobody_is_a_file_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = Path("~nobody_of_this_name/a.jpg")
    name.parent.mkdir()
    name.touch()
    assert find_images([str(name)]) == [name]


def test_number_of_target_sizes_is_that_of_the_images(folder, loaded):
    with pytest.raises(ValueError, match="`target_sizes` must be one .* got 1 for 2"):
        segment([Image.open(folder / f"mole_{k}.jpg") for k in (0, 1)], *loaded, [(5, 5)])


def test_row_counts_a_drawing():
    mask = np.array([[pixel == "#" for pixel in row] for row in ["....", ".##.", "..#.", "....", "...."]])
    probabilities = np.where(mask, 0.75, 0.25)
    probabilities[1, 1] = 0.9
    assert table_row(Prediction(Path("a/mole.jpg"), mask, probabilities, 0.61234)) == {
        "image": "mole.jpg",
        "height": 5,
        "width": 4,
        "lesion_pixels": 3,
        "lesion_share": 3 / 20,
        "top": 1,
        "left": 1,
        "bottom": 3,
        "right": 3,
        "mean_confidence": 0.8,
        "expected_jaccard": 0.6123,
        "note": "",
        "error": "",
        "made_by": "",
    }


def test_row_without_a_lesion_has_no_box(tmp_path):
    row = table_row(Prediction(tmp_path / "skin.jpg", np.zeros((4, 4), bool), np.zeros((4, 4)), 1.0))
    assert tuple(row) == COLUMNS
    assert (row["lesion_pixels"], row["lesion_share"]) == (0, 0)
    assert [row[name] for name in ("top", "left", "bottom", "right", "mean_confidence")] == [""] * 5


def test_overlay_draws_the_outline_inside_the_lesion():
    mask = np.zeros((20, 20), dtype=bool)
    mask[5:15, 4:16] = True
    overlay = np.asarray(outline_lesion(Image.new("RGB", (20, 20)), mask))
    drawn = overlay.any(2)
    assert drawn[5, 4] and drawn[14, 15] and not drawn[10, 10] and not drawn[4, 4]
    assert drawn.sum() == 2 * 12 + 2 * 8


# Checkpoints


def test_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint there"):
        load_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: no checkpoint there"):
        load_checkpoint(tmp_path / "nowhere")


def test_loaded_model_is_in_evaluation_mode(loaded):
    assert not loaded[0].training
    assert not any(parameter.grad is not None for parameter in loaded[0].parameters())
    image = Image.new("RGB", (32, 32), (200, 150, 120))
    first, second = (segment([image], *loaded)[0]["probabilities"] for _ in range(2))
    assert torch.equal(first, second)
