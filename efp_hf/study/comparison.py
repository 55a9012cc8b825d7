"""The paper's comparison: every system on the same images, with the same recipe and the same number of images seen."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments, set_seed

from ..image_processing_efp import EFPImageProcessor
from ..metrics import confusion_counts, summarize
from ..metrics.evaluation import THRESHOLDS, boundary_scores, grid_jaccards, model_masks
from ..metrics.rows import append_row, provenance, write_rows
from ..training.checkpoints import newest_whole
from ..training.encoders import ATTENTION_WEIGHT, PAPER_ENCODER, new_model
from ..training.trainer import TRAINING_DEFAULTS, lesion_trainer
from .baselines import BASELINES, new_baseline
from .cost import count_parameters, multiply_adds
from .tables import find_rows, read_results

SYSTEMS = (*BASELINES, "efp", "efp_nano")
ENCODER = "tf_efficientnet_lite0"
LEARNING_RATES = (2e-4, 6e-4, 2e-3)  # the search of every system; its encoder has ENCODER_SHARE of it
ENCODER_SHARE = 0.3
COUNTS = ["tp", "fp", "fn", "tn"]  # columns of an image's pixels


@dataclass(frozen=True)
class Track:
    """What all systems of a ranking share. Two tracks are never ranked together."""

    pretrained: bool
    image_size: int
    epochs: int
    search_size: int
    search_epochs: int


TRACKS = {
    "pretrained": Track(pretrained=True, image_size=192, epochs=12, search_size=128, search_epochs=2),
    # smaller and shorter, to choose between variants of EFP, with the first track's learning rate
    "small": Track(pretrained=True, image_size=128, epochs=10, search_size=128, search_epochs=2),
    "scratch": Track(pretrained=False, image_size=128, epochs=20, search_size=96, search_epochs=3),
    # the same as "scratch", but a quarter of the images is spoilt: EFP at a U-Net's cost
    "wide": Track(pretrained=False, image_size=128, epochs=20, search_size=96, search_epochs=3),
}

FILE_NAME = str.maketrans({" ": "-", ":": "to", ",": None})

SUPERVISED, WIDE = "supervised attention", "wide, supervised attention"
# EFP with one thing changed, but `WIDE`: name → fields of `EFPConfig`, encoder or image size
ABLATIONS = {
    "no cross-scale": {"use_cross_scale": False},
    "no attention": {"use_spatial_attention": False},
    "plain pyramid": {"use_cross_scale": False, "use_spatial_attention": False},
    "Dice alone": {"bce_weight": 0.0},
    "BCE alone": {"dice_weight": 0.0},
    "Dice 2 : BCE 1": {"dice_weight": 2.0},
    "Dice 1 : BCE 2": {"bce_weight": 2.0},
    "64 channels, 3x3": {"pyramid_size": 64, "cross_scale_kernel_size": 3},  # the design that was tried before
    SUPERVISED: {"attention_weight": ATTENTION_WEIGHT},
    # the paper's encoder at about the multiply-adds of U-Net; for the track "wide"
    WIDE: {
        "hidden_sizes": (32, 128, 256, 512),
        "depths": (2, 2, 3, 2),
        "attention_weight": ATTENTION_WEIGHT,
    },
    "lite2": {"encoder": "tf_efficientnet_lite2"},
    "256": {"image_size": 256},
    "384": {"image_size": 384},
}

# the variants that belong to a track; the others can be asked for by name
VARIANTS = {
    "pretrained": tuple(name for name in ABLATIONS if name not in (SUPERVISED, WIDE)),
    "small": (SUPERVISED, "no attention", "plain pyramid"),
    "scratch": (),
    "wide": (WIDE,),
}


@dataclass(frozen=True)
class Run:
    """One training: a system in a track with a seed; `variant` is a key of `ABLATIONS` or empty."""

    track: str
    system: str
    seed: int = 0
    variant: str = ""

    @property
    def name(self) -> str:
        words = (self.track, self.system, self.variant.translate(FILE_NAME), f"seed{self.seed}")
        return "-".join(word for word in words if word)

    @property
    def changes(self) -> dict:
        return ABLATIONS[self.variant] if self.variant else {}

    @property
    def image_size(self) -> int:
        return self.changes.get("image_size", TRACKS[self.track].image_size)


def new_system(run: Run) -> PreTrainedModel:
    """The untrained model of a run."""
    pretrained = TRACKS[run.track].pretrained
    changes = {name: value for name, value in run.changes.items() if name != "image_size"}
    if run.system in BASELINES:
        encoder = ENCODER if pretrained or run.system == "maskformer" else None
        return new_baseline(run.system, encoder, pretrained)
    encoder = changes.pop("encoder", ENCODER if pretrained else PAPER_ENCODER)
    return new_model(encoder, pretrained=pretrained, nano=run.system == "efp_nano", **changes)


class CoreSeconds(TrainerCallback):
    """Adds the processor time of each epoch to a file, so that it is right for a resumed run on a busy machine, too."""

    def __init__(self, path: Path):
        self.path = path

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.start = time.process_time()

    def on_epoch_end(self, args, state, control, **kwargs):
        with self.path.open("a") as file:
            file.write(f"{int(state.epoch + 0.5)} {time.process_time() - self.start:.1f}\n")

    def total(self) -> float:
        """Seconds of all epochs; of one that ran twice because a run was stopped, the last."""
        seconds = dict(line.split() for line in self.path.read_text().splitlines())
        return sum(map(float, seconds.values()))


def train_system(
    run: Run,
    data: DatasetDict,
    output: Path,
    learning_rate: float,
    image_size: int,
    epochs: int,
    keep_best: bool = True,
    **settings,
) -> tuple[PreTrainedModel, dict[str, float]]:
    """
    Train one system, or go on where it was stopped; → the model of the best epoch by validation J (without `keep_best`
    of the last one) and `jaccard` of validation at the model's size, `core_seconds`.
    """
    set_seed(run.seed)
    output.mkdir(parents=True, exist_ok=True)
    model = new_system(run).to(memory_format=torch.channels_last)
    rules = {} if keep_best else {"eval_strategy": "no", "load_best_model_at_end": False}
    arguments = TrainingArguments(
        **{
            **TRAINING_DEFAULTS,
            "output_dir": str(output),
            "num_train_epochs": epochs,
            "learning_rate": learning_rate,
            "seed": run.seed,
            "disable_tqdm": True,
            **rules,
            **settings,
        }
    )
    processor = EFPImageProcessor(size={"height": image_size, "width": image_size})
    trainer = lesion_trainer(model, processor, data, arguments, ENCODER_SHARE * learning_rate)
    core_seconds = CoreSeconds(output / "core_seconds.txt")
    trainer.add_callback(core_seconds)
    resume, _ = newest_whole(output)
    trainer.train(resume_from_checkpoint=resume and str(resume))
    score = trainer.evaluate()
    return model.eval(), {"jaccard": score["eval_jaccard"], "core_seconds": core_seconds.total()}


def search_learning_rate(run: Run, data: DatasetDict, results: Path, runs: Path, settings: dict) -> float:
    """The rate with the best validation J after a short training; the seed 0 speaks for all seeds and variants."""
    track, path = TRACKS[run.track], results / "learning_rates.csv"
    searched = "pretrained" if track.pretrained else "scratch"
    sizes = {"image_size": track.search_size, "epochs": track.search_epochs}
    key = {"track": searched, "system": run.system, **sizes}
    for rate in LEARNING_RATES:
        if len(find_rows(read_results(path, missing_ok=True), **key, learning_rate=rate)):
            continue
        output, row = runs / f"search-{searched}-{run.system}-{rate}", provenance()
        base, size = Run(searched, run.system), track.search_size
        _, score = train_system(base, data, output, rate, size, track.search_epochs, keep_best=False, **settings)
        append_row(path, {**row, **key, "learning_rate": rate, "validation_jaccard": round(score["jaccard"], 4)})
        shutil.rmtree(output)
        print(f"{run.track} {run.system}: rate {rate}, validation J {score['jaccard']:.4f}", flush=True)
    tried = find_rows(read_results(path), **key)
    return float(tried.loc[tried["validation_jaccard"].idxmax(), "learning_rate"])


def measure_system(run: Run, data: DatasetDict, data_name: str, split_seed: int, results: Path, runs: Path, **settings):
    """
    Train, choose the threshold on validation, read the test split once, and append what came out to `comparison.csv`.

    Args:
        results, runs: folders of the rows and of the trainings.
        settings: of `TrainingArguments`.
    """
    track, output = TRACKS[run.track], runs / run.name
    rate = search_learning_rate(run, data, results, runs, settings)
    row = provenance()
    model, trained = train_system(run, data, output, rate, run.image_size, track.epochs, **settings)
    processor = EFPImageProcessor(size={"height": run.image_size, "width": run.image_size})
    processor.threshold, validation_jaccard = choose_threshold(model, processor, data["validation"])
    model.save_pretrained(output / "model")
    processor.save_pretrained(output / "model")

    image_scores = results / "comparison" / f"{run.name}.csv"
    write_rows(score_images(model, processor, data["test"]), image_scores)
    images = read_results(image_scores)
    scores = summarize(images[COUNTS].to_numpy(), images["hd95"], images["boundary_f1"])
    append_row(
        results / "comparison.csv",
        {
            **row,
            "data": data_name,
            "split_seed": split_seed,
            "track": run.track,
            "system": run.system,
            "variant": run.variant,
            "seed": run.seed,
            "image_size": run.image_size,
            "epochs": track.epochs,
            "images_seen": track.epochs * len(data["train"]),
            "learning_rate": rate,
            "precision": "bf16" if settings.get("bf16") else "float32",
            "parameters": count_parameters(model),
            "multiply_adds": multiply_adds(model, run.image_size),
            "core_minutes": round(trained["core_seconds"] / 60, 1),
            "threshold": processor.threshold,
            "validation_jaccard": round(validation_jaccard, 4),
            "images": len(images),
            **{name: round(value, 6) for name, value in scores.items()},
        },
    )
    for checkpoint in output.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    print(f"{run.name}: validation J {validation_jaccard:.4f}, test J {scores['jaccard']:.4f}", flush=True)


def choose_threshold(model: PreTrainedModel, processor: EFPImageProcessor, validation: Dataset) -> tuple[float, float]:
    """The threshold with the highest mean J on validation, at the masks' own size, and that J."""
    tried = grid_jaccards(validation, model, processor, THRESHOLDS, regions=(False,))
    threshold = max(THRESHOLDS, key=lambda value: tried[value, False])
    return threshold, tried[threshold, False]


def score_images(model: PreTrainedModel, processor: EFPImageProcessor, dataset: Dataset) -> list[dict]:
    """A row an image: `image_id`, its pixels `tp`, `fp`, `fn`, `tn`, `hd95`, `boundary_f1`, at the mask's own size."""
    rows = []
    for image_id, mask, truth in model_masks(dataset, model, processor):
        counts = dict(zip(COUNTS, confusion_counts(mask, truth).tolist(), strict=True))
        boundary = {name: round(value, 6) for name, value in boundary_scores(mask, truth).items()}
        rows.append({"image_id": image_id, **counts, **boundary})
    return rows


def read_counts(path: Path) -> np.ndarray:
    """`(num_images, 4)`: TP, FP, FN, TN of each image of a file with the rows of [`score_images`]."""
    return read_results(path)[COUNTS].to_numpy()
