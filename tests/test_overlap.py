"""Labels that overlap: configuration, loss, network and processor."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import TINY, tiny_model
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from efp_hf import EFPConfig, EFPForSegmentation, EFPImageProcessor
from efp_hf.configuration_efp import MULTI_LABEL
from efp_hf.image_processing_efp import expected_jaccard
from efp_hf.loss_efp import attention_loss, multi_label_loss

SURE = 40.0  # a logit whose probability is 0 or 1 in float32
OVERLAP = {"problem_type": MULTI_LABEL, "id2label": {0: "lesion", 1: "streaks", 2: "globules"}}
TIMM = {
    "model_type": "timm_backbone",
    "backbone": "test_efficientnet",
    "out_indices": (1, 2, 3, 4),
    "use_pretrained_backbone": False,
}


def draw(*rows: str) -> torch.Tensor:
    """A drawing, # there, . not, ? ignored → one label's map (height, width)."""
    return torch.tensor([[{"#": 1.0, ".": 0.0, "?": 255.0}[pixel] for pixel in row] for row in rows])


def sure_logits(masks: torch.Tensor) -> torch.Tensor:
    return (masks * 2 - 1) * SURE


SQUARE = draw("....", ".##.", ".##.", "....")
ROW = draw("....", ".###", "....", "....")
NOTHING = torch.zeros(4, 4)


def test_a_label_has_a_sigmoid_of_its_own_and_no_background():
    model = tiny_model(**OVERLAP)
    logits = model(torch.randn(2, 3, 33, 40)).logits
    assert logits.shape == (2, 3, 33, 40)
    assert model.decoder.classifier.out_channels == 3


def test_one_label_may_stand_alone():
    model = tiny_model(problem_type=MULTI_LABEL, num_labels=1)
    assert model(torch.randn(1, 3, 32, 32)).logits.shape == (1, 1, 32, 32)


def test_two_labels_that_overlap_are_not_lesion_and_background():
    logits = tiny_model(problem_type=MULTI_LABEL, num_labels=2)(torch.randn(1, 3, 32, 32)).logits
    assert (logits[:, 0] != 0).any() and (logits[:, 0] != logits[:, 1]).any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**OVERLAP, "prompt_size": 4}, "`prompt_size` must be 0 where labels overlap, got 4"),
        ({**OVERLAP, "num_added_labels": 3}, "`num_added_labels` must be fewer than `num_labels`.*got 3 of 3"),
        ({**OVERLAP, "use_added_encoder": True}, "`use_added_encoder` must be False without added labels"),
        ({**OVERLAP, "num_added_labels": 1, "added_backbone_config": TIMM}, "None without `use_added_encoder`"),
        (
            {**OVERLAP, "shared_size": 64},
            "`shared_size` must be a multiple of 32 up to .* without `use_added_encoder`, got 64",
        ),
        ({**OVERLAP, "num_added_labels": 1, "use_added_encoder": True, "shared_size": 40}, "multiple of 32 .*got 40"),
        ({"num_added_labels": 1}, "`num_added_labels` must be fewer than `num_labels`, and 0 where.*got 1 of 2"),
        ({**OVERLAP, "temperature": [1.0, 2.0]}, r"one each of 3 labels that overlap, got \[1.0, 2.0\]"),
        ({**OVERLAP, "temperature": [1.0, 2.0, 0.0]}, "`temperature` must be positive and at most 100, got 0.0"),
        ({"temperature": [1.0, 2.0]}, r"`temperature` must be one number.*got \[1.0, 2.0\]"),
    ],
)
def test_what_does_not_belong_together_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        EFPConfig(**TINY, **fields)


def test_dice_of_a_label_is_the_fraction_counted_over_the_batch():
    truth = torch.stack([torch.stack([SQUARE]), torch.stack([NOTHING])])  # in the first image alone
    found = torch.stack([torch.stack([ROW]), torch.stack([ROW])])
    loss = multi_label_loss(sure_logits(found), truth, bce_weight=0, smoothing=1e-9)
    assert loss.item() == pytest.approx(1 - 2 * 2 / (3 + 3 + 4), abs=1e-6)  # the second image's false row counts


def test_an_absent_label_is_not_rewarded_for_silence():
    truth = torch.stack([SQUARE, NOTHING])[None]
    missed = multi_label_loss(sure_logits(torch.stack([ROW, NOTHING])[None]), truth, bce_weight=0, smoothing=1e-9)
    alone = multi_label_loss(sure_logits(ROW[None, None]), truth[:, :1], bce_weight=0, smoothing=1e-9)
    assert missed.item() == pytest.approx(alone.item())  # with a Dice of 1 for it, half of that


