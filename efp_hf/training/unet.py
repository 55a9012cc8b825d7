"""U-Net (Ronneberger et al. 2015) on the encoder of an EFP network, to compare what is trained with."""

import copy

import torch
from huggingface_hub.dataclasses import strict
from transformers.modeling_outputs import SemanticSegmenterOutput

from ..configuration_efp import EFPConfig, read_backbone_config
from ..extras import require
from ..loss_efp import efp_loss
from ..modeling_efp import (
    EFPBackboneEncoder,
    EFPEncoder,
    EFPForSegmentation,
    EFPPreTrainedModel,
    with_background,
)

DECODER_CHANNELS = (256, 128, 64, 32, 16)  # of segmentation_models.pytorch


@strict
class UNetConfig(EFPConfig):
    """Of [`UNetForSegmentation`]: encoder, labels and loss; what else EFP has is not used."""

    model_type = "efp_unet"


class UNetForSegmentation(EFPPreTrainedModel):
    """
    The encoder of an EFP network, and the U-Net decoder of segmentation_models.pytorch in place of pyramid, attention
    and head. A timm encoder also gives the levels that are finer than F1, as U-Net has them. The loss is EFP's.
    """

    config_class = UNetConfig

    def __init__(self, config: UNetConfig):
        super().__init__(config)
        require("bench", "U-Net", ("segmentation_models_pytorch",))
        from segmentation_models_pytorch.base import SegmentationHead
        from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        self.encoder = all_levels(config)
        depth = len(self.encoder.channels)
        self.decoder = UnetDecoder((config.num_channels, *self.encoder.channels), DECODER_CHANNELS[:depth], depth)
        num_maps = config.num_labels if config.num_labels > 2 else 1
        self.head = SegmentationHead(DECODER_CHANNELS[depth - 1], num_maps)
        initialize_decoder(self.decoder)
        initialize_head(self.head)
        self.post_init()

    def _init_weights(self, module: torch.nn.Module):
        """Nothing: encoder and decoder are initialised where they are built."""

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> SemanticSegmenterOutput:
        """As [`EFPForSegmentation.forward`]: `logits` `(batch_size, num_labels, height, width)` and `loss`."""
        levels = self.encoder(pixel_values)
        logits = self.head(self.decoder([pixel_values, *levels]))
        logits = with_background(logits) if self.config.num_labels == 2 else logits
        loss = None if labels is None else efp_loss(logits, labels, **self.config.loss_arguments())
        return SemanticSegmenterOutput(loss=loss, logits=logits)


def all_levels(config: EFPConfig) -> EFPEncoder | EFPBackboneEncoder:
    """The encoder of a configuration; one of timm with all levels up to its last one that EFP takes."""
    if config.backbone_config is None:
        return EFPEncoder(config)
    if config.backbone_config.model_type != "timm_backbone":
        return EFPBackboneEncoder(config)
    backbone, config = config.backbone_config.to_dict(), copy.deepcopy(config)
    backbone |= {"out_indices": tuple(range(max(backbone["out_indices"]) + 1)), "out_features": None}
    config.backbone_config = read_backbone_config(backbone)
    encoder = EFPBackboneEncoder(config)
    encoder.drop_unused_stages()
    return encoder


def unet_like(model: EFPForSegmentation, seed: int) -> UNetForSegmentation:
    """A U-Net with the encoder that a model has now, and a decoder that is random by the seed."""
    fields = model.config.to_dict() | {"attention_weight": 0.0, "temperature": 1.0}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNetForSegmentation(UNetConfig.from_dict(fields | {"model_type": UNetConfig.model_type}))
    weights = model.encoder.state_dict()
    unet.encoder.load_state_dict({name: weights[name] for name in unet.encoder.state_dict()})
    return unet
