"""A model that takes prompts, exported as the automatic mask's graph and the two graphs of a correction."""

from functools import cache

import pytest
import torch
from conftest import tiny_prompted_model

from efp_hf import EFPImageProcessor
from efp_hf.data.synthetic import draw_lesion
from efp_hf.inference.checkpoint import load_checkpoint, segment
from efp_hf.inference.correction import Correction
from efp_hf.inference.export import export_model
from efp_hf.inference.runtimes import DECODER, ENCODER, PROMPTED_DECODER, WHOLE, ExportedSegmentation

CLICKS = [(30.0, 20.0, 1), (70.0, 50.0, 0)]
BOX = (5.0, 6.0, 70.0, 55.0)
PROCESSOR = EFPImageProcessor(size={"height": 32, "width": 64})
CLOSE = {"rtol": 0, "atol": 1e-4}


def prompted_model():
    """A tiny model with the plain pyramid, which is traced in half the time, whose prompts change something."""
    torch.manual_seed(0)
    return tiny_prompted_model(use_cross_scale=False)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Runtime → the prompted model's folder for it, made once."""

    @cache
    def folder_of(runtime):
        folder = tmp_path_factory.mktemp("exported") / runtime
        export_model(prompted_model(), PROCESSOR, folder, runtime)
        return folder

    return folder_of


@pytest.fixture(params=["onnx", "openvino"])
def both(request, export):
    """PyTorch's model and the exported one."""
    return prompted_model(), load_checkpoint(export(request.param))[0]


@pytest.mark.slow
def test_corrections_are_those_of_pytorch(both):
    model, exported = both
    image = draw_lesion(0, 60, 80)[0]
    expected, found = Correction(image, model, PROCESSOR), Correction(image, exported, PROCESSOR)
    automatic = expected.outputs().logits
    for points, box in (([], None), ([], BOX), (CLICKS[:1], None), (CLICKS, BOX)):
        logits = expected.outputs(points, box).logits
        torch.testing.assert_close(found.outputs(points, box).logits, logits, **CLOSE)
        assert torch.equal(logits, automatic) == (not points and box is None)
    (mask,), (other) = segment([image], exported, PROCESSOR), found.segment()
    torch.testing.assert_close(other["probabilities"], mask["probabilities"], **CLOSE)


@pytest.mark.slow
@torch.inference_mode()
def test_images_points_and_sizes_are_free(both):
    model, exported = both
    pixel_values = torch.randn(3, 3, 96, 32)
    labels = torch.tensor([[1, 0, 1, 0, -10], [-10] * 5, [0, 1, -10, -10, -10]])
    prompts = {
        "input_points": torch.rand(3, 5, 2) * 32,
        "input_labels": labels,
        "input_boxes": torch.tensor([[-10.0] * 4, [3, 4, 20, 90], [-10.0] * 4]),
        "input_masks": torch.randn(3, 1, 20, 70),
    }
    logits = model(pixel_values, **prompts).logits
    assert logits.shape == (3, 2, 96, 32)
    torch.testing.assert_close(exported(pixel_values, **prompts).logits, logits, **CLOSE)
    embeddings = exported.get_image_embeddings(pixel_values)
    torch.testing.assert_close(exported(image_embeddings=embeddings, **prompts).logits, logits, **CLOSE)
    assert not torch.allclose(exported(pixel_values).logits, logits, **CLOSE)


@pytest.mark.slow
def test_prompts_and_sizes_that_cannot_be_are_named(both):
    _, exported = both
    pixel_values, points = torch.zeros(1, 3, 32, 64), torch.tensor([[[10.0, 20.0]]])
    with pytest.raises(
        ValueError, match=r"`input_labels` must be 1 \(foreground\), 0 \(background\) or -10 \(no point\), got 2"
    ):
        exported(pixel_values, input_points=points, input_labels=torch.tensor([[2]]))
    with pytest.raises(ValueError, match=r"in the image of 64×32 pixels, got \(10.0, 33.0\)"):
        exported(pixel_values, input_points=points + torch.tensor([0, 13]), input_labels=torch.tensor([[1]]))
    with pytest.raises(ValueError, match=r"sides that are multiples of 32 to be kept as embeddings, got \(33, 64\)"):
        exported.get_image_embeddings(torch.zeros(1, 3, 33, 64))


@pytest.mark.slow
def test_each_graph_holds_its_own_weights_and_int8_makes_the_automatic_mask_alone(export, tmp_path):
    export_model(prompted_model(), PROCESSOR, tmp_path / "int8", "onnx", [draw_lesion(0, 60, 80)[0]])
    int8 = load_checkpoint(tmp_path / "int8")[0]
    assert list(int8.components) == [WHOLE] and int8.prompt_encoder is None
    exported = load_checkpoint(export("onnx"))[0]
    assert sorted(exported.components) == sorted([WHOLE, ENCODER, DECODER, PROMPTED_DECODER])
    for graph in (WHOLE, DECODER, PROMPTED_DECODER):  # each holds its own weights alone
        content = (export("onnx") / f"{graph}.onnx").read_bytes()
        assert (b"prompted_decoder.fusion" in content) == (b"prompt_encoder" in content) == (graph == PROMPTED_DECODER)
        assert (b"decoder.fusion" in content.replace(b"prompted_decoder", b"")) == (graph != PROMPTED_DECODER)


def test_folder_without_the_graphs_takes_no_prompts():
    exported = ExportedSegmentation({}, "onnx")
    assert exported.prompt_encoder is None
    with pytest.raises(ValueError, match="must have been trained with prompts to take some"):
        exported(torch.zeros(1, 3, 32, 32), input_boxes=torch.tensor([[1.0, 2, 3, 4]]))