def test_what_is_found_of_an_absent_label_costs_cross_entropy():
    truth = torch.stack([SQUARE, NOTHING])[None]
    logits = torch.stack([sure_logits(SQUARE), torch.zeros(4, 4)])[None].requires_grad_()
    loss = multi_label_loss(logits, truth)
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2) / 2, abs=1e-5)
    assert (logits.grad[0, 1] > 0).all()


def test_a_rare_label_weighs_as_much_as_a_frequent_one_in_the_dice():
    truth = torch.stack([torch.stack([SQUARE, SQUARE]), torch.stack([SQUARE, NOTHING])])
    missed_frequent = truth.clone()
    missed_frequent[:, 0] = 0
    missed_rare = truth.clone()
    missed_rare[:, 1] = 0
    losses = [
        multi_label_loss(sure_logits(found), truth, bce_weight=0).item() for found in (missed_frequent, missed_rare)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)
    assert losses[0] == pytest.approx(1 / 2, abs=2e-3)


def test_cross_entropy_of_even_odds_is_log_two():
    truth = torch.stack([SQUARE, NOTHING])[None]
    assert multi_label_loss(torch.zeros(1, 2, 4, 4), truth, 0, 1).item() == pytest.approx(np.log(2), abs=1e-6)


@pytest.mark.parametrize("weights", [(1, 0), (0, 1)], ids=["dice", "cross_entropy"])
def test_ignored_pixels_of_a_label_change_neither_term(weights):
    labels = torch.stack([draw("..??", ".##?", ".##.", "...."), SQUARE])[None]
    logits = torch.randn(1, 2, 4, 4)
    changed = torch.where(labels == 255, -3 * logits + 7, logits)
    assert multi_label_loss(logits, labels, *weights).item() == multi_label_loss(changed, labels, *weights).item()
    counted = torch.where(labels == 0, logits * 2, logits)
    assert multi_label_loss(logits, labels, *weights).item() != multi_label_loss(counted, labels, *weights).item()


def test_a_label_that_nobody_drew_in_an_image_takes_no_part():
    labels = torch.stack([torch.stack([SQUARE, SQUARE]), torch.stack([SQUARE, torch.full((4, 4), 255.0)])])
    logits = torch.randn(2, 2, 4, 4)
    changed = logits.clone()
    changed[1, 1] = 9
    assert multi_label_loss(logits, labels).item() == multi_label_loss(changed, labels).item()
    even = multi_label_loss(torch.zeros(2, 2, 4, 4), labels, 0, 1)
    assert even.item() == pytest.approx(np.log(2), abs=1e-6)  # the mean of those that take part


def test_nothing_valid_at_all_is_zero_with_a_gradient():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    loss = multi_label_loss(logits, torch.full((1, 2, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(1, 4, 4), r"must have the shape of the logits, .*got \(1, 4, 4\) for logits \(1, 2, 4, 4\)"),
        (torch.full((1, 2, 4, 4), 2), "must hold 0, 1 or 255 .*, got 2"),
        (torch.full((1, 2, 4, 4), 0.5), "must hold 0, 1 or 255 .*, got 0.5"),
    ],
)
def test_labels_of_another_kind_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        multi_label_loss(torch.zeros(1, 2, 4, 4), labels)


def test_attention_learns_where_any_label_is():
    labels = torch.stack([draw("##..", "....", "....", "...?"), draw("...#", "....", "....", "...?")])[None]
    scores = (torch.randn(1, 1, 4, 4),)
    either = draw("##.#", "....", "....", "...?")[None]
    assert attention_loss(scores, labels).item() == attention_loss(scores, either).item()
    assert attention_loss(scores, labels).item() != attention_loss(scores, labels[:, 0]).item()


def added_model() -> EFPForSegmentation:
    return tiny_model(**OVERLAP, num_added_labels=2, temperature=[2.0, 1.0, 4.0], attention_weight=0.5)


