"""How far a checkpoint's probabilities can be believed, and the expected Jaccard that is computed from them."""

from collections.abc import Iterator

import numpy as np
from datasets import Dataset
from tqdm import tqdm

from ..image_processing_efp import EFPImageProcessor
from ..metrics import confusion_counts, jaccard
from ..metrics.calibration import border_band, calibration_error, count_bins
from ..metrics.evaluation import segment_rows
from ..metrics.trust import summarize_trust
from ..modeling_efp import EFPForSegmentation


def measure_trust(
    dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor, batch_size: int = 8
) -> tuple[dict[str, float | str], dict[str, np.ndarray]]:
    """
    Of the images of a split:

    Returns:
        What [`summarize_trust`] says of the expected Jaccards, with the expected calibration errors over all pixels and
        near the true borders; and the bins of the reliability diagram of `all` and of the `border` pixels.
    """
    expected, real, bins = [], [], {"all": 0, "border": 0}
    rows = segment_rows(dataset, model, processor, batch_size)
    for _, result, truth in tqdm(rows, total=len(dataset), unit="image", disable=None):
        mask, probabilities = result["segmentation"].numpy(force=True), result["probabilities"].numpy(force=True)
        expected.append(result["expected_jaccard"])
        real.append(float(jaccard(confusion_counts(mask, truth))))
        band = border_band(truth)
        bins["all"] = bins["all"] + count_bins(probabilities, truth)
        bins["border"] = bins["border"] + count_bins(probabilities[band], truth[band])
    trust = {
        **summarize_trust(expected, real),
        "calibration_error": calibration_error(bins["all"]),
        "border_calibration_error": calibration_error(bins["border"]),
    }
    return {name: "" if value is None else round(value, 6) for name, value in trust.items()}, bins


def bin_rows(bins: dict[str, np.ndarray]) -> Iterator[dict[str, str | float]]:
    """A row a bin of the reliability diagram."""
    for region, counts in bins.items():
        for number, (num_pixels, probability, lesion) in enumerate(counts):
            yield {
                "pixels_of": region,
                "bin": number,
                "pixels": int(num_pixels),
                "mean_probability": round(probability / num_pixels, 6) if num_pixels else "",
                "lesion_share": round(lesion / num_pixels, 6) if num_pixels else "",
            }
