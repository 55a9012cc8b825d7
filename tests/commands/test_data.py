"""`efp data`."""

import shutil

import pytest
from PIL import Image

from efp_hf.data.folders import FOLDERS


@pytest.fixture
def folder(tmp_path, synthetic_root):
    return shutil.copytree(synthetic_root, tmp_path / "isic")


def test_good_folder_ends_with_zero_and_a_sheet(efp, folder, tmp_path):
    ran = efp("data", folder, "--sheet", "sheets/sheet.png")
    assert ran.code == 0 and ran.out.startswith("isic: the layout of ISIC 2018\npairs   40 can be used: train 28,")
    assert ran.out.endswith("A training takes this data as it is.\nsheets/sheet.png\n")
    assert Image.open(tmp_path / "sheets" / "sheet.png").width == 1280
    ran = efp("data", folder, "--sheet", "sheets/sheet.png")
    assert ran.code == 2 and ran.err == "efp data: sheets/sheet.png is there. Pass --overwrite to replace it.\n"
    assert efp("data", folder, "--sheet", "sheets/sheet.png", "--overwrite").code == 0


def test_problem_ends_with_one(efp, folder):
    (folder / FOLDERS["train"][1] / "ISIC_9000003_segmentation.png").unlink()
    ran = efp("data", folder)
    assert ran.code == 1 and "problem: 1 images have no mask in" in ran.out
    assert ran.out.endswith("1 problem: a training would refuse this data.\n")


def test_folder_of_no_form_and_a_wrong_sheet_end_with_two(efp, tmp_path):
    (tmp_path / "notes.txt").touch()
    ran = efp("data", ".")
    assert ran.code == 2 and "no form of images and masks, got notes.txt" in ran.err
    assert efp("data", "/nowhere").err.startswith("efp data: /nowhere: no such folder")
    ran = efp("data", ".", "--sheet", "sheet.jpg")
    assert ran.code == 2 and "`--sheet` must be the name of a PNG file, got sheet.jpg" in ran.err


def test_commands_say_what_they_found(efp, folder, tiny_checkpoint):
    ran = efp("score", "--data", folder, "--checkpoint", tiny_checkpoint, "--output", "scores")
    assert ran.code == 0
    line = ran.out.splitlines()[0]
    assert line.startswith(
        "isic: the layout of ISIC 2018; masks of 0 and 255; 40 pairs: train 28, validation 4, test 8"
    )
