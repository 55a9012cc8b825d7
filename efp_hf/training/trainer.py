"""A Trainer for EFP: augmented examples, two learning rates, and a score that never gathers logits."""

from collections.abc import Callable
from functools import partial
from zlib import crc32

import numpy as np
import torch
from datasets import DatasetDict
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from ..data.augmentation import training_augmentation
from ..data.files import as_boolean_mask
from ..image_processing_efp import EFPImageProcessor, to_upright_rgb
from ..metrics import dice, jaccard, threshold_jaccard

TRAINING_DEFAULTS = {  # of `TrainingArguments`, for every script that trains
    "num_train_epochs": 30,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 32,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,  # below 1: a share of all steps
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "jaccard",
    "logging_steps": 20,
    "report_to": "none",
    "remove_unused_columns": False,
    "batch_eval_metrics": True,
    "seed": 0,
    "dataloader_pin_memory": torch.cuda.is_available(),
}


class LesionTransform:
    """
    Rows of `image`, `mask`, `image_id` → `pixel_values` and `labels`, for `Dataset.with_transform`.

    The mask must be a 0/255 mask of its image's size. Image and mask are augmented together at the dataset's size, then
    resized by the same processor that serves inference. How an image is changed depends on `seed`, `epoch` and its id
    alone: not on the number of processes, nor on whether the run was resumed.
    """

    def __init__(self, processor: EFPImageProcessor, augment: bool = False, seed: int = 0, other_cameras: bool = False):
        self.processor = processor
        self.augmentation = training_augmentation(other_cameras) if augment else None
        self.seed = seed
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by data-loading processes, too

    def __call__(self, rows: dict[str, list]) -> dict[str, torch.Tensor]:
        images, masks = [], []
        for image, mask, image_id in zip(rows["image"], rows["mask"], rows["image_id"], strict=True):
            image = np.array(to_upright_rgb(image))
            mask = as_boolean_mask(mask, image_id).astype(np.uint8)
            if image.shape[:2] != mask.shape:
                raise ValueError(
                    f"{image_id}: image is {image.shape[0]}×{image.shape[1]}, mask {mask.shape[0]}×{mask.shape[1]}. "
                    "A mask must have the size of its image."
                )
            if self.augmentation is not None:
                self.augmentation.set_random_seed(crc32(f"{self.seed}:{self.epoch.item()}:{image_id}".encode()))
                augmented = self.augmentation(image=image, mask=mask)
                image, mask = augmented["image"], augmented["mask"]
            images.append(image)
            masks.append(mask)
        return dict(self.processor(images, masks, input_data_format="channels_last", return_tensors="pt"))


class AugmentationEpoch(TrainerCallback):
    """Tells a [`LesionTransform`] which epoch begins."""

    def __init__(self, transform: LesionTransform):
        self.transform = transform

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.transform.epoch.fill_(int(state.epoch + 1e-6))  # a resumed epoch begins at a fraction


