"""The folder of decisions: whole at every moment, and nobody's work is overwritten."""

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from efp_hf.data.classes import class_names
from efp_hf.data.files import read_mask
from efp_hf.data.folders import load_isic
from efp_hf.data.synthetic import draw_lesion
from efp_hf.review import decisions as module
from efp_hf.review.decisions import COLUMNS, Decisions, OtherDecision

MASK = np.zeros((48, 64), dtype=bool)
MASK[10:20, 20:40] = True
WIDER = MASK.copy()
WIDER[10:20, 40:50] = True


def draw_photos(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    for number in range(count):
        draw_lesion(number, 48, 64)[0].save(folder / f"p{number}.jpg")
    return sorted(folder.iterdir())


@pytest.fixture
def photos(tmp_path):
    return draw_photos(tmp_path / "photos", 3)


@pytest.fixture
def store(tmp_path):
    return Decisions(tmp_path / "set", "weights")


def rows_in(store) -> list[dict]:
    with store.table.open(newline="") as file:
        return list(csv.DictReader(file))


def files_in(store) -> list[str]:
    return sorted(str(path.relative_to(store.output)) for path in store.output.rglob("*") if path.is_file())


def test_a_decision_is_a_row_a_mask_and_the_image_byte_for_byte(store, photos):
    store.decide(photos[0], "accepted", MASK, found=MASK, expected_jaccard=0.81234, seconds=2.04)
    store.decide(photos[1], "corrected", WIDER, found=MASK, points=[(45.25, 15, 1), (1, 2, 0)])
    assert (store.images / "p0.jpg").read_bytes() == photos[0].read_bytes()
    assert (read_mask(store.masks / "p1_segmentation.png") == WIDER).all()
    first, second = rows_in(store)
    assert tuple(first) == COLUMNS and first["made_by"] == "weights"
    assert [first[name] for name in ("image", "decision", "seconds", "clicks")] == ["p0.jpg", "accepted", "2.0", "0"]
    assert (first["jaccard"], first["expected_jaccard"]) == ("1.0", "0.8123")
    assert (second["clicks"], second["points"]) == ("2", "45.2 15.0 1; 1.0 2.0 0")
    assert float(second["jaccard"]) == round(200 / 300, 4)


def test_no_lesion_is_an_empty_mask_and_unusable_is_left_out(store, photos):
    store.decide(photos[0], "no lesion", np.zeros_like(MASK), found=MASK)
    store.decide(photos[1], "unusable", None, found=MASK)
    assert files_in(store) == ["decisions.csv", "images/p0.jpg", "masks/p0_segmentation.png"]
    assert not read_mask(store.masks / "p0_segmentation.png").any()
    assert [row["jaccard"] for row in rows_in(store)] == ["0.0", ""]


def test_a_changed_mind_replaces_mask_and_takes_the_image_out_and_back(store, photos):
    store.decide(photos[0], "accepted", MASK)
    store.decide(photos[0], "corrected", WIDER, seen=1)
    assert (read_mask(store.masks / "p0_segmentation.png") == WIDER).all()
    store.decide(photos[0], "unusable", None, seen=2)
    assert files_in(store) == ["decisions.csv"]
    store.decide(photos[0], "accepted", MASK, seen=3)
    assert (read_mask(store.masks / "p0_segmentation.png") == MASK).all() and (store.images / "p0.jpg").exists()
    assert [row["decision"] for row in rows_in(store)] == ["accepted", "corrected", "unusable", "accepted"]


def test_folder_is_one_that_training_and_scoring_take(store, tmp_path):
    photos = draw_photos(tmp_path / "many", 20)
    for number, photo in enumerate(photos):
        store.decide(photo, "no lesion" if number == 3 else "accepted", MASK & (number != 3))
    store.decide(photos[4], "unusable", None, seen=1)
    data = load_isic(store.output, cache_dir=tmp_path / "cache")
    rows = {row["image_id"]: row for split in data.values() for row in split}
    assert set(rows) == {photo.stem for photo in photos} - {"p12"}  # sorted: p0, p1, p10, p11, p12
    assert (np.asarray(rows["p5"]["mask"]) == MASK * 255).all() and not np.asarray(rows["p11"]["mask"]).any()
    assert class_names(data) == ()
    store.name_class("lesion")
    assert not (store.output / "classes.txt").exists()
    with pytest.raises(ValueError, match=r"must be of nucleus, as the checkpoint is, got \['lesion'\]. Choose"):
        store.name_class("nucleus")  # it would rename the masks that are there
    assert not (store.output / "classes.txt").exists()


def test_set_is_of_one_class(store, tmp_path):
    store.name_class("nucleus")
    for photo in draw_photos(tmp_path / "many", 20):
        store.decide(photo, "accepted", MASK)
    store.name_class("nucleus")  # the second server finds it there
    for other in ("organ", "lesion"):
        with pytest.raises(ValueError, match=rf"must be of {other}, as the checkpoint is, got \['nucleus'\]."):
            store.name_class(other)
    assert class_names(load_isic(store.output, cache_dir=tmp_path / "cache")) == ("nucleus",)


def test_second_browser_does_not_overwrite_what_it_has_not_seen(store, photos):
    other = Decisions(store.output)  # of another process
    store.decide(photos[0], "corrected", WIDER)
    with pytest.raises(OtherDecision, match=r"^p0.jpg: somebody else has decided meanwhile."):
        other.decide(photos[0], "accepted", MASK)
    assert len(rows_in(store)) == 1 and (read_mask(store.masks / "p0_segmentation.png") == WIDER).all()
    assert len(other.rows()["p0.jpg"]) == 1


def test_many_threads_of_two_stores_lose_no_row(store, tmp_path):
    photos = draw_photos(tmp_path / "many", 24)
    stores = [store, Decisions(store.output)]
    refused = []

    def work(number):
        for photo in photos[number % 3 :: 2]:
            try:
                stores[number % 2].decide(photo, "accepted", MASK)
            except OtherDecision:
                refused.append(photo)

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row["image"] for row in rows_in(store)) == sorted({photo.name for photo in photos})
    assert len(refused) == sum(len(photos[number % 3 :: 2]) for number in range(4)) - 24


