"""Pictures of a lesion."""

import numpy as np
from PIL import Image

from efp_hf.inference.drawing import AGREEMENT_COLORS, AGREEMENT_OPACITY, color_map, draw_agreement, tint_lesion


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
