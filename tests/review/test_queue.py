"""Which image comes next, for whom."""

import os

import numpy as np
import pytest
from PIL import Image

from efp_hf.inference.folder import predict_files
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
    assert "p1.png: the set could not tell it from p1.jpg. Rename one of them." in queue.failed[folder / "p1.png"]
    assert "broken.jpg: the image cannot be opened" in queue.failed[folder / "broken.jpg"]
    assert queue.progress() == {"images": 6, "waiting": 7, "segmented": 7, "decided": 0, "failed": 3}
    assert len(queue.expected) == 6


def test_names_that_the_table_could_not_tell_apart_are_refused(tmp_path):
    for name in ("=x.jpg", "'=x.jpg", "'y.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    photos, refused = find_photos(tmp_path)
    assert sorted(path.name for path in photos) == ["'y.jpg", "=x.jpg"]
    assert list(refused.values()) == [f"{tmp_path}/'=x.jpg: the set could not tell it from =x.jpg. Rename it."]


def test_second_file_of_a_decided_id_is_named_and_the_others_are_reviewed(make_queue, folder, tmp_path):
    store = Decisions(tmp_path / "set")
    for name in ("p0.png", "p2.jpg"):  # of another folder
        (tmp_path / name).write_bytes((folder / "p1.jpg").read_bytes())
    store.decide(tmp_path / "p0.png", "accepted", MASK)
    store.decide(tmp_path / "p2.jpg", "accepted", MASK)
    (store.masks / "p1_segmentation.png").touch()
    queue = make_queue()
    queue.segment_all()
    assert set(queue.failed) == {folder / "p0.jpg", folder / "p1.jpg", folder / "p2.jpg"}
    assert "p0.jpg: its mask would be that of p0.png in" in queue.failed[folder / "p0.jpg"]
    assert "p1_segmentation.png is not of this review" in queue.failed[folder / "p1.jpg"]
    assert "p2.jpg: another photo of this name is in" in queue.failed[folder / "p2.jpg"]
    assert queue.waiting == [folder / f"p{number}.jpg" for number in (3, 4, 5)]
    assert queue.progress() == {"images": 3, "waiting": 3, "segmented": 3, "decided": 0, "failed": 3}


def test_photo_is_looked_at_again_only_after_a_decision_of_it(make_queue, monkeypatch):
    queue = make_queue()
    queue.segment_all()
    looked_at, is_decided = [], queue.decisions.is_decided
    monkeypatch.setattr(
        queue.decisions, "is_decided", lambda image, rows: looked_at.append(image) or is_decided(image, rows)
    )
    first, second = queue.waiting[:2]
    for _ in range(3):
        assert queue.progress()["decided"] == 0
    assert looked_at == []
    Decisions(queue.decisions.output).decide(first, "accepted", MASK)  # by another server
    for _ in range(3):
        assert queue.progress()["decided"] == 1 and list(queue.decided()) == [first]
    assert queue.next("anna") != first and looked_at == [first]
    queue.decisions.decide(second, "unusable", None)
    assert {image: row["decision"] for image, row in queue.decided().items()} == {first: "accepted", second: "unusable"}
    assert looked_at == [first, second]


def test_photo_whose_place_another_server_takes_is_named(make_queue, folder, tmp_path):
    queue = make_queue()
    queue.segment_all()
    other = tmp_path / "p0.jpg"
    other.write_bytes((folder / "p1.jpg").read_bytes())
    Decisions(queue.decisions.output).decide(other, "accepted", MASK)
    assert queue.progress() == {"images": 5, "waiting": 6, "segmented": 6, "decided": 0, "failed": 1}
    assert "p0.jpg: another photo of this name is in" in queue.failed[folder / "p0.jpg"]


@pytest.mark.parametrize("names", [("=x.jpg", "'=x.jpg"), ("a\nb.jpg", "a\\nb.jpg")])
def test_photos_that_are_one_in_the_table_are_named(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    photos, refused = find_photos(tmp_path)
    assert len(photos) == 1 and {path.name for path in (*photos, *refused)} == set(names)
    assert f"the set could not tell it from {photos[0].name}" in "".join(refused.values())


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
    assert queue.error == "The segmentation broke off: out of memory. Start again." and queue.next("anna") is None
