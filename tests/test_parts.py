import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from conftest import tiny_model
from PIL import Image
from transformers.modeling_outputs import SemanticSegmenterOutput

from efp_hf.isic import load_isic
from efp_hf.metrics import confusion_counts, jaccard
from efp_hf.parts import (
    attend_everywhere_alike,
    attention_statistics,
    level_everywhere_alike,
    measure_parts,
    weigh_pairs_alike,
)
from efp_hf.scoring import model_masks


@pytest.fixture(scope="module")
def dataset(synthetic_root, tmp_path_factory):
    return load_isic(synthetic_root, cache_dir=tmp_path_factory.mktemp("cache"))["validation"]


@torch.inference_mode()
def outputs_of(model):
    torch.manual_seed(2)
    return model(torch.randn(2, 3, 64, 64), output_hidden_states=True, output_attentions=True)


def test_attention_at_its_mean_keeps_how_much_and_drops_where():
    model = tiny_model()
    before, changed = outputs_of(model), copy.deepcopy(model)
    attend_everywhere_alike(changed)
    after = outputs_of(changed)
    for attention_map, mean in zip(before.attentions, after.attentions, strict=True):
        assert attention_map.std() > 1e-3 and mean.std((2, 3)).max() < 1e-6
        torch.testing.assert_close(mean[:, :, 0, 0], attention_map.mean((2, 3)))
    assert not torch.allclose(before.logits, after.logits)


def test_attention_that_is_the_same_everywhere_loses_nothing():
    model = tiny_model()
    for attention in model.attention:
        torch.nn.init.zeros_(attention.convolution.weight)
    changed = copy.deepcopy(model)
    attend_everywhere_alike(changed)
    torch.testing.assert_close(outputs_of(model).logits, outputs_of(changed).logits)


@torch.inference_mode()
def test_pairs_weigh_a_third():
    model = tiny_model()
    before = outputs_of(model)
    weigh_pairs_alike(model)
    after = outputs_of(model)
    features, enhanced = after.hidden_states[:4], after.hidden_states[4:]
    assert all(map(torch.equal, before.hidden_states[:4], features))
    pyramid = model.pyramid
    to_others = pyramid.responses[3](features[3]).chunk(3, dim=1)
    from_others = [pyramid.responses[j](features[j]).chunk(3, dim=1)[2] for j in range(3)]  # level 4 is their last
    size = features[3].shape[-2:]
    pairs = [to_others[j] + pyramid.bring_to(from_others[j], j, 3, size) for j in range(3)]
    torch.testing.assert_close(enhanced[3], sum(pairs) / 3)
    assert not torch.allclose(before.hidden_states[7], enhanced[3])


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_level_at_its_mean_says_the_same_everywhere(level):
    model = tiny_model()
    before, seen = outputs_of(model), {}
    level_everywhere_alike(model, level)
    for number, projection in enumerate(model.fusion.projections, start=1):
        projection.register_forward_pre_hook(lambda module, levels, number=number: seen.update({number: levels[0]}))
    after = outputs_of(model)
    assert not torch.allclose(before.logits, after.logits)
    for number, reaching in seen.items():
        attended = before.attentions[number - 1] * before.hidden_states[3 + number]
        expected = attended.mean((2, 3), keepdim=True).expand_as(attended) if number == level else attended
        torch.testing.assert_close(reaching, expected)


def test_each_part_is_replaced_alone_and_in_a_copy(dataset, loaded):
    model, processor = loaded
    before = copy.deepcopy(model.state_dict())
    found = measure_parts(dataset, model, processor)
    expected = {"none": lambda model: None, "M_s at its mean": attend_everywhere_alike}
    expected["equal weights of the pairs"] = weigh_pairs_alike
    expected |= {f"level {k} at its mean": partial(level_everywhere_alike, level=k) for k in (1, 2, 3, 4)}
    assert list(found) == list(expected)
    for name, change in expected.items():
        changed = copy.deepcopy(model)
        change(changed)
        masks = model_masks(dataset, changed, processor)
        scores = [float(jaccard(confusion_counts(mask, truth))) for _, mask, truth in masks]
        assert found[name] == pytest.approx(np.mean(scores)), name
    assert len(set(found.values())) > 4
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_parts_that_a_model_does_not_have_are_not_replaced(dataset, loaded):
    plain = tiny_model(use_cross_scale=False, use_spatial_attention=False)
    levels = [f"level {level} at its mean" for level in (1, 2, 3, 4)]
    assert list(measure_parts(dataset, plain, loaded[1])) == ["none", *levels]
    assert attention_statistics(dataset, plain, loaded[1]) == []


def test_statistics_are_those_of_each_level(dataset, loaded):
    model = tiny_model()
    for level, attention in enumerate(model.attention):
        torch.nn.init.zeros_(attention.convolution.weight)
        torch.nn.init.constant_(attention.convolution.bias, level - 1.0)
    means = [round(1 / (1 + math.exp(1 - level)), 4) for level in range(4)]
    assert attention_statistics(dataset, model, loaded[1]) == [pytest.approx((mean, 0)) for mean in means]


def test_statistics_are_over_the_positions_of_an_image(loaded, monkeypatch):
    model, processor = loaded
    attention_maps = [torch.tensor([[[[0.0, 0.5], [0.5, 1.0]]]]), *[torch.full((1, 1, 1, 1), 0.25)] * 3]
    monkeypatch.setattr(
        type(model), "forward", lambda self, **inputs: SemanticSegmenterOutput(attentions=attention_maps)
    )
    rows = [{"image": Image.new("RGB", (40, 30))}] * 2
    assert attention_statistics(rows, model, processor) == [(0.5, 0.3536), *[(0.25, 0.0)] * 3]
