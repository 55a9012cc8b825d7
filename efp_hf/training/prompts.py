"""Training with prompts: the network learns to take the clicks and boxes of a simulated annotator."""

import copy

import numpy as np
import torch
import torch.nn.functional as F

from ..configuration_efp import PADDING
from ..modeling_efp import EFPForSegmentation
from .annotator import lesion_box, next_click
from .trainer import LesionTrainer

PROMPT_SIZE = 32  # channels that prompts become on every level
MAX_CLICKS = 4  # on an image in training; in use there may be more
# shares of the examples: without any prompt (the mask must stay as good), with a box, the rest with clicks alone
NONE_SHARE, BOX_SHARE = 0.25, 0.35
ANYWHERE_SHARE = 0.5  # of the clicks that lie anywhere in the region, and not in its middle
BOX_JITTER = 0.1


def with_prompt_encoder(model: EFPForSegmentation) -> EFPForSegmentation:
    """The network with a prompt encoder that changes nothing yet, or itself where it has one; its encoder is frozen."""
    if model.prompt_encoder is None:
        config = copy.deepcopy(model.config)
        config.prompt_size = PROMPT_SIZE
        prompted = EFPForSegmentation(config).to(model.device)
        prompted.load_state_dict(prompted.state_dict() | model.state_dict())
        model = prompted
    model.encoder.requires_grad_(False)
    return model


class PromptedLesionTrainer(LesionTrainer):
    """
    Trains pyramid, head and prompt encoder of a trained network with simulated prompts; the encoder is left as it is,
    and so are the batch norms' statistics, so that the network without prompts stays what it is.

    Of each image the mask of the step before is corrected by one click more, up to a drawn number of clicks, without
    gradient; the last step has the loss, with that mask as a prompt of its own (Sofiiuk et al. 2021). Images without a
    prompt have the cross-entropy with the probabilities of the network at the start in place of the truth's loss.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.at_the_start = copy.deepcopy(self.model).eval().requires_grad_(False)

    def compute_loss(self, model, inputs, return_outputs: bool = False, **kwargs):
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, **kwargs)
        network = self.accelerator.unwrap_model(model)
        network.eval()  # for the batch norms; gradients flow all the same
        random = np.random.default_rng((self.args.seed, self.state.global_step, self.args.process_index))
        with torch.no_grad():
            embeddings = network.get_image_embeddings(inputs["pixel_values"])
            prompts, is_prompted = simulate_prompts(network, embeddings, inputs["labels"], random)
            target = self.at_the_start(image_embeddings=embeddings).logits[~is_prompted, 1].sigmoid()
        labels = inputs["labels"].masked_fill(~is_prompted[:, None, None], network.config.semantic_loss_ignore_index)
        outputs = model(image_embeddings=embeddings, labels=labels, **prompts)
        loss = outputs.loss
        if len(target):
            loss = loss + F.binary_cross_entropy_with_logits(outputs.logits[~is_prompted, 1], target)
        network.train()
        return (loss, outputs) if return_outputs else loss


@torch.no_grad()
def simulate_prompts(
    network: EFPForSegmentation,
    embeddings: tuple[torch.Tensor, ...],
    labels: torch.Tensor,
    random: np.random.Generator,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """
    Prompts of each image of a batch, for `forward`, and which images have any, `(batch_size,)`.

    Args:
        embeddings: of `get_image_embeddings`.
        labels: 0 skin, 1 lesion, `(batch_size, height, width)`.
    """
    truths = (labels == 1).numpy(force=True)
    batch_size, device = len(truths), labels.device
    boxes = np.full((batch_size, 4), PADDING, np.float32)
    wanted = np.zeros(batch_size, int)
    for number, truth in enumerate(truths):
        draw = random.random()
        box = None if draw > BOX_SHARE else lesion_box(truth, random, BOX_JITTER)
        if box is not None:
            boxes[number] = box
            wanted[number] = random.choice([0, 0, 1, 2])
        elif draw < 1 - NONE_SHARE:
            wanted[number] = random.integers(1, MAX_CLICKS + 1)
    prompts = {"input_boxes": torch.from_numpy(boxes).to(device)}
    points = np.full((batch_size, max(1, wanted.max()), 2), PADDING, np.float32)
    click_labels = np.full(points.shape[:2], PADDING, np.int64)
    logits = network(image_embeddings=embeddings, **prompts).logits[:, 1:]
    masks = torch.zeros_like(logits)
    for step in range(wanted.max()):
        found = (logits[:, 0] > 0).numpy(force=True)
        clicked = np.zeros(batch_size, bool)
        for number in np.flatnonzero(wanted > step):
            anywhere = random if random.random() < ANYWHERE_SHARE else None
            click = next_click(found[number], truths[number], anywhere)
            if click is not None:
                *points[number, step], click_labels[number, step] = click
                clicked[number] = True
        is_clicked = torch.from_numpy(clicked).to(device)[:, None, None, None]
        masks = torch.where(is_clicked, logits, masks)
        prompts |= {
            "input_points": torch.from_numpy(points).to(device),
            "input_labels": torch.from_numpy(click_labels).to(device),
            "input_masks": masks,
        }
        if step + 1 < wanted.max():
            logits = network(image_embeddings=embeddings, **prompts).logits[:, 1:]
    is_prompted = (boxes[:, 0] != PADDING) | (click_labels != PADDING).any(1)
    return prompts, torch.from_numpy(is_prompted).to(device)
