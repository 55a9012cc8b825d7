import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_prompted_model
from transformers import EvalPrediction, TrainingArguments

from efp_hf import EFPImageProcessor
from efp_hf.data.structures import SHARES
from efp_hf.lesion.structures import LABELS, STRUCTURES
from efp_hf.metrics.structures import THRESHOLDS
from efp_hf.training.structures import (
    RareStructures,
    StructureScore,
    StructureTrainer,
    StructureTransform,
    logits_to_structure_counts,
    with_structures,
    with_thresholds_for,
)
from efp_hf.training.trainer import TRAINING_DEFAULTS, lesion_trainer

PROCESSOR = EFPImageProcessor(size={"height": 32, "width": 32}, threshold=0.4, jaccard_temperature=0.75)


@pytest.fixture(scope="module")
def data(structure_root):
    from efp_hf.data.folders import load_isic

    return load_isic(structure_root, task="structures")


def lesion_logits(model) -> torch.Tensor:
    torch.manual_seed(5)
    with torch.no_grad():
        logits = model.eval()(torch.randn(2, 3, 32, 48)).logits
    return logits[:, 1] if logits.shape[1] == 2 else logits[:, 0]


def test_the_lesion_stays_bit_for_bit_and_the_new_decoder_starts_as_its_copy():
    model = tiny_prompted_model(temperature=1.9)
    added = with_structures(model)
    assert torch.equal(lesion_logits(added), lesion_logits(model))
    assert tuple(added.config.id2label.values()) == LABELS
    for new, old in ((added.added_decoder, model.decoder), (added.added_encoder, model.encoder)):
        start = old.state_dict()
        for name, tensor in new.state_dict().items():
            assert torch.equal(tensor, start[name]) != name.startswith("classifier."), name
    assert with_structures(added) is added


def test_a_network_of_several_classes_is_refused():
    with pytest.raises(ValueError, match="`model` must be one for lesions, got one of 3 labels"):
        with_structures(tiny_model(num_labels=3))


