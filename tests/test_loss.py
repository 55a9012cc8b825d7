import math

import pytest
import torch

from efp_hf.loss_efp import attention_loss, efp_loss, soft_dice_loss
from efp_hf.modeling_efp import with_background

SURE = 40.0  # a logit whose probability is 0 or 1 in float32
SMOOTHING = 1e-3


def draw(*rows: str) -> torch.Tensor:
    """A 4×4 drawing, # lesion, . skin, ? ignored → labels (1, 4, 4)."""
    return torch.tensor([[{"#": 1, ".": 0, "?": 255}[pixel] for pixel in row] for row in rows])[None]


def sure_logits(mask: torch.Tensor) -> torch.Tensor:
    """Logits (batch_size, 2, 4, 4) that are certain of a 0/1 mask."""
    return with_background(((mask * 2.0 - 1) * SURE)[:, None])


TRUTH = draw("....", ".##.", ".##.", "....")
FOUND = draw("....", ".###", "....", "....")  # 2 hit, 1 false, 2 missed


def test_dice_of_a_drawing_is_the_counted_fraction():
    loss = efp_loss(sure_logits(FOUND), TRUTH, bce_weight=0, smoothing=1e-9)
    assert loss.item() == pytest.approx(1 - 2 * 2 / (3 + 4), abs=1e-6)


def test_cross_entropy_of_even_odds_is_log_two():
    loss = efp_loss(torch.zeros(1, 2, 4, 4), TRUTH, dice_weight=0)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)


def test_perfect_mask_costs_nothing():
    assert efp_loss(sure_logits(TRUTH), TRUTH).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dice_weight", [0, 0.3, 1])
def test_loss_is_the_stated_mixture(dice_weight):
    logits = torch.randn(2, 2, 4, 4)
    labels = TRUTH.expand(2, 4, 4)
    dice, cross_entropy = efp_loss(logits, labels, 1, 0), efp_loss(logits, labels, 0, 1)
    mixed = efp_loss(logits, labels, dice_weight, 1 - dice_weight)
    assert mixed.item() == pytest.approx((dice_weight * dice + (1 - dice_weight) * cross_entropy).item(), abs=1e-6)
    assert dice.item() != pytest.approx(cross_entropy.item(), abs=1e-2)


def test_empty_mask_still_punishes_a_false_lesion():
    empty = torch.zeros(1, 4, 4, dtype=torch.long)
    clean = efp_loss(sure_logits(empty), empty, bce_weight=0)
    one_false_pixel = efp_loss(sure_logits(draw("#...", "....", "....", "....")), empty, bce_weight=0)
    assert clean.item() == pytest.approx(0, abs=1e-6)
    assert one_false_pixel.item() == pytest.approx(1 - SMOOTHING / (1 / 16 + SMOOTHING), abs=1e-5)

    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
    efp_loss(logits, empty, bce_weight=0).backward()
    assert (logits.grad[:, 1] > 0).all()  # descending lowers every false probability


def test_missed_lesion_costs_the_whole_dice():
    missed = efp_loss(sure_logits(torch.zeros_like(TRUTH)), TRUTH, bce_weight=0)
    assert missed.item() == pytest.approx(1 - SMOOTHING / (4 / 16 + SMOOTHING), abs=1e-5)


def test_dice_is_the_mean_of_the_images_and_not_of_their_pixels():
    small = draw("#...", "....", "....", "....")
    labels = torch.cat([TRUTH, small])
    logits = sure_logits(torch.cat([FOUND, torch.zeros_like(small)]))
    expected = ((1 - 4 / 7) + 1) / 2  # pooled it would be 1 - 4 / 8
    assert efp_loss(logits, labels, bce_weight=0, smoothing=1e-9).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("weights", [(1, 0), (0, 1)], ids=["dice", "cross_entropy"])
def test_ignored_pixels_change_neither_term(weights):
    labels = draw("..??", ".##?", ".##.", "....")
    logits = torch.randn(1, 2, 4, 4)
    changed = torch.where(labels[:, None] == 255, -3 * logits + 7, logits)
    assert efp_loss(logits, labels, *weights).item() == pytest.approx(efp_loss(changed, labels, *weights).item())
    counted = torch.where(labels[:, None] == 0, logits * 2, logits)
    assert efp_loss(logits, labels, *weights).item() != pytest.approx(efp_loss(counted, labels, *weights).item())


def test_ignored_pixels_are_not_in_the_denominators():
    labels = draw("????", "????", ".##.", "....")
    cropped = labels[:, 2:]
    logits = torch.randn(1, 2, 4, 4)
    assert efp_loss(logits, labels).item() == pytest.approx(efp_loss(logits[:, :, 2:], cropped).item(), abs=1e-6)


def test_image_without_a_valid_pixel_is_not_in_the_average():
    labels = torch.cat([TRUTH, torch.full_like(TRUTH, 255)])
    logits = torch.randn(2, 2, 4, 4)
    assert efp_loss(logits, labels).item() == pytest.approx(efp_loss(logits[:1], TRUTH).item(), abs=1e-6)


def test_nothing_valid_at_all_is_zero_with_a_gradient():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    loss = efp_loss(logits, torch.full_like(TRUTH, 255))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_ignore_index_can_be_another_number():
    labels = TRUTH.clone()
    labels[0, 0] = -100
    logits = with_background(torch.ones(1, 1, 4, 4))
    expected = efp_loss(logits[:, :, 1:], TRUTH[:, 1:])
    assert efp_loss(logits, labels, ignore_index=-100).item() == pytest.approx(expected.item())


