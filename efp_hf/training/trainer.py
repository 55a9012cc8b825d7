"""A Trainer for EFP: augmented examples, two learning rates, and a score that never gathers logits."""

import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import DatasetDict, IterableDataset, IterableDatasetDict
from safetensors import SafetensorError
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import IntervalStrategy

from ..configuration_efp import EFPConfig
from ..data.classes import class_names
from ..data.labels import IGNORED
from ..data.overlap import label_names
from ..image_processing_efp import EFPImageProcessor
from ..inference.task import class_names_of, labels_overlap
from ..loss_efp import efp_loss
from ..metrics import dice, jaccard, threshold_jaccard
from ..metrics.classes import class_scores, mean_of_classes, nan_mean
from .checkpoints import damage, keep_whole_best, remove_checkpoints
from .fingerprint import write_fingerprint
from .memory import keep_freed_memory
from .transform import AugmentationEpoch, LesionStream, LesionTransform, undecoded

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
    "restore_callback_states_from_checkpoint": True,  # the patience of an early stop
    "seed": 0,
    "dataloader_pin_memory": torch.cuda.is_available(),
}
ENCODER_LEARNING_RATE = 3e-4
# Where a checkpoint is trained further on the classes that it knows. For others the rates are those of a new network:
# with these, a trial on three drawn classes ended at half the J
FINE_TUNING_LEARNING_RATE = 3e-4
FINE_TUNING_ENCODER_LEARNING_RATE = 1e-4
FINE_TUNING_PATIENCE = 8  # evaluations without a better score, after which a fine-tuning ends
HEAD_WARM_UP = 0.1  # of the steps, in which a new head learns alone; in the first half of them the rates rise
STREAMING_DEFAULTS = {  # a stream has no epochs that Trainer could count: thirtieths of --max-steps
    "eval_strategy": "steps",
    "eval_steps": 1 / 30,
    "save_strategy": "steps",
    "save_steps": 1 / 30,
}
# of other classes than a start's: in 30 epochs of 45 slices, 90 steps, it learnt next to nothing
NEW_CLASSES_STEPS = 600


def lengthen(arguments: TrainingArguments, num_images: int, given: set[str]) -> bool:
    """
    Give a training whose epochs have few images as many of them as make `NEW_CLASSES_STEPS`, and an evaluation each
    thirtieth of them, or leave one that is as long → whether it was changed. Of the four options that say when it is
    scored and saved, `--eval-strategy` …, those `given` are kept.
    """
    of_step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    epochs = math.ceil(NEW_CLASSES_STEPS / math.ceil(num_images / of_step))
    if epochs <= arguments.num_train_epochs:
        return False
    arguments.num_train_epochs = epochs
    if given & {"--eval-strategy", "--save-strategy"}:  # Transformers has compared all four
        return True
    arguments.eval_strategy = arguments.save_strategy = IntervalStrategy.STEPS
    kept = [name for name in ("eval_steps", "save_steps") if f"--{name.replace('_', '-')}" in given]
    for name in {"eval_steps", "save_steps"} - set(kept):
        setattr(arguments, name, getattr(arguments, kept[0]) if kept else STREAMING_DEFAULTS[name])
    return True


