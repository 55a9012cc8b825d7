"""Training of dermoscopic structures: a trained lesion network learns them, and its lesion mask stays what it was."""

import copy

from ..configuration_efp import MULTI_LABEL, NUM_LEVELS
from ..inference.task import class_names_of, shows_lesions
from ..lesion.structures import LABELS, STRUCTURES
from ..modeling_efp import EFPForSegmentation
from .encoders import load_packaged_weights, timm_backbone_config


def with_structures(
    model: EFPForSegmentation,
    freeze: bool = True,
    num_added_levels: int | None = None,
    shared_size: int = 0,
    encoder: str | None = None,
    whole: bool = False,
) -> EFPForSegmentation:
    """
    The network with a decoder for `STRUCTURES`, a copy of its own with new classifiers, and with `LABELS` that overlap;
    or itself where it has them. Prompts are left out: a click does not say which structure it means.

    Args:
        num_added_levels: that come to the new decoder from an encoder of its own; by default all where the lesion's
            encoder is frozen, and none where it learns itself. It starts with ImageNet's weights where a package has
            them, which know textures that the lesion did not need, else as a copy.
        shared_size: sides at which the lesion's encoder goes on reading the image, where structures need a larger one.
        freeze: nothing but the new decoder will learn: the lesion's logits stay bit for bit.

    Raises:
        ValueError: a network that is not for lesions.
    """
    if not model.config.labels_overlap:
        if not shows_lesions(model.config):
            found = ", ".join(class_names_of(model.config))
            raise ValueError(f"`model` must be one for lesions, got one for {found}.")
        config = copy.deepcopy(model.config)
        config.problem_type = MULTI_LABEL
        config.id2label = dict(enumerate(LABELS))
        config.label2id = {name: label for label, name in enumerate(LABELS)}
        config.num_added_labels = len(STRUCTURES)
        config.num_added_levels = NUM_LEVELS * freeze if num_added_levels is None else num_added_levels
        if encoder is not None:
            config.added_backbone_config = timm_backbone_config(encoder, nano=not whole)
        config.shared_size = shared_size if config.num_added_levels else 0
        config.prompt_size = 0
        config.attention_weight = 0.0  # a map that is taught that nothing is there would shut the level
        # the structures' logits have no temperature: the one of the lesion was fitted to its logits
        config.temperature = [model.config.temperature] + [1.0] * len(STRUCTURES)
        added = EFPForSegmentation(config).to(model.device)
        own, start = added.state_dict(), model.state_dict()
        for name in own:
            source = name.removeprefix("added_")
            if source in start and own[name].shape == start[source].shape:
                own[name] = start[source]
        added.load_state_dict(own)
        if added.added_encoder is not None:
            load_packaged_weights(added.added_encoder)
        model = added
    elif freeze and model.config.num_added_levels and not model.config.shared_size:
        model.config.shared_size = shared_size  # the lesion's encoder goes on at the size that it has
    if class_names_of(model.config) != LABELS:
        found = ", ".join(class_names_of(model.config))
        raise ValueError(f"`model` must have the labels {', '.join(LABELS)}, got {found}.")
    model.requires_grad_(not freeze)
    for part in (model.added_encoder, model.added_decoder):
        if part is not None:
            part.requires_grad_(True)
    return model
