"""Pictures of a lesion over its image, of its probabilities, and of its agreement with another mask."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFont
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
# Of the labels 1..K: those of Okabe and Ito that are seen on photos, in an order in which neighbours differ the most.
# The yellow comes late: it is the closest to light tissue.
CLASS_COLORS = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
    (240, 228, 66),
)
GOLDEN_RATIO = 0.618034  # steps of the hue, for more classes than there are colours
LEGEND_LINE = 24  # pixels
CLASS_TINT = 0.45


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


def class_colors(num_classes: int) -> np.ndarray:
    """The colours of the labels 0..K, `(num_classes + 1, 3)`, uint8; the background is black."""
    colors = [(0, 0, 0), *CLASS_COLORS[:num_classes]]
    for number in range(len(CLASS_COLORS), num_classes):
        hue = number * GOLDEN_RATIO % 1
        colors.append([round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.75, 0.9 if number % 2 else 0.65)])
    return np.array(colors, np.uint8)


def palette_picture(labels: np.ndarray, num_classes: int) -> Image.Image:
    """Labels 0..K as a picture whose palette has their colours: its pixels are the labels."""
    picture = Image.fromarray(labels.astype(np.uint8), "P")
    picture.putpalette(class_colors(num_classes).ravel().tolist())
    return picture


def tint_classes(image: Image.Image, labels: np.ndarray, num_classes: int) -> Image.Image:
    """
    The image with each class tinted and outlined in its colour; where there is one alone, as [`tint_lesion`]. Labels
    above `num_classes` are left as they are.
    """
    if num_classes == 1:
        return tint_lesion(image, labels == 1)
    pixels = np.array(image)
    width = max(1, round(max(labels.shape) / 300))
    for label, color in enumerate(class_colors(num_classes)[1:], start=1):
        area = labels == label
        pixels[area] = (pixels[area] * (1 - CLASS_TINT) + color * CLASS_TINT).astype(np.uint8)
        pixels[area & ~ndimage.binary_erosion(area, iterations=width)] = color
    return Image.fromarray(pixels)


def outline_labels(image: Image.Image, masks: np.ndarray) -> Image.Image:
    """The image with the outline of each label in its colour, of masks that overlap, `(num_labels, height, width)`."""
    pixels = np.array(image)
    width = max(1, round(max(masks.shape[1:]) / 300))
    for mask, color in zip(masks, class_colors(len(masks))[1:], strict=True):
        pixels[mask & ~ndimage.binary_erosion(mask, iterations=width)] = color
    return Image.fromarray(pixels)


def add_legend(image: Image.Image, classes: tuple[str, ...]) -> Image.Image:
    """The image over a strip with the colour and the name of each class; wider than the image if a name is."""
    line = max(LEGEND_LINE, round(max(image.size) / 40))
    font = ImageFont.load_default(0.7 * line)
    places, left, top = [], line // 3, 0
    widths = [round(1.2 * line + font.getlength(name)) for name in classes]
    strip = max(image.width, line // 3 + max(widths))
    for width in widths:  # as many beside one another as fit
        if left > line // 3 and left + width > strip:
            left, top = line // 3, top + line
        places.append((left, top))
        left += width + line // 2
    picture = Image.new("RGB", (strip, image.height + top + line), "white")
    picture.paste(image, (0, 0))
    draw = ImageDraw.Draw(picture)
    for name, color, (x, y) in zip(classes, class_colors(len(classes))[1:].tolist(), places, strict=True):
        y += image.height
        draw.rectangle((x, y + line // 6, x + 2 * line // 3, y + 5 * line // 6), tuple(color), "black")
        draw.text((x + line, y + line // 2), name, "black", font, "lm")
    return picture


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
