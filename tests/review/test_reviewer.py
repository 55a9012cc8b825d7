"""A person's way through the queue."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from efp_hf.data.files import read_mask
from efp_hf.inference.correction import Correction
from efp_hf.inference.folder import predict_files
from efp_hf.page.marks import Marks
from efp_hf.page.pictures import POINT_COLORS
from efp_hf.review import reviewer as module
from efp_hf.review.decisions import Decisions, OtherDecision
from efp_hf.review.page import describe
from efp_hf.review.queue import Queue, find_photos
from efp_hf.review.reviewer import Photo, Reviewer, takes_clicks


@pytest.fixture
def start(folder, tmp_path, prompted):
    """Begins a review, or goes on with it."""

    def begin(model_and_processor=prompted) -> Queue:
        photos, failed = find_photos(folder)
        decisions = Decisions(tmp_path / "set")
        decisions.finish()
        queue = Queue(photos, decisions, *model_and_processor, failed)
        queue.segment_all()
        return queue

    return begin


def on_preview(photo, x, y) -> tuple[float, float]:
    """Where the middle of a pixel of the photo is clicked on."""
    return (x + 0.5) * photo.preview.width / photo.size[1] - 0.5, (y + 0.5) * photo.preview.height / photo.size[0] - 0.5


def mask_of(queue, photo) -> np.ndarray:
    return read_mask(queue.decisions.masks / f"{photo.path.stem}_segmentation.png")


def test_accepted_mask_is_that_of_prediction(start, loaded):
    queue = start(loaded)
    reviewer = Reviewer("anna", queue)
    photo = reviewer.photo
    (predicted,) = predict_files([photo.path], *loaded)
    reviewer.decide("accept")
    assert (mask_of(queue, photo) == predicted.mask).all() and 0 < predicted.mask.mean() < 1
    (row,) = queue.decisions.rows()[photo.path.name]
    assert (row["decision"], row["clicks"], row["jaccard"]) == ("accepted", "0", "1.0")
    assert row["expected_jaccard"] == str(round(predicted.expected_jaccard, 4))
    assert reviewer.photo.path != photo.path


def test_corrected_mask_is_that_after_the_clicks(start, prompted):
    queue = start()
    reviewer = Reviewer("anna", queue)
    photo = reviewer.photo
    reviewer.click(*on_preview(photo, 10, 20), "lesion")
    reviewer.click(*on_preview(photo, 50, 60), "skin")
    reviewer.click(5, 5, "lesion")
    reviewer.undo()
    with Image.open(photo.path) as image:
        wanted = Correction(image, *prompted).segment([(10.5, 20.5, 1), (50.5, 60.5, 0)])["segmentation"].numpy()
    found = photo.mask()[0]
    assert (wanted != found).any()
    reviewer.decide("accept")
    (row,) = queue.decisions.rows()[photo.path.name]
    assert (mask_of(queue, photo) == wanted).all()
    assert (row["decision"], row["points"]) == ("corrected", "10.5 20.5 1; 50.5 60.5 0")
    assert float(row["jaccard"]) == round((wanted & found).sum() / (wanted | found).sum(), 4) < 1
    assert reviewer.marks == Marks()


def test_clicks_on_a_large_photo_are_in_its_own_pixels(tmp_path, prompted):
    path = tmp_path / "large.jpg"
    Image.effect_noise((3000, 2000), 60).convert("RGB").save(path)
    photo = Photo(path, *prompted)
    assert photo.preview.size == (1024, 683) and photo.size == (2000, 3000) and photo.image.width < 3000
    reviewer = object.__new__(Reviewer)
    reviewer.photo, reviewer.marks, reviewer.past = photo, Marks(), []
    reviewer.click(photo.preview.width - 1, 0, "skin")
    ((x, y, label),) = reviewer.marks.points
    assert 3000 * (1 - 1 / photo.preview.width) < x < 3000 and 0 < y < 2000 / photo.preview.height and label == 0
    assert photo.mask(reviewer.marks)[0].shape == (2000, 3000)
    below_the_minus = np.asarray(reviewer.picture())[8, -1]
    assert (below_the_minus == POINT_COLORS[0]).all()


def test_click_on_the_border_of_a_reduced_photo_is_inside(tmp_path, prompted):
    sizes = ((width, -(-width // 8)) for width in range(800, 1200))
    width, reduced = next((width, reduced) for width, reduced in sizes if width * (reduced / width) > reduced)
    path = tmp_path / "wide.jpg"
    Image.effect_noise((width, 640), 60).convert("RGB").save(path)
    photo = Photo(path, *prompted)
    assert photo.image.width == reduced
    assert photo.mask(Marks(((float(width), 100.0, 1),)))[0].shape == (640, width)


def test_small_photo_is_shown_enlarged(start):
    reviewer = Reviewer("anna", start())
    assert reviewer.photo.size == (72, 96) and reviewer.picture().size == (1024, 768)


def test_back_shows_the_last_image_and_a_new_decision_replaces_the_old(start):
    queue = start()
    reviewer = Reviewer("anna", queue)
    first = reviewer.photo
    reviewer.decide("accept")
    second = reviewer.photo
    reviewer.decide("unusable")
    third = reviewer.photo
    reviewer.go_back()
    assert (reviewer.photo.path, reviewer.decision) == (second.path, "unusable")
    reviewer.go_back()
    assert (reviewer.photo.path, reviewer.decision) == (first.path, "accepted")
    reviewer.go_back()  # there is no earlier one
    assert reviewer.photo.path == first.path
    reviewer.decide("no lesion")
    assert not mask_of(queue, first).any() and reviewer.photo.path == third.path
    assert [row["decision"] for row in queue.decisions.rows()[first.path.name]] == ["accepted", "no lesion"]


def test_photo_that_was_left_by_back_can_be_gone_back_to(start):
    reviewer = Reviewer("anna", start())
    order = []
    for _ in range(3):
        order.append(reviewer.photo.path)
        reviewer.decide("accept")
    waiting = reviewer.photo.path
    for image in reversed(order):
        reviewer.go_back()
        assert reviewer.photo.path == image
    reviewer.decide("unusable")
    assert reviewer.photo.path == waiting
    shown = []
    while reviewer.history:
        reviewer.go_back()
        shown.append(reviewer.photo.path)
    assert shown == [order[0], order[2], order[1]]


def test_photo_that_is_replaced_after_its_decision_is_named_at_the_next_start(start):
    reviewer = Reviewer("anna", start())
    first = reviewer.photo.path
    reviewer.decide("accept")
    again = Reviewer("anna", start())
    first.write_bytes(again.photo.path.read_bytes())  # while the server runs
    while again.photo is not None:
        again.decide("accept")
    assert "All are decided: 6 accepted" in describe(again)
    again.history = [first]
    again.go_back()
    assert again.photo is None and "another photo of this name is in" in again.queue.failed[first]
    queue = start()
    assert list(queue.failed) == [first] and "another photo of this name is in" in queue.failed[first]
    assert queue.progress()["images"] == queue.progress()["decided"] == 5


def test_photo_that_replaces_an_unusable_one_is_shown_as_a_new_one(start):
    queue = start()
    reviewer = Reviewer("anna", queue)
    first = reviewer.photo.path
    reviewer.decide("unusable")
    first.write_bytes(reviewer.photo.path.read_bytes())
    again = Reviewer("anna", start())
    assert again.history == [] and first in again.queue.expected
    assert again.open(first) and (again.decision, again.marks) == ("", Marks())
    again.decide("accept")
    assert (again.decisions.images / first.name).read_bytes() == first.read_bytes()


def test_photo_that_was_replaced_while_it_was_shown_is_not_decided_until_it_is_seen(start):
    reviewer = Reviewer("anna", start())
    image = reviewer.photo.path
    status, content = image.stat(), image.read_bytes()
    image.write_bytes(content[:-3] + b"\0" + content[-2:])
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))  # of equal size and time
    with pytest.raises(ValueError, match="the file was replaced since it was shown. Load the page again."):
        reviewer.decide("accept")
    reviewer.open(image)
    reviewer.decide("accept")
    assert (reviewer.decisions.images / image.name).read_bytes() == image.read_bytes()


def test_photo_that_was_replaced_while_it_was_read_is_not_decided(start, monkeypatch):
    queue = start()

    def read(path, *arguments):
        photo = Photo(path, *arguments)
        path.write_bytes(b"another")
        return photo

    monkeypatch.setattr(module, "Photo", read)
    reviewer = Reviewer("anna", queue)
    with pytest.raises(ValueError, match="the file was replaced since it was shown"):
        reviewer.decide("accept")


def test_decision_whose_files_cannot_be_moved_is_made_by_the_same_key(start, monkeypatch):
    queue = start()
    reviewer = Reviewer("anna", queue)
    image = reviewer.photo.path
    replace = Path.replace

    def fail(path, target):
        if target == queue.decisions.images / image.name:
            raise OSError(5, "Input/output error")
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", fail)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                reviewer.decide("accept")
    assert reviewer.photo.path == image and queue.progress()["decided"] == 0
    reviewer.decide("accept")
    assert reviewer.photo.path != image and list(queue.decided()) == [image]


def test_page_is_opened_while_another_server_decides(start, monkeypatch):
    queue = start()
    image = queue.waiting[0]
    decided = queue.decided

    def decide_first():
        monkeypatch.setattr(queue, "decided", decided)
        Decisions(queue.decisions.output).decide(image, "unusable", None)
        return decided()

    monkeypatch.setattr(queue, "decided", decide_first)
    assert Reviewer("anna", queue).history == [image]


def test_folder_that_is_gone_is_one_sentence(start):
    reviewer = Reviewer("anna", start())
    reviewer.decide("accept")
    shutil.rmtree(reviewer.decisions.output)
    with pytest.raises(FileNotFoundError):
        reviewer.decide("accept")
    words = "decisions.csv cannot be read (No such file or directory). Bring its folder back, and start again."
    assert words in describe(reviewer) and reviewer.photo.path.name in describe(reviewer)
    reviewer.go_on()
    assert reviewer.photo is None and words in describe(reviewer) and not reviewer.queue.failed
    assert "1 of 6 decided" in describe(reviewer) and "No image waits" not in describe(reviewer)


def test_end_without_any_image_is_no_success(start, folder):
    for photo in folder.iterdir():
        photo.write_text("no image")
    said = describe(Reviewer("anna", start()))
    assert "There is no image to review: all 6 files are left out." in said and "Train" not in said
    assert "6 files cannot be reviewed" in said


def test_photo_whose_place_is_taken_meanwhile_does_not_stop_the_review(start):
    queue = start()
    reviewer = Reviewer("anna", queue)
    shown = reviewer.photo.path
    (queue.decisions.images / shown.name).touch()
    with pytest.raises(FileExistsError, match="is not of this review"):
        reviewer.decide("accept")
    reviewer.go_on()
    assert reviewer.photo.path != shown and "is not of this review" in queue.failed[shown]


def test_end_says_what_was_decided(start):
    reviewer = Reviewer("anna", start())
    reviewer.click(10, 20, "lesion")
    for verdict in ("accept", "accept", "accept", "no lesion", "unusable", "unusable"):
        assert "All are decided" not in describe(reviewer)
        reviewer.decide(verdict)
    assert "All are decided: 2 accepted, 1 corrected, 1 without lesion, 2 unusable.<br>Train" in describe(reviewer)


def test_back_at_a_corrected_image_its_clicks_are_there(start):
    queue = start()
    reviewer = Reviewer("anna", queue)
    photo = reviewer.photo
    reviewer.click(10.37, 20, "lesion")
    reviewer.click(50, 60, "skin")
    marks, mask = reviewer.marks, photo.mask(reviewer.marks)[0]
    reviewer.decide("accept")
    again = Reviewer("anna", start())
    again.go_back()
    assert again.photo.path == photo.path and again.marks == marks
    assert (again.photo.mask(again.marks)[0] == mask).all()
    again.undo()
    assert again.marks.points == marks.points[:1]


def test_box_corrects_the_mask_is_in_the_table_and_is_undone(start, prompted):
    queue = start()
    reviewer = Reviewer("anna", queue)
    photo = reviewer.photo
    reviewer.click(*on_preview(photo, 79.5, 59.5), "box")
    assert reviewer.marks.corner and not reviewer.marks
    reviewer.click(*on_preview(photo, 9.5, 9.5), "box")
    reviewer.click(*on_preview(photo, 10, 20), "lesion")
    box = (10.0, 10.0, 80.0, 60.0)
    np.testing.assert_allclose(reviewer.marks.box, box, atol=0.1)
    wanted = Correction(Image.open(photo.path), *prompted).segment([(10.5, 20.5, 1)], reviewer.marks.box)
    assert "clicks: 1 · box" in describe(reviewer)
    reviewer.decide("accept")
    (row,) = queue.decisions.rows()[photo.path.name]
    assert (row["decision"], row["clicks"], row["box"]) == ("corrected", "1", "10.0 10.0 80.0 60.0")
    assert (mask_of(queue, photo) == wanted["segmentation"].numpy()).all()
    again = Reviewer("anna", start())
    again.go_back()
    assert again.marks == Marks(((10.5, 20.5, 1),), box)
    again.undo()
    assert again.marks == Marks(box=box)
    again.undo()
    again.undo()
    assert again.marks == Marks()


def test_box_without_area_is_refused_in_words(start):
    reviewer = Reviewer("anna", start())
    reviewer.click(100, 100, "box")
    with pytest.raises(ValueError, match="`box` must be .*with an area"):
        reviewer.click(100, 200, "box")
    assert reviewer.marks.corner and reviewer.marks.box is None


def test_after_a_restart_one_can_go_back_too(start):
    reviewer = Reviewer("anna", start())
    first = reviewer.photo.path
    reviewer.decide("accept")
    again = Reviewer("anna", start())
    assert again.photo.path == reviewer.photo.path
    again.go_back()
    assert again.photo.path == first


def test_what_somebody_else_decided_meanwhile_is_not_overwritten(start):
    anna, ben = Reviewer("anna", start()), Reviewer("ben", start())  # two servers
    shown = anna.photo
    assert ben.photo.path == shown.path
    anna.decide("no lesion")
    with pytest.raises(OtherDecision, match="somebody else has decided meanwhile"):
        ben.decide("accept")
    assert ben.photo.path == shown.path and not mask_of(anna.queue, shown).any()
    ben.go_on()
    assert ben.photo.path == anna.photo.path != shown.path


def test_queue_ends_and_every_image_is_decided(start, folder):
    queue = start()
    reviewer = Reviewer("anna", queue)
    for _ in range(6):
        reviewer.decide("accept")
    assert reviewer.photo is None and queue.progress()["decided"] == 6
    reviewer.go_back()
    assert reviewer.photo is not None


def test_image_that_cannot_be_read_any_more_is_passed_over(start):
    queue = start()
    order = sorted(queue.expected, key=queue.expected.get)
    order[0].unlink()
    order[1].unlink()
    order[1].mkdir()
    assert Reviewer("anna", queue).photo.path == order[2] and "no such file" in queue.failed[order[0]]
    assert "Is a directory" in queue.failed[order[1]]


def test_only_a_model_with_prompts_takes_clicks(loaded, prompted):
    assert takes_clicks(prompted[0]) and not takes_clicks(loaded[0])


def test_end_without_a_set_trains_nothing(start):
    reviewer = Reviewer("anna", start())
    while reviewer.photo is not None:
        reviewer.decide("unusable")
    assert "6 unusable." in describe(reviewer) and "Train" not in describe(reviewer)
