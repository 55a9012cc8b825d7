import copy

import pytest
import torch
from conftest import TINY, tiny_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import ResNetConfig, SwinConfig, TimmBackboneConfig

from efp_hf import EFPConfig, EFPForSegmentation
from efp_hf.loss_efp import attention_loss
from efp_hf.modeling_efp import (
    EFPCrossScaleEnhancement,
    EFPEncoder,
    EFPScore,
    EFPSpatialAttention,
    frozen_batch_statistics,
    resize,
)

CHANNELS = (4, 6, 8, 10)
PAIRS = [(i, j) for i in range(4) for j in range(4) if i != j]


def feature_maps(size: int = 32) -> list[torch.Tensor]:
    return [torch.randn(2, channels, size // 2**i, size // 2**i) for i, channels in enumerate(CHANNELS)]


@pytest.fixture
def enhancement() -> EFPCrossScaleEnhancement:
    return tiny_model().decoder.pyramid


# Encoder


def test_each_level_is_the_conv_block_of_the_one_before():
    encoder = EFPEncoder(EFPConfig(**TINY)).eval()
    image = torch.randn(1, 3, 32, 48)
    levels = encoder(image)
    assert [tuple(level.shape) for level in levels] == [
        (1, 4, 16, 24),
        (1, 6, 8, 12),
        (1, 8, 4, 6),
        (1, 10, 2, 3),
    ]
    for block, before, level in zip(encoder.blocks, (image, *levels), levels, strict=False):
        torch.testing.assert_close(block(before), level)


def test_conv_block_is_convolution_batch_norm_nonlinearity():
    block = EFPEncoder(EFPConfig(**TINY)).blocks[0]
    assert [type(layer) for layer in block.layers[0]] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert block.layers[0][0].stride == (2, 2)


# Cross-scale enhancement


@pytest.mark.parametrize(("i", "j"), PAIRS)
def test_each_pair_of_levels_reaches_the_other(enhancement, i, j):
    levels = feature_maps()
    before = enhancement(*levels)
    levels[j] = levels[j] + torch.randn_like(levels[j])
    after = enhancement(*levels)
    assert (before[i] - after[i]).abs().max() > 1e-3


@pytest.mark.parametrize(("i", "j"), PAIRS)
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_pair_is_the_sum_of_both_responses_of_the_paper(i, j, kernel_size):
    """F*_{i,j} = σ(W_{i,j} * F_i) + σ(W_{j,i} * F_j), seen by giving the pair all the weight of its level."""
    enhancement = tiny_model(cross_scale_kernel_size=kernel_size).decoder.pyramid
    levels = feature_maps()
    size = enhancement.pyramid_size

    def response(level: int, partner: int) -> torch.Tensor:
        convolution, norm, _ = enhancement.responses[level]
        position = [k for k in range(4) if k != level].index(partner)
        channels = slice(position * size, (position + 1) * size)
        padding = convolution.kernel_size[0] // 2
        weighted = nn.functional.conv2d(levels[level], convolution.weight[channels], padding=padding)
        scale = norm.weight[channels] / (norm.running_var[channels] + norm.eps).sqrt()
        shift = norm.bias[channels] - norm.running_mean[channels] * scale
        return (weighted * scale[:, None, None] + shift[:, None, None]).relu()

    other = response(j, i)
    if j < i:  # to the coarser level by averaging
        other = nn.functional.avg_pool2d(other, 2 ** (i - j))
    expected = response(i, j) + resize(other, levels[i].shape[-2:])

    class OnlyThisPair(nn.Module):
        def forward(self, pair):
            is_it = (pair - expected).abs().max() < 1e-4
            return torch.full_like(pair[:, :1], 1e4 if is_it else 0.0)

    enhancement.pair_scores[i] = OnlyThisPair()
    torch.testing.assert_close(enhancement(*levels)[i], expected, atol=1e-4, rtol=1e-4)


def test_pair_weights_are_normalised(enhancement):
    """A level whose three pairs are the same is that pair, whatever the scores."""
    for response in enhancement.responses:
        nn.init.zeros_(response[0].weight)  # every response is σ of its batch norm's shift: 2
        nn.init.zeros_(response[1].running_mean)
        nn.init.constant_(response[1].bias, 2.0)
    for level in enhancement(*feature_maps()):
        torch.testing.assert_close(level, torch.full_like(level, 2.0 + 2.0))


def test_pair_weights_adapt_to_the_content_of_each_pixel(enhancement):
    scores = []
    for module in enhancement.pair_scores:
        module.register_forward_hook(lambda module, inputs, output: scores.append(output))
    levels = feature_maps()
    enhanced = enhancement(*levels)
    assert len(scores) == 12 and all(score.std() > 1e-3 for score in scores)
    for module in enhancement.pair_scores:
        nn.init.zeros_(module.weight)
    for level, mean_of_pairs in zip(enhanced, enhancement(*levels), strict=True):
        assert (level - mean_of_pairs).abs().max() > 1e-3


@pytest.mark.parametrize(("source", "target"), [(0, 1), (0, 3), (2, 3)])
def test_response_going_to_a_coarser_level_is_averaged(source, target):
    response = torch.randn(1, 2, 16, 16)
    factor = 2 ** (target - source)
    size = torch.Size((16 // factor, 16 // factor))
    brought = EFPCrossScaleEnhancement(tiny_model().config, (2, 2, 2, 2)).bring_to(response, source, target, size)
    torch.testing.assert_close(brought.mean(), response.mean())
    torch.testing.assert_close(brought[0, 0, 0, 0], response[0, 0, :factor, :factor].mean())


# Spatial attention


def constant_columns(values: list[float], size: int = 8) -> torch.Tensor:
    """`(1, len(values), size, size)`, each channel constant."""
    return torch.tensor(values)[None, :, None, None].expand(1, -1, size, size)


def test_attention_is_one_map_between_zero_and_one_times_the_level():
    level = torch.randn(2, 6, 9, 7)
    attended, scores = EFPSpatialAttention(EFPConfig())(level)
    assert scores.shape == (2, 1, 9, 7)
    torch.testing.assert_close(attended, scores.sigmoid() * level)


def test_attention_reads_the_mean_and_the_maximum():
    attention = EFPSpatialAttention(EFPConfig())
    same_mean = [constant_columns(values) for values in ([1.0, 1.0, 1.0], [0.0, 0.0, 3.0])]
    same_maximum = [constant_columns(values) for values in ([0.0, 0.0, 3.0], [3.0, 3.0, 3.0])]
    for one, other in (same_mean, same_maximum):
        assert (attention(one)[1] - attention(other)[1]).abs().max() > 1e-3
    shuffled = [constant_columns(values) for values in ([0.0, 1.0, 3.0], [3.0, 0.0, 1.0])]
    torch.testing.assert_close(attention(shuffled[0])[1], attention(shuffled[1])[1])  # and nothing else


def test_attention_scores_are_a_convolution():
    attention = EFPSpatialAttention(EFPConfig())
    level = torch.randn(1, 5, 8, 8)
    pooled = torch.cat([level.mean(1, keepdim=True), level.max(1, keepdim=True).values], 1)
    torch.testing.assert_close(attention(level)[1], attention.convolution(pooled))


def test_scores_start_small_and_with_both_signs():
    model = EFPForSegmentation(EFPConfig())
    for score in (module for module in model.modules() if isinstance(module, EFPScore)):
        fan_in = score.weight[0].numel()
        assert score.weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.25)
        assert 0.3 < (score.weight > 0).float().mean() < 0.7
    maps = model(torch.randn(2, 3, 64, 64), output_attentions=True).attentions
    assert all(0.05 < attention_map.median() < 0.95 for attention_map in maps)


def test_the_attention_weight_adds_the_attention_loss():
    image, labels = torch.randn(2, 3, 32, 32), torch.randint(0, 2, (2, 32, 32))
    plain = tiny_model()
    taught = tiny_model(attention_weight=0.3)
    taught.load_state_dict(plain.state_dict())
    maps = plain(image, output_attentions=True).attentions
    expected = plain(image, labels=labels).loss + 0.3 * attention_loss([m.logit() for m in maps], labels)
    torch.testing.assert_close(taught(image, labels=labels).loss, expected)


# The whole


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 20), (7, 5)])
@pytest.mark.parametrize("use_cross_scale", [True, False])
def test_logits_have_the_size_of_the_image(size, use_cross_scale):
    model = tiny_model(use_cross_scale=use_cross_scale)
    assert model(torch.randn(2, 3, *size)).logits.shape == (2, 2, *size)


