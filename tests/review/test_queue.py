"""Which image comes next, for whom."""

import os

import numpy as np
import pytest

from efp_hf.inference.folder import predict_files
from efp_hf.review import decisions
from efp_hf.review.decisions import Decisions
from efp_hf.review.queue import Queue, find_photos


@pytest.fixture
def make_queue(folder, tmp_path, loaded):
    def make() -> Queue:
        photos, failed = find_photos(folder)
        return Queue(photos, Decisions(tmp_path / "set"), *loaded, failed)

    return make


MASK = np.ones((72, 96), dtype=bool)


def test_lowest_expected_jaccard_comes_first(make_queue, folder, loaded):
    queue = make_queue()
    queue.start().join()
    expected = {
        prediction.path: prediction.expected_jaccard for prediction in predict_files(sorted(folder.iterdir()), *loaded)
    }
    assert queue.expected == expected and len(set(expected.values())) > 1
    order = []
    while (image := queue.next("anna")) is not None:
        order.append(image)
        queue.decisions.decide(image, "accepted", MASK)
    assert order == sorted(expected, key=expected.get)
    assert queue.progress() == {"images": 6, "waiting": 6, "segmented": 6, "decided": 6, "failed": 0}


def test_two_browsers_are_shown_different_images(make_queue):
    queue = make_queue()
    queue.segment_all()
    shown = [queue.next(browser) for browser in ("anna", "ben")]
    assert shown[0] != shown[1] and queue.next("anna") == shown[0]
    queue.release("anna")
    assert queue.next("carl") == shown[0]


def test_starting_again_goes_on_and_segments_only_the_rest(make_queue):
    queue = make_queue()
    queue.segment_all()
    first = queue.next("anna")
    queue.decisions.decide(first, "unusable", None)
    again = make_queue()
    assert len(again.waiting) == 5 and first not in again.waiting and again.next("anna") is None
    again.segment_all()
    assert again.next("anna") == queue.next("anna") and again.progress()["decided"] == 1


def test_decided_image_whose_files_were_deleted_waits_again(make_queue):
    queue = make_queue()
    image = queue.waiting[0]
    queue.decisions.decide(image, "accepted", MASK)
    assert image not in make_queue().waiting
    (queue.decisions.masks / f"{image.stem}_segmentation.png").unlink()
    assert image in make_queue().waiting


def test_unreadable_images_are_named_and_skipped(make_queue, folder):
    (folder / "broken.jpg").write_bytes((folder / "p0.jpg").read_bytes()[:400])
    (folder / "p1.png").write_bytes((folder / "p2.jpg").read_bytes())
    (folder / "notes.txt").touch()
    (folder / "p3_segmentation.png").touch()
    bad = os.fsdecode(os.fsencode(folder) + b"/\xff.jpg")
    os.close(os.open(bad, os.O_CREAT | os.O_WRONLY))
    queue = make_queue()
    queue.segment_all()
    assert sorted(ascii(path.name) for path in queue.failed) == ["'\\udcff.jpg'", "'broken.jpg'", "'p1.png'"]
    assert "its mask would be that of p1.jpg, too. Rename one of them." in queue.failed[folder / "p1.png"]
    assert "broken.jpg: the image cannot be opened" in queue.failed[folder / "broken.jpg"]
    assert queue.progress() == {"images": 6, "waiting": 7, "segmented": 7, "decided": 0, "failed": 3}
    assert len(queue.expected) == 6


def test_second_file_of_a_decided_id_is_named_and_the_others_are_reviewed(make_queue, folder, tmp_path):
    store = Decisions(tmp_path / "set")
    for name in ("p0.png", "p2.jpg"):  # of another folder
        (tmp_path / name).write_bytes((folder / "p1.jpg").read_bytes())
    store.decide(tmp_path / "p0.png", "accepted", MASK)
    store.decide(tmp_path / "p2.jpg", "accepted", MASK)
    (store.masks / "p1_segmentation.png").touch()
    queue = make_queue()
    queue.segment_all()
    assert set(queue.failed) == {folder / "p0.jpg", folder / "p1.jpg"}
    assert "p0.jpg: its mask would be that of p0.png in" in queue.failed[folder / "p0.jpg"]
    assert "p1_segmentation.png is not of this review" in queue.failed[folder / "p1.jpg"]
    assert queue.waiting == [folder / f"p{number}.jpg" for number in (2, 3, 4, 5)]
    assert queue.progress() == {"images": 4, "waiting": 4, "segmented": 4, "decided": 0, "failed": 2}


def test_photos_are_looked_up_again_only_after_a_decision(make_queue, monkeypatch):
    queue = make_queue()
    queue.segment_all()
    looked_up, is_decided = [], queue.decisions.is_decided
    monkeypatch.setattr(
        queue.decisions, "is_decided", lambda image, rows: looked_up.append(image) or is_decided(image, rows)
    )
    first, second = queue.waiting[:2]
    for _ in range(3):
        assert queue.progress()["decided"] == 0
    assert looked_up == []
    Decisions(queue.decisions.output).decide(first, "accepted", MASK)  # by another server
    for _ in range(3):
        assert queue.progress()["decided"] == 1 and queue.decided() == {first: "accepted"}
    assert queue.next("anna") != first and len(looked_up) == 6
    queue.decisions.decide(second, "unusable", None)
    assert queue.decided() == {first: "accepted", second: "unusable"}


def test_files_of_decided_photos_are_read_once(make_queue, folder, monkeypatch):
    queue = make_queue()
    for image in queue.waiting[:3]:
        queue.decisions.decide(image, "unusable", None)
    assert len(queue.decided()) == 3
    monkeypatch.setattr(decisions, "digest", lambda path: pytest.fail(f"{path} is read again"))
    queue.known = (-1, {})
    assert len(queue.decided()) == 3


def test_folder_without_photos_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder. Pass one that holds image files."):
        find_photos(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no image in the folder"):
        find_photos(tmp_path)


def test_failure_of_the_model_is_kept_for_the_page(make_queue):
    queue = make_queue()

    def fail(*_, **__):
        raise RuntimeError("out of memory")

    queue.model = type("Model", (), {"device": "cpu", "dtype": None, "__call__": fail})()
    queue.segment_all()
    assert queue.error == "out of memory" and queue.next("anna") is None
