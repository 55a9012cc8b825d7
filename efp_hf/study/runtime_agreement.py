"""An exported model beside its checkpoint on the same images."""

import copy

import numpy as np
import torch
from datasets import Dataset
from transformers.exporters.base import ExportedModel

from ..image_processing_efp import EFPImageProcessor, to_upright_rgb
from ..metrics import confusion_counts, jaccard
from ..metrics.evaluation import row_batches
from ..modeling_efp import EFPForSegmentation


@torch.inference_mode()
def compare_runtimes(
    dataset: Dataset,
    reference: tuple[EFPForSegmentation, EFPImageProcessor],
    exported: tuple[ExportedModel, EFPImageProcessor],
    batch_size: int = 8,
) -> dict[str, float]:
    """
    How far an exported model is from its checkpoint on the rows of a dataset, each with its own processor, masks at the
    truth's size.

    Returns:
        `jaccard_between` their masks (mean over the images) and `lowest_jaccard_between`; the
        `largest_logit_difference`, and how far the logits of either are at most from the checkpoint's in float64,
        `reference_from_float64` and `exported_from_float64`: where these are of the same size, the difference is
        rounding; and the mean J of either with the truth, `jaccard_reference`, `jaccard_exported`.
    """
    exact_model = copy.deepcopy(reference[0]).double()
    between, with_truth, differences = [], [], []
    for rows, truths, _ in row_batches(dataset, batch_size):
        images = [to_upright_rgb(row["image"]) for row in rows]
        logits, masks = [], []
        for model, processor in (reference, exported):
            outputs = model(**processor(images, return_tensors="pt").to(model.device, model.dtype))
            found = processor.post_process_semantic_segmentation(outputs, [truth.shape for truth in truths])
            logits.append(outputs.logits.float().cpu())
            masks.append([mask.cpu().numpy().astype(bool) for mask in found])
        exact = exact_model(**reference[1](images, return_tensors="pt").to(exact_model.device, torch.float64)).logits
        pairs = ((logits[0], logits[1]), (logits[0], exact.cpu()), (logits[1], exact.cpu()))
        differences.append([float((one - other).abs().max()) for one, other in pairs])
        between += [confusion_counts(mask, other) for mask, other in zip(*masks, strict=True)]
        with_truth += [
            [confusion_counts(mask, truth) for mask in pair] for *pair, truth in zip(*masks, truths, strict=True)
        ]
    means = jaccard(np.array(with_truth)).mean(axis=0)
    difference, reference_from_float64, exported_from_float64 = np.max(differences, axis=0)
    return {
        "jaccard_between": float(jaccard(np.array(between)).mean()),
        "lowest_jaccard_between": float(jaccard(np.array(between)).min()),
        "largest_logit_difference": float(difference),
        "reference_from_float64": float(reference_from_float64),
        "exported_from_float64": float(exported_from_float64),
        "jaccard_reference": float(means[0]),
        "jaccard_exported": float(means[1]),
    }