def test_the_lesions_settings_stay_in_the_processor():
    processor = with_thresholds_for(PROCESSOR, [0.1, 0.2, 0.3, 0.6, 0.7])
    assert processor.threshold == [0.4, 0.1, 0.2, 0.3, 0.6, 0.7]
    assert processor.jaccard_temperature == [0.75, 1, 1, 1, 1, 1]
    assert PROCESSOR.threshold == 0.4
    assert with_thresholds_for(processor).threshold == [0.4, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_image_and_all_masks_are_changed_together(data):
    transform = StructureTransform(with_thresholds_for(PROCESSOR), augment=True)
    rows = [row for row in data["train"] if row[SHARES][2] > 0]
    batch = transform({name: [row[name] for row in rows] for name in data["train"].column_names})
    assert batch["labels"].shape == (len(rows), 6, 32, 32) and set(batch["labels"].unique().tolist()) == {0, 1}
    brightness = batch["pixel_values"].mean(1)
    dark = [
        float(image[mask > 0].mean() - image.mean())
        for image, mask in zip(brightness, batch["labels"][:, 0], strict=True)
    ]
    assert np.mean(dark) < -0.2  # the drawn lesions are darker than the skin: the masks moved with them
    again = StructureTransform(with_thresholds_for(PROCESSOR), augment=True)(
        {name: [row[name] for row in rows] for name in data["train"].column_names}
    )
    assert torch.equal(again["labels"], batch["labels"])


def test_rare_structures_are_drawn_more_often_and_no_image_twice():
    shares = np.zeros((200, 5))
    shares[:120, 3], shares[:6, 4], shares[20:70, 0] = 0.1, 0.01, 0.02
    sampler = RareStructures(shares, seed=3)
    drawn = []
    for epoch in range(30):
        sampler.set_epoch(epoch)
        numbers = list(sampler)
        assert len(numbers) == len(set(numbers)) == len(sampler) == 100
        drawn.append(np.bincount(numbers, minlength=200))
    often = np.mean(drawn, axis=0)
    assert often[:6].mean() > 0.9 > often[20:70].mean() > often[120:].mean() > 0.3
    again = RareStructures(shares, seed=3)
    again.set_epoch(29)
    assert list(again) == numbers


def test_scores_of_counts_at_the_best_threshold_of_each_structure():
    logits = torch.full((2, 6, 4, 4), -9.0)
    labels = torch.zeros(2, 6, 4, 4)
    labels[0, :, :2] = 1
    labels[1, :, :, 3] = 255
    logits[:, 0, :2] = 9.0  # of the lesion half is false in the second image
    logits[0, 1:, :2] = torch.tensor(0.25).logit()
    logits[1, 1:, 0] = torch.tensor(0.22).logit()
    score = StructureScore()
    for start in range(2):
        counts = logits_to_structure_counts(logits[start : start + 1], labels[start : start + 1])
        assert counts.shape == (1, len(THRESHOLDS), 6, 4)
        scores = score(EvalPrediction(counts, labels), compute_result=start == 1)
    assert scores["jaccard"] == 0.5
    assert scores["micro_jaccard"] == scores["mean_jaccard"] == pytest.approx((8 / 16) / (8 / 16 + 3 / 12))
    assert scores["threshold_streaks"] < 0.22
    assert counts[0, 0].sum(-1).tolist() == [12] * 6


def test_training_moves_the_new_decoder_and_nothing_else(tmp_path, data):
    torch.manual_seed(1)
    model = with_structures(tiny_model())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lesion = lesion_logits(model)
    arguments = TrainingArguments(
        **TRAINING_DEFAULTS | {"max_steps": 3, "per_device_train_batch_size": 8, "learning_rate": 1e-2},
        output_dir=tmp_path,
        use_cpu=True,
    )
    trainer = lesion_trainer(model, with_thresholds_for(PROCESSOR), data, arguments, 0.0, StructureTrainer)
    trainer.train()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith(("added_decoder.", "added_encoder."))}
    assert torch.equal(lesion_logits(model), lesion)
    trainer.finish(trainer.evaluate())
    thresholds = trainer.processing_class.threshold
    assert thresholds[0] == 0.4 and len(thresholds) == 6 and set(thresholds[1:]) <= set(THRESHOLDS)


def test_each_epoch_of_a_trainer_draws_other_images(tmp_path, data):
    arguments = TrainingArguments(**TRAINING_DEFAULTS, output_dir=tmp_path, use_cpu=True)
    model = with_structures(tiny_model())
    trainer = lesion_trainer(model, with_thresholds_for(PROCESSOR), data, arguments, 0.0, StructureTrainer)
    loader = trainer.get_train_dataloader()
    drawn = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        drawn.append([position for batch in loader.batch_sampler for position in batch])
    assert len(drawn[0]) == len(data["train"]) // 2
    assert drawn[0] == drawn[2] != drawn[1]


def test_where_the_encoder_learns_all_does(tmp_path, data):
    model = with_structures(tiny_model(), freeze=False)
    assert model.added_encoder is None
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    arguments = TrainingArguments(
        **TRAINING_DEFAULTS | {"max_steps": 2, "save_strategy": "no", "load_best_model_at_end": False},
        output_dir=tmp_path,
        use_cpu=True,
    )
    lesion_trainer(model, with_thresholds_for(PROCESSOR), data, arguments, 1e-3, StructureTrainer).train()
    assert [name for name, tensor in model.named_parameters() if torch.equal(tensor, before[name])] == []


def test_data_without_structures_is_refused(tmp_path, data):
    arguments = TrainingArguments(**TRAINING_DEFAULTS, output_dir=tmp_path, use_cpu=True)
    lesions = data.select_columns(["image", "mask", "image_id"])
    with pytest.raises(ValueError, match="`model` and `data` must be of lesion, globules, .* Pass with_structures"):
        lesion_trainer(with_structures(tiny_model()), PROCESSOR, lesions, arguments, 0.0, StructureTrainer)
    assert len(STRUCTURES) == 5
