"""The dermoscopic structures of ISIC 2018, Task 2: their names, in the order in which a model has them, and files."""

from collections.abc import Mapping

import numpy as np

LESION = "lesion"
STRUCTURES = ("globules", "milia_like_cyst", "negative_network", "pigment_network", "streaks")
LABELS = (LESION, *STRUCTURES)  # of a model for both
MASK_NAME = "{}_attribute_{}.png"  # of an image's id and a structure
# Of the five components that the D of the ABCD rule counts (Stolz et al. 1994, Nachbar et al. 1994: network,
# structureless areas, branched streaks, dots, globules) those that a structure is; milia-like cysts are none of them.
COMPONENTS = {"network": ("negative_network", "pigment_network"), "streaks": ("streaks",), "globules": ("globules",)}


def title_of(label: str) -> str:
    """The name of one of `LABELS` in a text."""
    return label.replace("milia_like_cyst", "milia-like cysts").replace("_", " ")


def structure_variety(masks: Mapping[str, np.ndarray]) -> int | None:
    """
    How many of `COMPONENTS` the lesion has, 0..3: a lower bound of the D of the ABCD rule, whose two others no
    structure is. A structure counts where its mask meets the lesion's; without a lesion there is no number.

    Args:
        masks: boolean `(height, width)` of each of `LABELS`.
    """
    lesion = masks[LESION]
    if not lesion.any():
        return None
    return sum(any((masks[name] & lesion).any() for name in names) for names in COMPONENTS.values())
