"""What is unusual about an image and its mask, and speaks against trusting the mask."""

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2lab

from ..metrics.scores import to_lesion
from .measures import check_image

REDUCED_SIDE = 256  # the shorter side of the image that is judged, as that of the training images below
MAX_REDUCED_SIDE = 1024  # the longer one: a strip of 10 pixels by 30,000 is not made larger
# An image reduced by a bilinear filter has 0.44 of the Laplacian's variance that a Lanczos filter leaves, one saved as
# JPEG of quality 75 has 0.73; after this smoothing 0.73 and 0.99 (medians over training images).
SMOOTHING = 1.0  # standard deviation of the Gaussian, in those pixels
SKIN_RING = (2, 16)  # of those pixels: the skin that the lesion is compared with begins and ends this far from it
BURNT_OUT_FROM = 250  # in all three channels
REGION_MIN_SHARE = 0.01  # of the lesion; a smaller speck is no region of its own

# The 1st or 99th percentile (np.percentile) of [`image_features`] with the true masks, over the 1816 training images of
# load_isic(root)["train"], ISIC 2018 at 256×256 pixels and seed 0: one training image in a hundred is beyond each.
MIN_SHARPNESS = 1.2
MIN_BRIGHTNESS = 95.0
MAX_BRIGHTNESS = 230.0
MAX_BURNT_OUT = 0.017
MIN_CONTRAST = 3.5
# Chosen: one of those lesions is smaller, 9 % are cut.
MIN_LESION_SHARE = 0.003
CUT_FROM = 0.01  # of the image's border pixels, so that a mask that just touches the border is not called cut


def image_notes(image: np.ndarray, mask: np.ndarray, probabilities: np.ndarray) -> list[str]:
    """
    What is unusual about an image and its mask, a sentence each; nothing unusual, no sentence. The image is judged at
    `REDUCED_SIDE`, whatever its size.

    Args:
        image: `(height, width, 3)`, RGB, uint8.
        mask: `(height, width)`, boolean, or grey 0..255: above 128 is lesion.
        probabilities: of the lesion, `(height, width)`, in [0, 1].

    Raises:
        ValueError: arrays of other forms or of different sizes, or probabilities outside [0, 1].
    """
    mask = to_lesion(mask, "mask")
    probabilities = check_probabilities(probabilities, mask)
    features = image_features(image, mask)
    notes = []
    if features["sharpness"] < MIN_SHARPNESS:
        notes.append("The image is blurred: it shows less detail than nearly all training images.")
    if features["brightness"] < MIN_BRIGHTNESS:
        notes.append(
            "The image is darker than nearly all training images: it is under-exposed, or the skin is darker than the "
            "skin that the model has seen."
        )
    if features["brightness"] > MAX_BRIGHTNESS or features["burnt_out"] > MAX_BURNT_OUT:
        notes.append("The image is over-exposed: it is brighter or more burnt out than nearly all training images.")
    if not mask.any():
        return [*notes, f"No lesion was found: the highest probability is {probabilities.max():.2f}."]
    if features["border"] > CUT_FROM:
        notes.append("The lesion is cut by the image's border: its size is a lower bound, its shape is not all of it.")
    if features["lesion_share"] < MIN_LESION_SHARE:
        notes.append(
            f"The lesion is very small: {features['lesion_share']:.2%} of the image, less than in training images."
        )
    if features["regions"] > 1:
        notes.append(f"The mask has {features['regions']} separate regions: there may be several lesions, or gaps.")
    if features["contrast"] is not None and features["contrast"] < MIN_CONTRAST:
        notes.append("The lesion hardly differs in colour from the skin around it: its outline is uncertain.")
    return notes


def check_probabilities(probabilities: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The probabilities as an array, or a `ValueError` where they are none or not of the mask's size."""
    probabilities = np.asarray(probabilities)
    if probabilities.shape != mask.shape:
        raise ValueError(
            f"`probabilities` must have the shape of the mask, got {probabilities.shape} for {mask.shape}. "
            "Pass those of the lesion at the mask's size."
        )
    if not (probabilities.min() >= 0 and probabilities.max() <= 1):  # also where one is NaN
        raise ValueError(
            f"`probabilities` must be in [0, 1], got {probabilities.min()}..{probabilities.max()}. "
            "Turn logits into probabilities first."
        )
    return probabilities


def image_features(image: np.ndarray, mask: np.ndarray) -> dict[str, float | None]:
    """
    The numbers behind [`image_notes`], of the image reduced (or enlarged) to `REDUCED_SIDE`:

    - `sharpness`: the variance of the Laplacian (Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield
      microscopy") of the smoothed grey values; `brightness`: their median, which dark corners hardly change;
    - `burnt_out`: the share of white pixels;
    - `lesion_share` of the image; `border`: the share of its border pixels that are lesion;
    - `regions`: 8-connected, specks left out; the largest alone is always one;
    - `contrast`: the distance (CIE76 ΔE) of the lesion's mean colour from that of the skin around it; `None` without a
      lesion or without skin around it.

    Arguments and errors are those of [`image_notes`].
    """
    mask = to_lesion(mask, "mask")
    check_image(image, mask)
    reduced_image, reduced_mask = reduce(image, mask)
    grey = np.asarray(Image.fromarray(reduced_image).convert("L"), dtype=np.float64)
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return {
        "sharpness": float(ndimage.gaussian_laplace(grey, SMOOTHING).var()),
        "brightness": float(np.median(grey)),
        "burnt_out": float(np.mean(reduced_image.min(-1) >= BURNT_OUT_FROM)),
        "lesion_share": float(mask.mean()),
        "border": float(border.mean()),
        "regions": count_regions(reduced_mask),
        "contrast": skin_contrast(reduced_image, reduced_mask),
    }


def reduce(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Image and mask with a shorter side of `REDUCED_SIDE`, a strip with less. A lesion of less than a reduced pixel is
    gone.
    """
    height, width = mask.shape
    scale = min(REDUCED_SIDE / min(height, width), MAX_REDUCED_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # by a whole factor first, which makes a photo of 12 megapixels several times faster
    image = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    mask = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX, reducing_gap=3.0)
    return np.asarray(image), np.asarray(mask) >= 128


def count_regions(mask: np.ndarray) -> int:
    """The 8-connected regions of a boolean mask that have at least `REGION_MIN_SHARE` of its pixels."""
    regions, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(regions.ravel())[1:]
    return int(np.count_nonzero(sizes >= REGION_MIN_SHARE * sizes.sum()))


def skin_ring(mask: np.ndarray) -> np.ndarray:
    """The pixels of the `SKIN_RING` around a boolean mask's lesion; none without a lesion."""
    distance = ndimage.distance_transform_edt(~mask) if mask.any() else np.zeros(mask.shape)
    return (distance > SKIN_RING[0]) & (distance <= SKIN_RING[1])


def skin_contrast(image: np.ndarray, mask: np.ndarray) -> float | None:
    """CIE76 ΔE between the mean colours of the lesion and of the [`skin_ring`]; `None` where one is missing."""
    ring = skin_ring(mask)
    if not ring.any():
        return None
    return float(np.linalg.norm(rgb2lab(image[mask]).mean(0) - rgb2lab(image[ring]).mean(0)))
