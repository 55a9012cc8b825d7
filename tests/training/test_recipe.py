"""Hugging Face's own recipe for semantic segmentation, written as its guide writes it, gives our scores."""

import numpy as np
import pytest
import torch
from conftest import tiny_model
from torch import nn
from transformers import Trainer, TrainingArguments

from efp_hf import EFPImageProcessor
from efp_hf.data.folders import load_isic
from efp_hf.inference.checkpoint import segment
from efp_hf.metrics import confusion_counts, jaccard, pooled_scores


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, synthetic_root):
    """A trained model, its processor, the validation rows, and what the recipe's `compute_metrics` said of them."""
    data = load_isic(synthetic_root)
    processor = EFPImageProcessor(size={"height": 64, "width": 64})  # of the drawings: nothing is resized

    def transforms(batch):
        return processor(list(batch["image"]), list(batch["mask"]), return_tensors="pt")

    def compute_metrics(evaluated):
        logits, labels = torch.from_numpy(evaluated.predictions), evaluated.label_ids
        logits = nn.functional.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
        masks = logits.argmax(dim=1).numpy()
        overlap = [
            [((masks == c) & (labels == c)).sum((1, 2)), ((masks == c) | (labels == c)).sum((1, 2))] for c in (0, 1)
        ]
        pooled = [float(hit.sum() / union.sum()) for hit, union in overlap]
        hit, union = overlap[1]
        return {"mean_iou": float(np.mean(pooled)), "iou_lesion": pooled[1], "jaccard": float((hit / union).mean())}

    arguments = TrainingArguments(
        output_dir=tmp_path_factory.mktemp("recipe"),
        learning_rate=2e-2,
        per_device_train_batch_size=7,
        num_train_epochs=6,
        remove_unused_columns=False,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    torch.manual_seed(0)
    trainer = Trainer(
        model=tiny_model().train(),
        args=arguments,
        train_dataset=data["train"].with_transform(transforms),
        eval_dataset=data["validation"].with_transform(transforms),
        compute_metrics=compute_metrics,
    )
    trainer.train()
    return trainer.model.eval(), processor, data["validation"], trainer.evaluate()


def test_arg_max_of_the_recipe_finds_the_lesions(recipe):
    assert recipe[3]["eval_jaccard"] > 0.5


def test_scores_of_the_recipe_are_ours(recipe):
    model, processor, rows, score = recipe
    masks = [result["segmentation"].numpy() for result in segment(list(rows["image"]), model, processor)]
    counts = np.array(
        [confusion_counts(mask, np.asarray(truth) == 255) for mask, truth in zip(masks, rows["mask"], strict=True)]
    )
    assert score["eval_jaccard"] == pytest.approx(jaccard(counts).mean(), abs=1e-6)
    assert score["eval_mean_iou"] == pytest.approx(pooled_scores(counts)["pooled_mean_iou"], abs=1e-6)
    assert score["eval_iou_lesion"] == pytest.approx(pooled_scores(counts)["pooled_iou"], abs=1e-6)


def test_cross_entropy_of_the_recipe_has_a_gradient_for_every_parameter(recipe):
    model = tiny_model().train()
    logits = model(torch.randn(2, 3, 32, 32)).logits
    nn.functional.cross_entropy(logits, torch.randint(0, 2, (2, 32, 32))).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
