"""The parts of the benchmark, each measured with a given effort."""

import argparse
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ...data.folders import load_isic
from ...data.synthetic import write_synthetic_isic
from ..comparison import TRACKS
from .job import draw_photos, in_new_process, job_candidates, job_rows, run_job
from .limit import limit_rows, machine_peaks
from .metrics import draw_mask_pairs, metric_candidates, metric_rows
from .model import model_calls, model_candidates, model_rows, profile_rows, time_parts
from .systems import CUDA, EFP, FLOAT_RUNTIMES, NANO, ON_ENCODER, SEGFORMER, TIMED_SYSTEMS, new_timed_system
from .training import BARE_LOOP, new_trainer, repeat_rows, train_from_memory, train_with_trainer, training_rows
from .turns import PAUSE, alternate


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: dict[int, int]  # of a forward pass, by batch size
    image_size: int
    compared_size: int  # of the systems of `scripts/compare.py`
    job_rounds: int
    images: tuple[int, int]  # of the job; of the second one only EFP's memory is of interest: one round, no peer
    photo_size: tuple[int, int]  # height, width
    training_rounds: int
    steps: int
    warm_up_steps: int
    training_images: int
    training_size: int
    batch_size: int
    metric_rounds: int
    masks: int
    mask_size: int
    limit_rounds: int
    limit_sizes: tuple[int, ...]
    limit_batches: tuple[int, ...]
    peak_work: tuple[int, int, int]  # channels and side of the convolutions, megabytes of the copy


FULL = Effort(
    rounds={1: 30, 8: 6},
    image_size=256,
    compared_size=TRACKS["pretrained"].image_size,
    job_rounds=3,
    images=(50, 500),
    photo_size=(3000, 4000),
    training_rounds=3,
    steps=24,
    warm_up_steps=4,
    training_images=100,
    training_size=256,
    batch_size=16,
    metric_rounds=3,
    masks=1000,
    mask_size=1024,
    limit_rounds=10,
    limit_sizes=(128, 192, 256, 384, 512),
    limit_batches=(1, 2, 4, 8, 16),
    peak_work=(512, 112, 512),
)
QUICK = Effort(
    rounds={1: 2},
    image_size=64,
    compared_size=64,
    job_rounds=1,
    images=(2, 4),
    photo_size=(300, 400),
    training_rounds=1,
    steps=2,
    warm_up_steps=1,
    training_images=30,
    training_size=64,
    batch_size=2,
    metric_rounds=1,
    masks=2,
    mask_size=128,
    limit_rounds=1,
    limit_sizes=(64,),
    limit_batches=(1, 2),
    peak_work=(32, 32, 8),
)


def print_left_out(left_out: dict) -> None:
    for name, reason in left_out.items():
        print(f"left out: {name if isinstance(name, str) else ', '.join(name)}: {reason}")


def measure_model(arguments: argparse.Namespace, effort: Effort) -> list[dict]:
    runtimes = (*arguments.runtimes, *([CUDA] if torch.cuda.is_available() else []))
    candidates, left_out = model_candidates(
        TIMED_SYSTEMS, runtimes, arguments.checkpoint, arguments.exports, arguments.threads
    )
    print_left_out(left_out)
    rows = []
    for batch_size, rounds in effort.rounds.items():
        pixel_values = torch.randn(batch_size, 3, effort.image_size, effort.image_size)
        calls = model_calls(candidates, pixel_values)
        seconds = alternate(calls, rounds, settle=2, pause=PAUSE)
        rows += model_rows(seconds, batch_size, dict.fromkeys(TIMED_SYSTEMS, effort.image_size))
    return rows


def measure_frontier(arguments: argparse.Namespace, effort: Effort) -> list[dict]:
    """Each system with the input that its J is stated for, SegFormer-B0 with that of most of its users."""
    systems = (EFP, NANO, SEGFORMER, *ON_ENCODER)
    sizes = {system: effort.compared_size for system in systems} | {SEGFORMER: effort.image_size}
    runtimes = tuple(runtime for runtime in arguments.runtimes if runtime in FLOAT_RUNTIMES)
    candidates, left_out = model_candidates(
        systems, runtimes, arguments.checkpoint, arguments.exports, arguments.threads
    )
    print_left_out(left_out)
    calls = {}
    for (system, runtime), model in candidates.items():
        calls |= model_calls({(system, runtime): model}, torch.randn(1, 3, sizes[system], sizes[system]))
    return model_rows(alternate(calls, effort.rounds[1], settle=2, pause=PAUSE), 1, sizes)


