"""Where a lesion lies: its bounding box, and its outline as polygons of COCO."""

import numpy as np
from skimage.measure import find_contours

from .structures import LESION


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """top, left, bottom, right of a lesion that is there: rows top..bottom-1, columns left..right-1."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def lesion_polygons(mask: np.ndarray) -> tuple[list[list[float]], list[list[float]]]:
    """
    Outer borders and holes of a mask as COCO polygons: x1, y1, x2, y2, … from the image's upper left corner, where
    the pixel in row r and column c covers c..c+1 and r..r+1.

    The borders run half-way between lesion and skin pixels, so that they cut each corner of a pixel by an eighth.
    """
    outer, holes = [], []
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5, fully_connected="high"):
        y, x = (contour - 0.5).T  # -1 for the padding, +0.5 from the pixel's centre to its corner
        doubled_area = np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])
        polygon = np.stack([x, y], axis=1)[:-1].ravel().tolist()  # COCO closes its polygons itself
        (outer if doubled_area > 0 else holes).append(polygon)
    return outer, holes


def coco_contour(mask: np.ndarray, file_name: str, name: str = LESION) -> dict:
    """
    A COCO data set of one image, of the class `name`; where there is none of it there is no annotation. `area` counts
    the mask's pixels. COCO has no holes in polygons: they are named beside, in `holes`, and are not part of `area`.
    """
    annotations = []
    if mask.any():
        outer, holes = lesion_polygons(mask)
        top, left, bottom, right = bounding_box(mask)
        annotations.append(
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "segmentation": outer,
                "holes": holes,
                "bbox": [left, top, right - left, bottom - top],
                "area": int(np.count_nonzero(mask)),
                "iscrowd": 0,
            }
        )
    return {
        "images": [{"id": 1, "file_name": file_name, "height": mask.shape[0], "width": mask.shape[1]}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": name}],
    }
