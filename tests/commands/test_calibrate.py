import shutil

import pytest

from efp_hf import EFPConfig, EFPImageProcessor
from efp_hf.data.folders import load_isic
from efp_hf.inference.checkpoint import find_checkpoint
from efp_hf.metrics.calibration import JACCARD_TEMPERATURES, TEMPERATURES
from efp_hf.training.fingerprint import image_hashes, read_fingerprint, write_fingerprint

FEW = "--allow-few-images"


def test_postprocessing_is_chosen_on_validation_and_kept(efp, tmp_path, synthetic_root, tiny_checkpoint, rows_of):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    EFPImageProcessor(size={"height": 40, "width": 40}, threshold=0.9).save_pretrained(folder)
    arguments = ("--checkpoint", "copy", "--data", synthetic_root, "--image-sizes", 32, 48)
    assert efp("calibrate", *arguments, FEW).code == 0
    tried = rows_of(tmp_path / "calibration" / "postprocessing.csv")
    assert len(tried) == 2 * 7 * 2
    best = max(tried, key=lambda row: float(row["validation_jaccard"]))
    chosen = EFPImageProcessor.from_pretrained(folder)
    assert (chosen.size["height"], chosen.threshold, str(chosen.largest_region)) == (
        int(best["image_size"]),
        float(best["threshold"]),
        best["largest_region"],
    )
    temperatures = rows_of(tmp_path / "calibration" / "jaccard_temperature.csv")
    assert [float(row["jaccard_temperature"]) for row in temperatures] == list(JACCARD_TEMPERATURES)
    closest = min(temperatures, key=lambda row: float(row["jaccard_error"]))
    assert chosen.jaccard_temperature == float(closest["jaccard_temperature"]) != 1
    assert float(closest["mean_real"]) == pytest.approx(float(best["validation_jaccard"]), abs=1e-5)
    assert float(best["temperature"]) == EFPConfig.from_pretrained(folder).temperature != 1


def test_a_size_with_which_prompts_do_not_work_is_refused(efp, tmp_path, synthetic_root, prompted_checkpoint):
    call = ("calibrate", "--checkpoint", prompted_checkpoint, "--data", synthetic_root, "--image-sizes", 64, 200)
    ran = efp(*call)
    assert ran.code == 2 and "must be a multiple of 32, got 200×200" in ran.err
    assert not (tmp_path / "calibration").exists()


def test_masks_with_prompts_get_a_temperature_of_their_own(efp, tmp_path, synthetic_root, prompted_checkpoint, rows_of):
    assert efp("calibrate", "--checkpoint", prompted_checkpoint, "--data", synthetic_root, FEW).code == 0
    rows = rows_of(tmp_path / "calibration" / "jaccard_temperature.csv")
    chosen = EFPImageProcessor.from_pretrained(prompted_checkpoint)
    for prompted, name in (("False", "jaccard_temperature"), ("True", "prompted_jaccard_temperature")):
        tried = [row for row in rows if row["prompted"] == prompted]
        assert [float(row["jaccard_temperature"]) for row in tried] == list(JACCARD_TEMPERATURES)
        closest = min(tried, key=lambda row: float(row["jaccard_error"]))
        assert getattr(chosen, name) == float(closest["jaccard_temperature"])
    assert len({row["mean_real"] for row in rows}) == 2  # they are other masks


def test_what_a_calibration_chose_does_not_move_the_next_one(efp, tmp_path, synthetic_root, rows_of):
    shutil.copytree(find_checkpoint("efp-isic-nano"), tmp_path / "copy")
    found = []
    for output in ("once", "again"):
        arguments = ("--checkpoint", "copy", "--data", synthetic_root, "--image-sizes", 96, "--output", output)
        assert efp("calibrate", *arguments, FEW).code == 0
        found.append({row["temperature"] for row in rows_of(tmp_path / output / "postprocessing.csv")})
    assert found[0] == found[1]
    (temperature,) = map(float, found[0])
    assert TEMPERATURES[0] + 0.01 < temperature < TEMPERATURES[1] - 0.01 and temperature != 1


def test_images_of_a_calibration_are_in_the_fingerprint(efp, tmp_path, synthetic_root, tiny_checkpoint):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    calibrate = ("calibrate", "--checkpoint", "copy", "--data", synthetic_root, FEW)
    assert efp(*calibrate).code == 0 and read_fingerprint(folder) is None  # nobody knows what it was trained on
    before = {("0" * 64, "train")}
    write_fingerprint(folder, before)
    assert efp(*calibrate).code == 0
    validation = {(value, "validation") for value in image_hashes(load_isic(synthetic_root)["validation"])}
    assert read_fingerprint(folder) == before | validation
    write_fingerprint(folder, trained := {(value, "train") for value, _ in validation})
    assert efp(*calibrate).code == 0 and read_fingerprint(folder) == trained


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [("efp-isic", "efp-isic is shipped with the package and stays as it is"), ("nowhere", "nowhere: no such folder")],
)
def test_calibrate_changes_only_a_folder_of_the_users(efp, checkpoint, words):
    ran = efp("calibrate", "--checkpoint", checkpoint, "--data", "/nowhere")
    assert ran.code == 2 and words in ran.err


def test_few_images_choose_nothing(efp, tmp_path, synthetic_root, tiny_checkpoint):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    ran = efp("calibrate", "--checkpoint", "copy", "--data", synthetic_root)
    assert ran.code == 0 and "4 validation images are fewer than 50: what they choose would be chance." in ran.out
    assert "copy keeps temperature 1.0, threshold 0.5, largest_region False." in ran.out
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert not (tmp_path / "calibration").exists()
