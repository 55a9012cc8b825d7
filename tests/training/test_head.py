"""The head for other classes than the start's, and what a fine-tuning does of its own."""

import numpy as np
import pytest
import torch
from conftest import ORGANS, REPOSITORY, tiny_model
from datasets import Dataset
from PIL import Image
from transformers import EvalPrediction, TrainingArguments

from efp_hf import EFPImageProcessor
from efp_hf.data.lesions import load_lesions
from efp_hf.data.pairs import FEATURES
from efp_hf.inference.task import check_lesion, class_names_of, is_lesion
from efp_hf.metrics.classes import class_counts
from efp_hf.training.head import has_new_head, with_classes
from efp_hf.training.trainer import (
    FINE_TUNING_PATIENCE,
    NEW_CLASSES_STEPS,
    TRAINING_DEFAULTS,
    HeadWarmUp,
    SegmentationScore,
    fine_tuning_callbacks,
    lengthen,
    lesion_trainer,
    logits_to_counts,
)
from efp_hf.training.transform import LesionTransform

PROCESSOR = EFPImageProcessor(size={"height": 32, "width": 32})


def arguments(folder, **settings) -> TrainingArguments:
    return TrainingArguments(
        **{
            **TRAINING_DEFAULTS,
            "output_dir": str(folder),
            "num_train_epochs": 1,
            "per_device_train_batch_size": 14,
            "use_cpu": True,
            "disable_tqdm": True,
            **settings,
        }
    )


def test_everything_but_the_head_is_kept():
    model = tiny_model(temperature=2.0)
    headed = with_classes(model, ORGANS)
    assert class_names_of(headed.config) == ORGANS and headed.config.temperature == 1 and has_new_head(model, ORGANS)
    before, after = model.state_dict(), headed.state_dict()
    new = [name for name in after if before[name].shape != after[name].shape or not before[name].equal(after[name])]
    assert new == ["decoder.classifier.weight", "decoder.classifier.bias"]
    assert headed(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 4, 32, 32)
    assert class_names_of(model.config) == ("lesion",) and model.config.num_labels == 2


def test_head_for_as_many_classes_is_kept_and_renamed():
    model = tiny_model()
    assert with_classes(model, ()) is model and not has_new_head(model, ())
    assert with_classes(model, ("polyp",)) is model and class_names_of(model.config) == ("polyp",)
    assert model.config.label2id == {"background": 0, "polyp": 1}
    several = with_classes(model, ORGANS)
    assert with_classes(several, ORGANS) is several
    assert class_names_of(with_classes(several, ()).config) == ("lesion",)
    for others in (ORGANS[::-1], ("heart", "lung", "skin")):
        assert has_new_head(several, others)
        headed = with_classes(several, others)
        assert class_names_of(headed.config) == others
        assert not headed.decoder.classifier.weight.equal(several.decoder.classifier.weight)


def test_what_is_for_one_class_is_refused_for_several():
    assert is_lesion(tiny_model().config)
    config = tiny_model(num_labels=3).config
    with pytest.raises(ValueError, match="A review must have a checkpoint of one class, got one of 2"):
        check_lesion(config, "A review")


def test_counts_of_logits_are_those_of_their_labels():
    logits, labels = torch.randn(3, 4, 8, 9), torch.randint(0, 4, (3, 8, 9))
    labels[:, :2] = 255
    counts = logits_to_counts(logits, labels)
    for found, image_logits, truth in zip(counts, logits, labels, strict=True):
        assert found.tolist() == class_counts(image_logits.argmax(0).numpy(), truth.numpy(), 3).tolist()


def test_score_of_batches_is_the_mean_of_the_classes():
    first, second = np.array([[[2, 1, 2, 2], [0, 0, 0, 7]], [[4, 0, 0, 3], [1, 1, 0, 5]]])[:, None]
    score = SegmentationScore(("a", "b"))
    score(EvalPrediction((first, np.array([1.0])), None))
    found = score(EvalPrediction((second, np.array([3.0])), None), compute_result=True)
    assert found["jaccard_a"] == pytest.approx((2 / 5 + 1) / 2) and found["jaccard_b"] == 1 / 2
    assert found["jaccard"] == pytest.approx((0.7 + 0.5) / 2) and found["loss"] == 2
    assert "threshold_jaccard" not in found


def row(labels: np.ndarray) -> Dataset:
    columns = {"image": [Image.new("RGB", labels.shape[::-1])], "mask": [Image.fromarray(labels)], "image_id": ["a"]}
    return Dataset.from_dict(columns, features=FEATURES)


