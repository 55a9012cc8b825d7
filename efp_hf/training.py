"""A Trainer for EFP: augmented examples, two learning rates, and a score that never gathers logits."""

from zlib import crc32

import numpy as np
import torch
from datasets import DatasetDict
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments

from .augmentation import training_augmentation
from .image_io import as_boolean_mask
from .image_processing_efp import EFPImageProcessor, to_upright_rgb
from .metrics import dice, jaccard, threshold_jaccard
from .modeling_efp import EFPForSegmentation


class LesionTransform:
    """
    Rows of `image`, `mask`, `image_id` → `pixel_values` and `labels`, for `Dataset.with_transform`.

    The mask must be a 0/255 mask of its image's size. Image and mask are augmented together at the dataset's size, then
    resized by the same processor that serves inference. How an image is changed depends on `seed`, `epoch` and its id
    alone: not on the number of processes, nor on whether the run was resumed.
    """

    def __init__(self, processor: EFPImageProcessor, augment: bool = False, seed: int = 0):
        self.processor = processor
        self.augmentation = training_augmentation() if augment else None
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
    model: EFPForSegmentation, encoder_learning_rate: float, learning_rate: float, weight_decay: float
) -> list[dict]:
    """Encoder and decoder with their own learning rates; no weight decay on biases and batch norms."""
    groups = {}
    for name, parameter in model.named_parameters():
        is_encoder, decays = name.startswith("encoder."), parameter.ndim > 1
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
    model: EFPForSegmentation,
    processor: EFPImageProcessor,
    data: DatasetDict,
    arguments: TrainingArguments,
    encoder_learning_rate: float,
) -> Trainer:
    """
    A Trainer on the splits `train` (augmented) and `validation` of [`load_lesions`].

    AdamW with `encoder_learning_rate` for the encoder and `arguments.learning_rate` for the rest; J, TJ and Dice of
    the validation split from counts that are made on the device, so that logits are never gathered. `arguments` needs
    `remove_unused_columns=False` and `batch_eval_metrics=True`.

    Raises:
        ValueError: arguments without these two, or a model with other than two labels.
    """
    if model.config.num_labels != 2:
        raise ValueError(f"`model` must have two labels, skin and lesion, to be scored, got {model.config.num_labels}.")
    if arguments.remove_unused_columns or not arguments.batch_eval_metrics:
        raise ValueError(
            "`arguments` must have remove_unused_columns=False and batch_eval_metrics=True, got "
            f"{arguments.remove_unused_columns} and {arguments.batch_eval_metrics}."
        )
    augmented = LesionTransform(processor, augment=True, seed=arguments.seed)
    groups = parameter_groups(model, encoder_learning_rate, arguments.learning_rate, arguments.weight_decay)
    return Trainer(
        model,
        arguments,
        train_dataset=data["train"].with_transform(augmented),
        eval_dataset=data["validation"].with_transform(LesionTransform(processor)),
        processing_class=processor,
        compute_metrics=SegmentationScore(),
        preprocess_logits_for_metrics=logits_to_counts,
        optimizers=(torch.optim.AdamW(groups), None),
        callbacks=[AugmentationEpoch(augmented)],
    )