class Killed(BaseException):
    pass


def kill_at(monkeypatch, step: int) -> list[str]:
    """The process "dies" before its `step`-th change of the disk, and changes nothing more."""
    done = []

    def dying(owner, name):
        real = getattr(owner, name)

        def change(*arguments, **options):
            if len(done) >= step:
                done.append("dead")
                raise Killed
            done.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, change)

    for name in ("replace", "unlink"):
        dying(Path, name)
    dying(module.shutil, "copyfile")
    dying(module, "write_all")
    dying(Image.Image, "save")
    return done


@pytest.mark.parametrize(
    ("decision", "mask"), [("corrected", WIDER), ("no lesion", np.zeros_like(MASK)), ("unusable", None)]
)
@pytest.mark.parametrize("is_decided", [False, True])
def test_killed_before_any_step_a_decision_is_there_or_not_at_all(
    tmp_path, photos, monkeypatch, decision, mask, is_decided
):
    steps = 0
    while True:
        output = tmp_path / f"set{steps}"
        store = Decisions(output)
        store.decide(photos[1], "accepted", MASK)
        if is_decided:
            store.decide(photos[0], "accepted", MASK)
        before = len(rows_in(store))
        with monkeypatch.context() as patched:
            done = kill_at(patched, steps)
            try:
                store.decide(photos[0], decision, mask, seen=int(is_decided))
            except Killed:
                pass
            is_killed = "dead" in done
        in_set = {path.stem for path in store.images.glob("p*")}
        assert in_set <= {path.name.removesuffix("_segmentation.png") for path in store.masks.glob("p*")}
        again = Decisions(output)
        again.finish()
        rows = again.rows()
        assert not [name for name in files_in(again) if "/." in name or name.startswith(".pending")]
        is_kept = len(rows_in(again)) > before
        wanted = (mask if is_kept else MASK) if is_kept or is_decided else None
        path = again.masks / "p0_segmentation.png"
        assert path.exists() == (again.images / "p0.jpg").exists() == (wanted is not None)
        assert wanted is None or (read_mask(path) == wanted).all()
        assert again.is_decided(photos[0], rows) == (is_kept or is_decided)
        again.decide(photos[0], "accepted", WIDER, seen=len(rows.get("p0.jpg", [])))
        assert (read_mask(path) == WIDER).all()
        if not is_killed:
            break
        steps += 1
    assert is_kept and steps >= (1 if decision == "unusable" and not is_decided else 3)


def test_row_that_a_kill_has_cut_goes_and_the_next_one_is_whole(store, photos):
    store.decide(photos[0], "accepted", MASK)
    store.decide(photos[1], "accepted", MASK)
    store.table.write_bytes(store.table.read_bytes()[:-9])
    again = Decisions(store.output)
    assert list(again.rows()) == ["p0.jpg"]
    again.decide(photos[2], "unusable", None)
    assert [row["image"] for row in rows_in(again)] == ["p0.jpg", "p2.jpg"]


