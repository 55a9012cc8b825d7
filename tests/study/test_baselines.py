import pytest
import segmentation_models_pytorch as smp
import torch
from monai.networks.nets import AttentionUnet
from transformers import MaskFormerImageProcessor, SegformerConfig, SegformerForSemanticSegmentation

from efp_hf.loss_efp import efp_loss
from efp_hf.study.baselines import (
    BASELINES,
    BaselineConfig,
    BaselineForSegmentation,
    instance_targets,
    maskformer_logits,
    new_baseline,
)
from efp_hf.training.encoders import imagenet_weights

LITE0 = "tf_efficientnet_lite0"
LIBRARIES = {
    ("unet", LITE0): lambda: smp.Unet(f"tu-{LITE0}", encoder_weights=None),
    ("unet_attention", LITE0): lambda: smp.Unet(f"tu-{LITE0}", encoder_weights=None, decoder_attention_type="scse"),
    ("segformer", LITE0): lambda: smp.Segformer(f"tu-{LITE0}", encoder_weights=None),
    ("unet", None): lambda: smp.Unet("resnet34", encoder_weights=None),
    ("unet_attention", None): lambda: AttentionUnet(2, 3, 1, channels=(32, 64, 128, 256, 512), strides=(2, 2, 2, 2)),
    ("segformer", None): lambda: SegformerForSemanticSegmentation(SegformerConfig(num_labels=1)),
}


@pytest.fixture(scope="module")
def maskformer() -> BaselineForSegmentation:
    torch.manual_seed(0)
    return new_baseline("maskformer", LITE0, pretrained=False).eval()


@pytest.mark.parametrize(("system", "encoder"), LIBRARIES)
def test_logits_are_the_librarys(system, encoder):
    model = new_baseline(system, encoder, pretrained=False).eval()
    library = LIBRARIES[system, encoder]().eval()
    library.load_state_dict(model.network.state_dict())
    pixel_values = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = library(pixel_values)
        outputs = model(pixel_values, labels=torch.ones(1, 64, 64, dtype=torch.long))
    expected = expected if isinstance(expected, torch.Tensor) else expected.logits
    assert outputs.logits.shape == (1, 2, 64, 64)
    if expected.shape[-1] < 64:  # SegFormer's own logits have a quarter of the size
        expected = torch.nn.functional.interpolate(expected, size=(64, 64), mode="bilinear")
    assert not outputs.logits[:, 0].any()  # the background's
    torch.testing.assert_close(outputs.logits[:, 1:], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs.loss, efp_loss(outputs.logits, torch.ones(1, 64, 64, dtype=torch.long)))


def test_maskformer_says_lesion_where_its_own_post_processing_does(maskformer):
    with torch.no_grad():
        outputs = maskformer.network(torch.randn(2, 3, 64, 64))
    # so that both classes win somewhere
    outputs.class_queries_logits = torch.randn_like(outputs.class_queries_logits)
    outputs.masks_queries_logits = 10 * torch.randn_like(outputs.masks_queries_logits)
    masks = MaskFormerImageProcessor().post_process_semantic_segmentation(outputs)
    expected = torch.stack([getattr(mask, "segmentation", mask) for mask in masks])
    logits = maskformer_logits(outputs)
    assert 0 < expected.float().mean() < 1
    assert torch.equal(logits[:, 0] > 0, expected == 1)


def test_maskformer_has_its_own_loss(maskformer):
    labels = torch.zeros(2, 64, 64, dtype=torch.long)
    labels[0, :32] = 1
    pixel_values = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        loss = maskformer(pixel_values, labels=labels).loss
        expected = maskformer.network(
            pixel_values,
            mask_labels=[torch.stack([labels[0] == 0, labels[0] == 1]).float(), (labels[1] == 0)[None].float()],
            class_labels=[torch.tensor([0, 1]), torch.tensor([0])],
        ).loss
    torch.testing.assert_close(loss, expected.squeeze())


def test_maskformers_queries_start_apart_and_evaluation_is_the_function_that_was_trained(maskformer):
    queries = maskformer.network.model.transformer_module.queries_embedder.weight.detach()
    assert queries.std() == pytest.approx(1, abs=0.05)
    first = maskformer.network.model.transformer_module.decoder.layers[0].mlp.fc1.weight.detach()
    assert first.abs().max() == pytest.approx((6 / sum(first.shape)) ** 0.5, rel=0.01)  # Xavier uniform
    pixel_values = torch.randn(1, 3, 64, 64)
    encoder = maskformer.network.model.pixel_level_module.encoder
    maskformer.train()
    encoder.eval()  # its batch norms and dropout are the library's
    with torch.no_grad():
        trained = maskformer(pixel_values).logits
        maskformer.eval()
        torch.testing.assert_close(maskformer(pixel_values).logits, trained)


def test_targets_of_an_image_without_lesion_are_the_background_alone():
    labels = torch.tensor([[[0, 0], [0, 1]], [[0, 0], [0, 0]]])
    targets = instance_targets(labels)
    assert [classes.tolist() for classes in targets["class_labels"]] == [[0, 1], [0]]
    assert targets["mask_labels"][0].tolist() == [[[1, 1], [1, 0]], [[0, 0], [0, 1]]]
    assert targets["mask_labels"][1].tolist() == [[[1, 1], [1, 1]]]


@pytest.fixture(scope="module", params=BASELINES)
def pretrained(request) -> BaselineForSegmentation:
    return new_baseline(request.param, LITE0, pretrained=True).eval()


@pytest.mark.slow
def test_every_system_starts_from_the_same_imagenet_weights(pretrained):
    state = pretrained.encoder.state_dict()
    (stem,) = [value for name, value in state.items() if name.endswith("conv_stem.weight")]
    (last,) = [value for name, value in state.items() if name.endswith("blocks.6.0.conv_pwl.weight")]
    weights = imagenet_weights(LITE0)
    assert torch.equal(stem, weights["conv_stem.weight"])
    assert torch.equal(last, weights["blocks.6.0.conv_pwl.weight"])


@pytest.mark.slow
def test_saved_weights_come_back(pretrained, tmp_path):
    pretrained.save_pretrained(tmp_path)
    loaded = BaselineForSegmentation.from_pretrained(tmp_path).eval()
    pixel_values = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = pretrained(pixel_values).logits
        torch.testing.assert_close(loaded(pixel_values).logits, expected, atol=1e-4, rtol=1e-4)


def test_unknown_system_is_refused():
    with pytest.raises(ValueError, match="`system` must be one of unet, unet_attention, segformer, maskformer, got"):
        BaselineConfig(system="deeplab")


def test_maskformer_without_an_encoder_is_refused():
    with pytest.raises(ValueError, match="`encoder` must be given for MaskFormer"):
        BaselineConfig(system="maskformer")
