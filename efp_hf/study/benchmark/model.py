"""The model alone: a forward pass, and where EFP's time goes."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from .systems import CUDA, MASKFORMER, SEGFORMER, build_all, ready_model
from .turns import median_and_spread, seconds_of, spread_columns


def model_candidates(
    systems: tuple[str, ...], runtimes: tuple[str, ...], checkpoint: str | Path, exports: Path, threads: int
) -> tuple[dict[tuple[str, str], Callable], dict[tuple[str, str], str]]:
    """(system, runtime) → [`ready_model`], and those left out with the reason. MaskFormer is in PyTorch only."""
    return build_all(
        {
            (system, runtime): partial(ready_model, system, runtime, checkpoint, exports, threads)
            for system in systems
            for runtime in runtimes
            if system != MASKFORMER or runtime in ("torch", CUDA)
        }
    )


def run_model(model: Callable, pixel_values: torch.Tensor) -> torch.Tensor:
    """A finished forward pass → its logits; MaskFormer's those of its masks."""
    with torch.inference_mode():
        outputs = model(pixel_values=pixel_values)
    if pixel_values.is_cuda:
        torch.cuda.synchronize()
    return outputs.masks_queries_logits if "masks_queries_logits" in outputs else outputs.logits


def model_calls(candidates: dict[tuple[str, str], Callable], pixel_values: torch.Tensor) -> dict:
    """The same forward pass for all: of these values, on the GPU already for the candidates that run there."""
    on_gpu = pixel_values
    if any(runtime == CUDA for _, runtime in candidates):
        on_gpu = pixel_values.to("cuda", torch.bfloat16, memory_format=torch.channels_last)
    return {
        (system, runtime): partial(run_model, model, on_gpu if runtime == CUDA else pixel_values)
        for (system, runtime), model in candidates.items()
    }


def model_rows(seconds: dict[tuple[str, str], list[float]], batch_size: int, image_sizes: dict[str, int]) -> list[dict]:
    """
    A row a candidate, with the side of its image by its system's name. Speed-ups are ratios of medians, empty where the
    reference is not there.
    """
    medians = {key: median_and_spread(values)[0] for key, values in seconds.items()}
    rows = []
    for (system, runtime), values in seconds.items():
        references = {
            "over_segformer_torch": (SEGFORMER, CUDA if runtime == CUDA else "torch"),
            "over_segformer_same_runtime": (SEGFORMER, runtime),
        }
        rows.append(
            {
                "system": system,
                "runtime": runtime,
                "batch_size": batch_size,
                "image_size": image_sizes[system],
                "rounds": len(values),
                **spread_columns(values, "ms", 1000),
                **{
                    name: round(medians[reference] / medians[system, runtime], 3) if reference in medians else ""
                    for name, reference in references.items()
                },
            }
        )
    return rows


def time_parts(model: torch.nn.Module, pixel_values: torch.Tensor) -> dict[str, float]:
    """Seconds of each of EFP's parts in one forward pass in PyTorch, in their order, and of the `rest`."""
    parts = {"encoder": model.encoder, **dict(model.decoder.named_children())}
    seconds, starts, handles = dict.fromkeys(parts, 0.0), {}, []

    def begin(name: str, *_) -> None:
        starts[name] = time.perf_counter()

    def end(name: str, *_) -> None:
        seconds[name] += time.perf_counter() - starts[name]

    for name, part in parts.items():
        for module in part if isinstance(part, torch.nn.ModuleList) else [part]:
            handles.append(module.register_forward_pre_hook(partial(begin, name)))
            handles.append(module.register_forward_hook(partial(end, name)))
    whole = seconds_of(partial(run_model, model, pixel_values))
    for handle in handles:
        handle.remove()
    return seconds | {"rest": whole - sum(seconds.values())}


def profile_rows(measured: dict[str, list[dict[str, float]]], batch_size: int, image_size: int) -> list[dict]:
    """A row a (system, part): its milliseconds, and its share of the sum of all medians."""
    rows = []
    for system, runs in measured.items():
        values = {part: [run[part] for run in runs] for part in runs[0]}
        total = sum(median_and_spread(seconds)[0] for seconds in values.values())
        for part, seconds in values.items():
            share = round(median_and_spread(seconds)[0] / total, 4)
            fixed = {"system": system, "part": part, "batch_size": batch_size, "image_size": image_size}
            rows.append({**fixed, "rounds": len(seconds), **spread_columns(seconds, "ms", 1000), "share": share})
    return rows
