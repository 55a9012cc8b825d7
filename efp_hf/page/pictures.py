"""Pictures that only the page shows: a person's marks, the network's maps, and thumbnails of a batch."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.files import read_image
from ..inference.drawing import OUTLINE_COLOR, TINT, color_map, outline_labels, resize_mask, tint_classes, tint_lesion
from ..inference.folder import Prediction
from ..lesion.structures import LESION
from .marks import Marks
from .photo import SegmentedPhoto

THUMBNAIL_SIDE = 320
# The sign tells the kinds of points apart without colour
POINT_COLORS = {1: (0, 110, 40), 0: (170, 30, 30)}
BOX_COLOR = (255, 255, 255)


def outline_at_once(photo: Image.Image, mask: np.ndarray, tint: float = TINT) -> Image.Image:
    """[`tint_lesion`] for a picture that follows a click: the same but for rounding, in a fifth of the time."""
    inner = np.pad(mask, 1)
    for _ in range(max(1, round(max(mask.shape) / 300))):
        inner[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    tinted = Image.blend(photo, Image.new("RGB", photo.size, OUTLINE_COLOR), tint)
    tinted.paste(OUTLINE_COLOR, mask=Image.fromarray(mask & ~inner[1:-1, 1:-1]))
    return Image.composite(tinted, photo, Image.fromarray(mask))


def draw_marks(image: Image.Image, marks: Marks) -> Image.Image:
    """
    A disc with a plus for each click on the lesion, with a minus for one on skin, and its number; the box, or its first
    corner.
    """
    image = image.copy()
    draw = ImageDraw.Draw(image)
    radius = max(3, round(max(image.size) / 60))
    font = ImageFont.load_default(1.8 * radius)
    width = max(1, radius // 3)
    if marks.box is not None:
        line = max(1, radius // 5)
        draw.rectangle(marks.box, outline=(0, 0, 0), width=2 * line)
        draw.rectangle(marks.box, outline=BOX_COLOR, width=line)
    if marks.corner is not None:
        draw.circle(marks.corner, 0.7 * radius, fill=BOX_COLOR, outline=(0, 0, 0))
    for number, (x, y, label) in enumerate(marks.points, start=1):
        draw.circle((x, y), radius, fill=POINT_COLORS[label], outline=(255, 255, 255), width=width)
        arm = 0.55 * radius
        draw.line((x - arm, y, x + arm, y), fill=(255, 255, 255), width=width)
        if label == 1:
            draw.line((x, y - arm, x, y + arm), fill=(255, 255, 255), width=width)
        is_left = x > image.width / 2  # so that it lies within the picture
        place, anchor = (x - 1.4 * radius, "rm") if is_left else (x + 1.4 * radius, "lm")
        draw.text((place, y), str(number), (255, 255, 255), font, anchor, stroke_width=width, stroke_fill=(0, 0, 0))
    return image


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


def draw_thumbnail(
    prediction: Prediction, classes: tuple[str, ...] = (), name: str = LESION
) -> tuple[Image.Image, str]:
    """(picture with the classes, or the one called `name`, caption) of a good file."""
    image = read_image(prediction.path, min_size=THUMBNAIL_SIDE)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    if prediction.mask.ndim == 3:
        found = [name for name, mask in zip(classes, prediction.mask, strict=True) if mask.any()]
        masks = np.stack([resize_mask(mask, image.size) for mask in prediction.mask])
        return outline_labels(image, masks), f"{prediction.path.name}: {', '.join(found) or 'nothing found'}"
    if classes:
        labels = resize_mask(prediction.mask, image.size)
        found = [name for label, name in enumerate(classes, start=1) if (prediction.mask == label).any()]
        caption = f"{prediction.path.name}: {', '.join(found) or 'none of the classes found'}"
        return tint_classes(image, labels, len(classes)), caption
    share = prediction.mask.mean()
    caption = f"{prediction.path.name}: " + (f"{name} {share:.1%}" if share else f"no {name} found")
    return tint_lesion(image, resize_mask(prediction.mask, image.size)), caption
