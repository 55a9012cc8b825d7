"""Pictures of a lesion."""

import numpy as np
from PIL import Image

from efp_hf.inference.drawing import (
    AGREEMENT_COLORS,
    AGREEMENT_OPACITY,
    CLASS_TINT,
    LEGEND_LINE,
    add_legend,
    class_colors,
    color_map,
    draw_agreement,
    palette_picture,
    tint_classes,
    tint_lesion,
)


def test_tint_mixes_and_the_outline_covers():
    mask = np.zeros((9, 9), dtype=bool)
    mask[2:7, 2:7] = True
    pixels = np.asarray(tint_lesion(Image.new("RGB", (9, 9), (100, 100, 100)), mask))
    assert tuple(pixels[2, 2]) == (0, 255, 80)  # the outline
    assert tuple(pixels[4, 4]) == (75, 138, 95)  # a quarter of it
    assert tuple(pixels[0, 0]) == (100, 100, 100)


def test_color_map_runs_from_dark_to_bright():
    brightness = np.asarray(color_map(np.linspace(0, 1, 50)[None]).convert("L"), dtype=int)[0]
    assert (np.diff(brightness) >= 0).all()
    assert brightness[0] < 40 and brightness[-1] > 200


def test_each_kind_of_agreement_has_its_colour_and_skin_stays():
    mask = np.array([[True, True], [False, False]])
    truth = np.array([[True, False], [True, False]])
    pixels = np.asarray(draw_agreement(Image.new("RGB", (2, 2), (100, 100, 100)), mask, truth))
    for place, kind in (((0, 0), "hit"), ((0, 1), "false"), ((1, 0), "missed")):
        expected = 100 * (1 - AGREEMENT_OPACITY) + np.array(AGREEMENT_COLORS[kind]) * AGREEMENT_OPACITY
        assert np.abs(pixels[place] - expected).max() <= 1, kind
    assert tuple(pixels[1, 1]) == (100, 100, 100)


def test_colours_of_classes_are_all_different_and_the_background_is_black():
    for num_classes in (1, 3, 40):
        colors = class_colors(num_classes)
        assert colors.shape == (num_classes + 1, 3) and not colors[0].any()
        assert len({tuple(color) for color in colors.tolist()}) == num_classes + 1
    assert np.array_equal(class_colors(40)[:4], class_colors(3))


def test_palette_keeps_the_labels():
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4) % 4
    picture = palette_picture(labels, 3)
    assert np.array_equal(np.asarray(picture), labels)
    assert np.array_equal(np.asarray(picture.convert("RGB")), class_colors(3)[labels])


def test_each_class_is_tinted_in_its_colour_and_ignored_pixels_are_not():
    labels = np.zeros((9, 20), np.uint8)
    labels[2:7, 1:6], labels[2:7, 7:12], labels[2:7, 13:18] = 1, 2, 255
    pixels = np.asarray(tint_classes(Image.new("RGB", (20, 9), (100, 100, 100)), labels, 2)).astype(float)
    for column, color in ((3, class_colors(2)[1]), (9, class_colors(2)[2])):
        assert np.abs(pixels[4, column] - (100 * (1 - CLASS_TINT) + color * CLASS_TINT)).max() <= 1
        assert (pixels[2, column] == color).all()
    assert (pixels[4, 15] == 100).all() and (pixels[0] == 100).all()


def test_legend_is_below_the_image_and_has_every_colour():
    names = tuple(f"class number {number}" for number in range(9))
    picture = np.asarray(add_legend(Image.new("RGB", (200, 80), (1, 2, 3)), names))
    assert (picture[:80] == (1, 2, 3)).all() and picture.shape[1] == 200 and picture.shape[0] > 80 + 2 * LEGEND_LINE
    legend = picture[80:].reshape(-1, 3)
    assert all((legend == color).all(1).any() for color in class_colors(9)[1:])


def test_legend_of_a_narrow_image_shows_whole_names():
    picture = np.asarray(add_legend(Image.new("RGB", (40, 80)), ("membrane", "nucleus")))
    assert (picture[:80, 40:] == 255).all() and picture.shape[1] > 40
    inked = np.flatnonzero((picture[80:] < 128).all(-1).any(0))
    assert inked.max() < picture.shape[1] - 1  # the longest name ends before the edge
    alone = np.asarray(add_legend(Image.new("RGB", (400, 80)), ("membrane",)))
    assert inked.max() == np.flatnonzero((alone[80:] < 128).all(-1).any(0)).max()
