import pytest
import timm
import torch
from conftest import tiny_model, tiny_prompted_model
from transformers import TrainingArguments

from efp_hf import EFPImageProcessor
from efp_hf.lesion.structures import LABELS, STRUCTURES
from efp_hf.metrics.overlap import THRESHOLDS
from efp_hf.training import encoders
from efp_hf.training.encoders import new_model
from efp_hf.training.overlap import (
    OverlapTrainer,
    with_thresholds,
)
from efp_hf.training.structures import with_structures
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
    with pytest.raises(ValueError, match="`model` must be one for lesions, got one for LABEL_1, LABEL_2"):
        with_structures(tiny_model(num_labels=3))


def test_the_lesions_settings_stay_in_the_processor():
    processor = with_thresholds(PROCESSOR, 6, 1, [0.1, 0.2, 0.3, 0.6, 0.7])
    assert processor.threshold == [0.4, 0.1, 0.2, 0.3, 0.6, 0.7]
    assert processor.jaccard_temperature == [0.75, 1, 1, 1, 1, 1]
    assert PROCESSOR.threshold == 0.4
    assert with_thresholds(processor, 6, 1).threshold == [0.4, 0.5, 0.5, 0.5, 0.5, 0.5]


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
    trainer = lesion_trainer(model, with_thresholds(PROCESSOR, 6, 1), data, arguments, 1e-2, OverlapTrainer)
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
    trainer = lesion_trainer(model, with_thresholds(PROCESSOR, 6, 1), data, arguments, 0.0, OverlapTrainer)
    loader = trainer.get_train_dataloader()
    drawn = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        drawn.append([position for batch in loader.batch_sampler for position in batch])
    assert len(drawn[0]) == len(data["train"]) // 2
    assert drawn[0] == drawn[2] != drawn[1]


def test_structures_may_have_a_larger_encoder(monkeypatch):
    monkeypatch.setattr(encoders, "imagenet_weights", random_weights)
    model = with_structures(
        new_model("tf_efficientnet_lite0", pretrained=False, nano=True), encoder="test_efficientnet"
    )
    body = model.added_encoder.backbone._backbone.state_dict()
    assert all(torch.equal(tensor, random_weights("test_efficientnet")[name]) for name, tensor in body.items())
    assert model(torch.randn(1, 3, 64, 64)).logits.shape == (1, 6, 64, 64)
    for encoder in ("paper", "a/b"):
        with pytest.raises(ValueError, match=f"`encoder` of the structures must be a timm model, got '{encoder}'"):
            with_structures(tiny_model(), encoder=encoder)
    with pytest.raises(ValueError, match="`encoder` must be None for a model that has one for structures"):
        with_structures(model, encoder="test_efficientnet")


def random_weights(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return timm.create_model(name, pretrained=False).state_dict()


def test_data_without_structures_is_refused(tmp_path, data):
    arguments = TrainingArguments(**TRAINING_DEFAULTS, output_dir=tmp_path, use_cpu=True)
    lesions = data.rename_column("lesion", "mask").select_columns(["image", "mask", "image_id"])
    with pytest.raises(ValueError, match="must have the labels of the data, none that overlap, got lesion, globules"):
        lesion_trainer(with_structures(tiny_model()), PROCESSOR, lesions, arguments, 0.0, OverlapTrainer)
    assert len(STRUCTURES) == 5
