"""Speed, measured side by side: the candidates take turns, so that what else the machine does hits all alike."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

import numpy as np
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoConfig,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    SwinConfig,
    TrainerCallback,
    pipeline,
)
from transformers.exporters.base import EXPORT_MANIFEST_FILE

from . import baselines, configuration_efp, encoders, export, modeling_efp
from .baselines import BaselineConfig, new_baseline
from .card import weights_digest
from .encoders import new_model
from .export import export_model
from .image_processing_efp import EFPImageProcessor
from .prediction import find_images, load_checkpoint, predict_files, write_predictions
from .results import processor_name
from .runtimes import load_exported
from .synthetic import JPEG, draw_lesion

EFP, NANO, SEGFORMER, MASKFORMER, UNET = "EFP", "EFP nano", "SegFormer-B0", "MaskFormer Swin-T", "U-Net"
# on EFP's encoder: the benchmark's name → the system of scripts/compare.py, whose accuracy is known
ON_ENCODER = {UNET: "unet", "U-Net + attention": "unet_attention", "SegFormer's decoder": "segformer"}
SYSTEMS = (EFP, NANO, SEGFORMER, MASKFORMER, *ON_ENCODER)
RUNTIMES = ("torch", "onnx", "openvino", "openvino bf16", "onnx int8", "openvino int8")
CUDA = "torch cuda bf16"
EXPORTING_MODULES = (baselines, configuration_efp, encoders, export, modeling_efp)
ENCODER = "tf_efficientnet_lite0"  # of EFP and of `ON_ENCODER`
PEER_SIZE = {"height": 256, "width": 256}  # input of the pipeline's SegFormer; its own default, 512², is slower
PAUSE = 0.2  # seconds before each turn
NUM_CALIBRATION_IMAGES = 16  # drawings: enough for int8's latency, not for its accuracy
NUM_PHOTOS = 8  # that differ; the others of a folder are hard links to them
GRAIN = 4  # standard deviation of a photo's noise, grey levels: drawings without it are small files, quick to decode
BARE_LOOP = "bare loop"
MEAN_IOU = "evaluate mean_iou"
PACKAGES = ("onnxruntime", "openvino", "nncf", "segmentation_models_pytorch", "evaluate")  # versions in the rows
METRIC = Path(__file__).parent / "metrics" / "lesion_segmentation"

AutoConfig.register("efp_baseline", BaselineConfig)  # the folder of an exported one names it


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(
    candidates: dict,
    rounds: int,
    warm_up: int = 1,
    settle: int = 0,
    pause: float = 0.0,
    measure: Callable = seconds_of,
) -> dict[object, list]:
    """
    What `measure` returns for each call, by the candidate's name: every round calls each candidate once, in order.

    Args:
        candidates: name → function without arguments.
        warm_up: calls of each before the first round.
        settle: calls of the same candidate before each measured one, which fill the caches again.
        pause: seconds of sleep before these. A runtime's threads spin for a while after a call and would take time
            from the next candidate.
    """
    for call in candidates.values():
        for _ in range(warm_up):
            call()
    measured = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            time.sleep(pause)
            for _ in range(settle):
                call()
            measured[name].append(measure(call))
    return measured


def median_and_spread(values: list[float]) -> tuple[float, float, float]:
    """Median, first and third quartile."""
    return tuple(float(value) for value in np.quantile(values, (0.5, 0.25, 0.75)))


def spread_columns(values: list[float], unit: str, scale: float = 1) -> dict[str, float]:
    """`median_<unit>`, `quartile1_<unit>`, `quartile3_<unit>` of the values times `scale`, four digits."""
    names = (f"median_{unit}", f"quartile1_{unit}", f"quartile3_{unit}")
    return {name: float(f"{value * scale:.4g}") for name, value in zip(names, median_and_spread(values), strict=True)}


def conditions(threads: int) -> dict[str, str | int | float]:
    """What a row says of the machine besides [`provenance`](results.py): the start of the run, which is its name."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": f"{processor_name()}, {os.cpu_count()} cores",
        "threads": threads,
        "load_average": round(os.getloadavg()[0], 2),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES if find_spec(name)),
    }


