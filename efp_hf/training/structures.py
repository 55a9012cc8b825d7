"""Training of dermoscopic structures: a trained lesion network learns them, and its lesion mask stays what it was."""

import copy

from ..configuration_efp import MULTI_LABEL
from ..inference.task import class_names_of, shows_lesions
from ..lesion.structures import LABELS, STRUCTURES
from ..modeling_efp import EFPForSegmentation
from .encoders import PAPER_ENCODER, load_imagenet, load_packaged_weights, timm_backbone_config


def with_structures(model: EFPForSegmentation, shared_size: int = 0, encoder: str | None = None) -> EFPForSegmentation:
    """
    The network with an encoder and a decoder for `STRUCTURES`, and with `LABELS` that overlap; or itself where it has
    them. Nothing but these two learns: the lesion's logits stay bit for bit. Prompts are left out: a click does not say
    which structure it means.

    Args:
        shared_size: sides at which the lesion's encoder goes on reading the image, where structures need a larger one.
        encoder: a timm model for the structures, which starts with ImageNet's weights; by default one as the lesion's,
            a copy of it where no package has ImageNet's, which know textures that the lesion did not need.

    Raises:
        ValueError: a network that is not for lesions, an encoder that is not timm's, or one for a network that has
            structures.
    """
    if encoder and (encoder == PAPER_ENCODER or "/" in encoder):
        raise ValueError(f"`encoder` of the structures must be a timm model, got {encoder!r}. Leave it out.")
    if not model.config.labels_overlap:
        if not shows_lesions(model.config):
            found = ", ".join(class_names_of(model.config))
            raise ValueError(f"`model` must be one for lesions, got one for {found}.")
        config = copy.deepcopy(model.config)
        config.problem_type = MULTI_LABEL
        config.id2label = dict(enumerate(LABELS))
        config.label2id = {name: label for label, name in enumerate(LABELS)}
        config.num_added_labels, config.use_added_encoder = len(STRUCTURES), True
        config.added_backbone_config = timm_backbone_config(encoder) if encoder else None
        config.shared_size = shared_size
        config.prompt_size = 0
        config.attention_weight = 0.0  # a map that is taught that nothing is there would shut the level
        # the structures' logits have no temperature: the one of the lesion was fitted to its logits
        config.temperature = [model.config.temperature] + [1.0] * len(STRUCTURES)
        added = EFPForSegmentation(config).to(model.device)
        own, start = added.state_dict(), model.state_dict()
        for name in own:
            source = start.get(name.removeprefix("added_"))
            if source is not None and own[name].shape == source.shape:
                own[name] = source
        added.load_state_dict(own)
        if encoder:
            load_imagenet(added.added_encoder, encoder)
        else:
            load_packaged_weights(added.added_encoder)
        model = added
    elif encoder:
        raise ValueError("`encoder` must be None for a model that has one for structures. Leave it out.")
    elif model.config.use_added_encoder and not model.config.shared_size:
        model.config.shared_size = shared_size  # the lesion's encoder goes on at the size that it has
    if class_names_of(model.config) != LABELS:
        found = ", ".join(class_names_of(model.config))
        raise ValueError(f"`model` must have the labels {', '.join(LABELS)}, got {found}.")
    model.requires_grad_(False)
    for part in (model.added_encoder, model.added_decoder):
        if part is not None:
            part.requires_grad_(True)
    return model