def parameter_groups(
    model: PreTrainedModel, encoder_learning_rate: float, learning_rate: float, weight_decay: float
) -> list[dict]:
    """
    Encoders and the rest with their own learning rates; no weight decay on biases and batch norms. Where the encoder is
    a backbone, a last block that is EFP's own belongs to the rest.
    """
    groups = {}
    encoders = [encoder for encoder in (model.encoder, getattr(model, "added_encoder", None)) if encoder is not None]
    bodies = [getattr(encoder, "backbone", encoder) for encoder in encoders]
    in_encoder = {id(parameter) for body in bodies for parameter in body.parameters()}
    for parameter in (parameter for parameter in model.parameters() if parameter.requires_grad):
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
    For `preprocess_logits_for_metrics`: logits `(batch_size, num_labels, height, width)` and labels → TP, FP, FN, TN of
    each image at the size of the labels, `(batch_size, 4)`; ignored pixels (neither 0 nor 1) are in none of them. Of
    several classes those of each, `(batch_size, num_classes, 4)`, without the pixels that are `IGNORED`.
    """
    logits = logits[0] if isinstance(logits, tuple) else logits
    if logits.shape[1] > 2:
        found, valid = logits.argmax(1), labels != IGNORED
        classes = range(1, logits.shape[1])
        return torch.stack([counts_of(found == label, labels == label, valid) for label in classes], dim=1)
    mask = logits[:, 1] > logits[:, 0]  # probability above 0.5; NaN is no lesion
    lesion = labels == 1
    return counts_of(mask, lesion, lesion | (labels == 0))


def counts_of(mask: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """TP, FP, FN, TN of each of a batch, `(batch_size, 4)`, of the valid pixels."""
    inside, outside = truth & valid, ~truth & valid
    counts = (mask & inside, mask & outside, ~mask & inside, ~mask & outside)
    return torch.stack([count.sum((1, 2)) for count in counts], dim=1)


def logits_to_counts_and_losses(
    logits: torch.Tensor | tuple, labels: torch.Tensor, config: EFPConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    [`logits_to_counts`], and the loss of each image, `(batch_size,)`. Trainer's own `eval_loss` is made of means over
    batches, in which several processes count the images twice that fill up their last batch.
    """
    logits = logits[0] if isinstance(logits, tuple) else logits
    pairs = zip(logits.split(1), labels.split(1), strict=True)
    losses = torch.stack([efp_loss(*pair, **config.loss_arguments()) for pair in pairs])
    return logits_to_counts(logits, labels), losses


class FadingAttentionLoss(TrainerCallback):
    """
    Lets λ3, the weight of the attention maps' own loss, fall to 0 in a straight line: the maps learn the lesion early
    and belong to the mask alone in the end. To the end, it costs J.
    """

    def on_step_begin(self, args, state, control, model, **kwargs):
        model.attention_weight = model.config.attention_weight * (1 - state.global_step / state.max_steps)

    def on_train_end(self, args, state, control, model, **kwargs):
        model.attention_weight = model.config.attention_weight


class HeadWarmUp(TrainerCallback):
    """In the first `HEAD_WARM_UP` of the steps a random head learns alone: it would spoil what leads to it."""

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        if state.global_step < HEAD_WARM_UP * state.max_steps:
            for name, parameter in model.named_parameters():
                if ".classifier." not in name:
                    parameter.grad = None


class RunSettings(TrainerCallback, ExportableState):
    """Keeps the settings of a run in its checkpoints, for [`check_settings`]."""

    def __init__(self, settings: dict[str, str | float | None]):
        self.settings = settings

    def state(self) -> dict:
        return {"args": {"settings": self.settings}, "attributes": {}}


class EarlyStop(EarlyStoppingCallback):
    """A training that it has ended is saved there, and ends at once where it is resumed from there."""

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        super().on_evaluate(args, state, control, metrics, **kwargs)
        control.should_save |= control.should_training_stop


def fine_tuning_callbacks(arguments: TrainingArguments, new_head: bool) -> list[TrainerCallback]:
    """Of a training that starts from a checkpoint: an early stop, where there are scores, and a new head's warm-up."""
    is_scored = arguments.load_best_model_at_end and arguments.eval_strategy != "no"
    patience = FINE_TUNING_PATIENCE * (1 + new_head)  # a new head finds nothing for a while
    stop = [EarlyStop(patience)] if is_scored else []
    return stop + ([HeadWarmUp()] if new_head else [])


class SegmentationScore:
    """
    For `compute_metrics` with `batch_eval_metrics=True`: per-image means of J, TJ and Dice over all batches, and of the
    loss where it comes with the counts. Images without a valid pixel take no part in the loss. Of several `classes` J
    and Dice are the means of the classes', and J of each is there, too.
    """

    def __init__(self, classes: tuple[str, ...] = ()):
        self.batches = []
        self.classes = classes

    def __call__(self, evaluated: EvalPrediction, compute_result: bool = False) -> dict[str, float]:
        found = evaluated.predictions
        found = found if isinstance(found, tuple) else (found,)
        self.batches.append([torch.as_tensor(values).cpu().numpy() for values in found])
        if not compute_result:
            return {}
        (counts, *losses), self.batches = map(np.concatenate, zip(*self.batches, strict=True)), []
        if len(self.classes) > 1:
            of_classes = class_scores(counts, jaccard)
            scores = {
                "jaccard": mean_of_classes(of_classes),
                "dice": mean_of_classes(class_scores(counts, dice)),
                **{
                    f"jaccard_{name}": float(value)
                    for name, value in zip(self.classes, nan_mean(of_classes), strict=True)
                },
            }
            counts = counts[:, 0]
        else:
            scores = {
                "jaccard": float(jaccard(counts).mean()),
                "threshold_jaccard": float(threshold_jaccard(counts).mean()),
                "dice": float(dice(counts).mean()),
            }
        for values in losses:
            scores["loss"] = float(values[counts.any(axis=1)].mean(dtype=np.float64))
        return scores