def test_image_of_another_size_is_extended_by_zeros_below_and_to_the_right():
    model = tiny_model()
    image = torch.randn(1, 3, 33, 40)
    extended = torch.zeros(1, 3, 64, 64)
    extended[..., :33, :40] = image
    outputs = model(image, output_hidden_states=True)
    torch.testing.assert_close(outputs.logits, model(extended).logits[..., :33, :40])
    assert [state.shape[-1] for state in outputs.hidden_states] == [32, 16, 8, 4] * 2


def test_hidden_states_are_the_levels_and_the_enhanced_levels():
    model = tiny_model()
    image = torch.randn(1, 3, 32, 32)
    outputs = model(image, output_hidden_states=True, output_attentions=True)
    levels = model.encoder(image)
    enhanced = model.decoder.pyramid(*levels)
    for state, expected in zip(outputs.hidden_states, (*levels, *enhanced), strict=True):
        torch.testing.assert_close(state, expected)
    for attention, level, attention_map in zip(model.decoder.attention, enhanced, outputs.attentions, strict=True):
        torch.testing.assert_close(attention(level)[1].sigmoid(), attention_map)


def test_figure_three_is_only_returned_on_request():
    outputs = tiny_model()(torch.randn(1, 3, 32, 32))
    assert outputs.hidden_states is None and outputs.attentions is None and outputs.loss is None