def test_full_disk_leaves_no_half_row(store, photos, monkeypatch):
    store.decide(photos[0], "accepted", MASK)
    before = store.table.read_bytes()

    def fill(file, data):
        file.write(data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_all", fill)
        with pytest.raises(OSError, match="No space left"):
            store.decide(photos[1], "accepted", MASK)
    assert store.table.read_bytes() == before and "images/p1.jpg" not in files_in(store)


def test_disk_that_is_full_while_the_photo_is_copied_decides_nothing(store, photos, monkeypatch):
    def fill(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module.shutil, "copyfile", fill)
        with pytest.raises(OSError, match="No space left"):
            store.decide(photos[0], "accepted", MASK)
    assert rows_in(store) == [] and not list(store.images.iterdir())
    store.decide(photos[0], "accepted", MASK)  # where there is space again
    assert store.is_decided(photos[0], store.rows())


def test_other_photo_of_a_decided_name_is_refused_by_name(store, photos, tmp_path):
    store.decide(photos[0], "accepted", MASK)
    other = tmp_path / "p0.jpg"  # of another folder
    other.write_bytes(photos[1].read_bytes())
    before = photos[0].read_bytes()
    assert store.is_decided(photos[0], store.rows()) and not store.is_decided(other, store.rows())
    assert list(store.refusals([*photos, other], store.rows())) == [other]
    photos[0].write_bytes(photos[1].read_bytes())  # or the same file, replaced
    for photo in (photos[0], other):
        for decision, mask in (("accepted", WIDER), ("no lesion", WIDER & False), ("unusable", None)):
            with pytest.raises(FileExistsError, match=r"p0.jpg: another photo of this name is in .*: the one that"):
                store.decide(photo, decision, mask, seen=1)
    assert (store.images / "p0.jpg").read_bytes() == before and len(rows_in(store)) == 1
    assert (read_mask(store.masks / "p0_segmentation.png") == MASK).all()
    photos[0].unlink()  # gone is not replaced
    assert store.is_decided(photos[0], store.rows())


def test_other_photo_of_an_unusable_one_takes_its_place(store, photos):
    store.decide(photos[0], "accepted", MASK)
    store.decide(photos[0], "unusable", None, seen=1)
    photos[0].write_bytes(photos[1].read_bytes())
    assert not store.is_decided(photos[0], store.rows())
    store.decide(photos[0], "corrected", WIDER, seen=2)
    assert (store.images / "p0.jpg").read_bytes() == photos[1].read_bytes()
    assert (read_mask(store.masks / "p0_segmentation.png") == WIDER).all() and store.is_decided(photos[0], store.rows())


def test_photo_that_was_replaced_while_it_was_shown_is_refused(store, photos):
    shown = module.digest(photos[0])
    photos[0].write_bytes(photos[1].read_bytes())
    for decision, mask in (("accepted", MASK), ("unusable", None)):
        with pytest.raises(ValueError, match="p0.jpg: the file was replaced since it was shown. Load the page again."):
            store.decide(photos[0], decision, mask, photo=shown)
    assert rows_in(store) == [] and not list(store.images.iterdir())


def test_killed_before_any_step_another_photo_never_has_the_mask_of_an_unusable_one(tmp_path, photos, monkeypatch):
    contents = [photo.read_bytes() for photo in photos[:2]]
    for steps in range(20):
        store = Decisions(tmp_path / f"set{steps}")
        photos[0].write_bytes(contents[0])
        store.decide(photos[0], "accepted", MASK)
        with monkeypatch.context() as patched:
            done = kill_at(patched, steps)
            try:
                store.decide(photos[0], "unusable", None, seen=1)
                photos[0].write_bytes(contents[1])
                store.decide(photos[0], "corrected", WIDER, seen=2)
            except Killed:
                pass
        for _ in range(2):  # after the kill, and when it was mended
            if (store.images / "p0.jpg").exists():
                is_new = (store.images / "p0.jpg").read_bytes() == contents[1]
                mask = read_mask(store.masks / "p0_segmentation.png")
                assert (mask == (WIDER if is_new else MASK)).all()
            Decisions(store.output).finish()
        decided = [contents[0], None, contents[1]][len(rows_in(store)) - 1]
        in_set = store.images / "p0.jpg"
        assert (in_set.read_bytes() if in_set.exists() else None) == decided
        if "dead" not in done:
            break
    assert 8 < steps < 19


NAMES = ("p0.jpg", "=1+1.jpg", "a\nb.jpg")


@pytest.mark.parametrize("is_undone", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_finish_needs_no_photos(store, photos, monkeypatch, name, is_undone):
    photo = photos[0].rename(photos[0].with_name(name))
    content = photo.read_bytes()
    if is_undone:
        store.decide(photo, "accepted", MASK)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        done = kill_at(patched, 3 if is_undone else 8)
        store.decide(photo, *(("unusable", None, 1) if is_undone else ("accepted", MASK)))
    assert done[-2] == ("unlink" if is_undone else "replace") and len(rows_in(store)) == 1 + is_undone
    photo.unlink()
    (store.pending / "nobody_segmentation.png").touch()
    Decisions(store.output).finish()
    assert list(store.pending.iterdir()) == []
    if is_undone:
        assert files_in(store) == ["decisions.csv"]
    else:
        assert (store.images / name).read_bytes() == content
        assert (read_mask(store.masks / f"{photo.stem}_segmentation.png") == MASK).all()


def test_decision_that_waits_for_its_files_outlives_the_next_server_that_dies(store, photos, monkeypatch):
    for steps, mask in ((7, MASK), (5, WIDER)):  # after the row; after the mask is staged
        with monkeypatch.context() as patched, pytest.raises(Killed):
            kill_at(patched, steps)
            store.decide(photos[0], "accepted", mask, seen=len(rows_in(store)))
    assert len(rows_in(store)) == 1
    Decisions(store.output).finish()
    assert (read_mask(store.masks / "p0_segmentation.png") == MASK).all()


def test_second_file_of_an_id_is_refused_by_name_unless_the_first_is_unusable(store, photos, tmp_path):
    nothing = np.zeros_like(MASK)  # as a file the same for both
    store.decide(photos[0], "no lesion", nothing)
    other = tmp_path / "p0.png"
    Image.new("RGB", (64, 48)).save(other)
    words = r"{}: its mask would be that of {} in .*decisions.csv. Rename it."
    with pytest.raises(FileExistsError, match=words.format("p0.png", "p0.jpg")):
        store.decide(other, "accepted", WIDER)
    assert list(store.refusals([*photos, other], store.rows())) == [other]
    store.decide(photos[0], "unusable", None, seen=1)
    store.decide(other, "no lesion", nothing)
    with pytest.raises(FileExistsError, match=words.format("p0.jpg", "p0.png")):
        store.decide(photos[0], "accepted", WIDER, seen=2)
    store.finish()
    assert store.is_decided(other, store.rows())


@pytest.mark.parametrize(("missing", "words"), [(["box"], "'box'"), (["photo", "box"], "'photo' and 'box'")])
def test_table_of_an_earlier_version_is_refused_by_name(tmp_path, missing, words):
    (tmp_path / "decisions.csv").write_text(",".join(name for name in COLUMNS if name not in missing) + "\n")
    with pytest.raises(ValueError, match=f"an earlier version's table, without the column {words}. Choose another"):
        Decisions(tmp_path)


@pytest.mark.parametrize("name", ["images/p0.jpg", "masks/p0_segmentation.png"])
def test_file_of_somebody_else_is_not_overwritten(store, photos, name):
    (store.output / name).write_text("mine")
    with pytest.raises(FileExistsError, match="is not of this review, and would be replaced. Move it away."):
        store.decide(photos[0], "accepted", MASK)
    with pytest.raises(FileExistsError):
        store.decide(photos[0], "unusable", None)  # it would stay in the set
    assert (store.output / name).read_text() == "mine" and rows_in(store) == []


def test_file_that_somebody_adds_after_an_unusable_image_stays(store, photos):
    store.decide(photos[0], "unusable", None)
    (store.images / "p0.jpg").write_text("mine")
    store.finish()
    assert (store.images / "p0.jpg").read_text() == "mine"


@pytest.mark.parametrize("has_own_photo", [True, False])
def test_own_files_in_the_place_of_an_unusable_image_stay(store, photos, has_own_photo):
    store.decide(photos[0], "accepted", MASK)
    store.decide(photos[0], "unusable", None, seen=1)
    photo, mask = store.images / "p0.jpg", store.masks / "p0_segmentation.png"
    photo.write_bytes(photos[has_own_photo].read_bytes())
    mask.write_text("drawn by hand")
    store.finish()
    for decision, of_decision in (("unusable", None), ("accepted", MASK)):
        with pytest.raises(FileExistsError, match="is not of this review"):
            store.decide(photos[0], decision, of_decision, seen=2)
    assert photo.exists() and mask.read_text() == "drawn by hand"


def test_mask_that_was_changed_by_hand_stays(store, photos):
    store.decide(photos[0], "accepted", MASK)
    mask = store.masks / "p0_segmentation.png"
    Image.fromarray(WIDER).convert("L").save(mask)
    for decision, of_decision in (("unusable", None), ("accepted", MASK)):
        with pytest.raises(FileExistsError, match="p0_segmentation.png is not of this review, and would be replaced"):
            store.decide(photos[0], decision, of_decision, seen=1)
    assert (read_mask(mask) == WIDER).all() and store.is_decided(photos[0], store.rows())


def test_folder_or_table_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ValueError, match="full is not empty and has no decisions.csv. Choose another --output."):
        Decisions(tmp_path / "full")
    (tmp_path / "full" / "decisions.csv").write_text("a,b")
    with pytest.raises(ValueError, match="another table than this version writes"):
        Decisions(tmp_path / "full")
    assert (tmp_path / "full" / "decisions.csv").read_text() == "a,b"


@pytest.mark.parametrize(("decision", "mask"), [("good", MASK), ("accepted", None), ("unusable", MASK)])
def test_decisions_that_cannot_be_are_refused(store, photos, decision, mask):
    with pytest.raises(ValueError, match=f"got '{decision}'"):
        store.decide(photos[0], decision, mask)
    assert rows_in(store) == []


def test_names_that_would_break_a_table_keep_their_rows(store, tmp_path):
    for number, name in enumerate(("=1+1.jpg", "a,b.jpg", "a\nb.jpg", "ä.jpg")):
        photo = tmp_path / name
        draw_lesion(number, 48, 64)[0].save(photo)
        store.decide(photo, "accepted", MASK)
        assert store.is_decided(photo, store.rows())
    assert len(rows_in(store)) == 4 and len(store.table.read_bytes().splitlines()) == 5


# For each line, the path of a log, a process of its own, which says what it has kept: forked, as imports take seconds.
PROGRAM = """
import os, sys, numpy as np
from pathlib import Path
from efp_hf.review.decisions import Decisions
output, photos = Path(sys.argv[1]), sorted(Path(sys.argv[2]).iterdir())
for line in sys.stdin:
    if child := os.fork():
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)
        continue
    sys.stdout = open(line.strip(), "w")
    store = Decisions(output)
    store.finish()
    mask = np.zeros((48, 64), dtype=bool)
    for number in range(10**6):
        photo = photos[number % len(photos)]
        seen = len(store.rows().get(photo.name, []))
        mask[:] = False
        mask[: 1 + seen % 40, :30] = True
        store.decide(photo, "accepted", mask, seen=seen)
        print(photo.name, seen + 1, flush=True)
"""


@pytest.fixture
def deciding(tmp_path, photos):
    """The process of `PROGRAM`, which decides of the photos in tmp_path/set."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path / "set", photos[0].parent],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


@pytest.mark.slow
def test_killed_process_has_kept_all_that_it_said(tmp_path, photos, deciding):
    output, said = tmp_path / "set", {}
    for number, pause in enumerate((0.05, 0.11, 0.17, 0.23)):
        log = tmp_path / f"log-{number}"
        print(log, file=deciding.stdin, flush=True)
        child = int(deciding.stdout.readline())
        deadline = time.monotonic() + 60
        while not (log.is_file() and log.read_text().count("\n")) and time.monotonic() < deadline:
            time.sleep(0.01)  # until it has kept a mask
        time.sleep(pause)
        os.kill(child, signal.SIGKILL)
        assert deciding.stdout.readline() == "ended\n"
        for line in log.read_text().splitlines():
            if len(line.split()) == 2:
                name, count = line.split()
                said[name] = int(count)
        store = Decisions(output)
        store.finish()
        rows = store.rows()
        assert said and all(len(rows[name]) >= count for name, count in said.items())
        for photo in photos:
            if count := len(rows.get(photo.name, [])):
                mask = read_mask(store.masks / f"{photo.stem}_segmentation.png")
                assert mask.sum() == (1 + (count - 1) % 40) * 30
                assert (store.images / photo.name).read_bytes() == photo.read_bytes()