# The model alone


def new_system(system: str, checkpoint: str | Path) -> torch.nn.Module:
    """EFP from its checkpoint; the others with random weights, for their latency alone."""
    torch.manual_seed(0)
    if system == EFP:
        return load_checkpoint(checkpoint, runtime="torch")[0].cpu()
    if system == NANO:
        return new_model(ENCODER, pretrained=False, nano=True).eval()
    if system == SEGFORMER:
        return SegformerForSemanticSegmentation(SegformerConfig(num_labels=2)).eval()
    if system in ON_ENCODER:
        return new_baseline(ON_ENCODER[system], ENCODER, pretrained=False).eval()
    swin_tiny = SwinConfig(out_features=["stage1", "stage2", "stage3", "stage4"])
    return MaskFormerForInstanceSegmentation(MaskFormerConfig(backbone_config=swin_tiny, num_labels=2)).eval()


def code_version() -> str:
    """Changes with the modules that build and export the networks, and with the packages' versions."""
    code = [Path(module.__file__).read_bytes() for module in EXPORTING_MODULES]
    packages = [f"{name} {version(name)}" for name in (*PACKAGES, "torch", "transformers", "timm") if find_spec(name)]
    return f"{crc32(b''.join(code) + repr(packages).encode()):08x}"


def export_once(system: str, runtime: str, checkpoint: str | Path, exports: Path) -> Path:
    """
    The folder of a system for a runtime of `RUNTIMES`, made where it is not there: for "onnx", "openvino", or one of
    them with " int8". OpenVINO's bfloat16 runs the same folder as its float32. The name has the version of the code and
    of EFP's weights.
    """
    runtime = runtime.removesuffix(" bf16")
    versions = [code_version()]
    if system == EFP:
        versions.append(weights_digest(checkpoint))
    folder = exports / "-".join([system, *versions, runtime]).replace(" ", "-").lower()
    if not (folder / EXPORT_MANIFEST_FILE).is_file():
        processor = load_checkpoint(checkpoint, runtime="torch")[1] if system == EFP else EFPImageProcessor()
        to, _, int8 = runtime.partition(" ")
        images = [draw_lesion(seed)[0] for seed in range(NUM_CALIBRATION_IMAGES)] if int8 else None
        export_model(new_system(system, checkpoint), processor, folder, to, images)
    return folder


def ready_model(system: str, runtime: str, checkpoint: str | Path, exports: Path, threads: int) -> Callable:
    """The system in the runtime, to be called with `pixel_values`."""
    if runtime == "torch":
        return new_system(system, checkpoint).to(memory_format=torch.channels_last)
    if runtime == CUDA:
        model = new_system(system, checkpoint).to("cuda", torch.bfloat16, memory_format=torch.channels_last)
        return torch.compile(model)
    folder = export_once(system, runtime, checkpoint, exports)
    return load_exported(folder, bf16=runtime.endswith(" bf16"), threads=threads)


