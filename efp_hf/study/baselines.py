"""The systems that the paper compares EFP with, from their libraries, behind one interface.

Each is built by its library and computes what the library computes, MaskFormer from other initial weights
(`build_maskformer`); around it is only what one Trainer loop and one scorer need: `pixel_values` and `labels` in, a
loss and one logit a label and pixel at the size of the input out.
"""

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import (
    DetrConfig,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    PreTrainedConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.models.maskformer.modeling_maskformer import MaskFormerForInstanceSegmentationOutput

from ..loss_efp import efp_loss
from ..modeling_efp import EFPPreTrainedModel, resize, with_background
from ..training.encoders import imagenet_weights, timm_backbone_config

BASELINES = ("unet", "unet_attention", "segformer", "maskformer")


@strict
class BaselineConfig(PreTrainedConfig):
    """
    Args:
        system: one of `BASELINES`.
        encoder: name of a timm model, the same for every system; `None` for what the library itself trains from
            scratch. MaskFormer has no encoder of its own that trains from scratch and needs a name.
    """

    model_type = "efp_baseline"

    system: str = "unet"
    encoder: str | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.system not in BASELINES:
            raise ValueError(f"`system` must be one of {', '.join(BASELINES)}, got {self.system!r}.")
        if self.system == "maskformer" and self.encoder is None:
            raise ValueError("`encoder` must be given for MaskFormer. Pass for example 'tf_efficientnet_lite0'.")


def build_network(system: str, encoder: str | None) -> nn.Module:
    """The library's own module, with random weights."""
    try:
        import segmentation_models_pytorch as smp
        from monai.networks.nets import AttentionUnet
    except ImportError as error:
        raise ImportError('The baselines need their libraries: pip install "efp-hf[bench]"') from error
    if system == "maskformer":
        return build_maskformer(encoder)
    if encoder is None:
        return {
            "unet": lambda: smp.Unet("resnet34", encoder_weights=None),
            "unet_attention": lambda: AttentionUnet(2, 3, 1, channels=(32, 64, 128, 256, 512), strides=(2, 2, 2, 2)),
            "segformer": lambda: SegformerForSemanticSegmentation(SegformerConfig(num_labels=1)),  # B0
        }[system]()
    return {
        "unet": lambda: smp.Unet(f"tu-{encoder}", encoder_weights=None),
        "unet_attention": lambda: smp.Unet(f"tu-{encoder}", encoder_weights=None, decoder_attention_type="scse"),
        "segformer": lambda: smp.Segformer(f"tu-{encoder}", encoder_weights=None),
    }[system]()


def build_maskformer(encoder: str) -> MaskFormerForInstanceSegmentation:
    """
    Transformers' MaskFormer with initial weights like its authors' (Cheng et al. 2021): queries from N(0, 1), each
    matrix of the transformer Xavier uniform. Transformers' own are meant to be loaded over: its queries are so alike
    (standard deviation 0.02) that dropout tells them apart, which evaluation does not have. Unlike the authors' network
    it has no dropout, so that the one that is evaluated is the one that was trained.
    """
    config = MaskFormerConfig(
        backbone_config=timm_backbone_config(encoder), decoder_config=DetrConfig(dropout=0.0), num_labels=2
    )
    network = MaskFormerForInstanceSegmentation(config)
    transformer = network.model.transformer_module
    nn.init.normal_(transformer.queries_embedder.weight)
    for weight in transformer.decoder.parameters():
        if weight.ndim > 1:
            nn.init.xavier_uniform_(weight)
    return network


class BaselineForSegmentation(EFPPreTrainedModel):
    """One of `BASELINES`, with the loss of EFP; MaskFormer with its own loss and post-processing."""

    config_class = BaselineConfig
    supports_gradient_checkpointing = False

    def __init__(self, config: BaselineConfig):
        super().__init__(config)
        self.network = build_network(config.system, config.encoder)
        self.post_init()

    def _init_weights(self, module: nn.Module):
        """Nothing: the libraries initialise their networks when they build them."""

    @property
    def encoder(self) -> nn.Module:
        """What starts from ImageNet; without such a part the whole network."""
        if self.config.system == "maskformer":
            return self.network.model.pixel_level_module.encoder
        return self.network.encoder if self.config.encoder else self.network

    def load_imagenet(self) -> None:
        """ImageNet weights into the encoder."""
        weights = imagenet_weights(self.config.encoder)
        backbone = self.encoder.model if hasattr(self.encoder, "model") else self.encoder._backbone
        backbone.load_state_dict({name: weights[name] for name in backbone.state_dict()})

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> SemanticSegmenterOutput:
        """As [`EFPForSegmentation.forward`]: `logits` `(batch_size, 2, height, width)` and, with `labels`, `loss`."""
        if self.config.system == "maskformer":
            targets = {} if labels is None else instance_targets(labels)
            outputs = self.network(pixel_values, **targets)
            return SemanticSegmenterOutput(
                loss=None if labels is None else outputs.loss.squeeze(),
                logits=with_background(resize(maskformer_logits(outputs), pixel_values.shape[-2:])),
            )
        outputs = self.network(pixel_values)
        logits = outputs if isinstance(outputs, torch.Tensor) else outputs.logits
        logits = with_background(resize(logits, pixel_values.shape[-2:]))
        return SemanticSegmenterOutput(loss=None if labels is None else efp_loss(logits, labels), logits=logits)


def instance_targets(labels: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """MaskFormer's targets: for each image the masks of the classes that it has, and their numbers."""
    classes = [image_labels.unique() for image_labels in labels]
    return {
        "mask_labels": [
            (image_labels == found[:, None, None]).float() for image_labels, found in zip(labels, classes, strict=True)
        ],
        "class_labels": classes,
    }


def maskformer_logits(outputs: MaskFormerForInstanceSegmentationOutput) -> torch.Tensor:
    """
    MaskFormer's own semantic post-processing as one logit a pixel, `(batch_size, 1, height, width)`: the log of the
    lesion's score over the background's. It is above 0 where the arg-max of the two scores says lesion.
    """
    classes = outputs.class_queries_logits.float().softmax(-1)[..., :-1]  # without the null class
    masks = outputs.masks_queries_logits.float().sigmoid()
    scores = torch.einsum("bqc, bqhw -> bchw", classes, masks).clamp(min=1e-6).log()
    return scores[:, 1:] - scores[:, :1]


def new_baseline(system: str, encoder: str | None, pretrained: bool) -> BaselineForSegmentation:
    """A system with random weights, its encoder's from ImageNet where `pretrained`."""
    model = BaselineForSegmentation(BaselineConfig(system=system, encoder=encoder))
    if pretrained:
        model.load_imagenet()
    return model
