"""Every number of the architecture and of the loss."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import AutoConfig, PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.utils import CONFIG_NAME

NUM_LEVELS = 4  # the paper's F1..F4
PADDING = -10  # label of a click that is none, and each of a box's four numbers where there is none, as in SAM
MAX_SIZE = 8192  # of channels, layers, kernels or labels: 64 times the default pyramid
MAX_TEMPERATURE = 100  # beyond, every probability is 1/2
BACKBONE_FIELDS = ("backbone_config", "added_backbone_config")
MULTI_LABEL = "multi_label_classification"  # the `problem_type` of labels that overlap, as Transformers calls it
# of other architectures: Transformers acts on them wherever they are
FOREIGN_FIELDS = ("base_model_tp_plan", "layer_types", "per_layer_config", "quantization_config", "rope_parameters")
MAX_MESSAGE = 500  # characters: a message can quote what it does not understand, a megabyte of it


@contextmanager
def damage_named(checkpoint: str | Path, file: str) -> Iterator[None]:
    """
    Inside, whatever a damaged file of a checkpoint raises becomes one sentence, a `ValueError` or `OSError`, that
    begins with the checkpoint and the file. A missing package stays an `ImportError`.
    """
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        found = error.__cause__ if isinstance(error, StrictDataclassFieldValidationError) else error
        is_sentence = isinstance(error, (OSError, ValueError, StrictDataclassFieldValidationError))
        message = " ".join((f"{found}" if is_sentence else f"{type(found).__name__}: {found}").split())[:MAX_MESSAGE]
        if not message.startswith(f"{checkpoint}: "):
            message = f"{checkpoint}: {file}: {message}"
        raise (OSError if isinstance(error, OSError) else ValueError)(message) from error


def check_fields(cls: type, fields: dict) -> None:
    """
    Raises:
        ValueError: a field of a file would hide a method of the class that is made of it.
    """
    for name in fields:
        if callable(getattr(cls, name, None)):
            raise ValueError(f"`{name}` must not be a field: it is a method of {cls.__name__}. Delete it.")


def whole_numbers(value) -> Iterator[int]:
    """Those in the dictionaries and lists of a file."""
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from whole_numbers(part)
    if isinstance(value, int):
        yield value


def read_backbone_config(fields: dict, name: str = "backbone_config") -> PreTrainedConfig:
    """
    Raises:
        ValueError: no backbone of Transformers or timm, or one with sizes that no network has.
    """
    if "model_type" not in fields:
        raise ValueError(
            f"`{name}` must have a `model_type`, got {sorted(fields)}. Pass for example model_type='timm_backbone'."
        )
    largest = max(map(abs, whole_numbers(fields)), default=0)
    if largest > MAX_SIZE:
        raise ValueError(f"`{name}` must have no size above {MAX_SIZE}, got {largest}.")
    try:
        return AutoConfig.for_model(**fields)
    except Exception as error:  # each backbone has checks of its own
        raise ValueError(f"`{name}` must describe a backbone: {type(error).__name__}: {error}") from error


@contextmanager
def with_code_files(**auto_classes: type) -> Iterator[None]:
    """
    Inside, `save_pretrained` of these classes writes the code files that the Hub's remote code needs, too.

    Args:
        auto_classes: name of the Auto class, as "AutoConfig" → the class that it loads.
    """
    before = {cls: cls._auto_class for cls in auto_classes.values()}
    for name, cls in auto_classes.items():
        cls._auto_class = name
    try:
        yield
    finally:
        for cls, name in before.items():
            cls._auto_class = name


@strict
class EFPConfig(PreTrainedConfig):
    r"""
    Configuration of [`EFPForSegmentation`]. `EFPConfig()` is the paper's own network; `backbone_config` replaces its
    encoder by any Transformers or timm backbone with four feature maps, or all but its last block by a timm backbone
    with three.

    Args:
        num_channels (`int`, defaults to 3):
            Channels of the image.
        backbone_config (`PreTrainedConfig` or `dict`, *optional*):
            A backbone that gives four feature maps, finest first, each half the resolution of the one before; then
            `hidden_sizes` and `depths` are not used. Or a timm backbone that gives three: then F4 is the paper's
            ConvBlock of the third, and the last of `hidden_sizes` and of `depths` are its.
        hidden_sizes (`tuple[int]`, defaults to `(32, 64, 128, 256)`):
            Channels of F1..F4 in the paper's encoder. The paper gives no widths.
        depths (`tuple[int]`, defaults to `(2, 2, 2, 2)`):
            Convolutions in each ConvBlock. The first one halves the resolution.
        pyramid_size (`int`, defaults to 128):
            Channels of every enhanced level.
        head_size (`int`, defaults to 64):
            Channels of the fused map that the logits are read from.
        use_cross_scale (`bool`, defaults to `True`):
            Cross-scale enhancement of every pair of levels. `False`: a plain top-down feature pyramid.
        cross_scale_kernel_size (`int`, defaults to 1):
            Kernel of the paper's W_{i,j}, which gives none. Odd. 128 channels and kernel 1 cost what 64 channels and
            kernel 3 cost in multiply-adds, and scored higher on validation, one seed (`results/comparison.csv`).
        use_spatial_attention (`bool`, defaults to `True`):
            Spatial attention M_s on every level. `False`: the levels reach the head as they are.
        attention_kernel_size (`int`, defaults to 7):
            Kernel of the convolution that makes M_s. Odd.
        prompt_size (`int`, defaults to 0):
            Channels that clicks, a box and an earlier mask become on every level, for a mask that a person can
            correct ([`EFPPromptEncoder`]); the network then has a second decoder for them. 0: it takes none.
        problem_type (`str`, *optional*):
            `"multi_label_classification"`: labels overlap, each with a sigmoid of its own, and there is no background
            label. `None`: of a pixel's labels one is right, by soft-max.
        num_added_labels (`int`, defaults to 0):
            The last labels, of those that overlap, that a decoder of their own computes: labels that a trained network
            learns later, while what it makes of the others stays as it is.
        use_added_encoder (`bool`, defaults to `False`):
            The added labels have F1..F4 from an encoder of their own, of the same architecture: fine textures that the
            other labels did not need.
        added_backbone_config (`PreTrainedConfig` or `dict`, *optional*):
            The backbone of that encoder, where it is another one than `backbone_config`.
        shared_size (`int`, defaults to 0):
            Sides at which the other labels' encoder reads the image, where the added labels have one of their own:
            these may come from a larger image than the one that the other labels were trained with. A
            multiple of 32. 0: those of the image.
        hidden_act (`str`, defaults to `"relu"`):
            The nonlinear activation σ of the ConvBlocks, of the cross-scale responses and of the head.
        dice_weight (`float`, defaults to 1.0):
            λ1 of the loss.
        bce_weight (`float`, defaults to 1.0):
            λ2 of the loss.
        attention_weight (`float`, defaults to 0.0):
            λ3 of the loss, which teaches each M_s the lesion ([`attention_loss`]). 0: the paper's loss.
        dice_smoothing (`float`, defaults to 1e-3):
            Added above and below in the Dice coefficient, as a share of the image's area, so that it is defined for an
            empty mask and independent of the image's size. Of labels that overlap, the Dice is that of a batch.
        semantic_loss_ignore_index (`int`, defaults to 255):
            Label of pixels that take no part in the loss.
        temperature (`float` or `list[float]`, defaults to 1.0):
            Divides the logits, so that their sigmoid is a probability that can be believed. Fitted on validation
            images after the training (`efp_hf.metrics.calibration`). Labels that overlap may have one each.

    The logits have one channel a label. With two labels (the default, `{0: "background", 1: "lesion"}`) the network
    computes the lesion's alone; the background's is 0.

    Raises:
        ValueError: a tuple or a backbone that does not describe the levels, a size above `MAX_SIZE`, an even kernel,
            fewer than two labels where one is right, prompts with more or with labels that overlap, added labels that
            do not overlap or are all there are, a temperature that is not positive, or loss weights that are negative
            or both zero.
    """

    model_type = "efp"

    num_channels: int = 3
    backbone_config: dict | PreTrainedConfig | None = None
    hidden_sizes: list[int] | tuple[int, ...] = (32, 64, 128, 256)
    depths: list[int] | tuple[int, ...] = (2, 2, 2, 2)
    pyramid_size: int = 128
    head_size: int = 64
    use_cross_scale: bool = True
    cross_scale_kernel_size: int = 1
    use_spatial_attention: bool = True
    attention_kernel_size: int = 7
    prompt_size: int = 0
    num_added_labels: int = 0
    use_added_encoder: bool = False
    added_backbone_config: dict | PreTrainedConfig | None = None
    shared_size: int = 0
    hidden_act: str = "relu"
    dice_weight: float | int = 1.0
    bce_weight: float | int = 1.0
    attention_weight: float | int = 0.0
    dice_smoothing: float = 1e-3
    semantic_loss_ignore_index: int = 255
    temperature: float | int | list[float | int] | tuple[float | int, ...] = 1.0

    def __post_init__(self, **kwargs):
        for name in ("global_context_size", "zero_init_scores"):
            if kwargs.pop(name, 0):
                raise ValueError(
                    f"`{name}` must be off: it was an option of 0.1.0. Load the checkpoint with that version."
                )
        for name in BACKBONE_FIELDS:
            if isinstance(getattr(self, name), dict):
                setattr(self, name, read_backbone_config(getattr(self, name), name))
        self._check_common_fields(kwargs)
        if self.id2label is None and kwargs.get("num_labels", 2) == 2 and not self.labels_overlap:
            self.id2label = {0: "background", 1: "lesion"}
            self.label2id = {"background": 0, "lesion": 1}
        super().__post_init__(**kwargs)
        self._check()

    def _check_common_fields(self, others: dict):
        """Those of every configuration that decide what network is made; Transformers takes anything for them."""
        names = self.id2label
        if names is not None and (
            not isinstance(names, dict)
            or {str(key) for key in names} != {str(key) for key in range(len(names))}
            or not names
            or not all(isinstance(name, str) for name in names.values())
        ):
            raise ValueError(f"`id2label` must name the labels 0, 1, …, got {names!r}.")
        if not isinstance(self.label2id, dict | None):
            raise ValueError(f"`label2id` must give each name its label, got {self.label2id!r}.")
        num_labels = others.get("num_labels", 2)
        if type(num_labels) is not int or num_labels > MAX_SIZE:
            raise ValueError(f"`num_labels` must be a whole number up to {MAX_SIZE}, got {num_labels!r}.")
        attention = others.get("attn_implementation")
        if not isinstance(attention, str | dict | None):
            raise ValueError(f"`attn_implementation` must be a name, got {attention!r}.")
        for name, dtype in {"dtype": self.dtype, "torch_dtype": others.get("torch_dtype")}.items():
            found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
            if dtype is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
                raise ValueError(f"`{name}` must be one of floating-point numbers, as 'float32', got {dtype!r}.")

    def _check(self):
        for name in ("hidden_sizes", "depths"):
            value = getattr(self, name)
            if len(value) != NUM_LEVELS or min(value) < 1 or max(value) > MAX_SIZE:
                raise ValueError(
                    f"`{name}` must have {NUM_LEVELS} positive numbers up to {MAX_SIZE}, one for each of F1..F4, "
                    f"got {tuple(value)}."
                )
        for name in BACKBONE_FIELDS:
            backbone = getattr(self, name)
            if backbone is None:
                continue
            levels = backbone.out_indices or ()
            is_timm = backbone.model_type == "timm_backbone"
            if len(levels) != NUM_LEVELS and not (is_timm and len(levels) == NUM_LEVELS - 1):
                raise ValueError(
                    f"`{name}` must give {NUM_LEVELS} feature maps, or {NUM_LEVELS - 1} where it is a timm "
                    f"backbone, got out_indices={tuple(levels)}. "
                    "Pass for example out_indices=(1, 2, 3, 4)."
                )
        for name in ("cross_scale_kernel_size", "attention_kernel_size"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise ValueError(f"`{name}` must be odd, got {getattr(self, name)}. Use for example 3.")
        for name in ("num_channels", "pyramid_size", "head_size", "cross_scale_kernel_size", "attention_kernel_size"):
            value = getattr(self, name)
            if not 1 <= value <= MAX_SIZE:
                raise ValueError(f"`{name}` must be positive{f', up to {MAX_SIZE}' if value > 0 else ''}, got {value}.")
        if not 0 <= self.prompt_size <= MAX_SIZE:
            raise ValueError(f"`prompt_size` must be from 0 to {MAX_SIZE}, got {self.prompt_size}.")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"`hidden_act` must be an activation of Transformers, as 'relu', got {self.hidden_act!r}.")
        if self.num_labels < (1 if self.labels_overlap else 2):
            raise ValueError(
                f"`num_labels` must be at least 2, got {self.num_labels}. "
                "One lesion class is two labels: background and lesion."
            )
        if not 0 <= self.num_added_labels <= (self.num_labels - 1 if self.labels_overlap else 0):
            raise ValueError(
                f"`num_added_labels` must be fewer than `num_labels`, and 0 where problem_type is not {MULTI_LABEL!r}, "
                f"got {self.num_added_labels} of {self.num_labels}."
            )
        if self.use_added_encoder and not self.num_added_labels:
            raise ValueError("`use_added_encoder` must be False without added labels, got True.")
        if self.added_backbone_config is not None and not self.use_added_encoder:
            raise ValueError("`added_backbone_config` must be None without `use_added_encoder`.")
        largest = MAX_SIZE if self.use_added_encoder else 0
        if not 0 <= self.shared_size <= largest or self.shared_size % 32:
            raise ValueError(
                f"`shared_size` must be a multiple of 32 up to {MAX_SIZE}, and 0 without `use_added_encoder`, "
                f"got {self.shared_size}."
            )
        if self.prompt_size and self.labels_overlap:
            raise ValueError(
                f"`prompt_size` must be 0 where labels overlap, got {self.prompt_size}: a click says of one label "
                "where it is. Take a checkpoint of two labels for clicks."
            )
        if self.prompt_size and self.num_labels != 2:
            raise ValueError(
                f"`prompt_size` must be 0 where `num_labels` is not 2, got {self.prompt_size} with {self.num_labels}: "
                "clicks tell lesion from skin."
            )
        for name in ("dice_weight", "bce_weight", "attention_weight", "dice_smoothing"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"`{name}` must be finite, got {getattr(self, name)}.")
        if min(self.dice_weight, self.bce_weight) < 0 or self.dice_weight + self.bce_weight == 0:
            raise ValueError(
                "`dice_weight` and `bce_weight` must not be negative and not both be zero, "
                f"got {self.dice_weight} and {self.bce_weight}."
            )
        if self.attention_weight < 0:
            raise ValueError(f"`attention_weight` must not be negative, got {self.attention_weight}.")
        is_list = isinstance(self.temperature, list | tuple)
        if is_list and len(self.temperature) != self.num_labels * self.labels_overlap:
            raise ValueError(
                f"`temperature` must be one number, or one each of {self.num_labels} labels that overlap, "
                f"got {self.temperature}."
            )
        for value in self.temperature if is_list else [self.temperature]:
            if not 0 < value <= MAX_TEMPERATURE:
                raise ValueError(
                    f"`temperature` must be positive and at most {MAX_TEMPERATURE}, got {value}. 1 changes nothing."
                )
        if self.dice_smoothing <= 0:
            raise ValueError(
                f"`dice_smoothing` must be positive, got {self.dice_smoothing}. "
                "Without it the Dice coefficient of an empty mask is 0 / 0."
            )

    @property
    def labels_overlap(self) -> bool:
        return self.problem_type == MULTI_LABEL

    def loss_arguments(self) -> dict[str, float]:
        """What the loss takes from the configuration, by its own names."""
        return {
            "dice_weight": self.dice_weight,
            "bce_weight": self.bce_weight,
            "smoothing": self.dice_smoothing,
            "ignore_index": self.semantic_loss_ignore_index,
        }

    def save_pretrained(self, save_directory, *args, **kwargs):
        """As in Transformers; what is saved without code files does not name them."""
        if self._auto_class is None and not Path(save_directory, "configuration_efp.py").is_file():
            vars(self).pop("auto_map", None)
        super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """
        As in Transformers.

        Raises:
            OSError, ValueError: a file that is missing or damaged, in one sentence.
        """
        kwargs["name_or_path"] = pretrained_model_name_or_path  # for `from_dict`, as `AutoConfig` tells it
        with damage_named(pretrained_model_name_or_path, CONFIG_NAME):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """As in Transformers, but a checkpoint of another architecture is refused instead of half-loaded."""
        checkpoint = kwargs.get("name_or_path")
        with damage_named(checkpoint, CONFIG_NAME) if checkpoint else nullcontext():
            found = config_dict.get("model_type", cls.model_type)
            if found != cls.model_type:
                raise ValueError(
                    f"The checkpoint must be of model_type {cls.model_type!r}, got {found!r}. "
                    "Load it with the AutoModel classes of Transformers."
                )
            check_fields(cls, config_dict)
            for name in FOREIGN_FIELDS:
                if config_dict.get(name) is not None:
                    raise ValueError(f"`{name}` must not be there: EFP has nothing for it. Delete it.")
            names, num_labels = config_dict.get("id2label"), config_dict.get("num_labels")
            if isinstance(names, dict) and num_labels not in (None, len(names)):
                raise ValueError(f"`num_labels` must be that of `id2label`, {len(names)}, got {num_labels!r}.")
            return super().from_dict(config_dict, **kwargs)


__all__ = ["EFPConfig", "with_code_files"]
