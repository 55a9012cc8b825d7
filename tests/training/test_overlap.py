import numpy as np
import pytest
import torch
from conftest import CELL_LABELS, tiny_model
from transformers import EvalPrediction, TrainingArguments

from efp_hf import EFPImageProcessor
from efp_hf.configuration_efp import MULTI_LABEL
from efp_hf.data.lesions import load_lesions
from efp_hf.inference.task import class_names_of
from efp_hf.lesion.structures import LABELS
from efp_hf.metrics.overlap import THRESHOLDS
from efp_hf.training.head import has_new_head, with_classes
from efp_hf.training.overlap import (
    OverlapScore,
    OverlapTrainer,
    OverlapTransform,
    RareLabels,
    logits_to_label_counts,
    with_thresholds,
)
from efp_hf.training.structures import with_structures
from efp_hf.training.trainer import TRAINING_DEFAULTS, LesionTrainer, lesion_trainer

PROCESSOR = EFPImageProcessor(size={"height": 32, "width": 32}, threshold=0.4, jaccard_temperature=0.75)
OVERLAP = {"problem_type": MULTI_LABEL, "id2label": dict(enumerate(CELL_LABELS))}


@pytest.fixture(scope="module")
def cells(cells_root):
    return load_lesions(cells_root)


def test_a_head_of_another_kind_is_random_and_all_else_is_kept():
    lesion = tiny_model(temperature=1.9)
    model = with_classes(lesion, CELL_LABELS, overlap=True)
    assert has_new_head(lesion, CELL_LABELS, overlap=True) and not has_new_head(model, CELL_LABELS, overlap=True)
    assert model.config.labels_overlap and class_names_of(model.config) == CELL_LABELS and model.config.temperature == 1
    before, after = lesion.state_dict(), model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder.classifier.weight", "decoder.classifier.bias"}
    assert with_classes(model, CELL_LABELS, overlap=True) is model
    others = with_classes(model, ("rim", "core"), overlap=True)  # each logit meant the label of its place
    assert class_names_of(others.config) == ("rim", "core") and class_names_of(model.config) == CELL_LABELS
    assert not torch.equal(others.state_dict()["decoder.classifier.weight"], after["decoder.classifier.weight"])
    several = with_classes(model, CELL_LABELS)
    assert class_names_of(several.config) == CELL_LABELS and several.config.num_labels == 3
    assert not with_classes(model, ()).config.labels_overlap


def test_a_decoder_of_added_labels_goes_where_others_are_learnt():
    model = with_classes(with_structures(tiny_model()), CELL_LABELS, overlap=True)
    assert model.config.num_added_labels == 0 and model.added_decoder is None and model.added_encoder is None


def test_settings_of_a_processor_for_labels():
    processor = with_thresholds(PROCESSOR, 2)
    assert (processor.threshold, processor.jaccard_temperature) == ([0.5, 0.5], [1, 1])
    assert processor.labels_overlap and with_thresholds(PROCESSOR, 2, thresholds=[0.1, 0.7]).threshold == [0.1, 0.7]


def test_image_and_all_masks_are_changed_together(cells):
    transform = OverlapTransform(with_thresholds(PROCESSOR, 2), augment=True, labels=CELL_LABELS)
    rows = [row for row in cells["train"] if row["labels"] == [0, 1]]
    batch = transform({name: [row[name] for row in rows] for name in cells["train"].column_names})
    assert batch["labels"].shape == (len(rows), 2, 32, 32) and set(batch["labels"].unique().tolist()) == {0, 1}
    brightness = batch["pixel_values"].mean(1)
    dark = [
        float(image[mask > 0].mean() - image.mean())
        for image, mask in zip(brightness, batch["labels"][:, 0], strict=True)
    ]
    assert np.mean(dark) < -0.2  # the drawn cells are darker than what is around them: the masks moved with them
    again = OverlapTransform(with_thresholds(PROCESSOR, 2), augment=True, labels=CELL_LABELS)(
        {name: [row[name] for row in rows] for name in cells["train"].column_names}
    )
    assert torch.equal(again["labels"], batch["labels"])


