"""Random changes of an image and its mask together, and of the image's colours."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would look for a newer version over the network

import albumentations as A
import cv2


def training_augmentation() -> A.Compose:
    """
    The paper's rotation, flips and scaling, and changes of colour and sharpness for other cameras and light.

    Takes and gives `image` `(height, width, 3)` and `mask` `(height, width)` as uint8 arrays; the mask keeps its
    values. What lies outside the picture is black and no lesion, as a dermoscope's dark corners are: mirrored borders
    would show second lesions.
    """
    return A.Compose(
        [
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
            A.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.3, hue=0.04, p=0.8),
            A.RandomGamma(gamma_limit=(80, 125), p=0.2),
            A.GaussianBlur(blur_limit=(3, 5), p=0.1),
            A.ImageCompression(quality_range=(50, 95), p=0.1),
        ]
    )
