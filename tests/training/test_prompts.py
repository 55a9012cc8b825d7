"""Training with prompts."""

import numpy as np
import pytest
import torch
from conftest import tiny_model
from transformers import TrainingArguments

from efp_hf import EFPImageProcessor
from efp_hf.configuration_efp import PADDING
from efp_hf.data.folders import load_isic
from efp_hf.training import prompts as training
from efp_hf.training.prompts import (
    PromptedLesionTrainer,
    simulate_prompts,
    with_prompt_encoder,
    without_prompt_encoder,
)
from efp_hf.training.trainer import TRAINING_DEFAULTS, lesion_trainer

PROCESSOR = EFPImageProcessor(size={"height": 32, "width": 32})


def test_a_network_gets_a_prompt_encoder_and_a_copy_of_its_decoder_that_change_nothing():
    model = tiny_model()
    prompted = with_prompt_encoder(model).eval()
    image = torch.randn(1, 3, 32, 32)
    clicks = {"input_points": torch.tensor([[[3.0, 4.0]]]), "input_labels": torch.tensor([[1]])}
    assert torch.equal(prompted(image).logits, model(image).logits)
    assert torch.equal(prompted(image, **clicks).logits, model(image).logits)
    learn = {name for name, parameter in prompted.named_parameters() if parameter.requires_grad}
    names = dict(prompted.named_parameters())
    assert learn == {name for name in names if name.startswith(("prompt_encoder.", "prompted_decoder."))}
    assert with_prompt_encoder(prompted) is prompted


def test_a_network_without_its_prompts_is_the_one_that_it_was():
    model = tiny_model()
    prompted = with_prompt_encoder(model)
    plain = without_prompt_encoder(prompted)
    weights = model.state_dict()
    assert plain.config.prompt_size == 0 < prompted.config.prompt_size
    assert weights.keys() == plain.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in plain.state_dict().items())
    assert all(parameter.requires_grad for parameter in plain.parameters())
    assert without_prompt_encoder(plain) is plain


LESIONS = torch.zeros(64, 32, 32, dtype=torch.int64)
LESIONS[1:, 8:20, 10:24] = 1  # the first truth is empty


def test_simulated_prompts_are_valid_and_of_all_kinds():
    model = with_prompt_encoder(tiny_model()).eval()
    embeddings = model.get_image_embeddings(torch.randn(64, 3, 32, 32))
    found = simulate_prompts(model, embeddings, LESIONS, np.random.default_rng(0))
    model(image_embeddings=embeddings, **found)  # refuses what is not valid
    has_box = found["input_boxes"][:, 0] != PADDING
    num_clicks = (found["input_labels"] != PADDING).sum(1)
    assert 0.15 < has_box.float().mean() < 0.55
    assert num_clicks.max() == training.MAX_CLICKS
    assert (has_box | (num_clicks > 0))[1:].all()
    assert not has_box[0] and (found["input_labels"][0] != 1).all()
    unclicked = num_clicks == 0
    assert found["input_masks"][unclicked].eq(0).all() and found["input_masks"][~unclicked].ne(0).any()


def test_the_first_click_corrects_the_mask_without_prompts_or_that_of_the_box(monkeypatch):
    """As in use; the prompted decoder without any prompt may find another mask."""
    monkeypatch.setattr(training, "draw_prompts", lambda truths, random: (BOXES, np.ones(2, int)))
    model = tiny_model(prompt_size=4)
    embeddings = model.get_image_embeddings(torch.randn(2, 3, 32, 32))
    found = simulate_prompts(model, embeddings, LESIONS[1:3])["input_masks"]
    assert torch.equal(found[0], model(image_embeddings=embeddings).logits[0, 1:])
    boxed = model(image_embeddings=embeddings, input_boxes=torch.from_numpy(BOXES)).logits[:, 1:]
    torch.testing.assert_close(found[1], boxed[1])
    assert not torch.allclose(found[0], boxed[0])


BOXES = np.array([[PADDING] * 4, [4, 5, 20, 30]], np.float32)


def test_masks_that_are_right_get_no_click(monkeypatch):
    model = with_prompt_encoder(tiny_model()).eval()
    embeddings = model.get_image_embeddings(torch.randn(2, 3, 32, 32))
    right = (model(image_embeddings=embeddings).logits[:, 1] > 0).long()
    found = simulate_prompts(model, embeddings, right)
    assert found["input_labels"].eq(PADDING).all() and found["input_masks"].eq(0).all()
    assert model(image_embeddings=embeddings, labels=right, **found).loss.isfinite()


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


def test_training_moves_prompt_encoder_and_prompted_decoder_and_nothing_else(tmp_path, synthetic_root):
    torch.manual_seed(0)
    model = with_prompt_encoder(tiny_model())
    image = torch.randn(1, 3, 32, 32)
    automatic = model.eval()(image).logits
    before = {name: value.clone() for name, value in model.state_dict().items()}
    arguments = training_arguments(tmp_path)
    trainer = lesion_trainer(model, PROCESSOR, load_isic(synthetic_root), arguments, 1e-3, PromptedLesionTrainer)
    trainer.train()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert all(name.startswith(("prompt_encoder.", "prompted_decoder.")) and "running" not in name for name in changed)
    assert {"prompt_encoder.after.0.weight", "prompted_decoder.pyramid.responses.0.0.weight"} < changed
    assert {"prompted_decoder.fusion.projections.3.weight", "prompted_decoder.classifier.bias"} < changed
    assert torch.equal(model.eval()(image).logits, automatic)


@pytest.mark.parametrize("learning", ["encoder", "decoder"])
def test_prompts_are_not_left_behind_by_a_network_that_learns(tmp_path, synthetic_root, learning):
    data, arguments = load_isic(synthetic_root), training_arguments(tmp_path)
    model = with_prompt_encoder(tiny_model())
    lesion_trainer(model, PROCESSOR, data, arguments, 1e-3, PromptedLesionTrainer)
    getattr(model, learning).requires_grad_(True)
    with pytest.raises(ValueError, match="`model` must take no prompts .*, got prompt_size=32. .*without_prompt"):
        lesion_trainer(model, PROCESSOR, data, arguments, 1e-3)
    lesion_trainer(without_prompt_encoder(model), PROCESSOR, data, arguments, 1e-3)


def test_the_epoch_with_the_best_mask_after_one_click_is_kept(tmp_path, synthetic_root):
    settings = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1}
    arguments = training_arguments(tmp_path, **settings, load_best_model_at_end=True, learning_rate=0.1)
    data = load_isic(synthetic_root)
    model = with_prompt_encoder(tiny_model())
    trainer = lesion_trainer(model, PROCESSOR, data, arguments, 1e-3, PromptedLesionTrainer)
    trainer.train()
    scores = [entry["eval_jaccard"] for entry in trainer.state.log_history if "eval_jaccard" in entry]
    assert scores[0] != scores[1]
    trainer.args.seed = 5  # no click of the validation is drawn
    assert trainer.evaluate()["eval_jaccard"] == max(scores)
    plain = lesion_trainer(model, PROCESSOR, data, arguments, 1e-3)
    assert plain.evaluate()["eval_jaccard"] != max(scores)