def measure_profile(arguments: argparse.Namespace, effort: Effort) -> list[dict]:
    pixel_values = torch.randn(1, 3, effort.image_size, effort.image_size)
    models = {name: new_timed_system(name, arguments.checkpoint) for name in (EFP, NANO)}
    calls = {name: partial(time_parts, model, pixel_values) for name, model in models.items()}
    measured = alternate(calls, effort.rounds[1], warm_up=3, settle=2, measure=lambda call: call())
    return profile_rows(measured, 1, effort.image_size)


def measure_job(arguments: argparse.Namespace, effort: Effort) -> list[dict]:
    runtimes = tuple(runtime for runtime in FLOAT_RUNTIMES if runtime in arguments.runtimes)
    candidates, left_out = job_candidates(runtimes, arguments.checkpoint, arguments.exports)
    print_left_out(left_out)
    rows = []
    only_efp = {name: checkpoint for name, checkpoint in candidates.items() if name[0] == EFP}
    for num_images, rounds, taking_part in zip(
        effort.images, (effort.job_rounds, 1), (candidates, only_efp), strict=True
    ):
        with tempfile.TemporaryDirectory() as root:
            photos = Path(root) / "photos"
            draw_photos(photos, num_images, *effort.photo_size)
            photo_mb = sum(photo.stat().st_size for photo in photos.iterdir()) / num_images / 1e6
            calls = {
                name: partial(in_new_process, run_job, checkpoint, photos, arguments.threads)
                for name, checkpoint in taking_part.items()
            }
            measured = alternate(calls, rounds, warm_up=0, measure=lambda call: call())
        rows += job_rows(measured, num_images, photo_mb)
    return rows


def measure_training(arguments: argparse.Namespace, effort: Effort) -> list[dict]:
    with tempfile.TemporaryDirectory() as root:
        side = 2 * effort.training_size  # as large as the images that `load_lesions` keeps, with 256²
        images = write_synthetic_isic(Path(root) / "drawings", effort.training_images, side * 3 // 4, side)
        data = load_isic(images, cache_dir=Path(root) / "cache")
        # one batch more than steps: a batch is loaded while the one before is handed out
        data = repeat_rows(data, (effort.steps + 1) * effort.batch_size)
        new = partial(new_trainer, data, Path(root) / "run", effort.training_size, effort.steps, effort.batch_size)
        calls = {
            f"Trainer, {workers} data workers": partial(train_with_trainer, partial(new, workers), effort.warm_up_steps)
            for workers in (0, 2)
        }
        calls[BARE_LOOP] = partial(train_from_memory, partial(new, 0), effort.warm_up_steps)
        measured = alternate(calls, effort.training_rounds, warm_up=0, measure=lambda call: call())
    return training_rows(measured, effort.steps, effort.batch_size, effort.training_size)


def measure_metrics(arguments: argparse.Namespace, effort: Effort) -> list[dict]:
    pairs = draw_mask_pairs(effort.masks, effort.mask_size)
    candidates, left_out = metric_candidates(pairs, arguments.mean_iou)
    print_left_out(left_out)
    seconds = alternate(candidates, effort.metric_rounds, warm_up=0)
    return metric_rows(seconds, left_out, effort.masks, effort.mask_size)


def measure_limit(arguments: argparse.Namespace, effort: Effort) -> list[dict]:
    # peaks and bytes are those of float32
    runtimes = tuple(runtime for runtime in arguments.runtimes if runtime in FLOAT_RUNTIMES)
    candidates, left_out = model_candidates(
        (EFP,), runtimes, arguments.checkpoint, arguments.exports, arguments.threads
    )
    print_left_out(left_out)
    settings = [(1, size) for size in effort.limit_sizes]
    settings += [(batch_size, effort.image_size) for batch_size in effort.limit_batches]
    calls = {
        (batch_size, size, runtime): call
        for batch_size, size in dict.fromkeys(settings)
        for (_, runtime), call in model_calls(candidates, torch.randn(batch_size, 3, size, size)).items()
    }
    peaks = machine_peaks(effort.limit_rounds, *effort.peak_work)
    seconds = alternate(calls, effort.limit_rounds, settle=2, pause=PAUSE)
    return limit_rows(seconds, peaks, new_timed_system(EFP, arguments.checkpoint))


PARTS = {
    "model": measure_model,
    "frontier": measure_frontier,
    "profile": measure_profile,
    "job": measure_job,
    "training": measure_training,
    "metrics": measure_metrics,
    "limit": measure_limit,
}
