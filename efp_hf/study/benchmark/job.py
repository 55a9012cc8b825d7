"""From a folder of photos to mask files."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from transformers import SegformerImageProcessor, pipeline

from ...data.synthetic import JPEG, draw_lesion
from ...inference.checkpoint import load_checkpoint
from ...inference.folder import find_images, predict_files, write_predictions
from .systems import EFP, SEGFORMER, build_all, export_once, new_timed_system
from .turns import median_and_spread, seconds_of, spread_columns

PEER_SIZE = {"height": 256, "width": 256}  # input of the pipeline's SegFormer; its own default, 512², is slower
NUM_PHOTOS = 8  # that differ; the others of a folder are hard links to them
GRAIN = 4  # standard deviation of a photo's noise, grey levels: drawings without it are small files, quick to decode


def draw_photos(folder: Path, num_images: int, height: int, width: int) -> None:
    """`photo_0000.jpg` …: enlarged drawings with a sensor's noise; more than `NUM_PHOTOS` are links to the first."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(num_images):
        path = folder / f"photo_{number:04d}.jpg"
        if number >= NUM_PHOTOS:
            os.link(folder / f"photo_{number % NUM_PHOTOS:04d}.jpg", path)
            continue
        image = draw_lesion(number, height // 4, width // 4)[0].resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(image, dtype=np.float32) + rng.normal(0, GRAIN, (height, width, 1)).astype(np.float32)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, **JPEG)


def efp_job(checkpoint: str | Path, threads: int) -> Callable[[list[Path], Path], None]:
    """What `efp predict` does with files and an output folder."""
    model, processor = load_checkpoint(checkpoint, threads=threads)

    def job(files: list[Path], output: Path) -> None:
        for prediction in write_predictions(predict_files(files, model, processor), output):
            raise ValueError(prediction.error)

    return job


def pipeline_job() -> Callable[[list[Path], Path], None]:
    """Transformers' pipeline with SegFormer-B0, one image at a time as it does by default, the masks not kept."""
    processor = SegformerImageProcessor(size=PEER_SIZE)
    segment = pipeline("image-segmentation", model=new_timed_system(SEGFORMER, ""), image_processor=processor)
    lesion = segment.model.config.id2label[1]

    def job(files: list[Path], output: Path) -> None:
        for path, parts in zip(files, segment(str(path) for path in files), strict=True):
            masks = {part["label"]: part["mask"] for part in parts}
            mask = masks[lesion] if lesion in masks else Image.new("L", parts[0]["mask"].size)
            mask.save(output / f"{path.stem}_segmentation.png")

    return job


def job_candidates(
    runtimes: tuple[str, ...], checkpoint: str | Path, exports: Path
) -> tuple[dict[tuple[str, str], str | Path | None], dict[tuple[str, str], str]]:
    """(system, runtime) → the checkpoint for [`run_job`], and those left out with the reason."""
    builders = {
        (EFP, runtime): partial(export_once, EFP, runtime, checkpoint, exports)
        for runtime in runtimes
        if runtime != "torch"
    }
    exported, left_out = build_all(builders)
    return {(EFP, "torch"): checkpoint, **exported, (SEGFORMER, "pipeline"): None}, left_out


def run_job(checkpoint: str | Path | None, folder: Path, threads: int) -> dict[str, float]:
    """
    The masks of a folder's images, by EFP's `checkpoint` or without one by the pipeline → `images_per_second`, without
    the start, and `peak_mb`, the most memory that this process has had.
    """
    torch.set_num_threads(threads)
    job = efp_job(checkpoint, threads) if checkpoint else pipeline_job()
    files = find_images([str(folder)])
    with TemporaryDirectory() as output:
        job(files[:2], Path(output))
        seconds = seconds_of(lambda: job(files, Path(output)))
    return {"images_per_second": len(files) / seconds, "peak_mb": peak_memory_mb()}


def peak_memory_mb() -> float:
    """Of this process since it began: `ru_maxrss` would begin with its parent's."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    for line in lines:
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise OSError("The peak memory is read from /proc/self/status: this part needs Linux.")


def in_new_process(function: Callable, *arguments):
    """`function(*arguments)` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def job_rows(measured: dict[tuple[str, str], list[dict]], num_images: int, photo_mb: float) -> list[dict]:
    """A row a (system, runtime). The speed-up is a ratio of medians of images a second, empty without the pipeline."""
    rates = {key: [run["images_per_second"] for run in runs] for key, runs in measured.items()}
    medians = {key: median_and_spread(values)[0] for key, values in rates.items()}
    pipeline_rate = medians.get((SEGFORMER, "pipeline"))
    return [
        {
            "system": system,
            "runtime": runtime,
            "images": num_images,
            "photo_mb": round(photo_mb, 2),
            "rounds": len(runs),
            **spread_columns(rates[system, runtime], "images_per_second"),
            "over_pipeline": round(medians[system, runtime] / pipeline_rate, 3) if pipeline_rate else "",
            "peak_mb": round(max(run["peak_mb"] for run in runs)),
        }
        for (system, runtime), runs in measured.items()
    ]
