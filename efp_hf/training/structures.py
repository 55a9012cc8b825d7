"""Training of dermoscopic structures: a trained lesion network learns them, and its lesion mask stays what it was."""

import copy
from zlib import crc32

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import EvalPrediction

from ..configuration_efp import MULTI_LABEL
from ..data.files import as_boolean_mask
from ..data.structures import SHARES
from ..image_processing_efp import EFPImageProcessor, check_sizes, to_upright_rgb
from ..inference.task import class_names_of, is_lesion
from ..lesion.structures import LABELS, LESION, STRUCTURES
from ..metrics.scores import jaccard
from ..metrics.structures import COLUMN_OF_LESION, THRESHOLDS, best_thresholds, pooled_jaccard, structure_score
from ..modeling_efp import EFPForSegmentation
from .trainer import LesionTrainer, counts_of
from .transform import LesionTransform, decoded

IMAGES_OF_AN_EPOCH = 0.5  # share of the images, drawn by their structures
START_THRESHOLD = 0.5
ADDED_LEVELS = 2  # F1 and F2, at strides 4 and 8 of EFP's own backbone
STRUCTURE_DEFAULTS = {"metric_for_best_model": "structure_score"}  # of `TrainingArguments`


def with_structures(
    model: EFPForSegmentation, freeze: bool = True, num_added_levels: int | None = None, shared_size: int = 0
) -> EFPForSegmentation:
    """
    The network with a decoder for `STRUCTURES`, a copy of its own with new classifiers, and with `LABELS` that overlap;
    or itself where it has them. Prompts are left out: a click does not say which structure it means.

    Args:
        num_added_levels: that come to the new decoder from a copy of the beginning of the encoder; by default
            `ADDED_LEVELS` where the encoder is frozen, and none where it learns itself.
        shared_size: sides at which the lesion's encoder goes on reading the image, where structures need a larger one.
        freeze: nothing but the new decoder will learn: the lesion's logits stay bit for bit.

    Raises:
        ValueError: a network that is not for lesions.
    """
    if not model.config.labels_overlap:
        if not is_lesion(model.config):
            raise ValueError(f"`model` must be one for lesions, got one of {model.config.num_labels} labels.")
        config = copy.deepcopy(model.config)
        config.problem_type = MULTI_LABEL
        config.id2label = dict(enumerate(LABELS))
        config.label2id = {name: label for label, name in enumerate(LABELS)}
        config.num_added_labels = len(STRUCTURES)
        config.num_added_levels = ADDED_LEVELS * freeze if num_added_levels is None else num_added_levels
        config.shared_size = shared_size if config.num_added_levels else 0
        config.prompt_size = 0
        config.attention_weight = 0.0  # a map that is taught that nothing is there would shut the level
        # the structures' logits have no temperature: the one of the lesion was fitted to its logits
        config.temperature = [model.config.temperature] + [1.0] * len(STRUCTURES)
        added = EFPForSegmentation(config).to(model.device)
        own, start = added.state_dict(), model.state_dict()
        for name in own:
            source = name.removeprefix("added_")
            if own[name].shape == start[source].shape:
                own[name] = start[source]
        added.load_state_dict(own)
        model = added
    if class_names_of(model.config) != LABELS:
        found = ", ".join(class_names_of(model.config))
        raise ValueError(f"`model` must have the labels {', '.join(LABELS)}, got {found}.")
    model.requires_grad_(not freeze)
    for part in (model.added_encoder, model.added_decoder):
        if part is not None:
            part.requires_grad_(True)
    return model


def with_thresholds_for(processor: EFPImageProcessor, thresholds: list[float] | None = None) -> EFPImageProcessor:
    """A processor for `LABELS`, from one for lesions, whose threshold stays the lesion's; the structures' are given."""
    processor = copy.deepcopy(processor)
    for name in ("threshold", "jaccard_temperature"):
        value = getattr(processor, name)
        of_lesion = value[0] if isinstance(value, list | tuple) else value
        of_structures = [START_THRESHOLD if name == "threshold" else 1.0] * len(STRUCTURES)
        setattr(processor, name, [of_lesion, *of_structures])
    if thresholds is not None:
        processor.threshold = [processor.threshold[0], *thresholds]
    processor.labels_overlap, processor.largest_region = True, False
    processor.prompted_jaccard_temperature = None
    return processor


class StructureTransform(LesionTransform):
    """As [`LesionTransform`], of rows with a mask a structure: `labels` are `(num_labels, height, width)`."""

    def __call__(self, rows: dict[str, list]) -> dict[str, torch.Tensor]:
        images, stacks = [], []
        columns = [COLUMN_OF_LESION if label == LESION else label for label in LABELS]
        for number, image_id in enumerate(rows["image_id"]):
            image = np.array(to_upright_rgb(decoded(rows["image"][number], image_id)))
            masks = [
                as_boolean_mask(decoded(rows[column][number], image_id), image_id).astype(np.uint8)
                for column in columns
            ]
            for mask in masks:
                check_sizes(image_id, image.shape[:2], mask.shape)
            if self.augmentation is not None:
                self.augmentation.set_random_seed(crc32(f"{self.seed}:{self.epoch.item()}:{image_id}".encode()))
                augmented = self.augmentation(image=image, masks=masks)
                image, masks = augmented["image"], augmented["masks"]
            images.append(image)
            stacks.append(np.stack(masks))
        return dict(self.processor(images, stacks, input_data_format="channels_last", return_tensors="pt"))


