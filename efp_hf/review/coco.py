"""The decided masks as COCO JSON, for programs that read no folders of masks."""

import json
from pathlib import Path

import numpy as np

from ..data.files import read_mask, write_atomically
from ..inference.prediction_table import mask_path, table_text
from ..lesion.contour import bounding_box
from ..lesion.structures import LESION
from .decisions import Decisions

CATEGORY = 1  # the only one


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths: column after column, skin and lesion in turns, skin first."""
    pixels = mask.ravel(order="F")
    ends = np.append(np.flatnonzero(pixels[1:] != pixels[:-1]) + 1, pixels.size)
    lengths = np.diff(ends, prepend=0).tolist()
    return [0, *lengths] if pixels[0] else lengths


def write_coco(decisions: Decisions, path: Path, category: str = LESION) -> int:
    """
    A JSON file of the decided images and masks in the set, a lesion an annotation with its exact mask as run lengths;
    an image without lesion has none → the number of images. `category` is the name of the class.

    Raises:
        FileExistsError: the file is there.
        ValueError: a damaged mask.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists. Remove it, or choose another --coco.")
    images, annotations = [], []
    files = {table_text(image.name): image for image in decisions.images.iterdir()}
    for name, rows in sorted(decisions.rows().items()):
        if rows[-1]["decision"] == "unusable" or name not in files:
            continue
        image = files[name]
        mask = read_mask(mask_path(decisions.masks, image))
        height, width = mask.shape
        images.append({"id": len(images) + 1, "file_name": image.name, "height": height, "width": width})
        if mask.any():
            top, left, bottom, right = bounding_box(mask)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": images[-1]["id"],
                    "category_id": CATEGORY,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": int(np.count_nonzero(mask)),
                    "segmentation": {"size": [height, width], "counts": run_lengths(mask)},
                    "iscrowd": 0,
                }
            )
    categories = [{"id": CATEGORY, "name": category}]
    content = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda partial: partial.write_text(content, encoding="utf-8"))
    return len(images)
