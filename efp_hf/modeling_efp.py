"""The network, its classes in the order in which an image meets them.

image → F1..F4 (encoder) → F* (cross-scale enhancement) → M_s ⊗ F* (spatial attention) → fused → logits

A person's clicks, box and the mask before join F1..F4 where they are given, and what follows has weights of its own.
"""

import copy
import math
import re
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, TypedDict

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.backbone_utils import load_backbone
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.processing_utils import Unpack
from transformers.utils import can_return_tuple

from .configuration_efp import NUM_LEVELS, PADDING, EFPConfig, damage_named, with_code_files
from .loss_efp import attention_loss, efp_loss, multi_label_loss

MAX_PARAMETERS = 10**9  # 4 GB in float32
CLICK_SIZE = 1.5  # standard deviation of a click's Gaussian in pixels of the level
NUM_PROMPT_MAPS = 5
# of weights, from before there were two decoders: pattern → name
EARLIER_NAMES = {r"^(pyramid|attention|fusion|classifier)\.": r"decoder.\1."}
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


def check_sides(pixel_values: torch.Tensor) -> None:
    """
    Raises:
        ValueError: sides that [`extend`] would extend: F1..F4 do not tell how far.
    """
    if any(side % SIZE_DIVISOR for side in pixel_values.shape[-2:]):
        raise ValueError(
            f"`pixel_values` must have sides that are multiples of {SIZE_DIVISOR} to be kept as embeddings, got "
            f"{tuple(pixel_values.shape[-2:])}."
        )


def with_background(logits: torch.Tensor) -> torch.Tensor:
    """
    The lesion's logits `(batch_size, 1, height, width)` as those of two labels, `(batch_size, 2, height, width)`: the
    background's are 0. Then soft-max is the sigmoid, and arg-max cuts the probability at 1/2.
    """
    return F.pad(logits, (0, 0, 0, 0, 1, 0))


def resize(feature_map: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Bilinear interpolation of `(batch_size, channels, height, width)` to `size`, (height, width)."""
    return F.interpolate(feature_map, size=size, mode="bilinear", align_corners=False)


class EFPScore(nn.Conv2d):
    """
    A convolution whose outputs go into a sigmoid or soft-max. It starts scaled by its inputs: scaled by its few outputs
    as other convolutions are, its sigmoid or soft-max would be saturated, and with zeros all of its inputs would learn
    the same sign.
    """


class EFPConvLayer(nn.Sequential):
    """Convolution, batch norm, nonlinearity. At odd sizes stride 2 rounds up."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, hidden_act: str, stride: int = 1):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels),
            ACT2FN[hidden_act],
        )


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
        try:
            self.backbone = load_backbone(config)
            self.channels = tuple(self.backbone.channels)
        except ImportError:
            raise
        except Exception as error:  # each backbone has exceptions of its own
            raise ValueError(
                f"`backbone_config` must be of a network that can be made: {type(error).__name__}: {error}"
            ) from error
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


def make_encoder(config: EFPConfig) -> EFPEncoder | EFPBackboneEncoder:
    return (EFPEncoder if config.backbone_config is None else EFPBackboneEncoder)(config)


def make_added_encoder(config: EFPConfig) -> EFPEncoder | EFPBackboneEncoder:
    """That of the added labels alone."""
    if config.added_backbone_config is not None:
        config = copy.deepcopy(config)
        config.backbone_config = config.added_backbone_config
    return make_encoder(config)


class PromptKwargs(TypedDict, total=False):
    """
    The prompts among the arguments of `forward`. They are keyword arguments: in the signature `input_labels` would be
    taken by Trainer for what it trains with.
    """

    input_points: torch.Tensor | None
    input_labels: torch.Tensor | None
    input_boxes: torch.Tensor | None
    input_masks: torch.Tensor | None


