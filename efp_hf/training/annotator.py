"""A simulated annotator: the clicks and boxes that a person would give, from a mask and the truth."""

import cv2
import numpy as np

NUM_ATTEMPTS = 20  # to draw a box with an area


def next_click(mask: np.ndarray, truth: np.ndarray, random: np.random.Generator | None = None):
    """
    A click into the largest region where `mask` and `truth` differ (Sofiiuk et al. 2021, "Reviving Iterative Training
    with Mask Guidance for Interactive Segmentation").

    Args:
        mask, truth: boolean, `(height, width)`.
        random: the click lies anywhere in the region, as people's do; without it in its middle, the pixel farthest
            from its border.

    Returns:
        (x, y, label) in pixels, the middle of one, with label 1 where lesion is missing and 0 where skin was taken for
        lesion; `None` where mask and truth are the same.
    """
    largest, area, label = None, 0, 1
    for error, error_label in ((truth & ~mask, 1), (mask & ~truth, 0)):
        _, regions, statistics, _ = cv2.connectedComponentsWithStats(error.astype(np.uint8), connectivity=4)
        if len(statistics) > 1:
            number = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
            if statistics[number, cv2.CC_STAT_AREA] > area:
                area, label = int(statistics[number, cv2.CC_STAT_AREA]), error_label
                left, top, width, height = (int(side) for side in statistics[number, : cv2.CC_STAT_AREA])
                largest = (regions[top : top + height, left : left + width] == number, left, top)
    if largest is None:
        return None
    region, left, top = largest
    if random is None:
        framed = np.pad(region.astype(np.uint8), 1)  # the image's border is one of the region, too
        distances = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        y, x = np.unravel_index(int(distances.argmax()), region.shape)
    else:
        places = np.argwhere(region)
        y, x = places[random.integers(len(places))]
    return float(left + x) + 0.5, float(top + y) + 0.5, label


def lesion_box(truth: np.ndarray, random: np.random.Generator | None = None, jitter: float = 0.0):
    """
    (left, top, right, bottom) around a lesion, in pixels; `None` without one.

    Args:
        truth: boolean, `(height, width)`.
        jitter: each side is off by up to this share of the box's width or height, within the image; drawn by `random`.
    """
    rows, columns = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
    if not len(rows):
        return None
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)
    if not jitter:
        return box.tolist()
    height, width = truth.shape
    sides = np.tile(box[2:] - box[:2], 2)
    for _ in range(NUM_ATTEMPTS):
        moved = np.clip(box + random.uniform(-jitter, jitter, 4) * sides, 0, [width, height, width, height])
        if (moved[2:] - moved[:2]).min() >= 1:
            return moved.tolist()
    return box.tolist()
