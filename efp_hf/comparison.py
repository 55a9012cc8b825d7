"""The paper's comparison: every system on the same images, with the same recipe and the same number of images seen."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments, set_seed

from .baselines import SYSTEMS as BASELINES
from .baselines import new_baseline
from .encoders import PAPER_ENCODER, new_model
from .image_processing_efp import EFPImageProcessor
from .metrics import confusion_counts
from .results import read_rows
from .scoring import THRESHOLDS, boundary_scores, grid_jaccards, model_masks
from .training import TRAINING_DEFAULTS, lesion_trainer

EFP, NANO = "efp", "efp_nano"
SYSTEMS = (*BASELINES, EFP, NANO)
ENCODER = "tf_efficientnet_lite0"
LEARNING_RATES = (2e-4, 6e-4, 2e-3)  # the search of every system; its encoder has ENCODER_SHARE of it
ENCODER_SHARE = 0.3


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
    # smaller and shorter, to choose between variants of EFP; with the learning rate that the first track found
    "small": Track(pretrained=True, image_size=128, epochs=10, search_size=128, search_epochs=2),
    "scratch": Track(pretrained=False, image_size=128, epochs=20, search_size=96, search_epochs=3),
}

FILE_NAME = str.maketrans({" ": "-", ":": "to", ",": None})

# EFP with one thing changed: name → fields of `EFPConfig`, encoder or image size. Those of 64 channels are the design
# that was tried before, and that with a context.
ABLATIONS = {
    "no cross-scale": {"use_cross_scale": False},
    "no attention": {"use_spatial_attention": False},
    "plain pyramid": {"use_cross_scale": False, "use_spatial_attention": False},
    "Dice alone": {"bce_weight": 0.0},
    "BCE alone": {"dice_weight": 0.0},
    "Dice 2 : BCE 1": {"dice_weight": 2.0},
    "Dice 1 : BCE 2": {"bce_weight": 2.0},
    "64 channels, 3x3": {"pyramid_size": 64, "cross_scale_kernel_size": 3},
    "64 channels, 3x3, global context": {
        "pyramid_size": 64,
        "cross_scale_kernel_size": 3,
        "global_context_size": 128,
    },
    "global context": {"global_context_size": 128},
    "scores from zero": {"zero_init_scores": True},
    "attention 0.1": {"zero_init_scores": True, "attention_weight": 0.1},
    "attention 0.1 soft": {"zero_init_scores": True, "attention_weight": 0.1, "attention_softening": 0.5},
    "attention 0.03": {"zero_init_scores": True, "attention_weight": 0.03},
    "attention 0.1 fading": {"zero_init_scores": True, "attention_weight": 0.1, "fading": True},
    "attention 0.3 fading": {"zero_init_scores": True, "attention_weight": 0.3, "fading": True},
    "attention 0.3 floor 0.5": {"zero_init_scores": True, "attention_weight": 0.3, "attention_floor": 0.5},
    "attention 0.1 floor 0.5": {"zero_init_scores": True, "attention_weight": 0.1, "attention_floor": 0.5},
    "attention 1 fading": {"zero_init_scores": True, "attention_weight": 1.0, "fading": True},
    "lite2": {"encoder": "tf_efficientnet_lite2"},
    "256": {"image_size": 256},
    "384": {"image_size": 384},
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
    changes = {name: value for name, value in run.changes.items() if name not in ("image_size", "fading")}
    if run.system in (EFP, NANO):
        encoder = changes.pop("encoder", ENCODER if pretrained else PAPER_ENCODER)
        return new_model(encoder, pretrained=pretrained, nano=run.system == NANO, **changes)
    encoder = ENCODER if pretrained or run.system == "maskformer" else None
    return new_baseline(run.system, encoder, pretrained)


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


class FadingAttention(TrainerCallback):
    """Lets λ3 fall from its value to 0 in a straight line over the training."""

    def __init__(self, model: PreTrainedModel):
        self.config, self.weight = model.config, model.config.attention_weight

    def on_step_begin(self, args, state, control, **kwargs):
        self.config.attention_weight = self.weight * (1 - state.global_step / state.max_steps)


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
    if run.changes.get("fading"):
        trainer.add_callback(FadingAttention(model))
    trainer.train(resume_from_checkpoint=any(output.glob("checkpoint-*/trainer_state.json")) or None)
    score = trainer.evaluate()
    return model.eval(), {"jaccard": score["eval_jaccard"], "core_seconds": core_seconds.total()}


def choose_threshold(model: PreTrainedModel, processor: EFPImageProcessor, validation: Dataset) -> tuple[float, float]:
    """The threshold with the highest mean J on validation, at the masks' own size, and that J."""
    tried = grid_jaccards(validation, model, processor, THRESHOLDS, regions=(False,))
    threshold = max(THRESHOLDS, key=lambda value: tried[value, False])
    return threshold, tried[threshold, False]


def score_images(model: PreTrainedModel, processor: EFPImageProcessor, dataset: Dataset) -> list[dict]:
    """A row an image: `image_id`, its pixels `tp`, `fp`, `fn`, `tn`, `hd95`, `boundary_f1`, at the mask's own size."""
    rows = []
    for image_id, mask, truth in model_masks(dataset, model, processor):
        counts = dict(zip(("tp", "fp", "fn", "tn"), confusion_counts(mask, truth).tolist(), strict=True))
        boundary = {name: round(value, 6) for name, value in boundary_scores(mask, truth).items()}
        rows.append({"image_id": image_id, **counts, **boundary})
    return rows


def read_counts(path: Path) -> np.ndarray:
    """`(num_images, 4)`: TP, FP, FN, TN of each image of a file with the rows of [`score_images`]."""
    return np.array([[int(row[name]) for name in ("tp", "fp", "fn", "tn")] for row in read_rows(path)])


def multiply_adds(model: PreTrainedModel, image_size: int) -> int:
    """Of one image of `image_size`², counted by PyTorch (convolutions and matrix products)."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.zeros(1, 3, image_size, image_size))
    return counter.get_total_flops() // 2