@dataclass
class Prompts:
    """
    What a person says of the lesion of each image, in pixels of `pixel_values` of `(height, width)`.

    Args:
        input_points: (x, y) of the clicks, `(batch_size, num_points, 2)`, from 0 to width and height.
        input_labels: of the points, 1 lesion, 0 skin, `PADDING` no point, `(batch_size, num_points)`.
        input_boxes: (left, top, right, bottom) around the lesion, or four times `PADDING`, `(batch_size, 4)`.
        input_masks: the lesion's logits of the step before, `(batch_size, 1, any height, any width)`; 0 where there is
            none.
    """

    input_points: torch.Tensor | None = None
    input_labels: torch.Tensor | None = None
    input_boxes: torch.Tensor | None = None
    input_masks: torch.Tensor | None = None

    def with_a_point(self) -> "Prompts":
        """The same, with a point that is none where `num_points` is 0."""
        if self.input_points is None or self.input_points.shape[1]:
            return self
        points, labels = F.pad(self.input_points, (0, 0, 0, 1)), F.pad(self.input_labels, (0, 1), value=PADDING)
        return replace(self, input_points=points, input_labels=labels)

    def check(self, batch_size: int, height: int, width: int) -> None:
        """
        Raises:
            ValueError: points without labels, prompts for another number of images, of another shape, that are not
                finite or outside the image, labels other than 1, 0 and `PADDING`, or a box without area.
        """
        if (self.input_points is None) != (self.input_labels is None):
            raise ValueError("`input_points` and `input_labels` must come together: a label for each point.")
        shapes = {
            "input_points": (self.input_points, (batch_size, None, 2)),
            "input_labels": (
                self.input_labels,
                (batch_size, self.input_points.shape[1] if self.input_points is not None else None),
            ),
            "input_boxes": (self.input_boxes, (batch_size, 4)),
            "input_masks": (self.input_masks, (batch_size, 1, None, None)),
        }
        for name, (value, shape) in shapes.items():
            if value is None:
                continue
            if value.ndim != len(shape) or any(b not in (None, a) for a, b in zip(value.shape, shape, strict=True)):
                wanted = ", ".join("any" if side is None else str(side) for side in shape)
                raise ValueError(
                    f"`{name}` must have the shape ({wanted}) for {batch_size} images, got {tuple(value.shape)}."
                )
            if not value.isfinite().all():
                raise ValueError(f"`{name}` must be finite, got {value[~value.isfinite()][0].item()}.")
        if self.input_labels is not None:
            kind = self.input_labels.dtype
            if kind in (torch.bool, torch.uint8):
                raise ValueError(f"`input_labels` must have a type that holds {PADDING} (no point), got {kind}.")
            unknown = ~torch.isin(self.input_labels, self.input_labels.new_tensor([0, 1, PADDING]))
            if unknown.any():
                raise ValueError(
                    f"`input_labels` must be 1 (foreground), 0 (background) or {PADDING} (no point), "
                    f"got {self.input_labels[unknown][0].item()}."
                )
            outside = (
                (self.input_points < 0) | (self.input_points > self.input_points.new_tensor([width, height]))
            ).any(-1)
            outside &= self.input_labels != PADDING
            if outside.any():
                raise ValueError(
                    f"`input_points` must lie in the image of {width}×{height} pixels, "
                    f"got {tuple(self.input_points[outside][0].tolist())}."
                )
        if self.input_boxes is not None:
            given = (self.input_boxes != PADDING).any(-1)
            left, top, right, bottom = self.input_boxes.unbind(-1)
            wrong = given & ~(
                (0 <= left) & (left < right) & (right <= width) & (0 <= top) & (top < bottom) & (bottom <= height)
            )
            if wrong.any():
                raise ValueError(
                    f"`input_boxes` must be (left, top, right, bottom) in the image of {width}×{height} pixels, "
                    f"with an area, got {tuple(self.input_boxes[wrong][0].tolist())}."
                )


class EFPZeroConv(nn.Conv2d):
    """A convolution that starts at zero: what it adds to a trained network is nothing at first."""