def test_rare_labels_are_drawn_more_often_and_no_image_twice():
    shares = np.zeros((200, 5))
    shares[:120, 3], shares[:6, 4], shares[20:70, 0] = 0.1, 0.01, 0.02
    sampler = RareLabels(shares > 0, seed=3)
    drawn = []
    for epoch in range(30):
        sampler.set_epoch(epoch)
        numbers = list(sampler)
        assert len(numbers) == len(set(numbers)) == len(sampler) == 100
        drawn.append(np.bincount(numbers, minlength=200))
    often = np.mean(drawn, axis=0)
    assert often[:6].mean() > 0.9 > often[20:70].mean() > often[120:].mean() > 0.3
    again = RareLabels(shares > 0, seed=3)
    again.set_epoch(29)
    assert list(again) == numbers


def test_all_images_are_drawn_where_none_has_a_rare_label():
    assert sorted(RareLabels(np.ones((7, 2), bool), seed=1)) == list(range(7))


def test_scores_of_counts_at_the_best_threshold_of_each_label():
    logits = torch.full((2, 6, 4, 4), -9.0)
    labels = torch.zeros(2, 6, 4, 4)
    labels[0, :, :2] = 1
    labels[1, :, :, 3] = 255
    logits[:, 0, :2] = 9.0  # of the lesion half is false in the second image
    logits[0, 1:, :2] = torch.tensor(0.25).logit()
    logits[1, 1:, 0] = torch.tensor(0.22).logit()
    score = OverlapScore(LABELS, num_first=1)
    for start in range(2):
        counts = logits_to_label_counts(logits[start : start + 1], labels[start : start + 1])
        assert counts.shape == (1, len(THRESHOLDS), 6, 4)
        scores = score(EvalPrediction(counts, labels), compute_result=start == 1)
    assert scores["jaccard"] == 0.5
    assert scores["micro_jaccard"] == scores["mean_jaccard"] == pytest.approx((8 / 16) / (8 / 16 + 3 / 12))
    assert scores["threshold_streaks"] < 0.22
    assert counts[0, 0].sum(-1).tolist() == [12] * 6
    of_all = OverlapScore(LABELS)(EvalPrediction(counts, labels), compute_result=True)
    assert of_all["jaccard"] == of_all["mean_jaccard"] and "threshold_lesion" in of_all


def test_training_changes_all_and_chooses_a_threshold_a_label(tmp_path, cells):
    model = with_classes(tiny_model(), CELL_LABELS, overlap=True)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    arguments = TrainingArguments(
        **TRAINING_DEFAULTS | {"max_steps": 2, "save_strategy": "no", "load_best_model_at_end": False},
        output_dir=tmp_path,
        use_cpu=True,
    )
    trainer = lesion_trainer(model, with_thresholds(PROCESSOR, 2), cells, arguments, 1e-3, OverlapTrainer)
    assert sum(map(len, trainer.get_train_dataloader().batch_sampler)) == 14
    trainer.train()
    assert [name for name, tensor in model.named_parameters() if torch.equal(tensor, before[name])] == []
    trainer.finish(trainer.evaluate())
    thresholds = trainer.processing_class.threshold
    assert len(thresholds) == 2 and set(thresholds) <= set(THRESHOLDS)


@pytest.mark.parametrize("config", [{}, {**OVERLAP, "id2label": {0: "rim", 1: "core"}}])
def test_a_model_for_other_labels_is_refused(tmp_path, cells, config):
    arguments = TrainingArguments(**TRAINING_DEFAULTS, output_dir=tmp_path, use_cpu=True)
    with pytest.raises(ValueError, match="`model` must have the labels of the data, membrane, nucleus, got"):
        lesion_trainer(tiny_model(**config), PROCESSOR, cells, arguments, 0.0, OverlapTrainer)
    with pytest.raises(ValueError, match="`model` must have labels for the classes of the data, membrane, nucleus"):
        lesion_trainer(tiny_model(**config), PROCESSOR, cells, arguments, 0.0, LesionTrainer)
