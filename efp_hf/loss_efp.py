"""
The composite loss of the paper, L = λ1 · L_Dice + λ2 · L_BCE, its form for labels that overlap, and a third term that
teaches the attention maps.
"""

import torch
import torch.nn.functional as F


def soft_dice_loss(
    probabilities: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """
    One minus the soft Dice coefficient, for each image and class, shape `(batch_size, num_classes)`.

    Overlap and areas are shares of the image's valid pixels, so `smoothing` means the same at every size. For an empty
    mask the coefficient is `smoothing / (area + smoothing)`: 1 only where nothing is called lesion.

    Args:
        probabilities: `(batch_size, num_classes, height, width)`, in [0, 1].
        truth: 0 or 1, of the same shape.
        valid: 1 where a pixel counts, else 0, `(batch_size, 1, height, width)`.
        smoothing: share of the image's area, positive.
    """
    num_valid = valid.sum((2, 3)).clamp(min=1)
    overlap = (probabilities * truth * valid).sum((2, 3)) / num_valid
    areas = ((probabilities + truth) * valid).sum((2, 3)) / num_valid
    return 1 - (2 * overlap + smoothing) / (areas + smoothing)


def efp_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    dice_weight: float = 1.0,
    bce_weight: float = 1.0,
    smoothing: float = 1e-3,
    ignore_index: int = 255,
) -> torch.Tensor:
    """
    `dice_weight` · Dice + `bce_weight` · cross-entropy, a scalar.

    Both terms are computed for each image over its valid pixels and then averaged over the images that have any, so
    that every image weighs the same and gradient accumulation gives the gradient of the large batch. With two labels
    the cross-entropy is binary, of the lesion's logit over the background's, and the Dice that of the lesion; with more
    it is soft-max and the mean Dice of all classes but the background (label 0).

    Args:
        logits: `(batch_size, num_labels, height, width)`.
        labels: integers in `[0, num_labels)` or `ignore_index`, `(batch_size, height, width)`.

    Raises:
        ValueError: labels of another size than the logits, or a label that is neither a class nor `ignore_index`.
    """
    if labels.shape != logits.shape[:1] + logits.shape[2:]:
        raise ValueError(
            f"`labels` must have the shape (batch_size, height, width) of the logits, got {tuple(labels.shape)} for "
            f"logits {tuple(logits.shape)}. Resize the masks like the images, with nearest interpolation."
        )
    num_labels = logits.shape[1]
    valid = labels != ignore_index
    classes = labels.long().masked_fill(~valid, 0)
    if not torch.compiler.is_compiling() and (classes.amin() < 0 or classes.amax() >= num_labels):
        found = classes[(classes < 0) | (classes >= num_labels)][0].item()
        raise ValueError(
            f"`labels` must hold 0..{num_labels - 1} or {ignore_index} (ignored), got {found}. "
            "A 0/255 mask becomes labels by `mask > 128`; `EFPImageProcessor` does it."
        )

    logits = logits.float()  # sums over a whole image overflow or lose digits in half precision
    valid = valid.unsqueeze(1).float()
    if num_labels == 2:
        truth = classes.unsqueeze(1).float()
        lesion = logits[:, 1:] - logits[:, :1]
        probabilities = lesion.sigmoid()
        cross_entropy = F.binary_cross_entropy_with_logits(lesion, truth, reduction="none")
    else:
        truth = F.one_hot(classes, num_labels).movedim(-1, 1)[:, 1:].float()
        probabilities = logits.softmax(1)[:, 1:]
        cross_entropy = F.cross_entropy(logits, classes, reduction="none").unsqueeze(1)

    num_valid = valid.sum((1, 2, 3))
    dice = soft_dice_loss(probabilities, truth, valid, smoothing).mean(1)
    cross_entropy = (cross_entropy * valid).sum((1, 2, 3)) / num_valid.clamp(min=1)
    counts = (num_valid > 0).float()  # an image without a valid pixel takes no part in the average
    return ((dice_weight * dice + bce_weight * cross_entropy) * counts).sum() / counts.sum().clamp(min=1)


