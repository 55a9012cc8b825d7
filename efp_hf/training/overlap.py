"""Training of labels that overlap: examples, draws, counts and scores of each."""

import copy
from zlib import crc32

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import EvalPrediction

from ..data.files import as_boolean_mask
from ..data.overlap import COLUMN, label_names
from ..image_processing_efp import EFPImageProcessor, check_sizes, to_upright_rgb
from ..inference.task import class_names_of, labels_overlap, num_first_labels
from ..metrics.overlap import THRESHOLDS, best_thresholds, overlap_score, pooled_jaccard
from ..metrics.scores import jaccard
from .trainer import LesionTrainer, counts_of
from .transform import LesionTransform, decoded

IMAGES_OF_AN_EPOCH = 0.5  # share of the images, drawn by their labels
START_THRESHOLD = 0.5
BEST_METRIC = "overlap_score"  # that chooses the epoch


def with_thresholds(
    processor: EFPImageProcessor, num_labels: int, num_first: int = 0, thresholds: list[float] | None = None
) -> EFPImageProcessor:
    """
    A processor for labels that overlap, of which the `num_first` keep the settings that it has; the `thresholds` of the
    others are given, or `START_THRESHOLD`.
    """
    processor = copy.deepcopy(processor)
    num_others = num_labels - num_first
    for name, start in (("threshold", START_THRESHOLD), ("jaccard_temperature", 1.0)):
        value = getattr(processor, name)
        values = list(value) if isinstance(value, list | tuple) else [value]
        setattr(processor, name, values[:num_first] + [start] * num_others)
    if thresholds is not None:
        processor.threshold = [*processor.threshold[:num_first], *thresholds]
    processor.labels_overlap, processor.largest_region = True, False
    processor.prompted_jaccard_temperature = None
    return processor


class OverlapTransform(LesionTransform):
    """As [`LesionTransform`], of rows with a mask a label: `labels` are `(num_labels, height, width)`."""

    def __init__(self, *arguments, labels: tuple[str, ...], **options):
        super().__init__(*arguments, **options)
        self.label_columns = labels

    def __call__(self, rows: dict[str, list]) -> dict[str, torch.Tensor]:
        images, stacks = [], []
        for number, image_id in enumerate(rows["image_id"]):
            image = np.array(to_upright_rgb(decoded(rows["image"][number], image_id)))
            pictures = [rows[label][number] for label in self.label_columns]
            masks = [
                np.zeros(image.shape[:2], np.uint8)
                if picture is None
                else as_boolean_mask(decoded(picture, image_id), image_id).astype(np.uint8)
                for picture in pictures
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


class RareLabels(Sampler):
    """
    A part of the images in each epoch, drawn without replacement, those with rare labels more often: an image's
    weight is 1 / √frequency of its rarest label, and that of an image without any is the smallest of these. Where all
    weigh the same, all are drawn.

    The draw depends on `seed` and the epoch alone, so that a resumed run goes on with the same images.

    Args:
        is_there: which labels an image shows, boolean `(num_images, num_labels)`.
    """

    def __init__(self, is_there: np.ndarray, seed: int, part: float = IMAGES_OF_AN_EPOCH):
        rarity = 1 / np.sqrt(np.maximum(is_there.mean(0), 1 / len(is_there)))
        weights = (is_there * rarity).max(1)
        self.weights = torch.from_numpy(np.maximum(weights, rarity.min()))
        is_same = bool((self.weights == self.weights[0]).all())
        self.num_images = len(is_there) if is_same else max(1, round(part * len(is_there)))
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_images

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        yield from torch.multinomial(self.weights, self.num_images, generator=generator).tolist()


class OverlapScore:
    """
    For `compute_metrics`, from counts at each of `THRESHOLDS`: at the thresholds of [`best_thresholds`] the official
    Jaccard of each label, their mean, the micro-average and `overlap_score`.

    `jaccard` is the mean. Where `num_first` labels were there before the others ([`num_first_labels`]) it is the mean J
    of the first of them at 0.5, and they take no part in the rest.
    """

    def __init__(self, labels: tuple[str, ...], num_first: int = 0):
        self.batches = []
        self.labels, self.num_first = labels, num_first

    def __call__(self, evaluated: EvalPrediction, compute_result: bool = False) -> dict[str, float]:
        self.batches.append(torch.as_tensor(evaluated.predictions).cpu().numpy())
        if not compute_result:
            return {}
        counts, self.batches = np.concatenate(self.batches), []  # (num_images, num_thresholds, num_labels, 4)
        names = self.labels[self.num_first :]
        thresholds, shares = best_thresholds(counts[:, :, self.num_first :])
        jaccards = pooled_jaccard(shares)
        of_first = counts[:, THRESHOLDS.index(START_THRESHOLD), 0]
        return {
            "jaccard": float(jaccard(of_first).mean()) if self.num_first else float(jaccards.mean()),
            "micro_jaccard": float(pooled_jaccard(shares.sum(0))),
            "mean_jaccard": float(jaccards.mean()),
            "overlap_score": overlap_score(shares),
            **{f"jaccard_{name}": float(value) for name, value in zip(names, jaccards, strict=True)},
            **{f"threshold_{name}": value for name, value in zip(names, thresholds, strict=True)},
        }


def logits_to_label_counts(logits: torch.Tensor | tuple, labels: torch.Tensor) -> torch.Tensor:
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


class OverlapTrainer(LesionTrainer):
    """
    Trains a network whose labels overlap on data of these labels. What is frozen keeps its batch statistics, too; each
    epoch sees the images of [`RareLabels`].
    """

    transform_class = OverlapTransform
    to_counts = staticmethod(logits_to_label_counts)

    @classmethod
    def transform_options(cls, config) -> dict:
        return {"labels": class_names_of(config)}

    @classmethod
    def score_of(cls, config) -> OverlapScore:
        return OverlapScore(class_names_of(config), num_first_labels(config))

    @classmethod
    def check_labels(cls, model, data) -> None:
        labels, own = label_names(data), class_names_of(model.config)
        if not labels or not labels_overlap(model.config) or labels != own:
            raise ValueError(
                f"`model` must have the labels of the data, {', '.join(labels) or 'none that overlap'}, got "
                f"{', '.join(own)}. Pass efp_hf.training.head.with_classes(model, labels, overlap=True), or "
                "with_structures(model) for those of ISIC 2018."
            )

    def _get_train_sampler(self, train_dataset=None):
        shown = (train_dataset or self.train_dataset).with_format(None)[COLUMN]
        first = num_first_labels(self.model.config)
        labels = range(first, self.model.config.num_labels)
        return RareLabels(np.array([[label in of_one for label in labels] for of_one in shown]), self.args.seed)

    def compute_loss(self, model, inputs, return_outputs: bool = False, **kwargs):
        network = self.accelerator.unwrap_model(model)
        if model.training:
            for part in network.children():
                part.train(any(parameter.requires_grad for parameter in part.parameters()))
        return super().compute_loss(model, inputs, return_outputs, **kwargs)

    def finish(self, scores: dict[str, float]) -> None:
        """The best thresholds of the validation split go to the processor."""
        names, first = class_names_of(self.model.config), num_first_labels(self.model.config)
        thresholds = [scores[f"eval_threshold_{name}"] for name in names[first:]]
        self.processing_class = with_thresholds(self.processing_class, len(names), first, thresholds)