class EFPPromptEncoder(nn.Module):
    """
    Clicks, box and the mask before as maps P_i on every level, which join its features:

        F_i ← F_i + V_i * σ(U_i * P_i)        V_i starts at zero; no biases

    A decoder of its own reads these F_i, so that the mask without prompts depends on no weight that prompts have
    trained. Where nothing is given P_i is 0, and F_i stays what it is. The five maps of P_i,
    `(batch_size, 5, H_i, W_i)`: clicks on the lesion and on the skin, each a Gaussian of `CLICK_SIZE` of the level's
    own pixels, so that the fine levels see where it is and the coarse ones what lies around it; the share of a pixel
    inside the box, and outside of it; the mask before, as 2 σ(logit) - 1.
    """

    def __init__(self, config: EFPConfig, channels: tuple[int, ...]):
        super().__init__()
        self.before = nn.ModuleList(
            nn.Conv2d(NUM_PROMPT_MAPS, config.prompt_size, 3, padding=1, bias=False) for _ in range(NUM_LEVELS)
        )
        self.activation = ACT2FN[config.hidden_act]
        self.after = nn.ModuleList(
            EFPZeroConv(config.prompt_size, channels[i], 1, bias=False) for i in range(NUM_LEVELS)
        )

    def forward(
        self, features: tuple[torch.Tensor, ...], prompts: Prompts, size: tuple[int, int]
    ) -> tuple[torch.Tensor, ...]:
        """
        Args:
            features: F1..F4 of the extended image.
            size: (height, width) of `pixel_values`, whose pixels the prompts count.
        """
        height, width = size
        extended = (height + -height % SIZE_DIVISOR, width + -width % SIZE_DIVISOR)
        prompted = []
        for level, before, after in zip(features, self.before, self.after, strict=True):
            maps = prompt_maps(prompts, size, extended, level.shape[-2:])
            prompted.append(level + after(self.activation(before(maps.to(level.dtype)))))
        return tuple(prompted)