def test_added_labels_have_a_decoder_of_their_own_and_leave_the_others_as_they_are():
    added, plain = added_model(), tiny_model(temperature=2.0)
    plain.load_state_dict({name: added.state_dict()[name] for name in plain.state_dict()})
    pixels = torch.randn(2, 3, 45, 64)
    with torch.no_grad():
        logits = added(pixels).logits
        assert torch.equal(logits[:, 0], plain(pixels).logits[:, 1])
        torch.nn.init.zeros_(added.added_decoder.classifier.weight)
        torch.nn.init.zeros_(added.added_decoder.classifier.bias)
        without = added(pixels).logits
    assert torch.equal(without[:, 0], logits[:, 0])
    assert (without[:, 1:] == 0).all() and (logits[:, 1:] != 0).any()


@pytest.mark.parametrize("backbone", [{}, {"backbone_config": TIMM}, {"added_backbone_config": TIMM}])
def test_added_labels_may_have_an_encoder_of_their_own(backbone):
    model = tiny_model(**OVERLAP, **backbone, num_added_labels=2, use_added_encoder=True)
    names, own = (part.state_dict().keys() for part in (model.encoder, model.added_encoder))
    assert (names == own) == ("added_backbone_config" not in backbone)
    assert EFPConfig.from_dict(model.config.to_dict()).to_dict() == model.config.to_dict()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(pixels).logits
        for parameter in model.added_encoder.parameters():
            parameter.zero_()
        after = model(pixels).logits
    assert torch.equal(after[:, 0], before[:, 0]) and (after[:, 1:] != before[:, 1:]).any()
    with pytest.raises(ValueError, match="`pixel_values` must be given: the added labels have an encoder"):
        model(image_embeddings=model.get_image_embeddings(pixels))


def test_the_shared_encoder_may_read_a_smaller_image_than_the_added_one():
    model = tiny_model(**OVERLAP, num_added_labels=2, use_added_encoder=True, shared_size=64)
    pixels = torch.rand(1, 3, 96, 96)
    small = torch.nn.functional.interpolate(pixels, size=(64, 64), mode="bilinear", antialias=True)
    seen = {}
    for name in ("encoder", "added_encoder"):
        getattr(model, name).register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0].shape}))
    with torch.no_grad():
        logits, of_small = model(pixels).logits, model(small).logits
        assert logits.shape == (1, 3, 96, 96) and of_small.shape == (1, 3, 64, 64)
        model(pixels)
    assert seen == {"encoder": (1, 3, 64, 64), "added_encoder": (1, 3, 96, 96)}
    maps = torch.nn.functional.interpolate(of_small[:, :1], size=(96, 96), mode="bilinear")
    assert (logits[:, :1] - maps).abs().mean() < 0.1 * logits[:, :1].std()  # the lesion is that of the small image


def test_a_temperature_divides_the_logits_of_its_label_alone():
    model, pixels = added_model(), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = model(pixels).logits
        model.config.temperature = [2.0, 1.0, 8.0]
        after = model(pixels).logits
    assert torch.equal(after[:, :2], before[:, :2])
    assert torch.equal(after[:, 2], before[:, 2] / 2)


def test_every_parameter_gets_a_gradient_and_both_decoders_show_their_attention():
    model = added_model().train()
    labels = torch.randint(0, 2, (2, 3, 64, 64))
    outputs = model(torch.randn(2, 3, 64, 64), labels=labels, output_attentions=True)
    outputs.loss.backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []
    assert len(outputs.attentions) == 8


PROCESSOR = EFPImageProcessor(
    size={"height": 8, "width": 8},
    labels_overlap=True,
    threshold=[0.5, 0.2, 0.9],
    jaccard_temperature=[1.0, 2.0, 0.5],
)


def outputs_of(probabilities: torch.Tensor):
    return type("Outputs", (), {"logits": probabilities.logit()})


def test_each_label_is_cut_at_its_own_threshold():
    (masks,) = PROCESSOR.post_process_semantic_segmentation(outputs_of(torch.full((1, 3, 4, 4), 0.6)))
    assert masks.dtype == torch.bool and masks.shape == (3, 4, 4)
    assert masks.all((1, 2)).tolist() == [True, True, False]
    (masks,) = PROCESSOR.post_process_semantic_segmentation(outputs_of(torch.full((1, 3, 4, 4), 0.6)), threshold=0.7)
    assert not masks.any()


