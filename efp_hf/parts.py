"""What a trained EFP makes of the paper's parts: J with one of them replaced by something that knows no place."""

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from datasets import Dataset

from .configuration_efp import NUM_LEVELS
from .image_processing_efp import EFPImageProcessor, to_upright_rgb
from .metrics import confusion_counts, jaccard
from .modeling_efp import EFPForSegmentation
from .scoring import model_masks


def attend_everywhere_alike(model: EFPForSegmentation) -> None:
    """M_s of each image and level at its mean: what is left is how much of a level is used, and not where."""

    def replace(attention, levels, attended) -> tuple[torch.Tensor, torch.Tensor]:
        mean = attended[1].mean((2, 3), keepdim=True)
        return mean * levels[0], mean.expand_as(attended[1])

    for attention in model.attention:
        attention.register_forward_hook(replace)


def weigh_pairs_alike(model: EFPForSegmentation) -> None:
    """a_{i,j} = 1/3 everywhere."""
    for pair_score in model.pyramid.pair_scores:
        torch.nn.init.zeros_(pair_score.weight)


def level_everywhere_alike(model: EFPForSegmentation, level: int) -> None:
    """F_out of a level (1..4) at the means of its channels. F_i still reaches other levels through the pairs."""

    def replace(projection, levels) -> tuple[torch.Tensor]:
        return (levels[0].mean((2, 3), keepdim=True).expand_as(levels[0]),)

    model.fusion.projections[level - 1].register_forward_pre_hook(replace)


def replacements(model: EFPForSegmentation) -> dict[str, Callable[[EFPForSegmentation], None]]:
    """Name → what changes a copy of the model in place, of those that concern its parts."""
    changes = {"none": lambda model: None}
    if model.attention is not None:
        changes["M_s at its mean"] = attend_everywhere_alike
    if model.config.use_cross_scale:
        changes["equal weights of the pairs"] = weigh_pairs_alike
    levels = range(1, NUM_LEVELS + 1)
    return changes | {f"level {level} at its mean": partial(level_everywhere_alike, level=level) for level in levels}


def measure_parts(dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor) -> dict[str, float]:
    """Name of `replacements` → mean J of a split of `load_lesions` with it, at the masks' own size."""
    found = {}
    for name, change in replacements(model).items():
        changed = copy.deepcopy(model)
        change(changed)
        masks = model_masks(dataset, changed, processor)
        found[name] = float(jaccard(np.array([confusion_counts(mask, truth) for _, mask, truth in masks])).mean())
    return found


@torch.inference_mode()
def attention_statistics(
    dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor
) -> list[tuple[float, float]]:
    """
    Of M_s of each level: the mean, and the standard deviation over the positions of an image, both means over the
    images, four digits. Empty for a model without attention.
    """
    statistics = []
    for row in dataset:
        inputs = processor(to_upright_rgb(row["image"]), return_tensors="pt").to(model.device, model.dtype)
        attention_maps = model(**inputs, output_attentions=True).attentions or ()
        statistics.append([(float(of_level.mean()), float(of_level.std(correction=0))) for of_level in attention_maps])
    return [tuple(of_level) for of_level in np.mean(statistics, axis=0).round(4).tolist()]
