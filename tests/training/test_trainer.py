import copy

import numpy as np
import pytest
import torch
from conftest import tiny_model
from datasets import Dataset
from PIL import Image
from torch.utils.data import default_collate
from transformers import EvalPrediction, Trainer, TrainerState, TrainingArguments

from efp_hf import EFPConfig, EFPImageProcessor
from efp_hf.data.folders import load_isic
from efp_hf.data.pairs import FEATURES
from efp_hf.metrics import confusion_counts, dice, jaccard, threshold_jaccard
from efp_hf.modeling_efp import EFPForSegmentation
from efp_hf.training.encoders import new_model
from efp_hf.training.trainer import (
    EarlyStop,
    RunSettings,
    SegmentationScore,
    depthwise_in_float32,
    lesion_trainer,
    logits_to_counts,
    parameter_groups,
)
from efp_hf.training.transform import LesionTransform

PROCESSOR = EFPImageProcessor(size={"height": 32, "width": 32})


@pytest.fixture(scope="module")
def data(synthetic_root):
    return load_isic(synthetic_root)


def arguments(folder, **settings) -> TrainingArguments:
    defaults = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "learning_rate": 1e-3,
        "report_to": "none",
        "remove_unused_columns": False,
        "batch_eval_metrics": True,
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
    }
    return TrainingArguments(**{**defaults, **settings})


def trained(folder, data, resume=None, **settings) -> EFPForSegmentation:
    torch.manual_seed(3)
    settings = arguments(folder, **settings)
    trainer = lesion_trainer(tiny_model(), PROCESSOR, data, settings, 1e-3)
    trainer.train(resume_from_checkpoint=resume)
    return trainer.model


def test_the_attention_loss_fades_out(tmp_path, data):
    model = tiny_model(attention_weight=0.4)
    weights = []
    model.register_forward_pre_hook(lambda *_: weights.append(model.attention_weight) if model.training else None)
    lesion_trainer(model, PROCESSOR, data, arguments(tmp_path), 1e-3).train()
    assert weights == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert model.attention_weight == model.config.attention_weight == 0.4


def test_every_parameter_changes(tmp_path, data):
    torch.manual_seed(3)
    before = tiny_model().state_dict()
    after = trained(tmp_path, data).state_dict()
    same = [name for name in before if "num_batches" not in name and torch.equal(before[name], after[name])]
    assert same == []


def test_training_images_alone_are_augmented(tmp_path, data):
    trainer = lesion_trainer(tiny_model(), PROCESSOR, data, arguments(tmp_path), 1e-3)
    training, evaluation = (
        dataset.format["format_kwargs"]["transform"] for dataset in (trainer.train_dataset, trainer.eval_dataset)
    )
    assert training.augmentation is not None
    assert evaluation.augmentation is None


def test_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, data):
    settings = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6}
    whole = trained(tmp_path / "whole", data, **settings).state_dict()
    resumed = trained(
        tmp_path / "resumed", data, resume=str(tmp_path / "whole" / "checkpoint-3"), **settings
    ).state_dict()
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name
    first_half = EFPForSegmentation.from_pretrained(tmp_path / "whole" / "checkpoint-3").state_dict()
    assert any(not torch.equal(whole[name], first_half[name]) for name in whole)


def test_run_that_was_begun_without_a_callback_is_resumed_with_it_and_saves_it(tmp_path, data):
    settings = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    settings |= {"load_best_model_at_end": True, "metric_for_best_model": "jaccard"}
    trained(tmp_path, data, max_steps=1, **settings)
    trainer = lesion_trainer(tiny_model(), PROCESSOR, data, arguments(tmp_path, max_steps=2, **settings), 1e-3)
    for callback in (RunSettings({"--seed": 0}), EarlyStop(3)):
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    saved = TrainerState.load_from_json(tmp_path / "checkpoint-2" / "trainer_state.json").stateful_callbacks
    assert saved["RunSettings"]["args"] == {"settings": {"--seed": 0}}
    assert saved["EarlyStop"]["args"]["early_stopping_patience"] == 3