class RareStructures(Sampler):
    """
    A part of the images in each epoch, drawn without replacement, those with rare structures more often: an image's
    weight is 1 / √frequency of its rarest structure, and that of an image without any is the smallest of these.

    The draw depends on `seed` and the epoch alone, so that a resumed run goes on with the same images.

    Args:
        shares: of the image's pixels, one a structure, `(num_images, num_structures)`.
    """

    def __init__(self, shares: np.ndarray, seed: int, part: float = IMAGES_OF_AN_EPOCH):
        is_there = np.asarray(shares) > 0
        rarity = 1 / np.sqrt(np.maximum(is_there.mean(0), 1 / len(is_there)))
        weights = (is_there * rarity).max(1)
        self.weights = torch.from_numpy(np.maximum(weights, rarity.min()))
        self.num_images = max(1, round(part * len(is_there)))
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_images

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        yield from torch.multinomial(self.weights, self.num_images, generator=generator).tolist()


class StructureScore:
    """
    For `compute_metrics`, from counts at each of `THRESHOLDS`: at the thresholds of [`best_thresholds`] the official
    Jaccard of each structure, their mean, the micro-average and `structure_score`; and the lesion's J at 0.5.
    """

    def __init__(self, classes: tuple[str, ...] = LABELS):
        self.batches = []

    def __call__(self, evaluated: EvalPrediction, compute_result: bool = False) -> dict[str, float]:
        self.batches.append(torch.as_tensor(evaluated.predictions).cpu().numpy())
        if not compute_result:
            return {}
        counts, self.batches = np.concatenate(self.batches), []  # (num_images, num_thresholds, num_labels, 4)
        of_lesion, of_structures = counts[:, :, 0], counts[:, :, 1:]
        thresholds, shares = best_thresholds(of_structures)
        jaccards = pooled_jaccard(shares)
        return {
            "jaccard": float(jaccard(of_lesion[:, THRESHOLDS.index(0.5)]).mean()),
            "micro_jaccard": float(pooled_jaccard(shares.sum(0))),
            "mean_jaccard": float(jaccards.mean()),
            "structure_score": structure_score(shares),
            **{f"jaccard_{name}": float(value) for name, value in zip(STRUCTURES, jaccards, strict=True)},
            **{f"threshold_{name}": value for name, value in zip(STRUCTURES, thresholds, strict=True)},
        }


def logits_to_structure_counts(logits: torch.Tensor | tuple, labels: torch.Tensor) -> torch.Tensor:
    """
    For `preprocess_logits_for_metrics`: logits and labels `(batch_size, num_labels, height, width)` → counts at each of
    `THRESHOLDS`, `(batch_size, num_thresholds, num_labels, 4)`.
    """
    logits = logits[0] if isinstance(logits, tuple) else logits
    probabilities = logits.float().sigmoid()
    pairs = [(probabilities[:, label], labels[:, label]) for label in range(logits.shape[1])]
    counts = [
        torch.stack([counts_of(found > threshold, truth == 1, truth <= 1) for found, truth in pairs], dim=1)
        for threshold in THRESHOLDS
    ]
    return torch.stack(counts, dim=1)


class StructureTrainer(LesionTrainer):
    """
    Trains a network of [`with_structures`] on the splits of `load_isic(task="structures")`. What is frozen keeps its
    batch statistics, too; each epoch sees the images of [`RareStructures`].
    """

    transform_class = StructureTransform
    score_class = StructureScore
    to_counts = staticmethod(logits_to_structure_counts)

    @classmethod
    def check_labels(cls, model, data) -> None:
        if SHARES not in data["train"].features or class_names_of(model.config) != LABELS:
            raise ValueError(
                f"`model` and `data` must be of {', '.join(LABELS)}. Pass with_structures(model) and "
                'load_isic(root, task="structures").'
            )

    def _get_train_sampler(self, train_dataset=None):
        shares = np.array((train_dataset or self.train_dataset).with_format(None)[SHARES])
        return RareStructures(shares, self.args.seed)

    def compute_loss(self, model, inputs, return_outputs: bool = False, **kwargs):
        network = self.accelerator.unwrap_model(model)
        if model.training:
            for part in network.children():
                part.train(any(parameter.requires_grad for parameter in part.parameters()))
        return super().compute_loss(model, inputs, return_outputs, **kwargs)

    def finish(self, scores: dict[str, float]) -> None:
        """The best thresholds of the validation split go to the processor."""
        thresholds = [scores[f"eval_threshold_{name}"] for name in STRUCTURES]
        self.processing_class = with_thresholds_for(self.processing_class, thresholds)
