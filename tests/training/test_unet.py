import pytest
import torch
from conftest import tiny_model

from efp_hf.training.encoders import new_model
from efp_hf.training.unet import unet_like

smp = pytest.importorskip("segmentation_models_pytorch")
LITE0 = "tf_efficientnet_lite0"


def test_it_is_the_librarys_unet_on_the_encoder_of_the_model():
    model = new_model(LITE0, pretrained=False, pyramid_size=8)
    unet = unet_like(model, seed=0).eval()
    for name, weights in model.encoder.state_dict().items():
        assert torch.equal(unet.encoder.state_dict()[name], weights), name
    library = smp.Unet(f"tu-{LITE0}", encoder_weights=None).eval()
    library.encoder.model.load_state_dict(unet.encoder.backbone._backbone.state_dict())
    library.decoder.load_state_dict(unet.decoder.state_dict())
    library.segmentation_head.load_state_dict(unet.head.state_dict())
    pixel_values = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(unet(pixel_values).logits[:, 1:], library(pixel_values))


def test_every_parameter_learns_and_the_nano_keeps_no_stage_that_it_does_not_use():
    model = new_model(LITE0, pretrained=False, nano=True)
    unet = unet_like(model, seed=0)
    unet(torch.randn(2, 3, 64, 64), labels=torch.ones(2, 64, 64, dtype=torch.long)).loss.backward()
    assert [name for name, parameter in unet.named_parameters() if parameter.grad is None] == []
    assert len(unet.encoder.backbone._backbone.blocks) == len(model.encoder.backbone._backbone.blocks)


def test_it_has_the_labels_of_the_model_and_its_seed_decides_the_decoder():
    model = tiny_model(id2label={0: "background", 1: "a", 2: "b"}, temperature=2.0)
    first, same, other = (unet_like(model, seed) for seed in (1, 1, 2))
    assert first(torch.zeros(1, 3, 33, 40)).logits.shape == (1, 3, 33, 40)
    assert torch.equal(first.head[0].weight, same.head[0].weight)
    assert not torch.equal(first.head[0].weight, other.head[0].weight)