def multi_label_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    dice_weight: float = 1.0,
    bce_weight: float = 1.0,
    smoothing: float = 1e-3,
    ignore_index: int = 255,
) -> torch.Tensor:
    """
    `dice_weight` · Dice + `bce_weight` · binary cross-entropy of labels that overlap, a scalar.

    Most labels are absent from most images. A Dice of each image would then reward silence: an empty mask for an absent
    label has the best value there is, which no present one reaches. So the Dice of a label is that of the batch, of
    overlap and areas added up over its images, as shares of their valid pixels; and a label that is in none of them has
    none. What is found where it is absent counts against it in the batch, and in the cross-entropy, which is the mean
    over valid pixels, then labels and images. The Dice is the mean of the labels that are there, so that a rare one
    weighs as much as a frequent one; the loss of a batch is not the mean of its parts.

    Args:
        logits: `(batch_size, num_labels, height, width)`.
        labels: 0, 1 or `ignore_index` for each label, integers or floats of the same shape.

    Raises:
        ValueError: labels of another shape than the logits, or a value that is none of the three.
    """
    if labels.shape != logits.shape:
        raise ValueError(
            f"`labels` must have the shape of the logits, (batch_size, num_labels, height, width), got "
            f"{tuple(labels.shape)} for logits {tuple(logits.shape)}. Each label has a map of its own."
        )
    valid = labels != ignore_index
    truth = labels.masked_fill(~valid, 0)
    if not torch.compiler.is_compiling() and not ((truth == 0) | (truth == 1)).all():
        found = truth[(truth != 0) & (truth != 1)][0].item()
        raise ValueError(
            f"`labels` must hold 0, 1 or {ignore_index} (ignored), got {found}. "
            "A 0/255 mask becomes labels by `mask > 128`; `EFPImageProcessor` does it."
        )

    logits, truth, valid = logits.float(), truth.float(), valid.float()
    probabilities = logits.sigmoid()
    num_valid = valid.sum((2, 3))  # (batch_size, num_labels)
    shares = valid / num_valid.clamp(min=1)[..., None, None]
    overlap = (probabilities * truth * shares).sum((0, 2, 3))
    areas = ((probabilities + truth) * shares).sum((0, 2, 3))
    is_there = truth.amax((0, 2, 3))
    dice = 1 - (2 * overlap + smoothing) / (areas + smoothing)
    dice = (dice * is_there).sum() / is_there.sum().clamp(min=1)

    cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    cross_entropy = (cross_entropy * shares).sum((2, 3))
    counts = (num_valid > 0).float()  # a label of an image without a valid pixel takes no part in the average
    cross_entropy = cross_entropy.sum() / counts.sum().clamp(min=1)
    return dice_weight * dice + bce_weight * cross_entropy


def attention_loss(scores: tuple[torch.Tensor, ...], labels: torch.Tensor, ignore_index: int = 255) -> torch.Tensor:
    """
    Binary cross-entropy of each M_s with the lesion's share of each of its pixels: the mean over an image's valid
    pixels, then over levels and images. The paper wants M_s to "amplify critical lesion regions"; nothing else in its
    loss tells it to.

    Args:
        scores: M_s before its sigmoid, `(batch_size, 1, height_i, width_i)` for each level.
        labels: 0 background, else lesion, `ignore_index` ignored, `(batch_size, height, width)`; of labels that
            overlap, `(batch_size, num_labels, height, width)`, the lesion is where one of them is.
    """
    if labels.ndim == 4:
        known = labels.masked_fill(labels == ignore_index, 0).amax(1)
        labels = known.masked_fill((labels == ignore_index).all(1), ignore_index)
    valid = (labels != ignore_index).unsqueeze(1).float()
    lesion = (labels > 0).unsqueeze(1).float() * valid
    counts = valid.amax((1, 2, 3))  # an image without a valid pixel takes no part in the average
    losses = []
    for level in scores:
        weights = F.adaptive_avg_pool2d(valid, level.shape[-2:])
        shares = F.adaptive_avg_pool2d(lesion, level.shape[-2:]) / weights.clamp(min=1e-6)
        cross_entropy = F.binary_cross_entropy_with_logits(level.float(), shares, weight=weights, reduction="none")
        losses.append(cross_entropy.sum((1, 2, 3)) / weights.sum((1, 2, 3)).clamp(min=1e-6))
    return (torch.stack(losses).mean(0) * counts).sum() / counts.sum().clamp(min=1)
