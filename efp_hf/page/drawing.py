"""Pictures of a lesion, of its probabilities, of its agreement with another mask, and of the network."""

import numpy as np
from PIL import Image

from ..data.files import read_image
from ..inference.folder import OUTLINE_COLOR, Prediction, draw_overlay
from .photo import SegmentedPhoto

THUMBNAIL_SIDE = 320
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


def draw_lesion(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """The image with the lesion tinted and outlined."""
    pixels = np.array(image)
    pixels[mask] = (pixels[mask] * (1 - TINT) + np.array(OUTLINE_COLOR) * TINT).astype(np.uint8)
    return draw_overlay(Image.fromarray(pixels), mask)


def draw_outline(image: Image.Image, mask: np.ndarray, color: tuple[int, int, int]) -> Image.Image:
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


def draw_maps(photo: SegmentedPhoto) -> list[tuple[Image.Image, str]]:
    """(picture, caption) of F1..F4, F*1..F*4 and M_s 1..4. Levels are scaled to their own range, M_s is in 0..1."""
    width, height = photo.preview.size
    scale = THUMBNAIL_SIDE / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    pictures = []
    for name, values in photo.maps.items():
        low, high = (0, 1) if name.startswith("M_s") else (float(values.min()), float(values.max()))
        scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
        picture = Image.fromarray(scaled.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
        caption = f"{name}: {values.shape[1]} × {values.shape[0]}, {low:.2f} to {high:.2f}"
        pictures.append((color_map(np.asarray(picture)), caption))
    return pictures


def draw_thumbnail(prediction: Prediction) -> tuple[Image.Image, str]:
    """(picture with the lesion, caption) of a good file."""
    image = read_image(prediction.path, min_size=THUMBNAIL_SIDE)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    share = prediction.mask.mean()
    caption = f"{prediction.path.name}: lesion {share:.1%}" if share else f"{prediction.path.name}: no lesion found"
    return draw_lesion(image, resize_mask(prediction.mask, image.size)), caption