def test_tuple_is_returned_on_request():
    model = tiny_model()
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(image, return_dict=False)[0], model(image).logits)


def test_background_has_the_logit_zero_and_the_lesion_its_own():
    model, images = tiny_model(), torch.randn(2, 3, 32, 48)
    logits = model(images).logits
    assert not logits[:, 0].any() and logits[:, 1].abs().min() > 0
    torch.testing.assert_close(logits.softmax(1)[:, 1], logits[:, 1].sigmoid(), atol=1e-6, rtol=0)
    assert torch.equal(logits.argmax(1) == 1, logits[:, 1].sigmoid() > 0.5)


def test_logits_come_from_the_attended_levels():
    """F_out and not F* reaches the head: with M_s = 0 the logits no longer depend on the image."""
    model = tiny_model()
    for attention in model.decoder.attention:
        nn.init.constant_(attention.convolution.bias, -1e4)
    first, second = model(torch.randn(1, 3, 32, 32)).logits, model(torch.randn(1, 3, 32, 32)).logits
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("level", range(4))
def test_every_attended_level_reaches_the_logits(level):
    model = tiny_model()
    image = torch.randn(1, 3, 32, 32)
    before = model(image).logits
    nn.init.constant_(model.decoder.attention[level].convolution.bias, -1e4)
    assert (model(image).logits - before).abs().max() > 1e-4


@pytest.mark.parametrize("part", ["use_cross_scale", "use_spatial_attention"])
def test_part_that_is_turned_off_is_gone(part):
    names = set(tiny_model().state_dict())
    without = set(tiny_model(**{part: False}).state_dict())
    gone = {"use_cross_scale": "decoder.pyramid.pair_scores", "use_spatial_attention": "decoder.attention"}[part]
    assert any(name.startswith(gone) for name in names)
    assert not any(name.startswith(gone) for name in without)


def test_plain_pyramid_goes_top_down_only():
    pyramid = tiny_model(use_cross_scale=False).decoder.pyramid
    levels = feature_maps()
    before = pyramid(*levels)
    levels[1] = levels[1] + torch.randn_like(levels[1])
    changed = [not torch.equal(one, other) for one, other in zip(before, pyramid(*levels), strict=True)]
    assert changed == [True, True, False, False]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_cross_scale": False},
        {"use_spatial_attention": False},
        {"num_labels": 3},
        {"head_size": 5},
    ],
    ids=str,
)
def test_every_parameter_gets_a_gradient(config):
    model = tiny_model(**config).train()
    labels = torch.randint(0, model.config.num_labels, (2, 64, 64))
    model(torch.randn(2, 3, 64, 64), labels=labels).loss.backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []


def test_loss_uses_the_weights_of_the_configuration():
    image, labels = torch.randn(2, 3, 32, 32), torch.randint(0, 2, (2, 32, 32))
    model = tiny_model()
    losses = {}
    for weights in [(1, 0), (0, 1), (2, 0.5)]:
        model.config.dice_weight, model.config.bce_weight = weights
        losses[weights] = model(image, labels=labels).loss.item()
    assert losses[2, 0.5] == pytest.approx(2 * losses[1, 0] + 0.5 * losses[0, 1], abs=1e-5)


