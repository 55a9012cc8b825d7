"""The head of a network for the classes of some data."""

import copy

from ..data.classes import BACKGROUND
from ..inference.task import class_names_of
from ..modeling_efp import EFPForSegmentation


def with_classes(model: EFPForSegmentation, classes: tuple[str, ...]) -> EFPForSegmentation:
    """
    The network for these classes, the labels 1..K; itself where they are its own, or where they have no names and it
    has one class. With other names but as many of them it is the same network, which calls them so. With another number
    the encoder, the pyramid and all else but the head are kept; the head is random, and the temperature 1.
    """
    if classes in ((), class_names_of(model.config)) and (classes or model.config.num_labels == 2):
        return model
    labels = [BACKGROUND, *(classes or ("lesion",))]
    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: label for label, name in enumerate(labels)}
    if len(labels) == model.config.num_labels:
        model.config = config
        return model
    config.temperature = 1.0
    headed = EFPForSegmentation(config).to(model.device)
    weights, random = model.state_dict(), headed.state_dict()
    headed.load_state_dict(
        {name: weights[name] if weights[name].shape == tensor.shape else tensor for name, tensor in random.items()}
    )
    return headed


def has_new_head(model: EFPForSegmentation, classes: tuple[str, ...]) -> bool:
    """Whether [`with_classes`] makes a random head."""
    return model.config.num_labels != max(1, len(classes)) + 1