class BestCheckpoint(TrainerCallback):
    """What a resumed training takes for its best checkpoint is whole."""

    def on_train_begin(self, args, state, control, **kwargs):
        keep_whole_best(state, args)


class LesionTrainer(Trainer):
    """
    Trainer whose checkpoints are whole or, after an error, not there; a killed one's has no state ([`damage`]). They
    carry the `fingerprint` of the images, where one is set: a run may be resumed with others.
    """

    fingerprint: set[tuple[str, str]] | None = None
    # how rows become examples, and what is made of the logits and labels of the validation split
    transform_class = LesionTransform
    to_counts = staticmethod(logits_to_counts)

    @classmethod
    def transform_options(cls, config) -> dict:
        """Arguments of `transform_class` that depend on the model's labels."""
        return {"num_classes": len(class_names_of(config))}

    @classmethod
    def score_of(cls, config) -> Callable:
        """`compute_metrics` for the model's labels."""
        return SegmentationScore(class_names_of(config))

    @classmethod
    def check_labels(cls, model: PreTrainedModel, data: DatasetDict | IterableDatasetDict) -> None:
        """
        Raises:
            ValueError: a model with labels for other classes than the data's, or a class that no mask holds.
        """
        classes, own = label_names(data) or class_names(data), class_names_of(model.config)
        if (
            label_names(data)
            or labels_overlap(model.config)
            or max(1, len(classes)) != len(own)
            or (len(own) > 1 and classes != own)
        ):
            raise ValueError(
                f"`model` must have labels for the classes of the data, {', '.join(classes) or 'one class'}, got "
                f"{', '.join(own)}. Pass efp_hf.training.head.with_classes(model, classes)."
            )
        if len(classes) > 1 and isinstance(data, DatasetDict):
            held = {label for rows in data.values() for labels in rows["classes"] for label in labels}
            absent = [name for label, name in enumerate(classes, start=1) if label not in held]
            if absent:
                raise ValueError(
                    f"No mask holds {', '.join(absent)}. Take the name out of the classes, and number the others anew."
                )

    def finish(self, scores: dict[str, float]) -> None:
        """What the scores of the trained model choose of its processor. Of a lesion `efp calibrate` does it."""

    def _run_epoch(self, **kwargs):
        if self.state.global_step < self.state.max_steps and not self.control.should_training_stop:
            super()._run_epoch(**kwargs)
        else:  # resumed after its last step within an epoch, or after an early stop, Trainer would take steps more
            self.control.should_training_stop = True

    def _finalize_training(self, *arguments, **options):
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:  # of one it would remove the last checkpoint, which says where the training ended
            return super()._finalize_training(*arguments, **options)
        finally:
            self.args.save_total_limit = limit

    def _save_checkpoint(self, model, trial):
        output, step = Path(self.args.output_dir), self.state.global_step
        checkpoint = output / f"checkpoint-{step}"
        if self.args.should_save:
            remove_checkpoints(output, first_step=step)
        self.accelerator.wait_for_everyone()
        for callback in self.callback_handler.callbacks:  # Transformers looks for what a resumed run did not have
            if isinstance(callback, ExportableState):
                self.state.stateful_callbacks.setdefault(type(callback).__name__, {})
        try:
            super()._save_checkpoint(model, trial)
        except BaseException as error:
            free = shutil.disk_usage(output).free
            if damage(checkpoint):
                shutil.rmtree(checkpoint, ignore_errors=True)
            if isinstance(error, OSError | RuntimeError | SafetensorError):  # of torch and safetensors on a full disk
                reason = str(error).splitlines()[0]
                message = f"{checkpoint}: could not be saved, with {free / 1e6:.1f} MB free there ({reason})"
                raise OSError(message) from error
            raise

    def _save(self, output_dir=None, state_dict=None):
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        # before the weights, which are then known as a training's ([`is_of_training`])
        torch.save(self.args, folder / TRAINING_ARGS_NAME)
        super()._save(output_dir, state_dict)
        if self.fingerprint is not None:
            write_fingerprint(folder, self.fingerprint)

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()  # the state, which the first process writes next, says that all is there

    def _load_best_model(self):
        keep_whole_best(self.state, self.args)
        if self.state.best_model_checkpoint is not None:
            super()._load_best_model()


