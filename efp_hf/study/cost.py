"""What a network costs: parameters, and multiply-adds of an image."""

from functools import cache
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..inference.checkpoint import load_checkpoint


def multiply_adds(model: torch.nn.Module, image_size: int) -> int:
    """Of one image of `image_size`², counted by PyTorch (convolutions and matrix products)."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device))
    return counter.get_total_flops() // 2


def count_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@cache
def checkpoint_costs(checkpoint: Path) -> tuple[str, str]:
    """Parameters, and multiply-adds of an image of the checkpoint's own input size, as they are printed."""
    model, processor = load_checkpoint(checkpoint, runtime="torch", allow_overlap=True)
    size = processor.size["height"]
    return f"{count_parameters(model) / 1e6:.2f} M", f"{multiply_adds(model.cpu(), size) / 1e9:.2f} G at {size}²"
