"""Every number of the architecture and of the loss."""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

NUM_LEVELS = 4  # the paper's F1..F4
CONTEXT_HEAD_SIZE = 32  # channels of a head of the self-attention over F4


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
        global_context_size (`int`, defaults to 0):
            Channels of a self-attention over all positions of F4, the paper's future work, in a multiple of 32. 0:
            none, as in the paper.
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
        zero_init_scores (`bool`, defaults to `False`):
            Start the convolutions that give the mask, M_s and the weights of the pairs at zero: untrained, none of them
            prefers a place, a level or a pair. It did not pay on validation (`results/comparison.csv`).
        hidden_act (`str`, defaults to `"relu"`):
            The nonlinear activation σ of the ConvBlocks, of the cross-scale responses and of the head.
        dice_weight (`float`, defaults to 1.0):
            λ1 of the loss.
        bce_weight (`float`, defaults to 1.0):
            λ2 of the loss.
        attention_weight (`float`, defaults to 0.0):
            λ3 of the loss: binary cross-entropy of each M_s with the mask averaged to its level's resolution. The
            paper wants M_s to find the lesion; nothing else in its loss asks for that. 0: as the paper's loss.
        attention_floor (`float`, defaults to 0.0):
            M_s is at least this, so that what lies outside the lesion is not lost.
        attention_softening (`float`, defaults to 0.0):
            By which the target of M_s is drawn towards 1/2, in [0, 1): at 0.5 it is 0.25 on skin and 0.75 on lesion.
        dice_smoothing (`float`, defaults to 1e-3):
            Added above and below in the Dice coefficient, as a share of the image's area, so that it is defined for an
            empty mask and independent of the image's size.
        semantic_loss_ignore_index (`int`, defaults to 255):
            Label of pixels that take no part in the loss.
        temperature (`float`, defaults to 1.0):
            Divides the logits, so that their sigmoid is a probability that can be believed. Fitted on validation
            images after the training (`efp_hf.calibration`).

    With two labels (the default, `{0: "background", 1: "lesion"}`) the model has one logit a pixel, with more it has
    one logit a label.

    Raises:
        ValueError: a tuple or a backbone that does not describe the levels, an even kernel, fewer than two labels, a
            temperature that is not positive, or loss weights that are negative or both zero.
    """

    model_type = "efp"

    num_channels: int = 3
    backbone_config: dict | PreTrainedConfig | None = None
    hidden_sizes: list[int] | tuple[int, ...] = (32, 64, 128, 256)
    depths: list[int] | tuple[int, ...] = (2, 2, 2, 2)
    global_context_size: int = 0
    pyramid_size: int = 128
    head_size: int = 64
    use_cross_scale: bool = True
    cross_scale_kernel_size: int = 1
    use_spatial_attention: bool = True
    attention_kernel_size: int = 7
    zero_init_scores: bool = False
    hidden_act: str = "relu"
    dice_weight: float | int = 1.0
    bce_weight: float | int = 1.0
    attention_weight: float | int = 0.0
    attention_softening: float | int = 0.0
    attention_floor: float | int = 0.0
    dice_smoothing: float = 1e-3
    semantic_loss_ignore_index: int = 255
    temperature: float | int = 1.0

    def __post_init__(self, **kwargs):
        if isinstance(self.backbone_config, dict):
            backbone_config = dict(self.backbone_config)
            if "model_type" not in backbone_config:
                raise ValueError(
                    f"`backbone_config` must have a `model_type`, got {sorted(backbone_config)}. "
                    "Pass for example model_type='timm_backbone'."
                )
            self.backbone_config = AutoConfig.for_model(backbone_config.pop("model_type"), **backbone_config)
        if self.id2label is None and kwargs.get("num_labels", 2) == 2:
            self.id2label = {0: "background", 1: "lesion"}
            self.label2id = {"background": 0, "lesion": 1}
        super().__post_init__(**kwargs)
        self._check()

    def _check(self):
        for name in ("hidden_sizes", "depths"):
            value = getattr(self, name)
            if len(value) != NUM_LEVELS or min(value) < 1:
                raise ValueError(
                    f"`{name}` must have {NUM_LEVELS} positive numbers, one for each of F1..F4, got {tuple(value)}."
                )
        if self.backbone_config is not None:
            levels = self.backbone_config.out_indices or ()
            is_timm = self.backbone_config.model_type == "timm_backbone"
            if len(levels) != NUM_LEVELS and not (is_timm and len(levels) == NUM_LEVELS - 1):
                raise ValueError(
                    f"`backbone_config` must give {NUM_LEVELS} feature maps, or {NUM_LEVELS - 1} where it is a timm "
                    f"backbone, got out_indices={tuple(levels)}. "
                    "Pass for example out_indices=(1, 2, 3, 4)."
                )
        for name in ("cross_scale_kernel_size", "attention_kernel_size"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise ValueError(f"`{name}` must be odd, got {getattr(self, name)}. Use for example 3.")
        for name in ("pyramid_size", "head_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if self.global_context_size < 0 or self.global_context_size % CONTEXT_HEAD_SIZE:
            raise ValueError(
                f"`global_context_size` must be a multiple of {CONTEXT_HEAD_SIZE}, got {self.global_context_size}. "
                "0 leaves the self-attention out."
            )
        if self.num_labels < 2:
            raise ValueError(
                f"`num_labels` must be at least 2, got {self.num_labels}. "
                "One lesion class is two labels: background and lesion."
            )
        if min(self.dice_weight, self.bce_weight) < 0 or self.dice_weight + self.bce_weight == 0:
            raise ValueError(
                "`dice_weight` and `bce_weight` must not be negative and not both be zero, "
                f"got {self.dice_weight} and {self.bce_weight}."
            )
        if not self.temperature > 0:
            raise ValueError(f"`temperature` must be positive, got {self.temperature}. 1 changes nothing.")
        if self.dice_smoothing <= 0:
            raise ValueError(
                f"`dice_smoothing` must be positive, got {self.dice_smoothing}. "
                "Without it the Dice coefficient of an empty mask is 0 / 0."
            )

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """As in Transformers, but a checkpoint of another architecture is refused instead of half-loaded."""
        found = config_dict.get("model_type", cls.model_type)
        if found != cls.model_type:
            raise ValueError(
                f"The checkpoint must be of model_type {cls.model_type!r}, got {found!r}. "
                "Load it with the AutoModel classes of Transformers."
            )
        return super().from_dict(config_dict, **kwargs)

    @property
    def num_logits(self) -> int:
        """Channels of the logits: 1 with two labels, else one a label."""
        return 1 if self.num_labels == 2 else self.num_labels


__all__ = ["EFPConfig"]
