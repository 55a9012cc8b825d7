"""Measures of drawn shapes whose answers are known from geometry."""

import math

import numpy as np
import pytest
from skimage.draw import disk, polygon

from efp_hf.lesion import measures
from efp_hf.lesion.measures import LESION_COLORS, color_shares, measure_lesion

RADIUS = 60
PIXEL_ERROR = 2  # what a length of a drawn shape may be off: a pixel at each end


def paint(mask: np.ndarray, color: tuple = (120, 80, 60)) -> np.ndarray:
    """One colour everywhere."""
    return np.full((*mask.shape, 3), color, dtype=np.uint8)


def measure(mask: np.ndarray, **scale) -> dict:
    return measure_lesion(mask, paint(mask), **scale)


def draw_disk(radius: float = RADIUS, size: tuple[int, int] = (150, 200)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[disk((size[0] / 2, size[1] / 2), radius, shape=size)] = True
    return mask


def draw_rectangle(height: int, width: int, size: tuple[int, int] = (150, 200)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[20 : 20 + height, 10 : 10 + width] = True
    return mask


def draw_polygon(corners: list[tuple[float, float]], degrees: float = 0, size: int = 320) -> np.ndarray:
    """The polygon of these corners (row, column from the centre), turned by `degrees`."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    rows, columns = (np.array(corners) @ [[cosine, sine], [-sine, cosine]] + size / 2).T
    mask = np.zeros((size, size), dtype=bool)
    mask[polygon(rows, columns, shape=mask.shape)] = True
    return mask


def polar_grid(size: int, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Distance from the centre over the image's side, and angle from the rows' axis turned by `degrees`."""
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    return np.hypot(rows, columns), np.arctan2(columns, rows) - math.radians(degrees)


def draw_ellipse(degrees: float = 0, size: int = 320) -> np.ndarray:
    """Semi-axes of 3/8 and 3/16 of the image's side, the long one along the rows at 0°."""
    distance, angle = polar_grid(size, degrees)
    return distance * np.hypot(np.cos(angle) / 0.375, np.sin(angle) / 0.1875) < 1


def draw_flower(degrees: float = 25, size: int = 320) -> np.ndarray:
    """Smooth petals of unequal length: uneven about both axes, and not convex."""
    distance, angle = polar_grid(size, degrees)
    petals = 0.15 * np.cos(5 * angle) + 0.25 * np.cos(2 * angle + 1) + 0.1 * np.cos(3 * angle)
    return distance < 0.3 * (1 + petals)


TRIANGLE = [(-100, 0), (50, -140), (50, 140)]  # isosceles, its base the longer side


# Size


def test_disk_has_the_area_diameter_and_outline_of_its_radius():
    mask = draw_disk()
    measured = measure(mask)
    assert measured["area"] == mask.sum() == pytest.approx(math.pi * RADIUS**2, rel=0.01)
    assert measured["area_share"] == mask.sum() / 30_000
    assert measured["feret_diameter_max"] == pytest.approx(2 * RADIUS, abs=PIXEL_ERROR)
    assert measured["perimeter_crofton"] == pytest.approx(2 * math.pi * RADIUS, rel=0.01)


def test_rectangle_has_the_diagonal_as_diameter_and_an_outline_5_percent_short():
    measured = measure(draw_rectangle(60, 80))
    assert measured["area"] == 4800
    assert measured["feret_diameter_max"] == pytest.approx(100, abs=PIXEL_ERROR)
    assert measured["perimeter_crofton"] == pytest.approx(0.95 * 280, rel=0.01)


def test_ellipse_has_the_outline_of_ramanujan_and_its_long_axis_as_diameter():
    long, short = 120, 60
    measured = measure(draw_ellipse())
    outline = math.pi * (3 * (long + short) - math.sqrt((3 * long + short) * (long + 3 * short)))
    assert measured["area"] == pytest.approx(math.pi * long * short, rel=0.01)
    assert measured["feret_diameter_max"] == pytest.approx(2 * long, abs=PIXEL_ERROR)
    assert measured["perimeter_crofton"] == pytest.approx(outline, rel=0.02)


def test_whole_image_is_a_lesion_with_the_diagonal_as_diameter():
    measured = measure(np.ones((60, 80), dtype=bool))
    assert (measured["area"], measured["area_share"]) == (4800, 1)
    assert measured["feret_diameter_max"] == pytest.approx(100, abs=PIXEL_ERROR)
    assert measured["asymmetry_major"] == measured["asymmetry_minor"] == 0
    assert measured["border_irregularity"] == 1


def test_holes_are_missing_from_the_area_and_not_from_the_outline():
    whole, ring = draw_disk(), draw_disk() & ~draw_disk(20)
    whole_measured, measured = measure(whole), measure(ring)
    assert measured["area"] == ring.sum() < whole.sum()
    for name in ("perimeter_crofton", "compactness", "asymmetry_major", "border_irregularity"):
        assert measured[name] == whole_measured[name]


# Shape


def test_compactness_is_1_for_a_disk_and_pi_over_4_for_a_square():
    assert measure(draw_disk())["compactness"] == pytest.approx(1, abs=0.01)
    # a square on its corner, whose outline is 5 % short like that of an upright one
    for mask in (draw_rectangle(100, 100), draw_polygon([(-100, 0), (0, 100), (100, 0), (0, -100)])):
        assert measure(mask)["compactness"] == pytest.approx(math.pi / 4 / 0.95**2, rel=0.02)


def test_compactness_of_an_ellipse_is_4_pi_area_over_perimeter_squared():
    measured = measure(draw_ellipse())
    expected = 4 * math.pi * measured["area"] / measured["perimeter_crofton"] ** 2
    assert measured["compactness"] == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(0.84, abs=0.03)


@pytest.mark.parametrize("degrees", [0, 20, 45, 90, 130])
def test_ellipse_is_symmetric_about_both_axes_however_it_is_turned(degrees):
    measured = measure(draw_ellipse(degrees))
    assert measured["asymmetry_major"] < 0.015
    assert measured["asymmetry_minor"] < 0.015


@pytest.mark.parametrize("degrees", [0, 30, 90, 200])
def test_triangle_leaves_a_third_uncovered_when_folded_along_its_base(degrees):
    # Two thirds of an isosceles triangle lie within a third of its height from its centroid; about its other axis it
    # is symmetric. The base is the longer side, so the major axis is parallel to it.
    measured = measure(draw_polygon(TRIANGLE, degrees))
    assert measured["asymmetry_major"] == pytest.approx(1 / 3, abs=0.01)
    assert measured["asymmetry_minor"] < 0.02


def test_tall_triangle_leaves_the_third_about_the_other_axis():
    measured = measure(draw_polygon([(-140, 0), (140, -60), (140, 60)]))
    assert measured["asymmetry_major"] < 0.02
    assert measured["asymmetry_minor"] == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("mask", [draw_disk(), draw_ellipse(30), draw_rectangle(60, 80)])
def test_convex_outline_has_border_irregularity_1(mask):
    assert measure(mask)["border_irregularity"] == pytest.approx(1, abs=0.02)


def test_border_of_an_l_is_its_perimeter_over_that_of_the_hull():
    mask = np.zeros((220, 220), dtype=bool)
    mask[10:210, 10:60] = True
    mask[160:210, 10:210] = True
    hull = 2 * 200 + 2 * 50 + math.hypot(150, 150)
    assert measure(mask)["border_irregularity"] == pytest.approx(800 / hull, rel=0.01)


def test_l_is_symmetric_about_its_diagonal_only():
    mask = np.zeros((220, 220), dtype=bool)
    mask[10:210, 10:60] = True
    mask[160:210, 10:210] = True
    measured = measure(mask)
    assert measured["asymmetry_minor"] < 0.01
    assert measured["asymmetry_major"] > 0.5


def test_several_regions_add_their_areas_and_the_largest_has_the_shape():
    largest, both = draw_disk(40), draw_disk(40)
    both[5:15, 2:22] = True
    measured, alone = measure(both), measure(largest)
    assert measured["area"] == largest.sum() + 200
    for name in ("feret_diameter_max", "perimeter_crofton", "compactness", "asymmetry_major", "border_irregularity"):
        assert measured[name] == alone[name]


# Colours


@pytest.mark.parametrize("name", LESION_COLORS)
def test_lesion_painted_in_a_colour_has_that_colour(name):
    mask = draw_disk()
    image = paint(mask, LESION_COLORS[name])
    assert color_shares(mask, image)[name] == 1
    assert measure_lesion(mask, image)["color_variety"] == 1


def test_two_coloured_disk_has_two_colours_and_skin_does_not_count():
    mask = draw_disk()
    image = paint(mask, LESION_COLORS["white"])
    image[:, :100][mask[:, :100]] = LESION_COLORS["black"]
    image[:, 100:][mask[:, 100:]] = LESION_COLORS["light brown"]
    shares = color_shares(mask, image)
    assert shares["black"] == pytest.approx(1 / 2, abs=0.01)
    assert shares["white"] == 0
    assert sum(shares.values()) == pytest.approx(1)
    assert measure_lesion(mask, image)["color_variety"] == 2


def test_all_six_colours_are_counted():
    image = np.repeat(np.array([[*LESION_COLORS.values()]], dtype=np.uint8), 10, axis=0).repeat(10, axis=1)
    mask = np.ones(image.shape[:2], dtype=bool)
    assert color_shares(mask, image) == dict.fromkeys(LESION_COLORS, 1 / 6)
    assert measure_lesion(mask, image)["color_variety"] == 6


@pytest.mark.parametrize(("num_columns", "expected"), [(4, 1), (5, 2)])
def test_colour_counts_from_a_twentieth_of_the_lesion(num_columns, expected):
    mask = np.ones((20, 100), dtype=bool)
    image = paint(mask, LESION_COLORS["dark brown"])
    image[:, :num_columns] = LESION_COLORS["blue-grey"]
    assert measure_lesion(mask, image)["color_variety"] == expected


def test_green_is_none_of_the_six_colours():
    mask = draw_disk()
    assert measure_lesion(mask, paint(mask, (0, 255, 0)))["color_variety"] == 0


# Scale


def test_scale_gives_lengths_over_it_and_areas_over_its_square():
    mask = draw_disk()
    pixels, scaled = measure(mask), measure(mask, pixels_per_mm=10)
    assert scaled["area_mm2"] == pixels["area"] / 100
    assert scaled["feret_diameter_max_mm"] == pixels["feret_diameter_max"] / 10
    assert scaled["perimeter_crofton_mm"] == pixels["perimeter_crofton"] / 10
    assert {name: scaled[name] for name in pixels} == pixels
    assert not any(name.endswith(("_mm", "_mm2")) for name in pixels)


# Large images


@pytest.mark.parametrize("draw", [draw_flower, draw_ellipse])
def test_reduction_of_a_large_lesion_changes_little(draw, monkeypatch):
    mask = np.pad(draw(size=1000), ((3, 500), (7, 0)))
    reduced = measure(mask)
    monkeypatch.setattr(measures, "MAX_SIDE", 1000)
    full = measure(mask)
    assert measures.crop_and_reduce(mask, paint(mask))[2] == 1
    assert reduced["area"] == full["area"]
    assert reduced["perimeter_crofton"] != full["perimeter_crofton"]
    for name in ("feret_diameter_max", "perimeter_crofton", "compactness", "border_irregularity"):
        assert reduced[name] == pytest.approx(full[name], rel=0.01)
    for name in ("asymmetry_major", "asymmetry_minor"):
        assert reduced[name] == pytest.approx(full[name], abs=0.01)


def test_larger_drawing_has_the_same_shape_and_larger_lengths():
    small, large = measure(draw_flower(size=320)), measure(draw_flower(size=1600))
    for name in ("feret_diameter_max", "perimeter_crofton"):
        assert large[name] == pytest.approx(5 * small[name], rel=0.01)
    for name in ("area_share", "compactness", "asymmetry_major", "asymmetry_minor", "border_irregularity"):
        assert large[name] == pytest.approx(small[name], abs=0.01)
    assert small["asymmetry_major"] > 0.1 and small["border_irregularity"] > 1.02


def test_large_lesion_is_reduced_to_the_side_that_is_measured_and_colours_with_it():
    mask = np.pad(np.ones((1000, 1025), dtype=bool), 30)
    image = paint(mask, LESION_COLORS["red"])
    image[: 30 + 500] = LESION_COLORS["black"]
    lesion, pixels, scale = measures.crop_and_reduce(mask, image)
    assert (scale, lesion.shape, pixels.shape) == (3, (334, 342), (334, 342, 3))
    assert lesion.all()
    assert color_shares(lesion, pixels)["red"] == pytest.approx(1 / 2, abs=0.01)


def test_hairline_across_a_large_image_is_still_measured():
    mask = np.zeros((600, 2000), dtype=bool)
    mask[300, :] = True
    mask[0, 0] = mask[-1, 0] = True
    measured = measure(mask)
    assert measured["area"] == 2002
    assert measured["feret_diameter_max"] == pytest.approx(2000, rel=0.01)


# Degenerate masks and errors


def test_without_a_lesion_areas_are_0_and_the_rest_is_none():
    measured = measure(np.zeros((20, 30), dtype=bool), pixels_per_mm=10)
    assert {name for name, value in measured.items() if value == 0} == {"area", "area_share", "area_mm2"}
    assert all(value is None for name, value in measured.items() if not name.startswith("area"))
    assert list(measured) == list(measure(draw_disk(), pixels_per_mm=10))


@pytest.mark.filterwarnings("error")
def test_one_pixel_is_measured_without_a_warning_or_nan():
    mask = np.zeros((20, 30), dtype=bool)
    mask[4, 7] = True
    measured = measure(mask)
    assert (measured["area"], measured["area_share"], measured["feret_diameter_max"]) == (1, 1 / 600, 1)
    assert measured["asymmetry_major"] == measured["asymmetry_minor"] == 0
    assert all(math.isfinite(value) for value in measured.values())


def test_measures_are_plain_numbers():
    assert {type(value) for value in measure(draw_disk(), pixels_per_mm=3).values()} == {int, float}


def test_grey_mask_is_measured_as_a_boolean_one():
    mask = draw_disk()
    assert measure_lesion(mask.astype(np.uint8) * 255, paint(mask)) == measure(mask)


def test_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"image is 20×30, mask 30×20\. A mask must have the size of its image"):
        measure_lesion(np.ones((30, 20), dtype=bool), np.zeros((20, 30, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "image", [np.zeros((9, 9), dtype=np.uint8), np.zeros((9, 9, 4), dtype=np.uint8), np.zeros((9, 9, 3))]
)
def test_image_that_is_not_8_bit_rgb_is_refused(image):
    with pytest.raises(ValueError, match=r"`image` must be \(height, width, 3\) of uint8, got shape .* Convert it"):
        measure_lesion(np.ones((9, 9), dtype=bool), image)


@pytest.mark.parametrize("pixels_per_mm", [0, -3, math.nan, math.inf])
def test_scale_that_is_not_above_0_is_refused(pixels_per_mm):
    with pytest.raises(
        ValueError, match=f"`pixels_per_mm` must be above 0 and finite, got {pixels_per_mm}. Leave it out"
    ):
        measure(draw_disk(), pixels_per_mm=pixels_per_mm)
