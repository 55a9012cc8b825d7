"""Whether the attention maps M_s find the lesion, and whether the network needs them and its weights of the pairs."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from scipy import stats

from ..configuration_efp import NUM_LEVELS
from ..image_processing_efp import EFPImageProcessor
from ..metrics.evaluation import grid_jaccards, row_batches
from ..modeling_efp import EFPForSegmentation


def area_under_curve(values: np.ndarray, lesion: np.ndarray) -> float:
    """Under the ROC curve: how often a lesion pixel has the higher value of two; NaN without both kinds."""
    if lesion.all() or not lesion.any():
        return float("nan")
    return float(stats.mannwhitneyu(values[lesion], values[~lesion]).statistic / (lesion.sum() * (~lesion).sum()))


@torch.inference_mode()
def attention_areas(dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor) -> list[float]:
    """[`area_under_curve`] of M_s on each level, over all its pixels; lesion is what covers more than half of one."""
    maps, truths = [[] for _ in range(NUM_LEVELS)], [[] for _ in range(NUM_LEVELS)]
    for rows, masks, _ in row_batches(dataset, 16):
        examples = processor([row["image"] for row in rows], [mask.astype(np.uint8) for mask in masks])
        examples = examples.convert_to_tensors("pt")
        outputs = model(examples["pixel_values"], output_attentions=True)
        for level, attention_map in enumerate(outputs.attentions):
            share = F.adaptive_avg_pool2d(examples["labels"][:, None].float(), attention_map.shape[-2:])
            maps[level].append(attention_map.numpy().ravel())
            truths[level].append(share.numpy().ravel() > 0.5)
    return [area_under_curve(np.concatenate(m), np.concatenate(t)) for m, t in zip(maps, truths, strict=True)]


def mean_jaccard(dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor) -> float:
    setting = (processor.threshold, processor.largest_region)
    return grid_jaccards(dataset, model, processor, setting[:1], regions=setting[1:])[setting]


@contextmanager
def changed_outputs(modules: torch.nn.ModuleList, change) -> Iterator[None]:
    """Inside, each module gives `change(output)` in place of its output."""
    handles = [module.register_forward_hook(lambda module, inputs, output: change(output)) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def flattened(scores: torch.Tensor) -> torch.Tensor:
    """The scores of M_s → those of its mean over positions."""
    return scores.sigmoid().mean((2, 3), keepdim=True).logit().expand_as(scores)


def measure_attention(
    dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor
) -> Iterator[tuple[str, float]]:
    """
    (name, value): the area of each level, J, J with each M_s at its mean over positions, and J with equal weights of
    the cross-scale pairs.
    """
    for level, area in enumerate(attention_areas(dataset, model, processor), start=1):
        yield f"area_{level}", round(area, 4)
    yield "jaccard", round(mean_jaccard(dataset, model, processor), 4)
    maps = torch.nn.ModuleList(attention.convolution for attention in model.decoder.attention)
    with changed_outputs(maps, flattened):
        yield "jaccard_of_mean_attention", round(mean_jaccard(dataset, model, processor), 4)
    with changed_outputs(model.decoder.pyramid.pair_scores, torch.zeros_like):
        yield "jaccard_of_equal_pairs", round(mean_jaccard(dataset, model, processor), 4)