def build_all(builders: dict) -> tuple[dict, dict[object, str]]:
    """Name → what its function returns, and name → why there is none: the others are measured all the same."""
    built, left_out = {}, {}
    for name, build in builders.items():
        try:
            built[name] = build()
        except Exception as error:  # a package that is not installed, or what a runtime cannot do
            left_out[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return built, left_out


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


def model_rows(seconds: dict[tuple[str, str], list[float]], batch_size: int, image_size: int) -> list[dict]:
    """A row a candidate. Speed-ups are ratios of medians, empty where the reference is not there."""
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
                "image_size": image_size,
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
    seconds, starts, handles = dict.fromkeys((name for name, _ in model.named_children()), 0.0), {}, []

    def begin(name: str, *_) -> None:
        starts[name] = time.perf_counter()

    def end(name: str, *_) -> None:
        seconds[name] += time.perf_counter() - starts[name]

    for name, part in model.named_children():
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


# From photos to mask files


def write_photos(folder: Path, num_images: int, height: int, width: int) -> None:
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
    """What scripts/predict.py does with files and an output folder."""
    model, processor = load_checkpoint(checkpoint, threads=threads)

    def job(files: list[Path], output: Path) -> None:
        for prediction in write_predictions(predict_files(files, model, processor), output):
            raise ValueError(prediction.error)

    return job


def pipeline_job() -> Callable[[list[Path], Path], None]:
    """Transformers' pipeline with SegFormer-B0, one image at a time as it does by default, the masks not kept."""
    processor = SegformerImageProcessor(size=PEER_SIZE)
    segment = pipeline("image-segmentation", model=new_system(SEGFORMER, ""), image_processor=processor)
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


# Training


class StepClock(TrainerCallback):
    """The time at which each step ended; the GPU is waited for where the measured steps begin and end."""

    def __init__(self, warm_up: int):
        self.warm_up = warm_up
        self.ends = []

    def on_step_end(self, args, state, control, **kwargs):
        if torch.cuda.is_available() and state.global_step in (self.warm_up, args.max_steps):
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def repeat_rows(data, num_rows: int):
    """The splits, with so many rows in the train split, the same ones again and again: one long epoch."""
    train = data["train"]
    return {**data, "train": train.select([position % len(train) for position in range(num_rows)])}


def new_trainer(data, output: Path, image_size: int, steps: int, batch_size: int, workers: int):
    """The Trainer of scripts/train.py with its defaults, for some steps and without evaluation."""
    from transformers import TrainingArguments

    from .training import TRAINING_DEFAULTS, lesion_trainer

    changes = {
        "output_dir": str(output),
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "dataloader_num_workers": workers,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "disable_tqdm": True,
    }
    model = new_model(ENCODER, pretrained=False).to(memory_format=torch.channels_last)
    processor = EFPImageProcessor(size={"height": image_size, "width": image_size})
    arguments = TrainingArguments(**{**TRAINING_DEFAULTS, **changes})
    return lesion_trainer(model, processor, data, arguments, encoder_learning_rate=3e-4)


def train_with_trainer(new: Callable, warm_up: int) -> dict[str, float]:
    """`images_per_second` of the steps after the warm-up and `waiting_share`, what of their time went for batches."""
    trainer, clock, waits = new(), StepClock(warm_up), []
    next_batches = trainer.get_batch_samples

    def timed(*arguments):
        start = time.perf_counter()
        batches = next_batches(*arguments)
        waits.append(time.perf_counter() - start)
        return batches

    trainer.get_batch_samples = timed
    trainer.add_callback(clock)
    trainer.train()
    seconds = clock.ends[-1] - clock.ends[warm_up - 1]
    num_images = (len(clock.ends) - warm_up) * trainer.args.train_batch_size
    return {
        "images_per_second": num_images / seconds,
        "waiting_share": sum(waits[warm_up : len(clock.ends)]) / seconds,
    }


def train_from_memory(new: Callable, warm_up: int, num_batches: int = 4) -> dict[str, float]:
    """The same steps on the same model in a bare loop over a few batches that are tensors on the device already."""
    trainer = new()
    model, optimizer = trainer.model.train(), trainer.optimizer
    batches = [
        {name: tensor.to(model.device) for name, tensor in batch.items()}
        for batch, _ in zip(trainer.get_train_dataloader(), range(num_batches), strict=False)
    ]

    def step(number: int) -> None:
        model(**batches[number % len(batches)]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    def steps(numbers: range) -> None:
        for number in numbers:
            step(number)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    steps(range(warm_up))
    seconds = seconds_of(lambda: steps(range(warm_up, trainer.args.max_steps)))
    num_images = (trainer.args.max_steps - warm_up) * trainer.args.train_batch_size
    return {"images_per_second": num_images / seconds, "waiting_share": 0.0}


def training_rows(measured: dict[str, list[dict]], steps: int, batch_size: int, image_size: int) -> list[dict]:
    """A row a loop; its share of the bare loop's images a second is a ratio of medians."""
    rates = {name: [run["images_per_second"] for run in runs] for name, runs in measured.items()}
    bare_rate = median_and_spread(rates[BARE_LOOP])[0]
    return [
        {
            "loop": name,
            "batch_size": batch_size,
            "image_size": image_size,
            "steps": steps,
            "rounds": len(runs),
            **spread_columns(rates[name], "images_per_second"),
            "share_of_bare_loop": round(median_and_spread(rates[name])[0] / bare_rate, 4),
            "waiting_share": round(median_and_spread([run["waiting_share"] for run in runs])[0], 4),
        }
        for name, runs in measured.items()
    ]


# Metrics


def draw_mask_pairs(num_pairs: int, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(mask, truth) as booleans: a drawn lesion and the same moved by a few pixels. Only `NUM_PHOTOS` differ."""
    truths = [np.asarray(draw_lesion(seed, size, size)[1]) > 0 for seed in range(min(NUM_PHOTOS, num_pairs))]
    pairs = [(np.roll(truth, size // 50, axis=(0, 1)), truth) for truth in truths]
    return [pairs[number % len(pairs)] for number in range(num_pairs)]


def score_overlap(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """The counts and scores as scripts/score.py computes them, with their bootstrap intervals."""
    import evaluate

    metric = evaluate.load(str(METRIC))
    for mask, truth in pairs:
        metric.add(prediction=mask, reference=truth)
    return metric.compute()


def score_all(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """All that scripts/score.py computes: HD95 and the boundary F1 as well."""
    from .scoring import boundary_scores

    boundary = [boundary_scores(mask, truth) for mask, truth in pairs]
    return score_overlap(pairs) | {name: float(np.mean([row[name] for row in boundary])) for name in boundary[0]}


def score_with_mean_iou(name: str, pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict:
    """evaluate's mean_iou, loaded from the Hub or a folder with its script."""
    import evaluate

    masks, truths = ([pair[side].view(np.uint8) for pair in pairs] for side in (0, 1))
    return evaluate.load(name).compute(predictions=masks, references=truths, num_labels=2, ignore_index=255)


def metric_candidates(pairs: list, mean_iou: str) -> tuple[dict[str, Callable], dict[str, str]]:
    """Name → scoring of the pairs, and those left out with the reason."""
    own = {"efp_hf": partial(score_overlap, pairs), "efp_hf with boundary": partial(score_all, pairs)}
    tried, left_out = build_all({MEAN_IOU: partial(score_with_mean_iou, mean_iou, pairs[:1])})
    return own | {name: partial(score_with_mean_iou, mean_iou, pairs) for name in tried}, left_out


def metric_rows(seconds: dict[str, list[float]], left_out: dict[str, str], num_masks: int, size: int) -> list[dict]:
    """A row a candidate, also for one that is left out, with the reason in `note`. Speed-ups are ratios of medians."""
    fixed = {"masks": num_masks, "size": size}
    rows = []
    for name, values in seconds.items():
        ratio = median_and_spread(seconds[MEAN_IOU])[0] / median_and_spread(values)[0] if MEAN_IOU in seconds else None
        times = spread_columns(values, "s")
        over = round(ratio, 2) if ratio else ""
        rows.append({"scorer": name, **fixed, "rounds": len(values), **times, "over_mean_iou": over, "note": ""})
    for name, reason in left_out.items():
        times = dict.fromkeys(spread_columns([0], "s"), "")
        rows.append({"scorer": name, **fixed, "rounds": 0, **times, "over_mean_iou": "", "note": f"left out: {reason}"})
    return rows


# The limit of the machine


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
    from .comparison import multiply_adds

    rows = []
    for (batch_size, image_size, runtime), values in seconds.items():
        num_adds, num_bytes = batch_size * multiply_adds(model, image_size), bytes_moved(model, batch_size, image_size)
        times = spread_columns(values, "ms", 1000)
        fixed = {"runtime": runtime, "batch_size": batch_size, "image_size": image_size, "rounds": len(values)}
        rows.append(fixed | times | limit_columns(num_adds, num_bytes, peaks, times["median_ms"]))
    return rows