def lesion_trainer(
    model: PreTrainedModel,
    processor: EFPImageProcessor,
    data: DatasetDict | IterableDatasetDict,
    arguments: TrainingArguments,
    encoder_learning_rate: float,
    trainer_class: type["LesionTrainer"] = LesionTrainer,
) -> Trainer:
    """
    A Trainer for EFP, or a model with the same interface, on the splits `train` (augmented) and `validation` of
    [`load_lesions`]. Where they are streamed, `arguments` needs `max_steps`, and strategies of steps.

    AdamW with `encoder_learning_rate` for the encoder and `arguments.learning_rate` for the rest; J, TJ and Dice of
    the validation split from counts that are made on the device, so that logits are never gathered; of several classes
    the means of the classes'. `arguments` needs
    `remove_unused_columns=False` and `batch_eval_metrics=True`.

    Raises:
        ValueError: arguments without these two, a model with labels for other classes than the data's, or one that
            takes prompts and whose other parts learn: its prompt encoder and prompted decoder would no longer fit them.
    """
    trainer_class.check_labels(model, data)
    if getattr(model.config, "prompt_size", 0) and any(
        parameter.requires_grad for part in (model.encoder, model.decoder) for parameter in part.parameters()
    ):
        raise ValueError(
            f"`model` must take no prompts to be trained without them, got prompt_size={model.config.prompt_size}. "
            "Pass efp_hf.training.prompts.without_prompt_encoder(model), or teach them: with_prompt_encoder(model) and "
            "PromptedLesionTrainer."
        )
    if arguments.remove_unused_columns or not arguments.batch_eval_metrics:
        raise ValueError(
            "`arguments` must have remove_unused_columns=False and batch_eval_metrics=True, got "
            f"{arguments.remove_unused_columns} and {arguments.batch_eval_metrics}."
        )
    if arguments.device.type == "cpu":
        keep_freed_memory()
    make_transform = partial(trainer_class.transform_class, processor, **trainer_class.transform_options(model.config))
    augmented = make_transform(augment=True, seed=arguments.seed)
    groups = parameter_groups(model, encoder_learning_rate, arguments.learning_rate, arguments.weight_decay)
    optimizer = torch.optim.AdamW(groups)
    if arguments.push_to_hub:  # what is saved goes to the Hub as it is
        type(model.config).register_for_auto_class()
        type(model).register_for_auto_class("AutoModelForSemanticSegmentation")
        type(processor).register_for_auto_class()
    if arguments.bf16 and arguments.use_cpu:
        depthwise_in_float32(model)
    has_own_loss = not isinstance(model.config, EFPConfig)
    to_score = trainer_class.to_counts
    if to_score is logits_to_counts and not has_own_loss:
        to_score = partial(logits_to_counts_and_losses, config=model.config)
    plain = make_transform()
    if isinstance(data["train"], IterableDataset):
        train_dataset = LesionStream(data["train"], augmented, shuffle_seed=arguments.seed)
        eval_dataset = LesionStream(data["validation"], plain)
    else:
        train_dataset = undecoded(data["train"]).with_transform(augmented)
        eval_dataset = undecoded(data["validation"]).with_transform(plain)
    return trainer_class(
        model,
        arguments,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=processor,
        compute_metrics=trainer_class.score_of(model.config),
        preprocess_logits_for_metrics=to_score,
        optimizers=(optimizer, None),
        callbacks=[AugmentationEpoch(augmented), BestCheckpoint()] + [FadingAttentionLoss()] * (not has_own_loss),
    )
