"""`efp data`: everything that is in a folder and wrong with it, at once."""

import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from efp_hf.data.survey import SHEET_COLUMNS, TILE, draw_sheet, survey_lesions, survey_lines


@pytest.fixture
def root(tmp_path) -> Path:
    """Ten pairs, of noise so that none are alike; `mole_<n>` covers `n + 1` tenths of the image's upper half."""
    for folder in ("images", "masks"):
        (tmp_path / "moles" / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(10):
        mask = np.zeros((32, 40), np.uint8)
        mask[:16, : 4 * (number + 1)] = 255
        photo = Image.fromarray(generator.integers(0, 200, (32, 40, 3), np.uint8))
        photo.save(tmp_path / "moles" / "images" / f"mole_{number}.png")
        Image.fromarray(mask).save(tmp_path / "moles" / "masks" / f"mole_{number}.png")
    return tmp_path / "moles"


def lines_of(source) -> list[str]:
    return survey_lines(survey_lesions(source))


def test_whole_folder_is_described(root):
    assert lines_of(root) == [
        "moles: images/ and masks/",
        "pairs   10 can be used: train 7, validation 1, test 2 (validation and test drawn from train)",
        "lesion  27.5 % of the pixels (median), 5.0 to 50.0 %",
        "sizes   32×40 (10)",
        "masks   0 and 255 (10)",
        "A training takes this data as it is.",
    ]


def test_odd_masks_and_copies_are_notes(root):
    Image.new("L", (40, 32), 0).save(root / "masks" / "mole_0.png")
    Image.new("L", (40, 32), 255).save(root / "masks" / "mole_1.png")
    Image.fromarray(np.eye(32, 40, dtype=np.uint8)).save(root / "masks" / "mole_2.png")
    Image.new("L", (40, 32)).save(root / "masks" / "nobody.png")
    Image.open(root / "images" / "mole_3.png").save(root / "images" / "mole_4.png")
    lines = lines_of(root)
    assert "masks   0 and 255 (9), 0 and 1 (1)" in lines
    assert "note: 1 masks are empty: mole_0." in lines
    assert "note: 1 masks cover their whole image: mole_1." in lines
    assert "note: 1 copies of an image in one split: mole_3 = mole_4." in lines
    assert any(line.endswith("are left out: nobody.png.") for line in lines)
    assert lines[-1] == "A training takes this data as it is."


def test_all_problems_are_named_at_once(root):
    (root / "masks" / "mole_0.png").unlink()
    (root / "images" / "mole_1.png").write_bytes((root / "images" / "mole_1.png").read_bytes()[:200])
    Image.new("L", (40, 33)).save(root / "masks" / "mole_2.png")
    Image.new("L", (40, 32), 7).save(root / "masks" / "mole_3.png")
    lines = lines_of(root)
    assert lines[1] == "pairs   6 can be used: train 6"
    problems = [line.removeprefix("problem: ") for line in lines if line.startswith("problem: ")]
    assert "1 images have no mask in" in problems[0] and "mole_0" in problems[0]
    assert "mole_1.png: the file is damaged or truncated" in problems[1]
    assert problems[2].startswith("mole_2: image is 32×40, mask 33×40.")
    assert "mole_3.png: a mask must hold 0 (background) and 255 (foreground), got 7" in problems[3]
    assert lines[-1] == "4 problems: a training would refuse this data."
    for path in (root / "images").iterdir():
        path.write_bytes(b"")
    Image.new("L", (40, 32)).save(root / "masks" / "mole_0.png")
    shutil.copy(root / "images" / "mole_9.png", root / "images" / "mole_A.png")
    shutil.copy(root / "masks" / "mole_9.png", root / "masks" / "mole_A.png")
    survey = survey_lesions(root)
    problems = [line for line in survey_lines(survey) if line.startswith("problem: ")]
    assert len(problems) == 11 and "mole_9.png: the file is empty" in problems[9]
    assert problems[10] == "problem: 1 more pair cannot be used. Pass --all to name each."
    *_, last, count = survey_lines(survey, all_pairs=True)
    assert "mole_A.png: the file is empty" in last and count.startswith("11 problems: ")


def test_dataset_is_described_as_its_files_are(root):
    paths = {name: sorted(map(str, (root / f"{name}s").iterdir())) for name in ("image", "mask")}
    features = datasets.Features({name: datasets.Image() for name in paths})
    lines = lines_of(datasets.Dataset.from_dict(paths, features=features))
    assert lines[0] == "data: a dataset" and lines[1:] == lines_of(root)[1:]
    Image.new("L", (40, 33)).save(root / "masks" / "mole_2.png")
    lines = lines_of(datasets.Dataset.from_dict(paths, features=features))
    assert "problem: train_0000002: image is 32×40, mask 33×40. A mask must have the size of its image." in lines


def test_too_few_images_are_a_problem(root):
    for number in range(2, 10):
        for folder in ("images", "masks"):
            (root / folder / f"mole_{number}.png").unlink()
    assert lines_of(root)[-2].startswith("problem: 2 images are too few, or too alike, for a ")


def test_sheet_shows_the_lesions_from_small_to_large(root):
    sheet = draw_sheet(survey_lesions(root))
    assert sheet.size == (SHEET_COLUMNS * TILE, 2 * (TILE + 14))
    pixels = np.asarray(sheet).astype(int)
    for place in range(10):  # the outline is pure green
        left, top = place % SHEET_COLUMNS * TILE, place // SHEET_COLUMNS * (TILE + 14)
        tile = pixels[top : top + TILE, left : left + TILE]
        columns = np.flatnonzero((tile == (0, 255, 80)).all(-1).any(0))
        assert abs(columns.max() - 2 - 4 * (place + 1)) <= 1


def test_nothing_that_can_be_drawn_is_an_error(root):
    for path in (root / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="moles: no pair can be used, so there is no contact sheet"):
        draw_sheet(survey_lesions(root))
