"""The network, its classes in the order in which an image meets them.

image → F1..F4 (encoder) → F* (cross-scale enhancement) → M_s ⊗ F* (spatial attention) → fused → logits
"""

from contextlib import contextmanager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.backbone_utils import load_backbone
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.utils import can_return_tuple

from .configuration_efp import CONTEXT_HEAD_SIZE, NUM_LEVELS, EFPConfig
from .loss_efp import attention_loss, efp_loss

SIZE_DIVISOR = 32  # of height and width inside the network: the stride of most backbones' coarsest level


def extend(pixel_values: torch.Tensor) -> torch.Tensor:
    """
    Zeros below and to the right of `(batch_size, num_channels, height, width)`, as convolutions pad, up to the next
    multiples of `SIZE_DIVISOR`. Where no stride is larger each level has exactly half the size of the one before, and
    an exported model's padding is constant.

    The memory format is channels-last, in which PyTorch convolves faster on processors; convolutions hand it on.
    """
    height, width = pixel_values.shape[-2:]
    extended = F.pad(pixel_values, (0, -width % SIZE_DIVISOR, 0, -height % SIZE_DIVISOR))
    return extended if torch.compiler.is_exporting() else extended.contiguous(memory_format=torch.channels_last)


def resize(feature_map: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Bilinear interpolation of `(batch_size, channels, height, width)` to `size`, (height, width)."""
    return F.interpolate(feature_map, size=size, mode="bilinear", align_corners=False)


class EFPConvLayer(nn.Sequential):
    """Convolution, batch norm, nonlinearity. At odd sizes stride 2 rounds up."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, hidden_act: str, stride: int = 1):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels),
            ACT2FN[hidden_act],
        )


class EFPScore(nn.Conv2d):
    """
    A convolution before a sigmoid or a soft-max: the scores of the mask, of M_s, of the weights of the pairs.

    With `config.zero_init_scores` its weights start at zero, and untrained it prefers no place, level or pair. Random
    ones, scaled by its few output channels, start far from zero: soft-maxes, and some of the sigmoids, are saturated.
    """


class EFPConvBlock(GradientCheckpointingLayer):
    """F_i = ConvBlock_i(F_{i-1}): half the resolution of its input."""

    def __init__(self, in_channels: int, out_channels: int, depth: int, hidden_act: str):
        super().__init__()
        channels = [in_channels] + [out_channels] * depth
        self.layers = nn.Sequential(
            *(
                EFPConvLayer(channels[k], channels[k + 1], 3, hidden_act, stride=2 if k == 0 else 1)
                for k in range(depth)
            )
        )

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        return self.layers(feature_map)


class EFPEncoder(nn.Module):
    """The paper's encoder: F_i = ConvBlock_i(F_{i-1}), i = 1..4, F_0 the image. Strides 2, 4, 8, 16."""

    def __init__(self, config: EFPConfig):
        super().__init__()
        self.channels = tuple(config.hidden_sizes)
        widths = (config.num_channels, *self.channels)
        self.blocks = nn.ModuleList(
            EFPConvBlock(widths[i], widths[i + 1], config.depths[i], config.hidden_act) for i in range(NUM_LEVELS)
        )

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        feature_maps = []
        feature_map = pixel_values
        for block in self.blocks:
            feature_map = block(feature_map)
            feature_maps.append(feature_map)
        return tuple(feature_maps)


class EFPBackboneEncoder(GradientCheckpointingLayer):
    """
    F1..F4 from the Transformers or timm backbone of `config.backbone_config`. A timm backbone that gives three levels
    gets its last one as in the paper: F4 = ConvBlock(F3).
    """

    def __init__(self, config: EFPConfig):
        super().__init__()
        self.backbone = load_backbone(config)
        self.channels = tuple(self.backbone.channels)
        self.last_block = None
        if len(self.channels) < NUM_LEVELS:
            self.drop_unused_stages()
            channels = config.hidden_sizes[-1]
            self.last_block = EFPConvBlock(self.channels[-1], channels, config.depths[-1], config.hidden_act)
            self.channels += (channels,)

    def drop_unused_stages(self) -> None:
        """An EfficientNet or MobileNet of timm keeps the stages behind the last feature map that is asked for."""
        features = self.backbone._backbone
        if hasattr(features, "blocks"):
            last_stage = max(level["stage"] for level in features.feature_info.get_dicts())
            del features.blocks[last_stage:]

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        feature_maps = tuple(self.backbone(pixel_values).feature_maps)
        return feature_maps if self.last_block is None else (*feature_maps, self.last_block(feature_maps[-1]))


