"""The head of a network for the classes of some data, or for its labels that overlap."""

import copy

from ..configuration_efp import MULTI_LABEL
from ..data.classes import BACKGROUND
from ..inference.task import class_names_of, labels_overlap
from ..modeling_efp import EFPForSegmentation


def with_classes(model: EFPForSegmentation, classes: tuple[str, ...], overlap: bool = False) -> EFPForSegmentation:
    """
    The network for these classes, the labels 1..K, or where they `overlap` for the labels 0..K-1; itself where they are
    its own, or where they have no names and it has one class. With other names but as many of them it is the same
    network, which calls them so. With another number, or where one kind becomes the other, the encoder, the pyramid and
    all else but the head are kept; the head is random, and the temperature 1. A decoder of added labels goes.
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
    config.num_added_labels = config.num_added_levels = config.shared_size = 0
    config.temperature = 1.0
    headed = EFPForSegmentation(config).to(model.device)
    weights, random = model.state_dict(), headed.state_dict()
    kept = {
        name: name in weights and weights[name].shape == tensor.shape and not is_random(name, model, overlap)
        for name, tensor in random.items()
    }
    headed.load_state_dict({name: weights[name] if kept[name] else tensor for name, tensor in random.items()})
    return headed


def is_random(name: str, model: EFPForSegmentation, overlap: bool) -> bool:
    """Whether a weight is of a head whose logits mean something else than those of the new one."""
    return ".classifier." in name and labels_overlap(model.config) != overlap


def has_new_head(model: EFPForSegmentation, classes: tuple[str, ...], overlap: bool = False) -> bool:
    """Whether [`with_classes`] makes a random head."""
    is_other_kind = labels_overlap(model.config) != overlap
    has_added = bool(model.config.num_added_labels) and classes != class_names_of(model.config)
    return is_other_kind or has_added or len(class_names_of(model.config)) != max(1, len(classes))
