"""
What a lesion's mask and image tell in numbers: size, outline, symmetry and colours.

Quantities of scikit-image have its names. Of the ABCD rule of dermatoscopy C is measured, and a lower bound of D; its A
and B are judged by more than an outline (Stolz et al. 1994, European Journal of Dermatology 4:521-527; Nachbar et al.
1994, Journal of the American Academy of Dermatology 30:551-559). The numbers describe a lesion and are no diagnosis.
"""

from collections.abc import Mapping

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.spatial.distance import cdist
from skimage.color import rgb2lab
from skimage.measure import perimeter_crofton, regionprops

from ..image_processing_efp import keep_largest_region
from ..metrics.scores import to_lesion
from .contour import bounding_box
from .structures import LESION, structure_variety

MAX_SIDE = 512  # a larger lesion is measured at 1/2, 1/3, … of its size; the hull of a megapixel takes half a second
AREAS = ("area",)
LENGTHS = ("feret_diameter_max", "perimeter_crofton")
SHAPES = ("compactness", "asymmetry_major", "asymmetry_minor", "border_irregularity")

# RGB of the six colours of the ABCD rule, as measured in lesions by Kasmi and Mokrani 2016, "Classification of
# malignant melanoma and benign skin lesions: implementation of automatic ABCD rule" (IET Image Processing 10:448-455).
LESION_COLORS = {
    "white": (197, 188, 217),
    "red": (118, 21, 17),
    "light brown": (163, 82, 16),
    "dark brown": (135, 44, 5),
    "blue-grey": (113, 108, 139),
    "black": (41, 31, 30),
}
COLOR_MIN_SHARE = 0.05  # of the lesion, as in that paper
# The paper takes every colour within an RGB distance, so that one brown pixel is light brown, dark brown and red. Here
# a pixel has the one colour that is nearest in CIELAB: in RGB, 83 % of the ISIC 2018 training lesions would have
# blue-grey, in CIELAB 25 %; and 98.5 % have at least one colour within this distance.
COLOR_MAX_DISTANCE = 30  # CIE76 ΔE


def measure_lesion(
    mask: np.ndarray,
    image: np.ndarray,
    pixels_per_mm: float | None = None,
    structures: Mapping[str, np.ndarray] | None = None,
) -> dict[str, float | None]:
    """
    The measures of one lesion. Of several regions, areas and colours are those of all of them, lengths and shape those
    of the largest, its holes filled. The image's border counts as the lesion's where it cuts the lesion.

    Args:
        mask: `(height, width)`, boolean, or grey 0..255: above 128 is lesion.
        image: `(height, width, 3)`, RGB, uint8, of the mask's size.
        pixels_per_mm: the image's scale, for measures in millimetres.
        structures: boolean masks of each of `STRUCTURES`, of the lesion's size.

    Returns:
        - `area`: pixels of the lesion; `area_share`: of the image;
        - `feret_diameter_max`: the longest diameter in pixels; `perimeter_crofton`: the outline in pixels, right on
          average over all directions (disc: exact; upright rectangle: 5 % short);
        - `compactness`: 4π · area / perimeter²; a disc has about 1, other outlines less. The perimeter's 5 % count
          twice here: an upright square has 0.88 and not π/4; a lesion of a few pixels can have more than 1;
        - `asymmetry_major`, `asymmetry_minor`: share of the area that stays uncovered when the lesion is folded about
          that principal axis, 0..1 (Stoecker et al. 1992, "Automatic detection of asymmetry in skin tumors"); not
          the A of the ABCD rule, which also asks for symmetry of colours and structures;
        - `border_irregularity`: the perimeter over that of the convex hull; convex outlines have 1, others more (the
          inverse of the convexity in Zhang and Lu 2004, "Review of shape representation and description techniques");
          not the B of the ABCD rule, which counts where the pigment ends abruptly;
        - `color_variety`: the C of the ABCD rule: how many of the colours of [`color_shares`] the lesion has;
        - with `structures`: `structure_variety`, a lower bound of the D of the ABCD rule ([`structure_variety`]);
        - with `pixels_per_mm`: `area_mm2`, `feret_diameter_max_mm`, `perimeter_crofton_mm`.

        Without a lesion areas are 0 and the others `None`. Of a lesion of few pixels lengths and shape mean little.

    Raises:
        ValueError: a mask or an image of another form, or of different sizes; a scale that is not above 0.
    """
    mask = to_lesion(mask, "mask")
    check_image(image, mask)
    if pixels_per_mm is not None and not 0 < pixels_per_mm < np.inf:
        raise ValueError(
            f"`pixels_per_mm` must be above 0 and finite, got {pixels_per_mm}. Leave it out where it is not known."
        )

    area = int(np.count_nonzero(mask))
    measures = {"area": area, "area_share": area / mask.size}
    measures.update(dict.fromkeys((*LENGTHS, *SHAPES, "color_variety")))
    if area:
        lesion, pixels, scale = crop_and_reduce(mask, image)
        shape = measure_shape(keep_largest_region(lesion))
        measures.update({name: shape[name] * scale for name in LENGTHS})
        measures.update({name: shape[name] for name in SHAPES})
        measures["color_variety"] = sum(share >= COLOR_MIN_SHARE for share in color_shares(lesion, pixels).values())
    if structures is not None:
        measures["structure_variety"] = structure_variety({**structures, LESION: mask})
    if pixels_per_mm is not None:
        for names, unit, divisor in ((AREAS, "mm2", pixels_per_mm**2), (LENGTHS, "mm", pixels_per_mm)):
            for name in names:
                measures[f"{name}_{unit}"] = None if measures[name] is None else measures[name] / divisor
    return measures


