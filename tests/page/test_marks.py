"""What a person marks on a photo."""

import pytest

from efp_hf.page.marks import MAX_POINTS, Marks, read_marks

POINTS = ((10.0, 20.0, 1), (30.0, 40.0, 0))


def test_two_clicks_make_a_box_from_any_corner():
    first = Marks().with_click(30, 10, "box")
    assert first.corner == (30, 10) and first.box is None and not first
    assert first.with_click(5, 50, "box") == Marks(box=(5, 10, 30, 50))


def test_a_click_is_added_behind_the_others_with_its_label():
    marks = Marks().with_click(10, 20, "lesion").with_click(30, 40, "skin")
    assert marks == Marks(POINTS)


@pytest.mark.parametrize("gone", range(4))
def test_one_mark_is_taken_away_by_its_name(gone):
    marks = Marks(POINTS, (1, 2, 50, 60), (7, 8))
    names = marks.names()
    left = marks.only([name for k, name in enumerate(names) if k != gone])
    assert left == Marks(
        tuple(point for k, point in enumerate(POINTS) if k != gone),
        None if gone == 2 else (1, 2, 50, 60),
        None if gone == 3 else (7, 8),
    )


def test_scaled_marks_lie_at_the_same_place_of_the_picture():
    marks = Marks(POINTS, (0, 0, 100, 200), (50, 100)).scaled((200, 100), to=(100, 200))
    assert marks == Marks(((20, 10, 1), (60, 20, 0)), (0, 0, 200, 100), (100, 50))


def test_program_sends_what_marks_give():
    marks = Marks(POINTS, (1.0, 2.0, 50.0, 60.0))
    assert read_marks(**marks.data()) == marks
    assert read_marks([[1, 2]], None, None) == Marks(((1, 2, 1),))
    assert not read_marks(None, None, None)


@pytest.mark.parametrize(
    ("points", "labels", "box", "words"),
    [
        ("10,20", None, None, "`points` must be a list of"),
        ([[1, 2, 3]], None, None, r"`points` must be a list of \[x, y\] in pixels of the photo, got '\[1, 2, 3\]'"),
        ([[1, float("nan")]], None, None, "`points` must be"),
        ([[1, True]], None, None, "`points` must be"),
        ([[1, 2]], [1, 0], None, "one a point, got 2 for 1 points"),
        ([[1, 2]], [2], None, r"`labels` must be 1 \(lesion\) or 0 \(skin\), got '2'"),
        ([[1, 2]], ["1"], None, "`labels` must be 1"),
        (None, None, [1, 2, 3], "`box` must be"),
        (None, None, {"left": 1}, "`box` must be"),
    ],
)
def test_what_is_no_mark_is_refused_in_words(points, labels, box, words):
    with pytest.raises(ValueError, match=words):
        read_marks(points, labels, box)


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        (Marks(((101, 5, 1),)), r"in the photo of 100×50 pixels, got \(101, 5\)"),
        (Marks(((5, -1, 1),)), "`points` must lie"),
        (Marks(box=(5, 5, 5, 20)), "with an area"),
        (Marks(box=(5, 5, 101, 20)), "`box` must be"),
        (Marks(((5, 5, 1),) * (MAX_POINTS + 1)), f"at most {MAX_POINTS} points"),
    ],
)
def test_mark_outside_of_the_photo_is_refused_in_words(marks, words):
    with pytest.raises(ValueError, match=words):
        marks.check((50, 100))
    Marks(((100, 50, 1),), (0, 0, 100, 50)).check((50, 100))


def test_marks_of_another_class_have_its_name():
    marks = Marks(((5, 6, 1), (7, 8, 0)), (1, 2, 3, 4))
    assert marks.names("cell") == ["1: cell (5, 6)", "2: background (7, 8)", "box (1, 2) to (3, 4)"]
    assert marks.only(["2: background (7, 8)"], "cell") == Marks(((7, 8, 0),))
    assert marks.names()[:2] == ["1: lesion (5, 6)", "2: skin (7, 8)"]


def test_the_border_stays_the_border_in_a_picture_of_any_size():
    for side in range(1, 400):
        marks = Marks(((side, side, 1),), (0, 0, side, side)).scaled((side, side), to=(4000, 4000))
        assert marks == Marks(((4000, 4000, 1),), (0, 0, 4000, 4000))
