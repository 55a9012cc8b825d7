import copy

import pytest
import torch
from conftest import tiny_model

from efp_hf.isic import load_isic
from efp_hf.parts import (
    attend_everywhere_alike,
    attention_statistics,
    leave_level_out,
    measure_parts,
    weigh_pairs_alike,
)


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


def test_pairs_weigh_a_third():
    model = tiny_model()
    before = outputs_of(model)
    weigh_pairs_alike(model)
    after = outputs_of(model)
    # F_1..F_4 are what they were, F* are not
    assert all(map(torch.equal, before.hidden_states[:4], after.hidden_states[:4]))
    assert not any(map(torch.equal, before.hidden_states[4:], after.hidden_states[4:]))
    assert all(not pair_score.weight.any() for pair_score in model.pyramid.pair_scores)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_level_that_is_left_out_has_no_say(level):
    model = tiny_model()
    before = outputs_of(model)
    leave_level_out(model, level)
    without = outputs_of(model)
    assert not torch.allclose(before.logits, without.logits)
    model.attention[level - 1].convolution.bias.data.fill_(-50.0)  # nor does its attention
    torch.testing.assert_close(outputs_of(model).logits, without.logits)


def test_parts_are_measured_on_copies(dataset, loaded):
    model, processor = loaded
    before = copy.deepcopy(model.state_dict())
    found = measure_parts(dataset, model, processor)
    levels = [f"without level {level}" for level in (1, 2, 3, 4)]
    assert list(found) == ["none", "M_s at its mean", "equal weights of the pairs", *levels]
    assert all(0 <= value <= 1 for value in found.values()) and len(set(found.values())) > 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_parts_that_a_model_does_not_have_are_not_replaced(dataset, loaded):
    plain = tiny_model(use_cross_scale=False, use_spatial_attention=False)
    assert list(measure_parts(dataset, plain, loaded[1])) == ["none", *(f"without level {k}" for k in (1, 2, 3, 4))]


def test_statistics_of_an_undecided_attention(dataset, loaded):
    model = tiny_model()
    for attention in model.attention:
        torch.nn.init.zeros_(attention.convolution.weight)
    assert attention_statistics(dataset, model, loaded[1]) == [pytest.approx((0.5, 0.0))] * 4