def test_loss_of_a_batch_is_the_mean_of_its_parts():
    logits = torch.randn(4, 2, 4, 4)
    labels = torch.cat([TRUTH, draw("##??", "....", "....", "...."), FOUND, torch.zeros_like(TRUTH)])
    parts = (efp_loss(logits[:2], labels[:2]) + efp_loss(logits[2:], labels[2:])) / 2
    assert efp_loss(logits, labels).item() == pytest.approx(parts.item(), abs=1e-6)


def test_loss_does_not_depend_on_the_resolution():
    logits = torch.randn(1, 2, 4, 4)
    larger = logits.repeat_interleave(3, 2).repeat_interleave(3, 3)
    larger_labels = TRUTH.repeat_interleave(3, 1).repeat_interleave(3, 2)
    assert efp_loss(larger, larger_labels).item() == pytest.approx(efp_loss(logits, TRUTH).item(), abs=1e-6)


def test_two_labels_cost_what_soft_max_and_its_cross_entropy_cost():
    logits, labels = torch.randn(2, 2, 4, 4), TRUTH.expand(2, 4, 4)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert efp_loss(logits, labels, dice_weight=0).item() == pytest.approx(expected.item(), abs=1e-5)
    lesion, truth = logits.softmax(1)[:, 1].sum((1, 2)), (logits.softmax(1)[:, 1] * labels).sum((1, 2))
    expected = (1 - 2 * truth / (lesion + labels.sum((1, 2)))).mean()
    assert efp_loss(logits, labels, bce_weight=0, smoothing=1e-9).item() == pytest.approx(expected.item(), abs=1e-5)


def test_lesion_logit_beside_a_background_of_zero_costs_its_binary_cross_entropy():
    lesion, labels = torch.randn(2, 1, 4, 4), TRUTH.expand(2, 4, 4)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(lesion[:, 0], labels.float())
    assert efp_loss(with_background(lesion), labels, dice_weight=0).item() == pytest.approx(expected.item(), abs=1e-6)


def test_dice_of_more_labels_is_the_mean_of_all_but_the_background():
    truth = draw("##..", "##..", "....", "....") + 2 * draw("....", "....", "....", "..##")
    found = draw("##..", "....", "....", "....") + 2 * draw("....", "....", "....", "..##")
    logits = torch.nn.functional.one_hot(found, 3).movedim(-1, 1).float() * SURE
    loss = efp_loss(logits, truth, bce_weight=0, smoothing=1e-9)
    assert loss.item() == pytest.approx(((1 - 2 * 2 / (2 + 4)) + 0) / 2, abs=1e-6)


def test_soft_dice_has_a_value_for_each_image_and_class():
    probabilities = torch.rand(2, 3, 4, 4)
    assert soft_dice_loss(probabilities, probabilities.round(), torch.ones(2, 1, 4, 4), 1e-3).shape == (2, 3)


def test_half_precision_logits_do_not_overflow():
    labels = torch.ones(1, 512, 512, dtype=torch.long)
    logits = with_background(torch.full((1, 1, 512, 512), 4.0))
    loss = efp_loss(logits.half(), labels)
    assert loss.item() == pytest.approx(efp_loss(logits, labels).item(), abs=1e-3)


def test_labels_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"`labels` must have the shape.*got \(1, 4, 4\) for logits \(1, 2, 8, 8\)"):
        efp_loss(torch.zeros(1, 2, 8, 8), TRUTH)


@pytest.mark.parametrize("strange", [2, 128, -1])
def test_labels_that_are_no_class_are_refused(strange):
    labels = TRUTH.clone()
    labels[0, 0, 0] = strange
    with pytest.raises(ValueError, match=rf"`labels` must hold 0..1 or 255 \(ignored\), got {strange}"):
        efp_loss(torch.zeros(1, 2, 4, 4), labels)


def level_scores(*rows: tuple[float, ...]) -> torch.Tensor:
    """(1, 1, height, width)"""
    return torch.tensor(rows)[None, None]


def test_attention_loss_is_the_cross_entropy_with_the_lesion_share():
    labels = draw("##..", "##..", "#...", "....")
    sure = level_scores((SURE, -SURE), (0.0, -SURE))  # a quarter of the third pixel is lesion
    assert attention_loss((sure,), labels).item() == pytest.approx(math.log(2) / 4, abs=1e-6)
    wrong = level_scores((-SURE, -SURE), (0.0, -SURE))
    assert attention_loss((wrong,), labels).item() == pytest.approx((SURE + math.log(2)) / 4, rel=1e-5)
    assert attention_loss((sure, wrong), labels).item() == pytest.approx((SURE / 2 + math.log(2)) / 4, rel=1e-5)


def test_attention_loss_leaves_ignored_pixels_out():
    labels = draw("##..", "##..", "??..", "??..")
    scores = level_scores((SURE, -SURE), (SURE, -SURE))
    assert attention_loss((scores,), labels).item() == pytest.approx(0, abs=1e-6)
    half = draw("?#..", "?#..", "....", "....")  # half of the first pixel is lesion, the other half does not count
    scores = level_scores((SURE, -SURE), (-SURE, -SURE))
    assert attention_loss((scores,), half).item() == pytest.approx(0, abs=1e-6)
    nothing = torch.full((1, 4, 4), 255)
    assert attention_loss((level_scores((1.0, 2.0), (3.0, 4.0)),), nothing).item() == 0


def test_attention_loss_of_a_batch_is_the_mean_over_its_images():
    labels = torch.cat([draw("##..", "##..", "####", "...."), draw("??..", "??..", "??#.", "????")])
    scores = torch.randn(2, 1, 2, 2)
    each = [attention_loss((scores[i : i + 1],), labels[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(attention_loss((scores,), labels), torch.stack(each).mean())
