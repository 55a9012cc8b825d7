"""EFP, the enhanced feature pyramid for skin-lesion segmentation, as a Transformers model."""

from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation

from .configuration_efp import EFPConfig
from .image_processing_efp import EFPImageProcessor
from .modeling_efp import EFPForSegmentation

__version__ = "0.2.0"

AutoConfig.register("efp", EFPConfig, exist_ok=True)
AutoImageProcessor.register(EFPConfig, image_processor_classes={"torchvision": EFPImageProcessor}, exist_ok=True)
AutoModelForSemanticSegmentation.register(EFPConfig, EFPForSegmentation, exist_ok=True)

# `save_pretrained` writes the four files that the Hub needs beside the weights.
EFPConfig.register_for_auto_class()
EFPImageProcessor.register_for_auto_class()
EFPForSegmentation.register_for_auto_class("AutoModelForSemanticSegmentation")

__all__ = ["EFPConfig", "EFPForSegmentation", "EFPImageProcessor", "__version__"]
