"""The limit of the machine: what its peaks allow for EFP's arithmetic and bytes."""

from functools import partial

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..cost import multiply_adds
from .turns import PAUSE, alternate, spread_columns


class BytesMoved(TorchDispatchMode):
    """Counts what each operation reads and writes, weights and activations, as if nothing stayed in a cache."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
            self.total += sum(tensor.nbytes for tensor in tensors)
        return result


def bytes_moved(model: torch.nn.Module, batch_size: int, image_size: int) -> int:
    """Of one forward pass in PyTorch, which fuses nothing."""
    pixel_values, counter = torch.zeros(batch_size, 3, image_size, image_size), BytesMoved()
    with torch.no_grad(), counter:
        model(pixel_values)
    return counter.total


def machine_peaks(rounds: int, channels: int, side: int, copy_mb: int) -> dict[str, float]:
    """
    The fastest of the rounds: `conv3x3_gflops` and `conv1x1_gflops` of a convolution of `side`² with as many output
    channels as input channels in PyTorch (a multiply-add is two), `copy_gb_s` of a copy, read and written.
    """
    source = torch.zeros(copy_mb * 250_000)
    target = torch.zeros_like(source)
    feature_map = torch.randn(1, channels, side, side).to(memory_format=torch.channels_last)
    calls, work = {"copy_gb_s": partial(target.copy_, source)}, {"copy_gb_s": 2 * source.nbytes}
    for kernel in (3, 1):
        convolution = torch.nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
        name = f"conv{kernel}x{kernel}_gflops"
        calls[name] = partial(convolution.to(memory_format=torch.channels_last), feature_map)
        work[name] = 2 * channels**2 * kernel**2 * side**2
    with torch.inference_mode():
        seconds = alternate(calls, rounds, settle=1, pause=PAUSE)
    return {name: work[name] / min(values) / 1e9 for name, values in seconds.items()}


def limit_columns(multiply_adds: int, num_bytes: int, peaks: dict[str, float], median_ms: float) -> dict[str, float]:
    """
    What the machine could do at best: the longer of the arithmetic at the convolutions' peak and of moving all bytes
    at the copy's speed; and how many times as long it takes. A runtime that fuses operations, or whose activations stay
    in the cache, can be below the time for the bytes.
    """
    compute_ms = 2 * multiply_adds / max(peaks["conv3x3_gflops"], peaks["conv1x1_gflops"]) / 1e6
    memory_ms = num_bytes / peaks["copy_gb_s"] / 1e6
    return {
        "multiply_adds": multiply_adds,
        "megabytes": round(num_bytes / 1e6, 3),
        **{name: round(value, 2) for name, value in peaks.items()},
        "compute_ms": float(f"{compute_ms:.4g}"),
        "memory_ms": float(f"{memory_ms:.4g}"),
        "times_limit": round(median_ms / max(compute_ms, memory_ms), 2),
        "times_compute": round(median_ms / compute_ms, 2),
    }


def limit_rows(
    seconds: dict[tuple[int, int, str], list[float]], peaks: dict[str, float], model: torch.nn.Module
) -> list[dict]:
    """A row a (batch size, image size, runtime) of EFP."""
    rows = []
    for (batch_size, image_size, runtime), values in seconds.items():
        num_adds, num_bytes = batch_size * multiply_adds(model, image_size), bytes_moved(model, batch_size, image_size)
        times = spread_columns(values, "ms", 1000)
        fixed = {"runtime": runtime, "batch_size": batch_size, "image_size": image_size, "rounds": len(values)}
        rows.append(fixed | times | limit_columns(num_adds, num_bytes, peaks, times["median_ms"]))
    return rows
