"""Pictures of a lesion over its image, of its probabilities, and of its agreement with another mask."""

import numpy as np
from PIL import Image
from scipy import ndimage

OUTLINE_COLOR = (0, 255, 80)
TINT = 0.25  # share of the outline's colour inside the lesion
# Viridis of Matplotlib (CC0) at nine even steps: even in brightness, and readable without red-green vision
COLOR_MAP = np.array(
    [
        (68, 1, 84),
        (72, 40, 120),
        (62, 74, 137),
        (49, 104, 142),
        (38, 130, 142),
        (31, 158, 137),
        (53, 183, 121),
        (144, 215, 67),
        (253, 231, 37),
    ]
)
# Of the palette of Okabe and Ito 2008, "Color universal design": told apart under every colour blindness
AGREEMENT_COLORS = {"hit": (86, 180, 233), "missed": (240, 228, 66), "false": (213, 94, 0)}
AGREEMENT_OPACITY = 0.65


def outline_lesion(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """The image with the lesion's outline, its width a 300th of the longer side."""
    width = max(1, round(max(mask.shape) / 300))
    outline = mask & ~ndimage.binary_erosion(mask, iterations=width)
    pixels = np.array(image)
    pixels[outline] = OUTLINE_COLOR
    return Image.fromarray(pixels)


def tint_lesion(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """The image with the lesion tinted and outlined."""
    pixels = np.array(image)
    pixels[mask] = (pixels[mask] * (1 - TINT) + np.array(OUTLINE_COLOR) * TINT).astype(np.uint8)
    return outline_lesion(Image.fromarray(pixels), mask)


def draw_border(image: Image.Image, mask: np.ndarray, color: tuple[int, int, int]) -> Image.Image:
    """The image with the lesion's border, one pixel wide, in `color`."""
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    pixels = np.array(image)
    pixels[mask & ~inner] = color
    return Image.fromarray(pixels)


def color_map(values: np.ndarray) -> Image.Image:
    """`(height, width)` in [0, 1] in the colours of `COLOR_MAP`."""
    steps = np.linspace(0, 1, len(COLOR_MAP))
    table = np.stack([np.interp(np.linspace(0, 1, 256), steps, channel) for channel in COLOR_MAP.T], axis=1)
    return Image.fromarray(np.round(table).astype(np.uint8)[np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)])


def agreement(mask: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Boolean maps: hit (lesion in both), missed (in the truth alone), false (in the mask alone)."""
    return {"hit": mask & truth, "missed": truth & ~mask, "false": mask & ~truth}


def draw_agreement(image: Image.Image, mask: np.ndarray, truth: np.ndarray) -> Image.Image:
    """The image, of any size, with the pixels of each kind of agreement in its colour."""
    pixels = np.array(image)
    parts = agreement(resize_mask(mask, image.size), resize_mask(truth, image.size))
    for name, part in parts.items():
        color = np.array(AGREEMENT_COLORS[name])
        pixels[part] = (pixels[part] * (1 - AGREEMENT_OPACITY) + color * AGREEMENT_OPACITY).astype(np.uint8)
    return Image.fromarray(pixels)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask for a picture of `size`, (width, height). Nearest: a picture of a mask, never a mask to score."""
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
