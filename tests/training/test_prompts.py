"""Training with prompts."""

import numpy as np
import pytest
import torch
from conftest import tiny_model
from transformers import TrainingArguments

from efp_hf import EFPImageProcessor
from efp_hf.data.folders import load_isic
from efp_hf.training import prompts as training
from efp_hf.training.prompts import PromptedLesionTrainer, simulate_prompts, with_prompt_encoder
from efp_hf.training.trainer import TRAINING_DEFAULTS, lesion_trainer

PROCESSOR = EFPImageProcessor(size={"height": 32, "width": 32})


def test_a_network_gets_a_prompt_encoder_that_changes_nothing():
    model = tiny_model()
    prompted = with_prompt_encoder(model).eval()
    image = torch.randn(1, 3, 32, 32)
    clicks = {"input_points": torch.tensor([[[3.0, 4.0]]]), "input_labels": torch.tensor([[1]])}
    assert torch.equal(prompted(image, **clicks).logits, model(image).logits)
    assert not any(parameter.requires_grad for parameter in prompted.encoder.parameters())
    assert all(parameter.requires_grad for parameter in prompted.pyramid.parameters())
    assert with_prompt_encoder(prompted) is prompted


def test_simulated_prompts_are_valid_and_of_all_kinds(monkeypatch):
    model = with_prompt_encoder(tiny_model()).eval()
    labels = torch.zeros(64, 32, 32, dtype=torch.int64)
    labels[:, 8:20, 10:24] = 1
    labels[0] = 0  # an empty truth
    embeddings = model.get_image_embeddings(torch.randn(64, 3, 32, 32))
    found, is_prompted = simulate_prompts(model, embeddings, labels, np.random.default_rng(0))
    model(image_embeddings=embeddings, **found)  # refuses what is not valid
    has_box = found["input_boxes"][:, 0] != -10
    num_clicks = (found["input_labels"] != -10).sum(1)
    assert 0.15 < has_box.float().mean() < 0.55
    assert num_clicks.max() == training.MAX_CLICKS
    assert torch.equal(is_prompted, has_box | (num_clicks > 0))
    assert (~is_prompted).float().mean() > 0.08
    assert not has_box[0] and (found["input_labels"][0] != 1).all()
    unclicked = num_clicks == 0
    assert found["input_masks"][unclicked].eq(0).all() and found["input_masks"][~unclicked].ne(0).any()


def training_arguments(folder, **settings) -> TrainingArguments:
    defaults = {
        "output_dir": str(folder),
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "use_cpu": True,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "warmup_steps": 0,
    }
    return TrainingArguments(**{**TRAINING_DEFAULTS, **defaults, **settings})


@pytest.mark.parametrize("share, truth_counts", [(1, False), (0, True)])
def test_images_without_a_prompt_learn_the_masks_of_the_start(
    tmp_path, synthetic_root, monkeypatch, share, truth_counts
):
    monkeypatch.setattr(training, "NONE_SHARE", share)
    monkeypatch.setattr(training, "BOX_SHARE", 0)
    model = with_prompt_encoder(tiny_model())
    data = load_isic(synthetic_root)
    trainer = lesion_trainer(model, PROCESSOR, data, training_arguments(tmp_path), 1e-3, PromptedLesionTrainer)
    model.train()
    inputs = {"pixel_values": torch.randn(2, 3, 32, 32), "labels": torch.zeros(2, 32, 32, dtype=torch.int64)}
    inputs["labels"][:, 8:20, 10:24] = 1
    loss = trainer.compute_loss(model, dict(inputs))
    other = trainer.compute_loss(model, {**inputs, "labels": 1 - inputs["labels"]})
    assert (loss != other) == truth_counts


def test_training_moves_pyramid_and_prompts_but_neither_encoder_nor_statistics(tmp_path, synthetic_root):
    torch.manual_seed(0)
    model = with_prompt_encoder(tiny_model())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    arguments = training_arguments(tmp_path)
    trainer = lesion_trainer(model, PROCESSOR, load_isic(synthetic_root), arguments, 1e-3, PromptedLesionTrainer)
    trainer.train()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith("encoder.") or "running" in name for name in changed)
    assert any(name.startswith("prompt_encoder.after") for name in changed)
    assert any(name.startswith("pyramid.") for name in changed)
    assert trainer.evaluate()["eval_jaccard"] == pytest.approx(trainer.evaluate()["eval_jaccard"])
