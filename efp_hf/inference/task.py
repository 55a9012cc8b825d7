"""What a checkpoint's labels are: one class, as a lesion, several of which each pixel has one, or some that overlap."""

from transformers import PreTrainedConfig

from ..configuration_efp import MULTI_LABEL
from ..lesion.structures import LABELS, LESION


def is_lesion(config: PreTrainedConfig) -> bool:
    """
    Whether there is one class against the background: then a mask has a threshold, an expected Jaccard and corrections
    by clicks. Otherwise each pixel has the most probable of several classes.
    """
    return config.num_labels == 2 and not labels_overlap(config)


def labels_overlap(config: PreTrainedConfig) -> bool:
    """Whether each label has a mask of its own, and none is the background. A network of others has none such."""
    return getattr(config, "problem_type", None) == MULTI_LABEL


def num_first_labels(config: PreTrainedConfig) -> int:
    """
    How many labels, the first ones, a network had before others were added to it: their thresholds and scores are not
    chosen and counted with those of the others. 0 where none was added.
    """
    added = getattr(config, "num_added_labels", 0)
    return config.num_labels - added if added else 0


def has_structures(config: PreTrainedConfig) -> bool:
    """Whether the labels are the lesion and the structures of ISIC 2018, Task 2, which overlap."""
    return labels_overlap(config) and class_names_of(config) == LABELS


def class_names_of(config: PreTrainedConfig) -> tuple[str, ...]:
    """The names of the labels 1..K, where the label 0 is the background; of labels that overlap those of all."""
    if labels_overlap(config):
        return tuple(config.id2label[label] for label in range(config.num_labels))
    return tuple(config.id2label[label] for label in range(1, config.num_labels))


def shows_lesions(config: PreTrainedConfig) -> bool:
    """Whether the one class is the lesion, which has measures that others have not."""
    return is_lesion(config) and class_names_of(config) == (LESION,)


def check_lesion(config: PreTrainedConfig, what: str) -> None:
    """
    Raises:
        ValueError: several classes, for which there is no `what`: the beginning of the message.
    """
    if not is_lesion(config):
        names = ", ".join(class_names_of(config))
        raise ValueError(f"{what} must have a checkpoint of one class, got one of {names.count(',') + 1} ({names}).")
