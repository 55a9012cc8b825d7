"""The same images as other light, other cameras and worse files would show them: how much of a score is left."""

from collections.abc import Iterator
from zlib import crc32

import albumentations as A
import cv2
import numpy as np
from datasets import Dataset
from PIL import Image
from tqdm import tqdm

from ..data.augmentation import AREA_THEN_LINEAR, Hairs
from ..data.files import as_boolean_mask
from ..image_processing_efp import EFPImageProcessor, to_upright_rgb
from ..metrics import confusion_counts, summarize
from ..metrics.evaluation import segment_rows
from ..modeling_efp import EFPForSegmentation

CHANGE_SCORES = ("jaccard", "threshold_jaccard", "dice", "failure_rate")
CHANGED_SIDE = 256  # larger images are reduced before they are changed: the strengths below are meant for this size


class DarkCorners(A.DualTransform):
    """
    Black outside of an ellipse around the middle, as outside a dermoscope's round field of view; there is no lesion.

    Args:
        radius_range: of the ellipse, in halves of the image's sides: at 1 it touches them, at 1.41 the corners.
    """

    def __init__(self, radius_range: tuple[float, float] = (0.9, 1.3), p: float = 0.5):
        super().__init__(p=p)
        self.radius_range = radius_range

    def get_params_dependent_on_data(self, params: dict, data: dict) -> dict:
        height, width = params["shape"][:2]
        radius = self.py_random.uniform(*self.radius_range)
        visible = np.zeros((height, width), np.uint8)
        axes = (round(radius * width / 2), round(radius * height / 2))
        cv2.ellipse(visible, (width // 2, height // 2), axes, 0, 0, 360, color=1, thickness=-1)
        return {"visible": visible}

    def apply(self, image: np.ndarray, visible: np.ndarray, **params) -> np.ndarray:
        return image * visible[:, :, None]

    def apply_to_mask(self, mask: np.ndarray, visible: np.ndarray, **params) -> np.ndarray:
        return mask * visible


def colour_shift(red: float, green: float, blue: float) -> A.RGBShift:
    return A.RGBShift((red, red), (green, green), (blue, blue), p=1)


# name → change, each of one strength; the masks follow it
CHANGES: dict[str, A.BasicTransform] = {
    "none": A.NoOp(p=1),
    "warm light": colour_shift(25, 0, -35),
    "cold light": colour_shift(-30, 0, 30),
    "dark": A.RandomGamma(gamma_limit=(180, 180), p=1),
    "bright": A.RandomGamma(gamma_limit=(55, 55), p=1),
    "grey": A.ToGray(p=1),
    "out of focus": A.GaussianBlur(sigma_limit=(2.5, 2.5), blur_limit=0, p=1),
    "few pixels": A.Downscale(scale_range=(0.25, 0.25), interpolation_pair=AREA_THEN_LINEAR, p=1),
    "noise": A.GaussNoise(std_range=(0.06, 0.06), p=1),
    "strong compression": A.ImageCompression(quality_range=(12, 12), p=1),
    "dark corners": DarkCorners(radius_range=(1.0, 1.0), p=1),
    "hairs": Hairs(number_range=(15, 15), p=1),
}


def change_images(dataset: Dataset, name: str) -> Dataset:
    """
    The rows of a split of `load_lesions`, reduced to `CHANGED_SIDE`, under a change of `CHANGES`. What is drawn (noise,
    hairs) depends on the image's id alone.
    """
    change = A.Compose([CHANGES[name]])

    def transform(rows: dict[str, list]) -> dict[str, list]:
        images, masks = [], []
        for image, mask, image_id in zip(rows["image"], rows["mask"], rows["image_id"], strict=True):
            image, mask = to_upright_rgb(image), Image.fromarray(as_boolean_mask(mask, image_id).astype(np.uint8) * 255)
            image.thumbnail((CHANGED_SIDE, CHANGED_SIDE), Image.Resampling.BILINEAR)
            mask = mask.resize(image.size, Image.Resampling.NEAREST)
            change.set_random_seed(crc32(image_id.encode()))
            changed = change(image=np.array(image), mask=np.array(mask))
            images.append(Image.fromarray(changed["image"]))
            masks.append(Image.fromarray(changed["mask"]))
        return {**rows, "image": images, "mask": masks}

    return dataset.with_transform(transform)


def measure_changes(
    dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor
) -> Iterator[dict[str, str | float]]:
    """A row a change: its name, `CHANGE_SCORES` and the mean `expected_jaccard`, which should fall with J."""
    for name in CHANGES:
        counts, expected = [], []
        rows = segment_rows(change_images(dataset, name), model, processor)
        for _, result, truth in tqdm(rows, total=len(dataset), unit="image", desc=name, leave=False, disable=None):
            counts.append(confusion_counts(result["segmentation"].numpy(force=True), truth))
            expected.append(result["expected_jaccard"])
        scores = summarize(np.array(counts))
        yield {
            "change": name,
            **{score: round(scores[score], 6) for score in CHANGE_SCORES},
            "expected_jaccard": round(float(np.mean(expected)), 6),
        }
