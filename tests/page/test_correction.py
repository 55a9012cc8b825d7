"""A photo's mask after clicks and a box."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_prompted_model
from PIL import Image

from efp_hf import EFPImageProcessor
from efp_hf.data.files import read_mask
from efp_hf.inference.correction import Correction
from efp_hf.inference.drawing import tint_lesion
from efp_hf.inference.prediction_table import is_marked
from efp_hf.page.correction import correct_photo, redo, undo
from efp_hf.page.marks import Marks
from efp_hf.page.photo import find_lesion, segment_photo
from efp_hf.page.photo_results import draw_view, lesion_data, write_mask_file
from efp_hf.page.pictures import draw_marks, outline_at_once

FIRST, SECOND = Marks(((60.0, 40.0, 1),)), Marks(((60.0, 40.0, 1), (10.0, 10.0, 0)), (20.0, 10.0, 100.0, 80.0))


@pytest.fixture(scope="module")
def prompted():
    torch.manual_seed(8)
    return tiny_prompted_model(std=2.0), EFPImageProcessor(size={"height": 32, "width": 32}, largest_region=True)


@pytest.fixture
def photo(prompted, photo_file):
    return segment_photo(photo_file, *prompted)


def test_photo_without_marks_has_the_mask_of_the_whole_model(prompted, photo, photo_file):
    model, processor = prompted
    with torch.inference_mode():
        whole = model(**processor(Image.open(photo_file), return_tensors="pt"))
    assert torch.equal(photo.logits, whole.logits)


@pytest.mark.parametrize("threshold", [None, 0.3])
@pytest.mark.parametrize("marks", [FIRST, SECOND])
def test_corrected_mask_file_is_that_of_the_library(prompted, photo, photo_file, tmp_path, marks, threshold):
    corrected = correct_photo(photo, marks)
    assert is_marked(write_mask_file(photo, prompted[1], tmp_path, threshold))
    path = write_mask_file(corrected, prompted[1], tmp_path, threshold)
    assert not is_marked(path)  # `efp predict --overwrite` replaces none that a person corrected
    ours = read_mask(path)
    correction = Correction(Image.open(photo_file), *prompted)
    theirs = correction.segment(list(marks.points), marks.box, threshold=threshold)["segmentation"]
    np.testing.assert_array_equal(ours, theirs.numpy())
    assert not torch.equal(corrected.logits, photo.logits)


def test_points_of_a_photo_that_is_read_at_reduced_scale_are_in_its_own_pixels(prompted, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((2400, 1800), Image.Resampling.BICUBIC)
    image.save(tmp_path / "large.jpg")
    photo = segment_photo(tmp_path / "large.jpg", *prompted)
    marks = Marks(((2400.0, 1800.0, 1),), (0.0, 0.0, 2400.0, 1800.0))  # the very corner
    np.testing.assert_allclose((photo.correction.scale * torch.tensor([2400, 1800])).numpy(), [32, 32], rtol=1e-6)
    assert not torch.equal(correct_photo(photo, marks).logits, photo.logits)


def test_undo_and_redo_go_back_and_forth(photo):
    second = correct_photo(correct_photo(photo, FIRST), SECOND)
    once = undo(second)
    assert once.marks == FIRST and torch.equal(once.logits, correct_photo(photo, FIRST).logits)
    assert torch.equal(undo(once).logits, photo.logits) and not undo(once).marks
    assert redo(once).marks == SECOND and torch.equal(redo(once).logits, second.logits)
    assert undo(undo(undo(second))).marks == Marks()
    assert not correct_photo(once, Marks()).future  # a correction ends what could be redone


def test_only_the_steps_of_the_present_marks_are_held(photo):
    for x in range(1, 8):
        photo = correct_photo(photo, Marks(((float(x), 5.0, 1),)))
    assert len(photo.correction.steps) <= 2


def test_all_regions_stay_where_there_are_clicks(prompted, photo):
    corrected = correct_photo(photo, FIRST)
    data = lesion_data(corrected, prompted[1])
    assert data["largest_region"] is False and data["points"] == [[60, 40]] and data["labels"] == [1]
    assert "points" not in lesion_data(photo, prompted[1]) and lesion_data(photo, prompted[1])["largest_region"]
    both = [find_lesion(corrected, prompted[1], largest_region=choice)[0] for choice in (True, False)]
    np.testing.assert_array_equal(*both)


def test_quick_outline_is_that_of_every_other_picture(photo):
    mask = np.zeros((90, 120), bool)
    mask[20:60, 30:120] = True  # up to the image's border
    mask[30:40, 50:60] = False
    image = Image.open(photo.path)
    quick, exact = (np.asarray(draw(image, mask)).astype(int) for draw in (outline_at_once, tint_lesion))
    assert np.abs(quick - exact).max() <= 1


def test_marks_are_drawn_where_they_lie(prompted, photo):
    before, after = (np.asarray(draw_view(shown, prompted[1]).after) for shown in (photo, correct_photo(photo, FIRST)))
    scale = 1024 / 120  # of the preview
    row, column = round(40 * scale) - 9, round(60 * scale) - 9
    assert before.shape == after.shape == (768, 1024, 3) and tuple(after[row, column]) != tuple(before[row, column])
    grey = Image.new("RGB", (50, 40), (90, 90, 90))
    drawn = np.asarray(draw_marks(grey, Marks(((20, 10, 0),), (5, 5, 45, 35))))
    changed = np.argwhere((drawn != 90).any(-1))
    assert changed.min(0).tolist() == [5, 5] and changed.max(0).tolist() == [35, 45]
    assert (drawn[10, 20] == 255).all() and (drawn[25, 25] == 90).all()
    plus, minus = (np.asarray(draw_marks(grey, Marks(((20, 10, label),)))) for label in (1, 0))
    assert (plus[9, 20] == 255).all() and (plus[10, 19] == 255).all()
    assert not (minus[9, 20] == 255).all() and (minus[10, 19] == 255).all()


def test_the_picture_that_is_corrected_shows_the_lesion_itself(prompted, photo):
    photo.logits = photo.logits.clone()
    photo.logits[:, 1] = torch.where(torch.arange(32) < 16, 9.0, -9.0)
    view = draw_view(photo, prompted[1])
    before, after = np.asarray(view.before), np.asarray(view.after)
    assert (before[170:600, 85:425] == after[170:600, 85:425]).all() and (before != after).any()


def test_points_bear_their_numbers_within_the_picture():
    grey = Image.new("RGB", (240, 120), (90, 90, 90))
    for x in (0.0, 120.0, 240.0):
        alone, second = (draw_marks(grey, Marks(((x, 60.0, 1),) * count)) for count in (1, 2))  # one on the other
        rows, columns = np.nonzero((np.asarray(alone) != np.asarray(second)).any(-1))
        assert len(rows) and not (np.hypot(columns - x, rows - 60) <= 4).any()  # radius of a disc


def test_a_box_without_lesion_is_said(prompted, photo):
    boxed = correct_photo(photo, Marks(box=(10.0, 10.0, 30.0, 30.0)))
    boxed.logits = torch.tensor([0.0, -9.0])[None, :, None, None].expand(1, 2, 32, 32)
    assert draw_view(boxed, prompted[1]).summary.startswith("No lesion found in the box on photo.jpg")
    assert lesion_data(boxed, prompted[1])["note"] == "no lesion found in the box"


def test_checkpoint_without_prompts_says_so(loaded, photo_file):
    with pytest.raises(ValueError, match="takes no points and no box"):
        correct_photo(segment_photo(photo_file, *loaded), FIRST)


def test_damaged_marks_change_nothing(photo):
    with pytest.raises(ValueError, match="`points` must lie"):
        correct_photo(photo, Marks(((121.0, 5.0, 1),)))
    assert photo.marks == Marks() and Path(photo.path).is_file()
