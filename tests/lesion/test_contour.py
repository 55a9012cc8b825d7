"""The outline of a mask as polygons of COCO."""

import numpy as np

from efp_hf.lesion.contour import bounding_box, coco_contour, lesion_polygons


def polygon_area(polygon) -> float:
    x, y = np.array(polygon).reshape(-1, 2).T
    return abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def test_polygon_of_a_square_lies_on_its_pixels_edges():
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:4, 2:6] = True
    outer, holes = lesion_polygons(mask)
    x, y = np.array(outer[0]).reshape(-1, 2).T
    assert (x.min(), x.max(), y.min(), y.max()) == (2, 6, 1, 4)
    assert polygon_area(outer[0]) == 12 - 4 / 8  # each corner is cut by an eighth of a pixel
    assert len(outer) == 1 and not holes


def test_polygon_at_the_border_stays_in_the_image():
    outer, _ = lesion_polygons(np.ones((3, 4), dtype=bool))
    x, y = np.array(outer[0]).reshape(-1, 2).T
    assert (x.min(), x.max(), y.min(), y.max()) == (0, 4, 0, 3)


def test_hole_is_named_beside_the_polygon():
    mask = np.ones((7, 7), dtype=bool)
    mask[3, 3] = False
    outer, holes = lesion_polygons(mask)
    assert (len(outer), len(holes)) == (1, 1)
    assert polygon_area(holes[0]) == 4 / 8


def test_regions_that_touch_at_a_corner_are_one_polygon():
    mask = np.zeros((4, 4), dtype=bool)
    mask[1, 1] = mask[2, 2] = True
    assert len(lesion_polygons(mask)[0]) == 1


def test_no_lesion_has_no_annotation():
    assert coco_contour(np.zeros((4, 4), dtype=bool), "a.png")["annotations"] == []


def test_bounding_box_ends_behind_the_last_row_and_column():
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:4, 2:6] = True
    assert bounding_box(mask) == (1, 2, 4, 6)
    assert coco_contour(mask, "a.png")["annotations"][0]["bbox"] == [2, 1, 4, 3]