def test_each_label_has_its_probabilities_and_expected_jaccard_at_the_size_of_the_image():
    probabilities = torch.rand(1, 3, 4, 4) * 0.98 + 0.01
    (result,) = PROCESSOR.post_process_semantic_segmentation(
        outputs_of(probabilities), target_sizes=[(9, 7)], return_probabilities=True
    )
    assert result["probabilities"].shape == result["segmentation"].shape == (3, 9, 7)
    expected = [
        expected_jaccard(result["probabilities"][label], result["segmentation"][label], temperature)
        for label, temperature in enumerate((1.0, 2.0, 0.5))
    ]
    assert result["expected_jaccard"] == expected


def test_maps_of_several_labels_become_float_labels_resized_like_the_image():
    masks = np.zeros((3, 16, 16), np.uint8)
    masks[0, :8] = 255
    masks[2, :, 8:] = 255
    batch = PROCESSOR(
        [np.zeros((16, 16, 3), np.uint8)], [masks], input_data_format="channels_last", return_tensors="pt"
    )
    assert batch["labels"].shape == (1, 3, 8, 8) and batch["labels"].dtype == torch.float32
    assert batch["labels"].mean((0, 2, 3)).tolist() == [0.5, 0, 0.5]
    assert (batch["labels"][0, 0, :4] == 1).all()
    boolean = PROCESSOR(np.zeros((3, 16, 16), np.uint8), masks > 0, return_tensors="pt")
    assert torch.equal(boolean["labels"], batch["labels"])


def test_ignored_pixels_of_a_map_stay_ignored():
    masks = np.zeros((3, 8, 8), np.uint8)
    masks[0, 0, 0], masks[1, :, 0] = 1, 255
    labels = PROCESSOR(np.zeros((3, 8, 8), np.uint8), masks, return_tensors="pt")["labels"]
    assert labels[0, 0, 0, 0] == 1 and (labels[0, 1, :, 0] == 255).all() and labels.sum() == 1 + 8 * 255


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"threshold": [0.5, 0.5]}, r"`threshold` must be one number where labels do not overlap, got \[0.5, 0.5\]"),
        ({"labels_overlap": True, "threshold": [0.5, 1.0]}, r"must be a probability between 0 and 1, got \[0.5, 1.0\]"),
        ({"labels_overlap": True, "largest_region": True}, "`largest_region` must be False where labels overlap"),
        ({"labels_overlap": True, "jaccard_temperature": [0.0]}, "`jaccard_temperature` must be a finite number above"),
    ],
)
def test_settings_of_a_processor_that_contradict_each_other_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        EFPImageProcessor(**fields)


def test_other_numbers_of_thresholds_or_other_maps_are_refused():
    with pytest.raises(ValueError, match="`threshold` must be one number, or one each of 2 labels"):
        PROCESSOR.post_process_semantic_segmentation(outputs_of(torch.full((1, 2, 4, 4), 0.6)))
    with pytest.raises(ValueError, match="`threshold` must be one number where labels do not overlap, got"):
        EFPImageProcessor().post_process_semantic_segmentation(outputs_of(torch.rand(1, 2, 4, 4)), threshold=[0.5, 0.5])
    with pytest.raises(ValueError, match=r"must be \(num_labels, height, width\) of each image .*got \[\(8, 8\)\]"):
        PROCESSOR([np.zeros((3, 8, 8), np.uint8)], [np.zeros((8, 8), np.uint8)])


def test_a_saved_model_and_processor_come_back_through_the_auto_classes(tmp_path):
    model = added_model()
    model.save_pretrained(tmp_path)
    PROCESSOR.save_pretrained(tmp_path)
    loaded, processor = (
        cls.from_pretrained(tmp_path) for cls in (AutoModelForSemanticSegmentation, AutoImageProcessor)
    )
    assert isinstance(loaded, EFPForSegmentation) and isinstance(processor, EFPImageProcessor)
    assert processor.threshold == [0.5, 0.2, 0.9] and processor.labels_overlap
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(pixels).logits, model(pixels).logits)
    assert json.loads((tmp_path / "config.json").read_text())["problem_type"] == MULTI_LABEL


@pytest.mark.slow
def test_it_loads_as_remote_code_where_the_package_is_not_installed(tmp_path):
    model = added_model()
    with model.saved_with_code():
        model.save_pretrained(tmp_path)
    code = (
        "import sys; sys.modules['efp_hf'] = None\n"
        "from transformers import AutoModelForSemanticSegmentation\n"
        f"model = AutoModelForSemanticSegmentation.from_pretrained({str(tmp_path)!r}, trust_remote_code=True)\n"
        "print(model.config.num_added_labels, model.config.labels_overlap)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "True"]
