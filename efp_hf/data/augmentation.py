"""Random changes of an image and its mask together, and of the image's colours."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would look for a newer version over the network

import numpy as np

from ..extras import needing

with needing("train", __name__):
    import albumentations as A
    import cv2

AREA_THEN_LINEAR = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}


class Hairs(A.ImageOnlyTransform):
    """
    Dark, curved hairs over the image.

    Args:
        number_range: of hairs.
    """

    def __init__(self, number_range: tuple[int, int] = (3, 15), p: float = 0.5):
        super().__init__(p=p)
        self.number_range = number_range

    def get_params_dependent_on_data(self, params: dict, data: dict) -> dict:
        number = self.py_random.randint(*self.number_range)
        # begin, bend and end of each, as shares of the width and height; a hair may come from outside
        return {
            "bends": self.random_generator.uniform(-0.2, 1.2, size=(number, 3, 2)),
            "brightness": self.random_generator.integers(10, 70, size=number),
        }

    def apply(self, image: np.ndarray, bends: np.ndarray, brightness: np.ndarray, **params) -> np.ndarray:
        height, width = image.shape[:2]
        image = image.copy()
        along = np.linspace(0, 1, 24)[:, None]
        thickness = max(1, round(min(height, width) / 200))
        for (begin, bend, end), value in zip(bends * (width, height), brightness.tolist(), strict=True):
            curve = (1 - along) ** 2 * begin + 2 * along * (1 - along) * bend + along**2 * end
            points = np.round(curve).astype(np.int32)
            cv2.polylines(image, [points], False, (value, value * 0.8, value * 0.7), thickness, cv2.LINE_AA)
        return image


def spoiling() -> A.OneOf:
    """One of what spoils photos as they come; rarely what the images themselves already have."""
    shares = {
        Hairs(number_range=(3, 25)): 0.32,
        A.GaussNoise(std_range=(0.02, 0.09)): 0.2,
        A.ImageCompression(quality_range=(8, 40)): 0.2,
        A.ToGray(): 0.12,
        A.GaussianBlur(sigma_limit=(0.8, 3), blur_limit=0): 0.08,
        A.Downscale(scale_range=(0.2, 0.6), interpolation_pair=AREA_THEN_LINEAR): 0.08,
    }
    for change, share in shares.items():
        change.p = share
    return A.OneOf(list(shares), p=0.25)


def training_augmentation(colours: bool = True) -> A.Compose:
    """
    The paper's rotation, flips and scaling, changes of colour and sharpness for other light and cameras, and in a
    quarter of the images one of what spoils photos: hairs, noise, compression, no colour, blur, few pixels.

    Takes and gives `image` `(height, width, 3)` and `mask` `(height, width)` as uint8 arrays; the mask keeps its
    values. Without `colours` the image has any number of channels, uint8 or float32, and is only moved. What lies
    outside the picture is black and no lesion, as a dermoscope's dark corners are: mirrored borders would show second
    lesions.
    """
    moved = [
        A.HorizontalFlip(),
        A.VerticalFlip(),
        A.Affine(
            rotate=(-180, 180),
            scale=(0.65, 1.45),
            translate_percent=(-0.08, 0.08),
            shear=(-6, 6),
            interpolation=cv2.INTER_LINEAR,
            mask_interpolation=cv2.INTER_NEAREST,
            fill=0,
            fill_mask=0,
            p=0.9,
        ),
    ]
    coloured = [
        A.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.3, hue=0.04, p=0.8),
        A.RandomGamma(gamma_limit=(65, 150), p=0.2),
        A.GaussianBlur(blur_limit=(3, 5), p=0.1),
        A.ImageCompression(quality_range=(50, 95), p=0.1),
        spoiling(),
    ]
    return A.Compose(moved + coloured * colours)
