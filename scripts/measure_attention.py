"""How well the attention maps M_s of trained EFPs find the lesion, on validation.

    python scripts/measure_attention.py RUN/model … --data ISIC_FOLDER

For each checkpoint a row in `results/attention.csv`: the area under the ROC curve of M_s for the lesion on each level,
over all pixels of all images at the level's resolution (lesion: more than half of the pixel), and J with each M_s
replaced by its mean over positions.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats

from efp_hf.card import weights_digest
from efp_hf.isic import load_lesions
from efp_hf.metrics import confusion_counts, jaccard
from efp_hf.prediction import load_checkpoint
from efp_hf.results import append_row, provenance
from efp_hf.scoring import model_masks, row_batches


def area_under_curve(values: np.ndarray, lesion: np.ndarray) -> float:
    return float(stats.mannwhitneyu(values[lesion], values[~lesion]).statistic / (lesion.sum() * (~lesion).sum()))


@torch.inference_mode()
def areas(dataset, model, processor) -> list[float]:
    maps, truths = [[] for _ in range(4)], [[] for _ in range(4)]
    for rows, masks in row_batches(dataset, 16):
        images = [row["image"] for row in rows]
        labels = processor(images, [mask.astype(np.uint8) for mask in masks], return_tensors="pt")
        outputs = model(labels["pixel_values"], output_attentions=True)
        for level, attention in enumerate(outputs.attentions):
            share = F.adaptive_avg_pool2d(labels["labels"][:, None].float(), attention.shape[-2:])
            maps[level].append(attention.numpy().ravel())
            truths[level].append(share.numpy().ravel() > 0.5)
    return [area_under_curve(np.concatenate(m), np.concatenate(t)) for m, t in zip(maps, truths, strict=True)]


def mean_jaccard(dataset, model, processor) -> float:
    return float(np.mean([jaccard(confusion_counts(mask, truth)) for _, mask, truth in model_masks(dataset, model, processor)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--data", required=True)
    arguments = parser.parse_args()
    validation = load_lesions(arguments.data)["validation"]
    for checkpoint in arguments.checkpoints:
        row = provenance()
        model, processor = load_checkpoint(checkpoint)
        found = areas(validation, model, processor)
        plain = mean_jaccard(validation, model, processor)
        for attention in model.attention:  # M_s before its sigmoid, replaced by the logit of the mean of M_s
            attention.convolution.register_forward_hook(
                lambda module, inputs, scores: scores.sigmoid().mean((2, 3), keepdim=True).logit().expand_as(scores)
            )
        flat = mean_jaccard(validation, model, processor)
        append_row(
            "results/attention.csv",
            {
                **row,
                "run": checkpoint.parent.name,
                "weights": weights_digest(checkpoint),
                "split": "validation",
                "images": len(validation),
                **{f"area_{level}": round(area, 4) for level, area in enumerate(found, start=1)},
                "jaccard": round(plain, 4),
                "jaccard_of_mean_attention": round(flat, 4),
            },
        )
        print(checkpoint.parent.name, [round(area, 3) for area in found], round(plain, 4), round(flat, 4), flush=True)


if __name__ == "__main__":
    main()