def parameter_groups(
    model: PreTrainedModel, encoder_learning_rate: float, learning_rate: float, weight_decay: float
) -> list[dict]:
    """
    Encoder and the rest with their own learning rates; no weight decay on biases and batch norms. Where the encoder is
    a backbone, a last block that is EFP's own belongs to the rest.
    """
    groups = {}
    in_encoder = {id(parameter) for parameter in getattr(model.encoder, "backbone", model.encoder).parameters()}
    for parameter in model.parameters():
        is_encoder, decays = id(parameter) in in_encoder, parameter.ndim > 1
        group = groups.setdefault(
            (is_encoder, decays),
            {
                "params": [],
                "lr": encoder_learning_rate if is_encoder else learning_rate,
                "weight_decay": weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


class WeightAverage(TrainerCallback):
    """
    Exponential moving average of the weights, which is what is evaluated, saved and left in the model in the end.

    After each step `average = decay · average + (1 - decay) · weight`, with a smaller decay in the first steps. The
    averages lie in the optimizer's state, so that they are saved and resumed with it; at the end of an epoch weights
    and averages change places, at the beginning of the next they change back. Batch norms' running statistics are
    averages themselves and stay as they are.

    Args:
        decay: in (0, 1); 0.998 averages over the last 500 steps.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"`decay` must be between 0 and 1, got {decay}. Use for example 0.998.")
        self.decay = decay
        self.num_updates = 0
        optimizer.register_step_post_hook(self.update)

    @torch.no_grad()
    def update(self, optimizer: torch.optim.Optimizer, *_) -> None:
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        for state, parameter in states_of(optimizer):
            if "average" in state:
                state["average"].lerp_(parameter, 1 - decay)
            else:
                state["average"] = parameter.clone()

    @torch.no_grad()
    def change_places(self, optimizer: torch.optim.Optimizer) -> None:
        for state, parameter in states_of(optimizer):
            if "average" in state:  # not before the first step
                weight = parameter.clone()
                parameter.copy_(state["average"])
                state["average"].copy_(weight)

    def on_epoch_begin(self, args, state, control, optimizer, **kwargs):
        self.num_updates = state.global_step
        self.change_places(optimizer)

    def on_epoch_end(self, args, state, control, optimizer, **kwargs):
        self.change_places(optimizer)


def states_of(optimizer: torch.optim.Optimizer) -> list[tuple[dict, torch.nn.Parameter]]:
    """The optimizer's state of each parameter, and the parameter."""
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    return [(optimizer.state[parameter], parameter) for parameter in parameters]


def depthwise_in_float32(model: torch.nn.Module) -> None:
    """
    Keep depthwise convolutions in float32 where autocast computes the rest in bfloat16.

    On processors their bfloat16 backward pass is slower than the float32 one and takes back what the other layers gain.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.groups == module.in_channels > 1:
            module.forward = partial(without_autocast, module.forward)


def without_autocast(forward: Callable[[torch.Tensor], torch.Tensor], feature_map: torch.Tensor) -> torch.Tensor:
    with torch.autocast(feature_map.device.type, enabled=False):
        return forward(feature_map.float())


def logits_to_counts(logits: torch.Tensor | tuple, labels: torch.Tensor) -> torch.Tensor:
    """
    For `preprocess_logits_for_metrics`: logits `(batch_size, 1, height, width)` and labels → TP, FP, FN, TN of each
    image at the size of the labels, `(batch_size, 4)`; ignored pixels (neither 0 nor 1) are in none of them.
    """
    logits = logits[0] if isinstance(logits, tuple) else logits
    mask = logits.squeeze(1) > 0  # probability 0.5
    lesion, skin = labels == 1, labels == 0
    counts = (mask & lesion, mask & skin, ~mask & lesion, ~mask & skin)
    return torch.stack([count.sum((1, 2)) for count in counts], dim=1)


class SegmentationScore:
    """For `compute_metrics` with `batch_eval_metrics=True`: per-image means of J, TJ and Dice over all batches."""

    def __init__(self):
        self.counts = []

    def __call__(self, evaluated: EvalPrediction, compute_result: bool = False) -> dict[str, float]:
        self.counts.append(torch.as_tensor(evaluated.predictions).cpu().numpy())
        if not compute_result:
            return {}
        counts, self.counts = np.concatenate(self.counts), []
        return {
            "jaccard": float(jaccard(counts).mean()),
            "threshold_jaccard": float(threshold_jaccard(counts).mean()),
            "dice": float(dice(counts).mean()),
        }


def lesion_trainer(
    model: PreTrainedModel,
    processor: EFPImageProcessor,
    data: DatasetDict,
    arguments: TrainingArguments,
    encoder_learning_rate: float,
    average_decay: float | None = None,
    other_cameras: bool = False,
) -> Trainer:
    """
    A Trainer for EFP, or a model with the same interface, on the splits `train` (augmented) and `validation` of
    [`load_lesions`].

    AdamW with `encoder_learning_rate` for the encoder and `arguments.learning_rate` for the rest; J, TJ and Dice of
    the validation split from counts that are made on the device, so that logits are never gathered. `arguments` needs
    `remove_unused_columns=False` and `batch_eval_metrics=True`. With `average_decay` averaged weights are evaluated and
    saved ([`WeightAverage`]); `other_cameras` is that of [`training_augmentation`].

    Raises:
        ValueError: arguments without these two, a model with other than two labels, or weights that are averaged but
            saved or evaluated within an epoch.
    """
    if model.config.num_labels != 2:
        raise ValueError(f"`model` must have two labels, skin and lesion, to be scored, got {model.config.num_labels}.")
    if arguments.remove_unused_columns or not arguments.batch_eval_metrics:
        raise ValueError(
            "`arguments` must have remove_unused_columns=False and batch_eval_metrics=True, got "
            f"{arguments.remove_unused_columns} and {arguments.batch_eval_metrics}."
        )
    augmented = LesionTransform(processor, augment=True, seed=arguments.seed, other_cameras=other_cameras)
    groups = parameter_groups(model, encoder_learning_rate, arguments.learning_rate, arguments.weight_decay)
    optimizer = torch.optim.AdamW(groups)
    callbacks = [AugmentationEpoch(augmented)]
    if average_decay:
        if "steps" in (arguments.save_strategy, arguments.eval_strategy):
            raise ValueError("`arguments` must save and evaluate by the epoch where `average_decay` is given.")
        callbacks.append(WeightAverage(optimizer, average_decay))
    if arguments.bf16 and arguments.use_cpu:
        depthwise_in_float32(model)
    return Trainer(
        model,
        arguments,
        train_dataset=data["train"].with_transform(augmented),
        eval_dataset=data["validation"].with_transform(LesionTransform(processor)),
        processing_class=processor,
        compute_metrics=SegmentationScore(),
        preprocess_logits_for_metrics=logits_to_counts,
        optimizers=(optimizer, None),
        callbacks=callbacks,
    )
