"""The head of a network for the classes of some data, or for its labels that overlap."""

import copy

from ..configuration_efp import MULTI_LABEL
from ..data.classes import BACKGROUND
from ..inference.task import class_names_of, labels_overlap
from ..modeling_efp import EFPForSegmentation


def with_classes(model: EFPForSegmentation, classes: tuple[str, ...], overlap: bool = False) -> EFPForSegmentation:
    """
    The network for these classes, the labels 1..K, or where they `overlap` for the labels 0..K-1; itself where they are
    its own, or where they have no names and it has one class. One class of another name is the same network, which
    calls it so. Of other names, another order or number of several, or where one kind becomes the other, the encoder,
    the pyramid and all else but the head are kept; the head is random, and the temperature 1. A decoder of added labels
    goes.
    """
    own = class_names_of(model.config)
    new_head = has_new_head(model, classes, overlap)
    if not new_head and (classes == own or not classes):
        return model
    labels = list(classes) if overlap else [BACKGROUND, *(classes or ("lesion",))]
    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: label for label, name in enumerate(labels)}
    if not new_head:
        model.config = config
        return model
    config.problem_type = MULTI_LABEL if overlap else None
    config.num_added_labels = config.shared_size = 0
    config.use_added_encoder, config.added_backbone_config = False, None
    config.temperature = 1.0
    headed = EFPForSegmentation(config).to(model.device)
    weights, random = model.state_dict(), headed.state_dict()
    kept = {
        name: name in weights and weights[name].shape == tensor.shape and ".classifier." not in name
        for name, tensor in random.items()
    }
    headed.load_state_dict({name: weights[name] if kept[name] else tensor for name, tensor in random.items()})
    return headed


def has_new_head(model: EFPForSegmentation, classes: tuple[str, ...], overlap: bool = False) -> bool:
    """Whether [`with_classes`] makes a random head."""
    own = class_names_of(model.config)
    is_other_kind = labels_overlap(model.config) != overlap
    # one class may be called otherwise; of several each logit means the class of its place
    return is_other_kind or len(own) != max(1, len(classes)) or (len(own) > 1 and classes != own)