@pytest.mark.parametrize("values", [(0, 1, 2, 3), (0, 0, 255, 255), (255, 255, 255, 255), (0, 0, 0, 0)])
def test_labels_reach_the_loss_as_they_are(values):
    labels = np.repeat(np.repeat(np.array(values, np.uint8).reshape(2, 2), 16, 0), 16, 1)
    example = row(labels).with_transform(LesionTransform(PROCESSOR, num_classes=3))[0]
    assert np.array_equal(example["labels"].numpy(), labels)
    augmented = row(labels).with_transform(LesionTransform(PROCESSOR, augment=True, num_classes=3))[0]
    assert set(augmented["labels"].unique().tolist()) <= {0, *values}


def test_trainer_learns_and_scores_each_class(tmp_path, organs_root):
    data = load_lesions(organs_root)
    trainer = lesion_trainer(with_classes(tiny_model(), ORGANS), PROCESSOR, data, arguments(tmp_path), 1e-3)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    assert all(not value.equal(before[name]) for name, value in trainer.model.named_parameters())
    scores = trainer.evaluate()
    assert {f"eval_jaccard_{name}" for name in ORGANS} <= set(scores) and 0 <= scores["eval_jaccard"] <= 1


def test_model_of_other_classes_is_refused(tmp_path, organs_root):
    data = load_lesions(organs_root)
    with pytest.raises(ValueError, match="the classes of the data, liver, spleen, kidney, got lesion"):
        lesion_trainer(tiny_model(), PROCESSOR, data, arguments(tmp_path), 1e-3)


def test_a_new_head_learns_alone_at_first(tmp_path, organs_root):
    model = with_classes(tiny_model(), ORGANS)
    settings = arguments(tmp_path, max_steps=2, eval_strategy="no", save_strategy="no", load_best_model_at_end=False)
    settings.warmup_steps = 0
    trainer = lesion_trainer(model, PROCESSOR, load_lesions(organs_root), settings, 1e-3)
    trainer.add_callback(HeadWarmUp())  # of two steps the first
    states = []
    before = {name: value.clone() for name, value in model.named_parameters()}

    def remember(*_, **__):
        states.append({name: not value.equal(before[name]) for name, value in model.named_parameters()})

    trainer.optimizer.register_step_post_hook(remember)
    trainer.train()
    assert {name for name, changed in states[0].items() if changed} <= {
        "decoder.classifier.weight",
        "decoder.classifier.bias",
    }
    assert any(states[0].values()) and all(states[1].values())


def test_fine_tuning_stops_early_where_there_are_scores(tmp_path):
    (stop,) = fine_tuning_callbacks(arguments(tmp_path), new_head=False)
    assert stop.early_stopping_patience == FINE_TUNING_PATIENCE
    patient, _ = fine_tuning_callbacks(arguments(tmp_path), new_head=True)
    assert patient.early_stopping_patience == 2 * FINE_TUNING_PATIENCE
    said = " ".join((REPOSITORY / "docs" / "training.md").read_text().split())
    patiences = (FINE_TUNING_PATIENCE, 2 * FINE_TUNING_PATIENCE)
    assert "after {} scores without a better one, and with a new head after {}.".format(*patiences) in said
    assert f"trained on for up to {NEW_CLASSES_STEPS} steps" in said
    unscored = arguments(tmp_path, eval_strategy="no", load_best_model_at_end=False)
    assert [type(callback) for callback in fine_tuning_callbacks(unscored, new_head=True)] == [HeadWarmUp]


@pytest.mark.parametrize(
    ("num_images", "epochs"),
    [(45, 200), (321, 30), (320, 30), (304, 32)],  # in batches of 16: 3, 21, 20 and 19 steps an epoch
)
def test_few_images_of_new_classes_are_trained_on_for_as_many_steps(tmp_path, num_images, epochs):
    made = arguments(tmp_path, num_train_epochs=30, per_device_train_batch_size=16)
    assert lengthen(made, num_images, set()) is (epochs > 30)
    assert made.num_train_epochs == epochs
    assert made.num_train_epochs * -(-num_images // 16) >= NEW_CLASSES_STEPS
    assert (made.eval_strategy, made.save_strategy) == (("steps", "steps") if epochs > 30 else ("epoch", "epoch"))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"eval_strategy": "epoch", "save_strategy": "epoch"}, ("epoch", "epoch", None, 500)),
        (
            {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 5, "save_steps": 10},
            ("steps", "steps", 5, 10),
        ),
        ({"eval_steps": 25}, ("steps", "steps", 25, 25)),
        ({"save_steps": 40}, ("steps", "steps", 40, 40)),
        ({"eval_steps": 20, "save_steps": 40}, ("steps", "steps", 20, 40)),
    ],
)
def test_longer_training_is_scored_and_saved_when_the_user_says(tmp_path, given, kept):
    made = arguments(tmp_path, num_train_epochs=30, per_device_train_batch_size=16, **given)
    assert lengthen(made, 45, {f"--{name.replace('_', '-')}" for name in given}) and made.num_train_epochs == 200
    assert (made.eval_strategy, made.save_strategy, made.eval_steps, made.save_steps) == kept