class EFPGlobalContext(GradientCheckpointingLayer):
    """
    F4 + gate · context: a self-attention in which every position of F4 reads all others, in fewer channels than F4 has.

    The paper names it as future work ("transformer-based global context modeling into the feature pyramid"). Positions
    are told apart by a depthwise convolution, so that any height and width will do. The gate starts at zero: an
    untrained context changes nothing.
    """

    def __init__(self, config: EFPConfig, channels: int):
        super().__init__()
        size = config.global_context_size
        self.reduction = EFPConvLayer(channels, size, 1, config.hidden_act)
        self.position = nn.Conv2d(size, size, kernel_size=3, padding=1, groups=size)
        self.query_key_value = nn.Conv2d(size, 3 * size, kernel_size=1)
        self.output = nn.Conv2d(size, size, kernel_size=1)
        self.expansion = nn.Conv2d(size, channels, kernel_size=1, bias=False)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        context = self.reduction(feature_map)
        context = context + self.position(context)
        context = context + self.output(self.attend(context))
        context = self.expansion(context)
        return feature_map + self.gate.to(context.dtype) * context

    def attend(self, context: torch.Tensor) -> torch.Tensor:
        batch_size, size, height, width = context.shape
        shape = (batch_size, 3, size // CONTEXT_HEAD_SIZE, CONTEXT_HEAD_SIZE, height * width)
        query, key, value = self.query_key_value(context).reshape(shape).transpose(-1, -2).contiguous().unbind(1)
        attended = F.scaled_dot_product_attention(query, key, value)  # (B, heads, H · W, CONTEXT_HEAD_SIZE)
        return attended.transpose(-1, -2).reshape(batch_size, size, height, width)


class EFPCrossScaleEnhancement(GradientCheckpointingLayer):
    """
    Cross-scale enhancement of every pair of levels i ≠ j:

        F*_{i,j} = σ(W_{i,j} * F_i) + σ(W_{j,i} * F_j)        at the resolution of level i
        F*_i     = Σ_j a_{i,j} F*_{i,j},   Σ_j a_{i,j} = 1     adaptive weighting

    σ(W_{i,j} * F_i) is the response of level i to its partner j. It is computed once, at the resolution of F_i, and
    used twice: as it is for level i, and resized for level j. A batch norm lies between W and σ; after training it
    folds into W, so that the function stays the paper's.

    The paper asks for "an adaptive weighting mechanism" and does not give it: here the weights are a soft-max over the
    three pairs of a level, at every pixel, of a 1x1 convolution of each pair.
    """

    def __init__(self, config: EFPConfig, channels: tuple[int, ...]):
        super().__init__()
        self.pyramid_size = config.pyramid_size
        self.ceil_mode = True  # for levels that are not exactly half the size of the one before
        num_pairs = NUM_LEVELS - 1
        # the three W_{i,j} of a level read the same F_i: one convolution computes them together
        self.responses = nn.ModuleList(
            EFPConvLayer(
                channels[i], num_pairs * config.pyramid_size, config.cross_scale_kernel_size, config.hidden_act
            )
            for i in range(NUM_LEVELS)
        )
        # no bias: the soft-max over the pairs would not see it
        self.pair_scores = nn.ModuleList(
            EFPScore(config.pyramid_size, 1, kernel_size=1, bias=False) for _ in range(NUM_LEVELS)
        )

    @staticmethod
    def partners(i: int) -> list[int]:
        """The levels j ≠ i, in the order of the responses of level i."""
        return [j for j in range(NUM_LEVELS) if j != i]

    def bring_to(self, response: torch.Tensor, source: int, target: int, size: torch.Size) -> torch.Tensor:
        """Bring a response of level `source` to level `target`. Average first on the way down: bilinear would skip."""
        if source < target:
            response = F.avg_pool2d(response, kernel_size=2 ** (target - source), ceil_mode=self.ceil_mode)
        return resize(response, size)

    def forward(self, *feature_maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
        responses = [
            dict(zip(self.partners(i), self.responses[i](feature_map).split(self.pyramid_size, dim=1), strict=True))
            for i, feature_map in enumerate(feature_maps)
        ]
        enhanced = []
        for i, feature_map in enumerate(feature_maps):
            size = feature_map.shape[-2:]
            pairs = [responses[i][j] + self.bring_to(responses[j][i], j, i, size) for j in self.partners(i)]
            weights = torch.cat([self.pair_scores[i](pair) for pair in pairs], dim=1).softmax(dim=1)  # (B, 3, H_i, W_i)
            enhanced.append(sum(weights[:, k : k + 1] * pair for k, pair in enumerate(pairs)))
        return tuple(enhanced)


class EFPPlainPyramid(GradientCheckpointingLayer):
    """
    The feature pyramid without cross-scale enhancement: lateral and top-down connections (Lin et al. 2017), smoothed
    with the kernel that the responses would have, so that it costs about the same.
    """

    def __init__(self, config: EFPConfig, channels: tuple[int, ...]):
        super().__init__()
        self.laterals = nn.ModuleList(
            EFPConvLayer(channels[i], config.pyramid_size, 1, config.hidden_act) for i in range(NUM_LEVELS)
        )
        self.smoothings = nn.ModuleList(
            EFPConvLayer(config.pyramid_size, config.pyramid_size, config.cross_scale_kernel_size, config.hidden_act)
            for _ in range(NUM_LEVELS)
        )

    def forward(self, *feature_maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
        levels = [lateral(feature_map) for lateral, feature_map in zip(self.laterals, feature_maps, strict=True)]
        for i in range(NUM_LEVELS - 2, -1, -1):
            levels[i] = levels[i] + resize(levels[i + 1], levels[i].shape[-2:])
        return tuple(smoothing(level) for smoothing, level in zip(self.smoothings, levels, strict=True))


class EFPChannelPooling(nn.Module):
    """
    AvgPool(F*) ⊕ MaxPool(F*), `(B, C, H, W)` → `(B, 2, H, W)`.

    The paper calls the poolings global. Pooled over positions they would leave one number a channel and M_s would not
    be a map; they are pooled over the channels.
    """

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        return torch.cat([feature_map.mean(1, keepdim=True), feature_map.amax(1, keepdim=True)], dim=1)


class EFPSpatialAttention(nn.Module):
    """M_s = σ(Conv2D(AvgPool(F*) ⊕ MaxPool(F*))), F_out = M_s ⊗ F*, with σ the sigmoid."""

    def __init__(self, config: EFPConfig):
        super().__init__()
        self.pooling = EFPChannelPooling()
        self.convolution = EFPScore(2, 1, config.attention_kernel_size, padding=config.attention_kernel_size // 2)
        self.floor = config.attention_floor

    def forward(self, feature_map: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`(B, C, H, W)` → the attended level of the same shape, and the scores of M_s before σ, `(B, 1, H, W)`."""
        scores = self.convolution(self.pooling(feature_map))
        return (self.floor + (1 - self.floor) * scores.sigmoid()) * feature_map, scores


class EFPFusion(nn.Module):
    """
    Fuses the attended levels into one map at the resolution of F1; the paper leaves the decoder open.

    Concatenation of the resized levels and a 1x1 convolution, computed as the sum of one 1x1 convolution a level, each
    at its level's own resolution: the same function at a fraction of the cost.
    """

    def __init__(self, config: EFPConfig):
        super().__init__()
        size = config.pyramid_size
        self.projections = nn.ModuleList(nn.Conv2d(size, size, kernel_size=1, bias=False) for _ in range(NUM_LEVELS))
        self.normalization = nn.BatchNorm2d(size)
        self.activation = ACT2FN[config.hidden_act]
        self.refinement = EFPConvLayer(size, config.head_size, 3, config.hidden_act)

    def forward(self, levels: tuple[torch.Tensor, ...]) -> torch.Tensor:
        size = levels[0].shape[-2:]
        projected = [projection(level) for projection, level in zip(self.projections, levels, strict=True)]
        summed = projected[0] + sum(resize(level, size) for level in projected[1:])
        return self.refinement(self.activation(self.normalization(summed)))


@contextmanager
def frozen_batch_statistics(model: nn.Module):
    """Inside, batch norms normalise as in training and their running mean and variance stay as they are."""
    momenta = {module: module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)}
    for module in momenta:
        module.momentum = 0.0
    try:
        yield
    finally:
        for module, momentum in momenta.items():
            module.momentum = momentum


class EFPPreTrainedModel(PreTrainedModel):
    """What every EFP model shares: configuration, weight initialisation, gradient checkpointing."""

    config_class = EFPConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    # The loss is already a mean over the images: Trainer has to divide it by the accumulation steps.
    accepts_loss_kwargs = False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **kwargs):
        """
        As in Transformers, but weights that do not fit the configuration are an error: missing ones would be random,
        and those that are left over belong to another network.

        `ignore_mismatched_sizes=True` still gives a new head for another number of labels.

        Raises:
            ValueError: a checkpoint without some of the model's weights, with weights that the model does not have or
                of another shape, or with a file that is damaged.
        """
        try:
            model, loading_info = super().from_pretrained(
                pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
            )
        except SafetensorError as error:
            raise ValueError(
                f"{pretrained_model_name_or_path}: the weights are damaged ({error}). Download or copy them again."
            ) from error
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):
                raise
            raise ValueError(
                f"{pretrained_model_name_or_path}: weights have another shape than the configuration says. "
                "For a new head pass ignore_mismatched_sizes=True; else it belongs to other weights."
            ) from error
        for kind, words in (
            ("missing_keys", "weights of the model are not in the checkpoint"),
            ("unexpected_keys", "weights of the checkpoint are not in the model"),
        ):
            names = sorted(loading_info[kind])
            if names:
                raise ValueError(
                    f"{pretrained_model_name_or_path}: {len(names)} {words}, {names[0]} for one. "
                    "It is damaged, or its configuration belongs to other weights."
                )
        return (model, loading_info) if output_loading_info else model

    def save_pretrained(self, *args, save_original_format: bool = False, **kwargs):
        """
        As in Transformers, but with the names of `state_dict()`. Transformers would give the weights of some backbones
        (Swin) the names of earlier releases, and Trainer then finds none of them when it resumes a run.
        """
        super().save_pretrained(*args, save_original_format=save_original_format, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        if isinstance(module, nn.Conv2d):
            if isinstance(module, EFPScore) and self.config.zero_init_scores:
                init.zeros_(module.weight)
            else:
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)
        elif isinstance(module, EFPGlobalContext):
            init.zeros_(module.gate)

    def _set_gradient_checkpointing(self, enable=True, gradient_checkpointing_func=None, **kwargs):
        # The recomputation in the backward pass must not move the batch norms' running statistics a second time.
        if enable:
            if getattr(gradient_checkpointing_func, "keywords", {}).get("use_reentrant", True):
                raise ValueError(
                    "`use_reentrant` must be False: images need no gradient, and the encoder would get none."
                )
            gradient_checkpointing_func = partial(
                gradient_checkpointing_func, context_fn=lambda: (nullcontext(), frozen_batch_statistics(self))
            )
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, **kwargs)


class EFPForSegmentation(EFPPreTrainedModel):
    """
    Enhanced feature pyramid for lesion segmentation (Wu et al. 2025, doi:10.20944/preprints202506.1010.v1).

    Example:

    ```python
    >>> from efp_hf import EFPForSegmentation, EFPImageProcessor
    >>> model = EFPForSegmentation.from_pretrained("checkpoints/efp-isic").eval()
    >>> processor = EFPImageProcessor.from_pretrained("checkpoints/efp-isic")
    >>> image = load_image("photo.jpg")  # of transformers.image_utils: upright, as the mask will be
    >>> outputs = model(**processor(image, return_tensors="pt"))
    >>> mask = processor.post_process_semantic_segmentation(outputs, target_sizes=[(image.height, image.width)])[0]
    ```
    """

    def __init__(self, config: EFPConfig):
        super().__init__(config)
        self.encoder = EFPEncoder(config) if config.backbone_config is None else EFPBackboneEncoder(config)
        self.context = EFPGlobalContext(config, self.encoder.channels[-1]) if config.global_context_size else None
        pyramid = EFPCrossScaleEnhancement if config.use_cross_scale else EFPPlainPyramid
        self.pyramid = pyramid(config, self.encoder.channels)
        self.attention = (
            nn.ModuleList(EFPSpatialAttention(config) for _ in range(NUM_LEVELS))
            if config.use_spatial_attention
            else None
        )
        self.fusion = EFPFusion(config)
        self.classifier = EFPScore(config.head_size, config.num_logits, kernel_size=1)
        self.post_init()

    def attend(self, levels: tuple[torch.Tensor, ...]) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Each level through its own attention → the attended levels, and the scores of M_s (none if it is off)."""
        if self.attention is None:
            return levels, ()
        attended = [attention(level) for attention, level in zip(self.attention, levels, strict=True)]
        return tuple(level for level, _ in attended), tuple(scores for _, scores in attended)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> SemanticSegmenterOutput:
        r"""
        Args:
            pixel_values: images as [`EFPImageProcessor`] makes them, `(batch_size, num_channels, height, width)`, any
                height and width.
            labels: 0 background, 1 lesion, 255 ignored, `(batch_size, height, width)`.
            output_hidden_states: return F1..F4 and the four enhanced levels, in this order; level i has the size of
                the extended image ([`extend`]) over its stride.
            output_attentions: return the four attention maps M_s, each `(batch_size, 1, height_i, width_i)`.

        Returns:
            [`SemanticSegmenterOutput`] with `logits` of shape `(batch_size, 1, height, width)` (more than two labels:
            one channel a label) and, where `labels` are given, `loss`.

        Raises:
            ValueError: pixel values of another shape than the configuration's or without pixels, or labels as in
                `efp_loss`.
        """
        shape = pixel_values.shape
        if len(shape) != 4 or shape[1] != self.config.num_channels or 0 in shape[2:]:
            raise ValueError(
                f"`pixel_values` must have the shape (batch_size, {self.config.num_channels}, height, width), "
                f"got {tuple(shape)}."
            )
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions

        extended = extend(pixel_values)
        features = self.encoder(extended)  # F1..F4
        if self.context is not None:
            features = (*features[:-1], self.context(features[-1]))
        enhanced = self.pyramid(*features)  # F*
        attended, attention_scores = self.attend(enhanced)  # F_out = M_s ⊗ F*
        fused = self.fusion(attended)
        logits = resize(self.classifier(fused) / self.config.temperature, extended.shape[-2:])
        logits = logits[..., : shape[-2], : shape[-1]].contiguous()

        loss = None
        if labels is not None:
            loss = efp_loss(
                logits,
                labels,
                dice_weight=self.config.dice_weight,
                bce_weight=self.config.bce_weight,
                smoothing=self.config.dice_smoothing,
                ignore_index=self.config.semantic_loss_ignore_index,
            )
            if self.config.attention_weight and attention_scores:
                loss = loss + self.config.attention_weight * attention_loss(
                    attention_scores,
                    labels,
                    softening=self.config.attention_softening,
                    ignore_index=self.config.semantic_loss_ignore_index,
                )
        return SemanticSegmenterOutput(
            loss=loss,
            logits=logits,
            hidden_states=(*features, *enhanced) if output_hidden_states else None,
            attentions=tuple(scores.sigmoid() for scores in attention_scores) or None if output_attentions else None,
        )


__all__ = ["EFPForSegmentation", "EFPPreTrainedModel"]
