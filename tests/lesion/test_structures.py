"""The number of structures, on drawings."""

import numpy as np
import pytest

from efp_hf.lesion.measures import measure_lesion
from efp_hf.lesion.structures import LABELS, LESION, structure_variety


def drawn(*names: str) -> dict[str, np.ndarray]:
    """A lesion in rows 2..5 of 8×8 pixels, and these structures in its last row and one below."""
    masks = {name: np.zeros((8, 8), bool) for name in LABELS}
    masks[LESION][2:6, 2:6] = True
    for name in names:
        masks[name][5:7, 2:4] = True
    return masks


@pytest.mark.parametrize(
    ("names", "variety"),
    [
        ((), 0),
        (("pigment_network",), 1),
        (("pigment_network", "negative_network"), 1),  # two kinds of network
        (("globules", "streaks"), 2),
        (("globules", "negative_network", "streaks"), 3),
        (("milia_like_cyst",), 0),  # none of the rule's
    ],
)
def test_components_of_the_rule_are_counted_once(names, variety):
    masks = drawn(*names)
    assert structure_variety(masks) == variety
    structures = {name: mask for name, mask in masks.items() if name != LESION}
    measures = measure_lesion(masks[LESION], np.zeros((8, 8, 3), np.uint8), structures=structures)
    assert measures["structure_variety"] == variety


def test_what_lies_outside_of_the_lesion_does_not_count():
    masks = drawn("streaks")
    masks["streaks"][:6] = False
    assert structure_variety(masks) == 0


def test_without_a_lesion_there_is_no_number():
    masks = drawn("streaks")
    masks[LESION][:] = False
    assert structure_variety(masks) is None
    assert "structure_variety" not in measure_lesion(masks[LESION], np.zeros((8, 8, 3), np.uint8))
