"""A forward pass, and its parts."""

import time

import pytest
import torch

from efp_hf.study.benchmark.model import model_calls, model_candidates, model_rows, profile_rows, time_parts
from efp_hf.study.benchmark.systems import CUDA, EFP, MASKFORMER, NANO, ON_ENCODER, SEGFORMER, TIMED_SYSTEMS
from efp_hf.study.comparison import ENCODER

SIZES = dict.fromkeys(TIMED_SYSTEMS, 64)


@pytest.fixture(scope="module")
def in_pytorch(tiny_checkpoint, tmp_path_factory):
    candidates, left_out = model_candidates(
        TIMED_SYSTEMS, ("torch",), tiny_checkpoint, tmp_path_factory.mktemp("exports"), threads=1
    )
    assert not left_out
    return candidates


@pytest.mark.slow
def test_candidates_give_the_logits_of_each_image(in_pytorch):
    calls = model_calls(in_pytorch, torch.randn(2, 3, 64, 64))
    shapes = {system: tuple(call().shape) for (system, _), call in calls.items()}
    assert shapes == {
        EFP: (2, 2, 64, 64),
        NANO: (2, 2, 64, 64),
        SEGFORMER: (2, 2, 16, 16),
        MASKFORMER: (2, 100, 16, 16),
        **dict.fromkeys(ON_ENCODER, (2, 2, 64, 64)),
    }


@pytest.mark.slow
def test_peers_are_those_that_they_are_called(in_pytorch):
    sizes = {system: sum(weight.numel() for weight in model.parameters()) for (system, _), model in in_pytorch.items()}
    assert round(sizes[SEGFORMER] / 1e6, 1) == 3.7 and round(sizes[MASKFORMER] / 1e6) == 42
    assert sizes[NANO] < 1e6
    for name, system in ON_ENCODER.items():
        config = in_pytorch[name, "torch"].config
        assert (config.system, config.encoder) == (system, ENCODER)
    assert not any(model.training for model in in_pytorch.values())


def test_every_candidate_is_measured_on_the_same_input():
    seen = []

    class Outputs(dict):
        logits = torch.zeros(1)

    pixel_values = torch.randn(1, 3, 8, 8)
    candidates = {(name, "torch"): lambda pixel_values: seen.append(pixel_values) or Outputs() for name in "abc"}
    for call in model_calls(candidates, pixel_values).values():
        call()
    assert len(seen) == 3 and all(value is pixel_values for value in seen)


def test_each_part_has_the_time_between_its_hooks(loaded, monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    model = loaded[0].cpu()
    seconds = time_parts(model, torch.randn(1, 3, 64, 64))
    # the clock goes on by one a look: a part is looked at twice, the attention of each of four levels; the whole pass
    # has two looks more around it
    assert seconds == {"encoder": 1, "pyramid": 1, "attention": 4, "fusion": 1, "classifier": 1, "rest": 9}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    rows = profile_rows({EFP: [{"encoder": 0.003, "rest": 0.001}]}, 1, 64)
    assert [(row["part"], row["median_ms"], row["share"]) for row in rows] == [
        ("encoder", 3, 0.75),
        ("rest", 1, 0.25),
    ]


def test_speed_ups_are_ratios_of_medians_to_the_right_reference():
    seconds = {
        (EFP, "torch"): [0.1, 0.2, 0.6],
        (EFP, "onnx"): [0.1, 0.1, 0.1],
        (EFP, "openvino"): [0.05, 0.05, 0.05],
        (EFP, CUDA): [0.01, 0.01, 0.01],
        (SEGFORMER, "torch"): [0.8, 0.8, 0.1],
        (SEGFORMER, "onnx"): [0.3, 0.3, 0.3],
        (SEGFORMER, CUDA): [0.02, 0.02, 0.02],
    }
    rows = model_rows(seconds, batch_size=8, image_sizes=SIZES)
    ratios = [(row["over_segformer_torch"], row["over_segformer_same_runtime"]) for row in rows]
    assert ratios[:4] == [(4, 4), (8, 3), (16, ""), (2, 2)]
    assert rows[0]["median_ms"] == 200 and rows[0]["rounds"] == 3 and rows[0]["batch_size"] == 8
    alone = model_rows({(EFP, "torch"): [1]}, 1, SIZES)[0]
    assert alone["over_segformer_torch"] == "" and set(alone) == set(rows[0])
