"""The same images at native size and as small copies: what of their scores' difference comes from which step."""

from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, config
from PIL import Image
from tqdm import tqdm

from ..data.names import find_pairs
from ..data.pairs import check_and_cache, to_dataset
from ..image_processing_efp import EFPImageProcessor
from ..inference.checkpoint import segment
from ..metrics import confusion_counts, jaccard
from ..metrics.evaluation import truth_mask
from ..modeling_efp import EFPForSegmentation, resize


def load_pairs(folder: Path) -> Dataset:
    """All pairs of `folder/images` and `folder/masks` at their own size, not split; errors as of `load_isic`."""
    pairs = find_pairs(folder / "images", folder / "masks")
    return to_dataset(check_and_cache(pairs, None, Path(config.HF_DATASETS_CACHE) / "efp_hf"))


def shrunk(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A boolean mask at another size (height, width), by the pixel in the middle."""
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))


def there_and_back(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A boolean mask from its lesion shares at `size`, the best that a network of this output size could give."""
    shares = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(mask)[None, None].float(), size)
    return (resize(shares, mask.shape) > 0.5)[0, 0].numpy()


def compare_native(
    native: Dataset, copies: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor
) -> dict[str, float]:
    """
    Mean J over the images of `native`, each also in `copies` by its id: of the copies with their truth, of the native
    images with theirs, of the native images with the copies' truth at the copies' size (what the image alone changes),
    of both truths with one another at that size, and of the native truth with itself after it was reduced to the
    copies' size (what the border's rounding alone costs).
    """
    places = {image_id: place for place, image_id in enumerate(copies["image_id"])}
    found = []
    for row in tqdm(native, unit="image", leave=False, disable=None):
        copy = copies[places[row["image_id"]]]
        truth, copied_truth = truth_mask(row), truth_mask(copy)
        size = copied_truth.shape
        of_copy, at_copied_size, of_native = (
            segment([image], model, processor, [target])[0]["segmentation"].numpy(force=True)
            for image, target in ((copy["image"], size), (row["image"], size), (row["image"], truth.shape))
        )
        pairs = {
            "jaccard_copies": (of_copy, copied_truth),
            "jaccard_native": (of_native, truth),
            "jaccard_native_image_copied_truth": (at_copied_size, copied_truth),
            "jaccard_of_truths": (shrunk(truth, size), copied_truth),
            "jaccard_of_rounding": (there_and_back(truth, size), truth),
        }
        found.append({name: float(jaccard(confusion_counts(*pair))) for name, pair in pairs.items()})
    return {name: round(float(np.mean([scores[name] for scores in found])), 6) for name in found[0]}
