"""Trainer beside a bare loop over tensors in memory."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainingArguments

from ...image_processing_efp import EFPImageProcessor
from ...training.encoders import new_model
from ...training.trainer import TRAINING_DEFAULTS, lesion_trainer
from ..comparison import ENCODER
from .turns import median_and_spread, seconds_of, spread_columns

BARE_LOOP = "bare loop"


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
    """The Trainer of `efp train` with its defaults, for some steps and without evaluation."""
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
