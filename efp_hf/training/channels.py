"""A network and its processor for images with other channels than three colours."""

import copy

import numpy as np
from datasets import Dataset
from timm.models import adapt_input_conv
from tqdm import tqdm

from ..data.channels import channels_of
from ..image_processing_efp import NUM_COLOURS, PIXEL_RANGES, EFPImageProcessor
from ..modeling_efp import EFPForSegmentation


def with_channels(model: EFPForSegmentation, num_channels: int) -> EFPForSegmentation:
    """
    The network for images of so many channels; itself where they are its own. The first layer's weights are adapted
    from those of the three colours as timm does: repeated, and scaled so that their sum stays about the same.

    Raises:
        ValueError: a network of other channels than the three colours.
    """
    own = model.config.num_channels
    if num_channels == own:
        return model
    if own != NUM_COLOURS:
        raise ValueError(
            f"`--checkpoint` must take the channels of the data, {num_channels}, or three, got one of {own}. "
            "Pass another one, or data with its channels."
        )
    config = copy.deepcopy(model.config)
    config.num_channels = num_channels
    if config.backbone_config is not None:
        config.backbone_config.num_channels = num_channels
    adapted = EFPForSegmentation(config).to(model.device)
    weights = {
        name: tensor if tensor.shape == expected.shape else adapt_input_conv(num_channels, tensor)
        for (name, tensor), expected in zip(model.state_dict().items(), adapted.state_dict().values(), strict=True)
    }
    adapted.load_state_dict(weights)
    return adapted


def with_statistics(processor: EFPImageProcessor, rows: Dataset) -> EFPImageProcessor:
    """
    The processor for the channels of these images; itself where it has as many. The first three channels keep its mean
    and standard deviation; those of the others are measured on the images.
    """
    num_channels = channels_of(rows)
    if num_channels == processor.num_channels:
        return processor
    fitting = copy.deepcopy(processor)
    kept = min(num_channels, NUM_COLOURS)
    means, stds = measured(rows, processor.rescale_factor)
    fitting.image_mean = [*processor.image_mean[:kept], *means[kept:]]
    fitting.image_std = [*processor.image_std[:kept], *stds[kept:]]
    fitting.do_convert_rgb = False
    return fitting


def measured(rows: Dataset, scale: float) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all images, each image with the same weight, times `scale`."""
    sums = []
    for row in tqdm(rows, desc="measuring channels", unit="image", leave=False, disable=None):
        pixels = row["image"].reshape(-1, row["image"].shape[2]).astype(np.float64) * scale
        sums.append((pixels.mean(0), (pixels**2).mean(0)))
    mean, square = np.mean(sums, axis=0)
    least, most = PIXEL_RANGES["image_std"]
    std = np.sqrt(np.maximum(square - mean**2, 0)).clip(least, most)
    return [round(float(value), 6) for value in mean], [round(float(value), 6) for value in std]