def check_image(image: np.ndarray, mask: np.ndarray) -> None:
    """Raises a `ValueError` for an image that is not RGB of 8 bits and of the mask's size."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"`image` must be (height, width, 3) of uint8, got shape {image.shape} of {image.dtype}. "
            "Convert it to 8-bit RGB."
        )
    if image.shape[:2] != mask.shape:
        raise ValueError(
            f"image is {image.shape[0]}×{image.shape[1]}, mask {mask.shape[0]}×{mask.shape[1]}. "
            "A mask must have the size of its image."
        )


def crop_and_reduce(mask: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """
    Mask and image within the lesion's bounding box, by a whole factor reduced to at most `MAX_SIDE` → both and the
    factor. A reduced pixel is lesion where the lesion covers half of it, or, for a lesion thinner than that, where it
    covers most.
    """
    top, left, bottom, right = bounding_box(mask)
    mask, image = mask[top:bottom, left:right], image[top:bottom, left:right]
    factor = -(-max(mask.shape) // MAX_SIDE)
    if factor == 1:
        return mask, image, 1
    coverage = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).reduce(factor))
    return coverage >= min(128, coverage.max()), np.asarray(Image.fromarray(image).reduce(factor)), factor


def measure_shape(lesion: np.ndarray) -> dict[str, float]:
    """`LENGTHS` (in pixels) and `SHAPES` of a boolean mask of one region without holes."""
    region = regionprops(lesion.astype(np.uint8))[0]
    perimeter = perimeter_crofton(lesion)
    # orientation is the angle from the rows' axis to the major axis; the mirror image about the minor axis is that
    # about the major axis turned by 180°
    major_axis = np.array([np.cos(region.orientation), np.sin(region.orientation)])
    reflection = 2 * np.outer(major_axis, major_axis) - np.eye(2)
    return {
        "feret_diameter_max": float(region.feret_diameter_max),
        "perimeter_crofton": float(perimeter),
        "compactness": float(4 * np.pi * region.area / perimeter**2),
        "asymmetry_major": uncovered_share(lesion, reflection, region.centroid),
        "asymmetry_minor": uncovered_share(lesion, -reflection, region.centroid),
        "border_irregularity": float(perimeter / perimeter_crofton(region.image_convex)),
    }


def uncovered_share(lesion: np.ndarray, reflection: np.ndarray, centre: tuple[float, float]) -> float:
    """Share of the lesion that its image under `reflection` (2×2, of rows and columns) about `centre` leaves out."""
    offset = centre - reflection @ centre
    mirrored = ndimage.affine_transform(lesion, reflection, offset, order=0, mode="grid-constant")
    return float(np.count_nonzero(lesion & ~mirrored) / np.count_nonzero(lesion))


def color_shares(mask: np.ndarray, image: np.ndarray) -> dict[str, float]:
    """
    Share of the lesion's pixels that has each of the six `LESION_COLORS`: the nearest in CIELAB, or none where the
    nearest is further than `COLOR_MAX_DISTANCE`. Boolean mask `(height, width)` with a lesion, RGB image, uint8.
    """
    references = rgb2lab(np.array(list(LESION_COLORS.values()), dtype=np.uint8))
    distances = cdist(rgb2lab(image[mask]), references)
    nearest = distances.argmin(1)[distances.min(1) <= COLOR_MAX_DISTANCE]
    shares = np.bincount(nearest, minlength=len(LESION_COLORS)) / len(distances)
    return dict(zip(LESION_COLORS, shares.tolist(), strict=True))
