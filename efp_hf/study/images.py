"""Each image of a split: its score, and what is unusual about the image and its true mask."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datasets import Dataset
from skimage.color import rgb2lab
from tqdm import tqdm

from ..image_processing_efp import EFPImageProcessor, to_upright_rgb
from ..lesion.notes import image_features, reduce, skin_ring
from ..metrics import confusion_counts
from ..metrics.evaluation import segment_rows
from ..modeling_efp import EFPForSegmentation
from .comparison import COUNTS

FEATURES = ("lesion_share", "border", "regions", "contrast")  # of [`image_features`]


def images_path(results: Path, weights: str, split: str = "test") -> Path:
    """The file of the rows that [`measure_images`] made of a split with these weights."""
    return results / "images" / f"{weights}-{split}.csv"


def skin_ita(image: np.ndarray, mask: np.ndarray) -> float | None:
    """
    The individual typology angle of the skin around the lesion, in degrees: arctan((L* - 50) / b*) of the median L* and
    b* of the ring of [`skin_ring`] (Chardon et al. 1991); a lighter skin has a larger one. `None` without such skin.

    Args:
        image: `(height, width, 3)`, RGB, uint8.
        mask: `(height, width)`, boolean.
    """
    ring = skin_ring(mask)
    if not ring.any():
        return None
    lightness, _, yellow = np.median(rgb2lab(image[ring]), axis=0)
    return float(np.degrees(np.arctan2(lightness - 50, yellow)))


def measure_images(
    dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor, batch_size: int = 8
) -> Iterator[dict[str, str | float]]:
    """
    A row an image: its id, TP, FP, FN and TN, the `expected_jaccard`; of the image and its true mask `FEATURES` and the
    [`skin_ita`], "" where there is none.
    """
    images = (to_upright_rgb(row["image"]) for row in dataset)
    rows = zip(segment_rows(dataset, model, processor, batch_size), images, strict=True)
    for (image_id, result, truth), image in tqdm(rows, total=len(dataset), unit="image", disable=None):
        counts = confusion_counts(result["segmentation"].numpy(force=True), truth)
        image = np.asarray(image)
        features = image_features(image, truth)
        numbers = {
            "expected_jaccard": result["expected_jaccard"],
            **{name: features[name] for name in FEATURES},
            "ita": skin_ita(*reduce(image, truth)),
        }
        yield {
            "image_id": image_id,
            **dict(zip(COUNTS, counts.tolist(), strict=True)),
            **{name: "" if value is None else round(value, 4) for name, value in numbers.items()},
        }