def prompt_maps(
    prompts: Prompts, size: tuple[int, int], extended: tuple[int, int], level_size: tuple[int, int]
) -> torch.Tensor:
    """The maps P_i of [`EFPPromptEncoder`] at `level_size` of the extended image; those of what is not given are 0."""
    given = next(
        value for value in (prompts.input_points, prompts.input_boxes, prompts.input_masks) if value is not None
    )
    batch_size, device = given.shape[0], given.device
    height, width = level_size
    cell_height, cell_width = extended[0] / height, extended[1] / width
    tops = torch.arange(height, device=device, dtype=torch.float32) * cell_height
    lefts = torch.arange(width, device=device, dtype=torch.float32) * cell_width
    nothing = torch.zeros(batch_size, height, width, device=device)

    clicks = [nothing, nothing]
    if prompts.input_points is not None:
        x, y = prompts.input_points.float().unbind(-1)  # (batch_size, num_points)
        across = (lefts + cell_width / 2 - x[..., None]) / (CLICK_SIZE * cell_width)
        down = (tops + cell_height / 2 - y[..., None]) / (CLICK_SIZE * cell_height)
        bumps = torch.exp(-down.square() / 2)[..., :, None] * torch.exp(-across.square() / 2)[..., None, :]
        clicks = [(bumps * (prompts.input_labels == label)[..., None, None]).amax(1) for label in (1, 0)]

    box = [nothing, nothing]
    if prompts.input_boxes is not None:
        left, top, right, bottom = prompts.input_boxes.float()[..., None].unbind(1)  # each (batch_size, 1)
        across = (torch.minimum(right, lefts + cell_width) - torch.maximum(left, lefts)).clamp(min=0) / cell_width
        down = (torch.minimum(bottom, tops + cell_height) - torch.maximum(top, tops)).clamp(min=0) / cell_height
        inside = down[:, :, None] * across[:, None, :]
        is_given = (prompts.input_boxes[:, 0] != PADDING)[:, None, None]
        box = [inside * is_given, (1 - inside) * is_given]

    mask = nothing
    if prompts.input_masks is not None:
        signed = resize(torch.tanh(prompts.input_masks.float() / 2), size)  # 2 σ(logit) - 1
        signed = F.pad(signed, (0, extended[1] - size[1], 0, extended[0] - size[0]))
        mask = F.adaptive_avg_pool2d(signed, level_size)[:, 0]
    return torch.stack([*clicks, *box, mask], dim=1)


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

    def forward(self, feature_map: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`(B, C, H, W)` → the attended level of the same shape, and the scores of M_s before σ, `(B, 1, H, W)`."""
        scores = self.convolution(self.pooling(feature_map))
        return scores.sigmoid() * feature_map, scores


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


class EFPDecoder(nn.Module):
    """What follows the encoder, F1..F4 → logits: the parts that `EFPForSegmentation.forward` calls one by one."""

    def __init__(self, config: EFPConfig, channels: tuple[int, ...], num_maps: int):
        super().__init__()
        pyramid = EFPCrossScaleEnhancement if config.use_cross_scale else EFPPlainPyramid
        self.pyramid = pyramid(config, channels)
        self.attention = (
            nn.ModuleList(EFPSpatialAttention(config) for _ in range(NUM_LEVELS))
            if config.use_spatial_attention
            else None
        )
        self.fusion = EFPFusion(config)
        self.classifier = EFPScore(config.head_size, num_maps, kernel_size=1)

    def attend(self, levels: tuple[torch.Tensor, ...]) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Each level through its own attention → the attended levels, and the scores of M_s (none if it is off)."""
        if self.attention is None:
            return levels, ()
        attended = [attention(level) for attention, level in zip(self.attention, levels, strict=True)]
        return tuple(level for level, _ in attended), tuple(scores for _, scores in attended)

    def forward(self, features: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """F1..F4 → the maps before the temperature, at the resolution of F1, and the scores of M_s."""
        attended, scores = self.attend(self.pyramid(*features))
        return self.classifier(self.fusion(attended)), scores


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


def check_weights(model: nn.Module) -> None:
    """
    Raises:
        ValueError: a weight or a running statistic that is NaN or infinite, or a running variance below 0: some
            activations give an empty or a full mask for it.
    """
    for name, values in model.state_dict().items():
        if values.is_meta:  # not in memory yet
            continue
        if not math.isfinite(values.sum()) and not values.isfinite().all():  # a sum takes a tenth of the time
            raise ValueError(f"`{name}` must be finite, got NaN or infinity: training or copying it went wrong.")
        if name.endswith("running_var") and (values < 0).any():
            raise ValueError(f"`{name}` must not be negative, got {values.min():g}: it is a variance.")


def current_name(name: str) -> str:
    """Of a weight, from the one in a checkpoint."""
    for pattern, replacement in EARLIER_NAMES.items():
        name = re.sub(pattern, replacement, name)
    return name


def check_number_types(model: nn.Module, folder: Path) -> None:
    """
    Raises:
        ValueError: the folder has integers for a weight. Loading turns them into floats, most of them zeros.
    """
    weights = model.state_dict()
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, "pt") as file:
            for saved_name in file.keys():
                name = current_name(saved_name)
                kind = file.get_slice(saved_name).get_dtype()
                if name in weights and weights[name].is_floating_point() and not kind.startswith(("F", "BF")):
                    raise ValueError(f"`{name}` must be of floating-point numbers, got {kind}. Save it as F32.")


class EFPPreTrainedModel(PreTrainedModel):
    """What every EFP model shares: configuration, weight initialisation, gradient checkpointing."""

    config_class = EFPConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    # The loss is already a mean over the images: Trainer has to divide it by the accumulation steps.
    accepts_loss_kwargs = False
    _keys_to_ignore_on_load_unexpected: ClassVar = [r"^prompt"]  # a configuration with `prompt_size=0` leaves them out

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **kwargs):
        """
        As in Transformers, but weights that do not fit the configuration are an error: missing ones would be random,
        and those that are left over belong to another network.

        `ignore_mismatched_sizes=True` still gives a new head for another number of labels. Weights are read from
        safetensors, unless `use_safetensors=False`.

        Raises:
            OSError, ValueError: a checkpoint without some of the model's weights, with weights that the model does not
                have, of another shape, or as in [`check_weights`] and [`check_number_types`], or with a file that is
                missing or damaged.
        """
        problems = {
            "missing_keys": "weights of the model are not in the checkpoint",
            "unexpected_keys": "weights of the checkpoint are not in the model",
            "mismatched_keys": "weights have another shape than the configuration says",
        }
        if kwargs.pop("ignore_mismatched_sizes", False):
            del problems["mismatched_keys"]
        kwargs.setdefault("use_safetensors", True)  # nothing is unpickled
        kwargs.setdefault("key_mapping", EARLIER_NAMES)
        with damage_named(pretrained_model_name_or_path, "weights"):
            try:
                model, loading_info = super().from_pretrained(
                    pretrained_model_name_or_path,
                    *args,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # refused below, by name
                    **kwargs,
                )
            except SafetensorError as error:
                raise ValueError(f"the weights are damaged ({error}). Download or copy them again.") from error
            for kind, words in problems.items():
                names = sorted(key if isinstance(key, str) else key[0] for key in loading_info[kind])
                if names:
                    raise ValueError(
                        f"{len(names)} {words}, {names[0]} for one. It is damaged, or its configuration belongs to "
                        "other weights."
                    )
            check_weights(model)
            check_number_types(model, Path(pretrained_model_name_or_path))
        return (model, loading_info) if output_loading_info else model

    def save_pretrained(self, *args, save_original_format: bool = False, push_to_hub: bool = False, **kwargs):
        """
        As in Transformers, but with the names of `state_dict()`. Transformers would give the weights of some backbones
        (Swin) the names of earlier releases, and Trainer then finds none of them when it resumes a run. With
        `push_to_hub` the code files are written, too.
        """
        with self.saved_with_code() if push_to_hub else nullcontext():
            super().save_pretrained(*args, save_original_format=save_original_format, push_to_hub=push_to_hub, **kwargs)

    def push_to_hub(self, *args, **kwargs):
        """As in Transformers, with the code files that others need to load the model with `trust_remote_code`."""
        with self.saved_with_code():
            return super().push_to_hub(*args, **kwargs)

    def saved_with_code(self):
        """Inside, `save_pretrained` writes the code files, too."""
        return with_code_files(AutoConfig=type(self.config), AutoModelForSemanticSegmentation=type(self))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        if isinstance(module, EFPZeroConv):
            init.zeros_(module.weight)
        elif isinstance(module, EFPScore):
            init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)

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
    >>> model = EFPForSegmentation.from_pretrained(checkpoint).eval()  # a folder or Hub id
    >>> processor = EFPImageProcessor.from_pretrained(checkpoint)
    >>> image = load_image("photo.jpg")  # of transformers.image_utils: upright, as the mask will be
    >>> outputs = model(**processor(image, return_tensors="pt"))
    >>> mask = processor.post_process_semantic_segmentation(outputs, target_sizes=[(image.height, image.width)])[0]
    ```
    """

    def __init__(self, config: EFPConfig):
        super().__init__(config)
        self.encoder = make_encoder(config)
        self.is_binary = config.num_labels == 2 and not config.labels_overlap
        num_maps = 1 if self.is_binary else config.num_labels - config.num_added_labels
        make_decoder = partial(EFPDecoder, config, self.encoder.channels)
        self.decoder = make_decoder(num_maps)
        self.prompt_encoder = EFPPromptEncoder(config, self.encoder.channels) if config.prompt_size else None
        self.prompted_decoder = make_decoder(num_maps) if config.prompt_size else None
        self.added_encoder = make_added_encoder(config) if config.use_added_encoder else None
        self.added_decoder = None
        if config.num_added_labels:
            channels = (self.added_encoder or self.encoder).channels
            self.added_decoder = EFPDecoder(config, channels, config.num_added_labels)
        self.attention_weight = config.attention_weight  # λ3
        num_parameters = self.num_parameters()
        if num_parameters > MAX_PARAMETERS:  # `from_pretrained` has not given them any memory yet
            raise ValueError(
                f"The configuration must be of at most {MAX_PARAMETERS:,} parameters, got {num_parameters:,}. "
                "Make `pyramid_size`, `hidden_sizes` or the backbone smaller."
            )
        self.post_init()

    def get_image_embeddings(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """
        F1..F4 of images, for `image_embeddings`: a correction then runs without the encoder.

        Raises:
            ValueError: as in `forward`; sides that are no multiples of `SIZE_DIVISOR`, whose extension the embeddings
                would hide.
        """
        self.check_shape(pixel_values)
        check_sides(pixel_values)
        return self.encoder(extend(pixel_values))

    @cached_property
    def first_stride(self) -> int:
        """Of F1: pixels of the image a pixel of the finest level."""
        encoder = copy.deepcopy(self.encoder).to("meta")  # shapes alone
        side = 2 * SIZE_DIVISOR
        image = torch.empty(1, self.config.num_channels, side, side, device="meta")
        return side // encoder(image)[0].shape[-1]

    def add_prompts(
        self, features: tuple[torch.Tensor, ...], prompts: Prompts, size: tuple[int, int]
    ) -> tuple[torch.Tensor, ...]:
        """F1..F4 → the same with what a person says."""
        if self.prompt_encoder is None:
            raise ValueError(
                "The network must have been trained with prompts to take some; this one's `prompt_size` is 0. Load "
                "another checkpoint, or train with `efp train --prompts`."
            )
        if not torch.compiler.is_compiling():
            prompts.check(features[0].shape[0], *size)
            prompts = prompts.with_a_point()
        return self.prompt_encoder(features, prompts, size)

    def shared_image(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The image at `shared_size`, for the encoder that all labels share; without it as it is."""
        size = (self.config.shared_size,) * 2
        # an exported model has free sizes, and at its own the interpolation changes nothing
        if size == (0, 0) or (not torch.compiler.is_exporting() and size == tuple(pixel_values.shape[-2:])):
            return pixel_values
        return F.interpolate(pixel_values, size=size, mode="bilinear", antialias=True, align_corners=False)

    def added_features(
        self, pixel_values: torch.Tensor | None, features: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...]:
        """F1..F4 of the added labels: from their own encoder, where they have one, else those of the others."""
        if self.added_encoder is None:
            return features
        if pixel_values is None:
            raise ValueError("`pixel_values` must be given: the added labels have an encoder of their own.")
        return self.added_encoder(extend(pixel_values))

    def temperature(self, decoder: EFPDecoder) -> float | torch.Tensor:
        """That of a decoder's maps: one number, or one a label, `(num_maps, 1, 1)`."""
        temperature = self.config.temperature
        if not isinstance(temperature, list | tuple):
            return temperature
        num_first = len(temperature) - self.config.num_added_labels
        values = temperature[num_first:] if decoder is self.added_decoder else temperature[:num_first]
        return decoder.classifier.weight.new_tensor(values)[:, None, None]

    def check_shape(self, pixel_values: torch.Tensor) -> None:
        shape = pixel_values.shape
        if len(shape) != 4 or shape[1] != self.config.num_channels or 0 in shape[2:]:
            raise ValueError(
                f"`pixel_values` must have the shape (batch_size, {self.config.num_channels}, height, width), "
                f"got {tuple(shape)}."
            )

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        image_embeddings: tuple[torch.Tensor, ...] | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **prompts: Unpack[PromptKwargs],
    ) -> SemanticSegmenterOutput:
        r"""
        Args:
            pixel_values: images as [`EFPImageProcessor`] makes them, `(batch_size, num_channels, height, width)`, any
                height and width.
            labels: 0 background, 1 lesion, 255 ignored, `(batch_size, height, width)`; of labels that overlap 0, 1 or
                255 for each, `(batch_size, num_labels, height, width)`.
            input_points: a person's clicks, (x, y) in pixels of `pixel_values`, `(batch_size, num_points, 2)`.
            input_labels: of the clicks, 1 lesion, 0 skin, -10 no click, `(batch_size, num_points)`.
            input_boxes: (left, top, right, bottom) around the lesion, four times -10 for none, `(batch_size, 4)`.
            input_masks: the lesion's logits of the step before, `(batch_size, 1, height, width)`, of any size.
                Where any of the four is given, all images of the batch go through the prompted decoder, those without
                a prompt of their own, too.
            image_embeddings: of `get_image_embeddings`, in place of `pixel_values`.
            output_hidden_states: return F1..F4, with the prompts where there are some, and the four enhanced levels,
                in this order; level i has the size of the extended image ([`extend`]) over its stride.
            output_attentions: return the four attention maps M_s, each `(batch_size, 1, height_i, width_i)`; behind
                them the four of the added labels' decoder, where there is one.

        Returns:
            [`SemanticSegmenterOutput`] with `logits` of shape `(batch_size, num_labels, height, width)`, the
            background's 0 where there are two labels of which one is right, and, where `labels` are given, `loss`.

        Raises:
            ValueError: pixel values of another shape than the configuration's or without pixels, labels as in
                `efp_loss` or `multi_label_loss`, prompts as in `Prompts.check`, or for a network without a prompt
                encoder; embeddings for one whose added labels have an encoder of their own.
        """
        if (pixel_values is None) == (image_embeddings is None):
            raise ValueError("Either `pixel_values` or `image_embeddings` must be given, and not both.")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions

        if image_embeddings is None:
            self.check_shape(pixel_values)
            size = pixel_values.shape[-2:]
            features = self.encoder(self.shared_image(extend(pixel_values)))  # F1..F4
        else:
            features = tuple(image_embeddings)
            size = tuple(self.first_stride * side for side in features[0].shape[-2:])
        decoder = self.decoder
        if any(value is not None for value in prompts.values()):
            features, decoder = self.add_prompts(features, Prompts(**prompts), size), self.prompted_decoder
        enhanced = decoder.pyramid(*features)  # F*
        attended, attention_scores = decoder.attend(enhanced)  # F_out = M_s ⊗ F*
        fused = decoder.fusion(attended)
        extended = tuple(side + -side % SIZE_DIVISOR for side in size)
        logits = resize(decoder.classifier(fused) / self.temperature(decoder), extended)
        if self.added_decoder is not None:
            added, added_scores = self.added_decoder(self.added_features(pixel_values, features))
            logits = torch.cat([logits, resize(added / self.temperature(self.added_decoder), extended)], dim=1)
            attention_scores += added_scores
        logits = logits[..., : size[0], : size[1]].contiguous()
        logits = with_background(logits) if self.is_binary else logits

        loss = None
        if labels is not None:
            loss_function = multi_label_loss if self.config.labels_overlap else efp_loss
            loss = loss_function(logits, labels, **self.config.loss_arguments())
            if self.attention_weight and attention_scores:
                loss = loss + self.attention_weight * attention_loss(
                    attention_scores, labels, self.config.semantic_loss_ignore_index
                )
        return SemanticSegmenterOutput(
            loss=loss,
            logits=logits,
            hidden_states=(*features, *enhanced) if output_hidden_states else None,
            attentions=tuple(scores.sigmoid() for scores in attention_scores) or None if output_attentions else None,
        )


__all__ = ["EFPForSegmentation", "EFPPreTrainedModel"]
