"""Pictures that only the page shows: the network's maps, and thumbnails of a batch."""

import numpy as np
from PIL import Image

from ..data.files import read_image
from ..inference.drawing import color_map, resize_mask, tint_lesion
from ..inference.folder import Prediction
from .photo import SegmentedPhoto

THUMBNAIL_SIDE = 320


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
    return tint_lesion(image, resize_mask(prediction.mask, image.size)), caption