def test_depthwise_convolutions_stay_in_float32_under_autocast():
    depthwise, dense = torch.nn.Conv2d(4, 4, 3, groups=4), torch.nn.Conv2d(4, 4, 3)
    depthwise_in_float32(torch.nn.ModuleList([depthwise, dense]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert dense(torch.ones(1, 4, 5, 5)).dtype == torch.bfloat16
        assert depthwise(torch.ones(1, 4, 5, 5, dtype=torch.bfloat16)).dtype == torch.float32


def test_bfloat16_run_on_a_processor_learns(tmp_path, data):
    before = tiny_model().state_dict()
    after = trained(tmp_path, data, bf16=True).state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert not torch.equal(before["decoder.classifier.weight"], after["decoder.classifier.weight"])


def test_same_seed_trains_the_same_weights(tmp_path, data):
    first, second = (trained(tmp_path / name, data).state_dict() for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_gradient_accumulation_does_not_change_the_gradient(tmp_path, data):
    """One step of SGD with rate 1 moves each weight by minus the mean gradient of the micro-batches."""
    rows = data["train"].select(range(8)).with_transform(LesionTransform(PROCESSOR))
    model = tiny_model()
    start = copy.deepcopy(model).train()
    expected = {name: torch.zeros_like(parameter) for name, parameter in start.named_parameters()}
    for first in range(0, 8, 2):
        start.zero_grad()
        start(**default_collate([rows[first], rows[first + 1]])).loss.backward()
        for name, parameter in start.named_parameters():
            expected[name] += parameter.grad / 4

    Trainer(
        model,
        arguments(
            tmp_path,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=4,
            max_steps=1,
            max_grad_norm=0.0,
            lr_scheduler_type="constant",
            train_sampling_strategy="sequential",
        ),
        train_dataset=rows,
        optimizers=(torch.optim.SGD(model.parameters(), lr=1.0), None),
    ).train()
    before = dict(start.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(before[name] - parameter, expected[name], atol=1e-5, rtol=1e-3, msg=name)


def test_encoder_and_decoder_have_their_own_rates():
    model = tiny_model()
    groups = parameter_groups(model, encoder_learning_rate=1e-4, learning_rate=1e-2, weight_decay=0.1)
    rate_of = {id(parameter): (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]}
    assert len(rate_of) == sum(1 for _ in model.parameters())
    for name, parameter in model.named_parameters():
        rate, decay = rate_of[id(parameter)]
        assert rate == (1e-4 if name.startswith("encoder.") else 1e-2), name
        assert decay == (0.0 if parameter.ndim == 1 else 0.1), name


def test_last_block_of_a_nano_learns_as_what_is_random_does():
    model = new_model("tf_efficientnet_lite0", pretrained=False, nano=True)
    groups = parameter_groups(model, encoder_learning_rate=1e-4, learning_rate=1e-2, weight_decay=0.1)
    rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert {rate_of[id(parameter)] for parameter in model.encoder.backbone.parameters()} == {1e-4}
    assert {rate_of[id(parameter)] for parameter in model.encoder.last_block.parameters()} == {1e-2}


def test_evaluation_gathers_four_counts_and_a_loss_an_image_and_no_logits(tmp_path, data):
    trainer = lesion_trainer(tiny_model(), PROCESSOR, data, arguments(tmp_path), encoder_learning_rate=1e-3)
    seen = []
    compute = trainer.compute_metrics
    trainer.compute_metrics = lambda evaluated, compute_result: (
        seen.append([values.shape for values in evaluated.predictions]) or compute(evaluated, compute_result)
    )
    scores = trainer.evaluate()
    assert sum(counts[0] for counts, _ in seen) == len(data["validation"])
    assert all(counts[1:] == (4,) and losses == counts[:1] for counts, losses in seen)
    assert 0 <= scores["eval_jaccard"] <= scores["eval_dice"] <= 1


def test_trainer_without_its_two_settings_is_refused(tmp_path, data):
    with pytest.raises(ValueError, match="remove_unused_columns=False and batch_eval_metrics=True, got True and True"):
        lesion_trainer(tiny_model(), PROCESSOR, data, arguments(tmp_path, remove_unused_columns=True), 1e-3)


def test_model_with_more_labels_is_refused(tmp_path, data):
    with pytest.raises(ValueError, match="labels for the classes of the data, one class, got LABEL_1, LABEL_2. Pass"):
        lesion_trainer(tiny_model(num_labels=3), PROCESSOR, data, arguments(tmp_path), 1e-3)


def test_counts_of_logits_are_the_counts_of_their_masks():
    logits, labels = torch.randn(3, 2, 8, 9), torch.randint(0, 2, (3, 8, 9))
    for counts, image_logits, truth in zip(logits_to_counts(logits, labels), logits, labels, strict=True):
        assert counts.tolist() == confusion_counts(image_logits.argmax(0).numpy() == 1, truth.numpy() == 1).tolist()
    ignored = labels.clone()
    ignored[:, :2] = 255
    assert logits_to_counts(logits, ignored).sum(1).tolist() == [6 * 9] * 3


def test_logits_that_are_not_finite_are_no_lesion():
    logits = torch.zeros(1, 2, 4, 4)
    logits[:, 1] = float("nan")
    assert logits_to_counts(logits, torch.ones(1, 4, 4, dtype=torch.long)).tolist() == [[0, 0, 16, 0]]


def test_run_that_is_pushed_saves_the_code_with_each_checkpoint(tmp_path, data, monkeypatch):
    for cls in (EFPConfig, EFPForSegmentation, EFPImageProcessor):
        monkeypatch.setattr(cls, "_auto_class", None)
    settings = arguments(tmp_path)
    settings.push_to_hub = True
    monkeypatch.setattr(Trainer, "init_hf_repo", lambda *args, **kwargs: None)
    trainer = lesion_trainer(tiny_model(), PROCESSOR, data, settings, 1e-3)
    trainer.model.save_pretrained(tmp_path / "saved")
    PROCESSOR.save_pretrained(tmp_path / "saved")
    assert {"modeling_efp.py", "image_processing_efp.py"} <= {path.name for path in (tmp_path / "saved").iterdir()}


def test_score_of_batches_is_the_mean_over_all_images():
    counts = np.array([[6, 2, 2, 6], [1, 3, 0, 12], [0, 0, 0, 16], [4, 0, 0, 12], [2, 1, 1, 12]])
    score = SegmentationScore()
    assert score(EvalPrediction(counts[:2], None)) == {}
    assert score(EvalPrediction(torch.tensor(counts[2:4]), None), compute_result=False) == {}
    result = score(EvalPrediction(counts[4:], None), compute_result=True)
    assert result == pytest.approx(
        {
            "jaccard": jaccard(counts).mean(),
            "threshold_jaccard": threshold_jaccard(counts).mean(),
            "dice": dice(counts).mean(),
        }
    )
    assert score(EvalPrediction(counts[2:3], None), compute_result=True)["jaccard"] == 1.0  # nothing was kept


def dataset(image: Image.Image, mask: Image.Image) -> Dataset:
    return Dataset.from_dict({"image": [image], "mask": [mask], "image_id": ["mole"]}, features=FEATURES)


def test_examples_are_what_the_processor_makes_of_them(data):
    rows = data["train"]
    example = rows.with_transform(LesionTransform(PROCESSOR))[0]
    expected = PROCESSOR(rows[0]["image"], rows[0]["mask"], return_tensors="pt")
    assert torch.equal(example["pixel_values"], expected["pixel_values"][0])
    assert torch.equal(example["labels"], expected["labels"][0])
    assert set(example["labels"].unique().tolist()) == {0, 1}


def test_augmented_labels_lie_on_the_augmented_lesion():
    lesion = np.zeros((64, 64), dtype=np.uint8)
    lesion[14:38, 20:52] = 255
    mask = Image.fromarray(lesion)
    for seed in range(8):
        transform = LesionTransform(PROCESSOR, augment=True, seed=seed)
        example = dataset(mask.convert("RGB"), mask).with_transform(transform)[0]
        bright, labels = example["pixel_values"][1] > 0, example["labels"] == 1
        assert (bright & labels).sum() / (bright | labels).sum() > 0.8


def test_augmentation_follows_seed_epoch_and_image_alone(data):
    def example(seed: int, epoch: int, rows) -> torch.Tensor:
        transform = LesionTransform(PROCESSOR, augment=True, seed=seed)
        transform.epoch.fill_(epoch)
        return rows.with_transform(transform)[0]["pixel_values"]

    rows = data["train"]
    first = example(0, 0, rows)
    assert torch.equal(first, example(0, 0, rows.select([0, 1])))
    assert not torch.equal(first, example(0, 1, rows))
    assert not torch.equal(first, example(1, 0, rows))


def test_each_epoch_augments_anew_also_in_persistent_workers(tmp_path, data):
    trainer = lesion_trainer(
        tiny_model(),
        PROCESSOR,
        data,
        arguments(
            tmp_path,
            dataloader_num_workers=1,
            dataloader_persistent_workers=True,
            num_train_epochs=2,
            max_steps=-1,
            per_device_train_batch_size=28,
            train_sampling_strategy="sequential",
        ),
        encoder_learning_rate=1e-3,
    )
    batches = []
    trainer.model.register_forward_pre_hook(
        lambda module, args, kwargs: batches.append(kwargs["pixel_values"].clone()), with_kwargs=True
    )
    trainer.train()
    assert len(batches) == 2
    changed = (batches[0] - batches[1]).abs().amax((1, 2, 3)) > 1e-3
    assert changed.all()


def test_mask_that_does_not_fit_is_refused_with_its_id():
    transform = LesionTransform(PROCESSOR)
    with pytest.raises(ValueError, match="mole: image is 8×6, mask 6×8"):
        dataset(Image.new("RGB", (6, 8)), Image.new("L", (8, 6))).with_transform(transform)[0]
    with pytest.raises(ValueError, match=r"mole: a mask must hold 0 \(background\) and 255 \(foreground\), got 17"):
        dataset(Image.new("RGB", (6, 8)), Image.new("L", (6, 8), 17)).with_transform(transform)[0]
