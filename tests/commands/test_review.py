"""`efp review`."""

import json
import shutil
import sys

import numpy as np
import pytest

from efp_hf.data.synthetic import draw_lesion
from efp_hf.review import page
from efp_hf.review.decisions import Decisions
from efp_hf.review.reviewer import Reviewer


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        draw_lesion(number, 48, 64)[0].save(folder / f"p{number}.jpg")
    return folder


@pytest.fixture
def launched(monkeypatch):
    """Instead of a page, somebody who accepts `accepts` images."""
    review = {"accepts": 2, "ports": []}

    def launch(queue, port):
        review["ports"].append(port)
        while queue.progress()["segmented"] < queue.progress()["waiting"]:
            pass
        reviewer = Reviewer("anna", queue)
        for _ in range(review["accepts"]):
            reviewer.decide("accept")
        if review.get("is_unplugged"):
            shutil.rmtree(queue.decisions.output)
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "launch", launch)
    return review


def test_review_is_stopped_and_goes_on(efp, photos, tiny_checkpoint, launched, rows_of):
    ran = efp("review", photos, "--output", "mine", "--checkpoint", tiny_checkpoint, "--port", "8080")
    assert (ran.code, ran.out, ran.err) == (0, "2 of 3 images decided in mine\n", "")
    launched["accepts"] = 1
    (photos / "broken.jpg").write_text("no image")
    ran = efp("review", photos, "--output", "mine", "--checkpoint", tiny_checkpoint)
    assert ran.code == 1 and ran.out == "3 of 3 images decided in mine\n"
    assert ran.err.startswith("failed: ") and "broken.jpg: not an image that can be read" in ran.err
    assert sorted(row["image"] for row in rows_of("mine/decisions.csv")) == ["p0.jpg", "p1.jpg", "p2.jpg"]
    assert launched["ports"] == [8080, 7860]


def test_folder_that_is_gone_at_the_end_is_one_sentence(efp, photos, tiny_checkpoint, launched):
    launched["is_unplugged"] = True
    ran = efp("review", photos, "--output", "mine", "--checkpoint", tiny_checkpoint)
    assert (ran.code, ran.err.count("\n")) == (1, 1) and ran.out == "2 of 3 images decided in mine\n"
    words = "mine/decisions.csv cannot be read (No such file or directory). Bring its folder back, and start again."
    assert ran.err == f"failed: {words}\n"


def test_coco_is_written_on_request(efp, photos, tmp_path):
    words = "mine has no decisions.csv: nothing was decided. Review first, without --coco."
    ran = efp("review", photos, "--output", "mine", "--coco", "mine.json")
    assert (ran.code, ran.err) == (2, f"efp review: {words}\n") and not (tmp_path / "mine").exists()
    Decisions(tmp_path / "mine").decide(photos / "p0.jpg", "accepted", np.ones((48, 64), dtype=bool))
    ran = efp("review", photos, "--output", "mine", "--coco", "mine.json")
    assert (ran.code, ran.out) == (0, "1 image in mine.json\n")
    assert len(json.loads((tmp_path / "mine.json").read_text())["annotations"]) == 1
    ran = efp("review", photos, "--output", "mine", "--coco", "mine.json")
    assert (ran.code, ran.err) == (2, "efp review: mine.json exists. Remove it, or choose another --coco.\n")


def test_coco_has_what_a_killed_server_had_decided(efp, photos, tmp_path, monkeypatch):
    store = Decisions(tmp_path / "mine")
    with monkeypatch.context() as patched:
        patched.setattr(store, "place", lambda *_: None)  # as killed after the row
        store.decide(photos / "p0.jpg", "accepted", np.ones((48, 64), dtype=bool))
    assert list(store.images.iterdir()) == []
    ran = efp("review", "nowhere", "--output", "mine", "--coco", "mine.json")
    assert (ran.code, ran.out) == (0, "1 image in mine.json\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere", "--output", "mine"), "nowhere: no such folder. Pass one that holds image files."),
        (("photos",), "the following arguments are required: --output"),
        (("photos", "--output", "photos"), "photos is not empty and has no decisions.csv. Choose another --output."),
        (("photos", "--output", "photos/p0.jpg"), "photos/p0.jpg is a file. Choose another --output."),
        (("photos", "--output", "mine", "--checkpoint", "nothing"), "nothing: no checkpoint there"),
        (("photos", "--output", "mine", "--port", "0"), "argument --port: must be between 1 and 65535, got 0"),
        (("mine/images", "--output", "mine"), "mine/images is of a review itself. Pass the folder of its photos."),
    ],
)
def test_what_cannot_be_reviewed_is_refused_in_a_sentence(efp, photos, tmp_path, arguments, words):
    if arguments[0] == "mine/images":
        Decisions(tmp_path / "mine").decide(photos / "p0.jpg", "accepted", np.ones((48, 64), dtype=bool))
    before = sorted(tmp_path.rglob("*"))
    ran = efp("review", *arguments)
    assert ran.code == 2 and ran.err.startswith(f"efp review: {words}") and ran.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_gradio_is_one_line(efp, photos, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", None)
    ran = efp("review", photos, "--output", "mine")
    assert ran.code == 2 and "needs gradio of efp-hf[app]: pip install" in ran.err
    assert not (tmp_path / "mine").exists()