def test_model_learns_one_image():
    torch.manual_seed(1)
    model = EFPForSegmentation(EFPConfig(**TINY)).train()
    image = torch.randn(1, 3, 32, 32)
    labels = torch.zeros(1, 32, 32, dtype=torch.long)
    labels[:, 8:20, 10:28] = 1
    image += 2 * labels[:, None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model(image, labels=labels).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.4  # from 1.4
    found = model(image).logits.argmax(1) == 1
    assert (found & (labels == 1)).sum() / (found | (labels == 1)).sum() > 0.9


def test_every_weight_of_a_new_model_learns():
    model = EFPForSegmentation(EFPConfig(**TINY)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    labels = torch.zeros(1, 32, 32, dtype=torch.long)
    labels[:, 8:20, 10:28] = 1
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.rand(1, 3, 32, 32), labels=labels).loss.backward()
        optimizer.step()
    assert all(parameter.grad.any() for parameter in model.parameters() if parameter.ndim > 1)


def test_signal_neither_vanishes_nor_explodes_in_a_new_model():
    model = EFPForSegmentation(EFPConfig()).train()
    states = model(torch.randn(2, 3, 64, 64), output_hidden_states=True).hidden_states
    assert all(0.1 < state.std() < 10 for state in states)


def test_images_of_a_batch_do_not_see_each_other():
    model = tiny_model()
    images = torch.randn(3, 3, 32, 32)
    together = model(images).logits
    alone = torch.cat([model(image[None]).logits for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_pixel_values_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"`pixel_values` must have the shape \(batch_size, 3, height, width\), got"):
        tiny_model()(torch.randn(1, 1, 32, 32))
    with pytest.raises(ValueError, match=r"got \(1, 3, 0, 32\)"):
        tiny_model()(torch.zeros(1, 3, 0, 32))


def test_level_of_stride_64_is_reached_by_averages_of_all_that_there_is():
    coarse = TimmBackboneConfig(backbone="tf_efficientnet_lite0", out_indices=(2, 3, 4), use_pretrained_backbone=False)
    outputs = tiny_model(backbone_config=coarse)(torch.randn(1, 3, 32, 32), output_hidden_states=True)
    assert [state.shape[-1] for state in outputs.hidden_states] == [4, 2, 1, 1] * 2
    assert outputs.logits.shape == (1, 2, 32, 32)


# Backbones, saving, speed-ups


def resnet_config() -> ResNetConfig:
    return ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


def lite0_config() -> TimmBackboneConfig:
    return TimmBackboneConfig(backbone="tf_efficientnet_lite0", out_indices=(1, 2, 3, 4), use_pretrained_backbone=False)


def three_levels_config():
    return TimmBackboneConfig(backbone="tf_efficientnet_lite0", out_indices=(1, 2, 3), use_pretrained_backbone=False)


@pytest.mark.parametrize(
    "backbone_config",
    [None, resnet_config(), lite0_config(), three_levels_config()],
    ids=["paper", "native", "timm", "three levels"],
)
def test_saved_model_loads_with_the_same_logits(tmp_path, backbone_config):
    model = tiny_model(backbone_config=backbone_config)
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    loaded = EFPForSegmentation.from_pretrained(tmp_path).eval()
    image = torch.randn(1, 3, 65, 48)
    assert torch.equal(model(image).logits, loaded(image).logits)


@pytest.mark.parametrize(
    "backbone_config",
    [resnet_config(), lite0_config(), three_levels_config()],
    ids=["native", "timm", "three levels"],
)
def test_backbone_gives_four_levels_and_trains(backbone_config):
    model = tiny_model(backbone_config=backbone_config).train()
    outputs = model(torch.randn(2, 3, 64, 64), labels=torch.randint(0, 2, (2, 64, 64)), output_hidden_states=True)
    assert [state.shape[-1] for state in outputs.hidden_states] == [16, 8, 4, 2] * 2
    outputs.loss.backward()
    assert all(parameter.grad is not None for parameter in model.encoder.parameters())


def test_missing_weights_are_an_error_and_not_random_numbers(tmp_path):
    tiny_model(use_spatial_attention=False).save_pretrained(tmp_path)
    config = EFPConfig.from_pretrained(tmp_path)
    config.use_spatial_attention = True
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="8 weights of the model are not in the checkpoint, decoder.attention.0"):
        EFPForSegmentation.from_pretrained(tmp_path)


def test_folder_with_the_names_of_earlier_releases_loads(tmp_path):
    """They had one decoder, whose parts stood beside the encoder."""
    model, image = tiny_model(), torch.randn(1, 3, 32, 32)
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    earlier = {name.removeprefix("decoder."): value for name, value in load_file(path).items()}
    assert "classifier.bias" in earlier
    save_file(earlier, path, {"format": "pt"})
    loaded = EFPForSegmentation.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(image).logits, model(image).logits)
    loaded.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == model.state_dict().keys()
    save_file(earlier | {"classifier.weight": earlier["classifier.weight"].long()}, path, {"format": "pt"})
    with pytest.raises(ValueError, match="`decoder.classifier.weight` must be of floating-point numbers, got I64"):
        EFPForSegmentation.from_pretrained(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    config = EFPConfig.from_pretrained(tmp_path)
    config.use_spatial_attention = False
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="8 weights of the checkpoint are not in the model, decoder.attention.0"):
        EFPForSegmentation.from_pretrained(tmp_path)
    config.use_spatial_attention, config.pyramid_size = True, 5
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="weights have another shape than the configuration says"):
        EFPForSegmentation.from_pretrained(tmp_path)


