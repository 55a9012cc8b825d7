"""Training with prompts: the network learns to take the clicks and boxes of a simulated annotator."""

import copy

import numpy as np
import torch
from datasets import DatasetDict

from ..configuration_efp import PADDING
from ..data.labels import check_all_known, row_labels
from ..modeling_efp import EFPForSegmentation
from .annotator import lesion_box, next_click
from .trainer import LesionTrainer

PROMPT_SIZE = 32  # channels that prompts become on every level
MAX_CLICKS = 4  # on an image in training; in use there may be more
BOX_SHARE = 0.35  # of the examples; the others have clicks alone
ANYWHERE_SHARE = 0.5  # of the clicks that lie anywhere in the region, and not in its middle
BOX_JITTER = 0.1


def with_prompt_encoder(model: EFPForSegmentation) -> EFPForSegmentation:
    """
    The network with a prompt encoder that changes nothing yet and a prompted decoder, a copy of its own; or itself
    where it has them. Nothing else of it will learn.
    """
    if model.prompt_encoder is None:
        config = copy.deepcopy(model.config)
        config.prompt_size = PROMPT_SIZE
        prompted = EFPForSegmentation(config).to(model.device)
        prompted.load_state_dict(prompted.state_dict() | model.state_dict())
        prompted.prompted_decoder.load_state_dict(model.decoder.state_dict())
        model = prompted
    model.requires_grad_(False)
    model.prompt_encoder.requires_grad_(True)
    model.prompted_decoder.requires_grad_(True)
    return model


def without_prompt_encoder(model: EFPForSegmentation) -> EFPForSegmentation:
    """
    The network without prompt encoder and prompted decoder, or itself where it has none. Without prompts these learn
    nothing, and an encoder that learns is soon another than the one that they can read.
    """
    if model.prompt_encoder is None:
        return model
    config = copy.deepcopy(model.config)
    config.prompt_size = 0
    plain = EFPForSegmentation(config).to(model.device)
    weights = model.state_dict()
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    return plain


class PromptedLesionTrainer(LesionTrainer):
    """
    Trains prompt encoder and prompted decoder of a trained network with simulated prompts; all that makes the mask
    without prompts stays as it is, and so do the batch norms' statistics.

    Of each image the mask of the step before is corrected by one click more, up to a drawn number of clicks, without
    gradient; the last step has the loss, with that mask as a prompt of its own (Sofiiuk et al. 2021). The validation
    split is scored after one click into the middle of the largest error of each mask.
    """

    @classmethod
    def check_labels(cls, model, data) -> None:
        """Raises also where masks have ignored pixels: a click there would say that they are skin."""
        super().check_labels(model, data)
        for rows in data.values() if isinstance(data, DatasetDict) else ():  # a stream has none
            for row in rows.select_columns(["mask", "image_id"]):
                check_all_known(row_labels(row["mask"], row["image_id"]), row["image_id"])

    def compute_loss(self, model, inputs, return_outputs: bool = False, **kwargs):
        network, is_training = self.accelerator.unwrap_model(model), model.training
        seed = (self.args.seed, self.state.global_step, self.args.process_index)
        random = np.random.default_rng(seed) if is_training else None
        network.eval()  # for the batch norms; gradients flow all the same
        with torch.no_grad():
            embeddings = network.get_image_embeddings(inputs["pixel_values"])
        prompts = simulate_prompts(network, embeddings, inputs["labels"], random)
        outputs = model(image_embeddings=embeddings, labels=inputs["labels"], **prompts)
        network.train(is_training)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


def draw_prompts(truths: np.ndarray, random: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
    """A box or none, `(batch_size, 4)`, and the number of clicks on each image; without `random` one click each."""
    boxes, num_clicks = np.full((len(truths), 4), PADDING, np.float32), np.ones(len(truths), int)
    for number, truth in enumerate(truths if random is not None else ()):
        box = lesion_box(truth, random, BOX_JITTER) if random.random() < BOX_SHARE else None
        num_clicks[number] = random.integers(1, MAX_CLICKS + 1) if box is None else random.choice([0, 0, 1, 2])
        boxes[number] = PADDING if box is None else box
    return boxes, num_clicks


@torch.no_grad()
def simulate_prompts(
    network: EFPForSegmentation,
    embeddings: tuple[torch.Tensor, ...],
    labels: torch.Tensor,
    random: np.random.Generator | None = None,
) -> dict[str, torch.Tensor]:
    """
    Prompts of each image of a batch, for `forward`. An image without a box whose mask is right has none.

    Args:
        embeddings: of `get_image_embeddings`.
        labels: 0 skin, 1 lesion, `(batch_size, height, width)`.
        random: draws boxes, numbers and places of the clicks; without it, a click each into the middle of the error.
    """
    truths, device = (labels == 1).numpy(force=True), labels.device
    boxes, num_clicks = draw_prompts(truths, random)
    prompts = {"input_boxes": torch.from_numpy(boxes).to(device)}
    points = np.full((len(truths), max(1, num_clicks.max()), 2), PADDING, np.float32)
    click_labels = np.full(points.shape[:2], PADDING, np.int64)
    logits = network(image_embeddings=embeddings).logits[:, 1:]
    has_box = prompts["input_boxes"][:, 0] != PADDING
    if has_box.any():
        boxed = network(
            image_embeddings=[level[has_box] for level in embeddings], input_boxes=prompts["input_boxes"][has_box]
        )
        logits[has_box] = boxed.logits[:, 1:]
    masks = torch.zeros_like(logits)
    for step in range(num_clicks.max()):
        if step:
            logits = network(image_embeddings=embeddings, **prompts).logits[:, 1:]
        found = (logits[:, 0] > 0).numpy(force=True)
        clicked = np.zeros(len(truths), bool)
        for number in np.flatnonzero(num_clicks > step):
            is_anywhere = random is not None and random.random() < ANYWHERE_SHARE
            click = next_click(found[number], truths[number], random if is_anywhere else None)
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
    return prompts