def test_reentrant_checkpointing_is_refused():
    """It gave the encoder no gradient and said nothing."""
    with pytest.raises(ValueError, match="`use_reentrant` must be False"):
        tiny_model().activation_checkpointing_enable({"use_reentrant": True})


def test_damaged_weights_are_named(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="the weights are damaged"):
        EFPForSegmentation.from_pretrained(tmp_path)


def test_head_for_other_labels_is_new_on_request(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    model = EFPForSegmentation.from_pretrained(tmp_path, num_labels=3, ignore_mismatched_sizes=True).eval()
    assert model(torch.randn(1, 3, 32, 32)).logits.shape == (1, 3, 32, 32)


def gradients(model: EFPForSegmentation, image: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(image, labels=labels).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("backbone_config", [None, resnet_config()], ids=["paper", "native"])
def test_gradient_checkpointing_changes_neither_gradients_nor_running_statistics(backbone_config):
    image, labels = torch.randn(2, 3, 32, 32), torch.randint(0, 2, (2, 32, 32))
    plain = tiny_model(backbone_config=backbone_config).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.activation_checkpointing_enable()
    assert checkpointed.decoder.pyramid.gradient_checkpointing
    expected, found = gradients(plain, image, labels), gradients(checkpointed, image, labels)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], msg=name)
    for name, buffer in plain.named_buffers():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(checkpointed.get_buffer(name), buffer, msg=name)


def test_frozen_batch_statistics_are_frozen_and_come_back():
    norm = nn.BatchNorm2d(3)
    with frozen_batch_statistics(norm):
        frozen = norm(torch.randn(4, 3, 2, 2) + 5)
    assert (norm.running_mean == 0).all()
    assert frozen.mean().abs() < 1e-5  # normalised with the batch's own statistics
    norm(torch.randn(4, 3, 2, 2) + 5)
    assert (norm.running_mean > 0.1).all()


@pytest.mark.parametrize("use_cross_scale", [True, False])
def test_every_feature_map_is_channels_last(use_cross_scale):
    outputs = tiny_model(use_cross_scale=use_cross_scale)(torch.randn(2, 3, 64, 64), output_hidden_states=True)
    assert all(state.is_contiguous(memory_format=torch.channels_last) for state in outputs.hidden_states)


def test_channels_last_gives_the_same_logits():
    model = tiny_model()
    image = torch.randn(2, 3, 32, 32)
    expected = model(image).logits
    found = model.to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last)).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_bfloat16_gives_nearly_the_same_probabilities():
    model = tiny_model()
    image, labels = torch.randn(2, 3, 32, 32), torch.randint(0, 2, (2, 32, 32))
    expected = model(image).logits.sigmoid()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(image, labels=labels)
    assert (outputs.logits.float().sigmoid() - expected).abs().max() < 0.05
    assert outputs.loss.dtype == torch.float32
    halved = model.to(torch.bfloat16)(image.to(torch.bfloat16)).logits
    assert (halved.float().sigmoid() - expected).abs().max() < 0.05


@pytest.mark.slow
def test_compiled_model_gives_the_same_logits_loss_and_gradients():
    model = tiny_model()
    image, labels = torch.randn(2, 3, 33, 32), torch.randint(0, 2, (2, 33, 32))
    expected = model(image, labels=labels)
    compiled = torch.compile(model, fullgraph=True)
    found = compiled(image, labels=labels)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-5, rtol=1e-4)
    found.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_temperature_divides_the_logits():
    model, pixel_values = tiny_model(), torch.randn(1, 3, 32, 32)
    logits = model(pixel_values).logits
    model.config.temperature = 2.5
    torch.testing.assert_close(model(pixel_values).logits, logits / 2.5)


def test_saved_weights_have_the_names_that_trainer_reads(tmp_path):
    """Transformers would rename a Swin's on saving; Trainer loads by the names of `state_dict()`."""
    swin = SwinConfig(embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=2, out_indices=(1, 2, 3, 4))
    model = EFPForSegmentation(EFPConfig(backbone_config=swin, pyramid_size=8)).eval()
    model.save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == set(model.state_dict())
    loaded, pixel_values = EFPForSegmentation.from_pretrained(tmp_path).eval(), torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(pixel_values).logits, model(pixel_values).logits)
