"""EFP, the enhanced feature pyramid for skin-lesion segmentation, as a Transformers model."""

from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation

from .configuration_efp import EFPConfig
from .image_processing_efp import EFPImageProcessor
from .modeling_efp import EFPForSegmentation

__version__ = "0.2.0"

AutoConfig.register("efp", EFPConfig, exist_ok=True)
AutoImageProcessor.register(EFPConfig, image_processor_classes={"torchvision": EFPImageProcessor}, exist_ok=True)
AutoModelForSemanticSegmentation.register(EFPConfig, EFPForSegmentation, exist_ok=True)

__all__ = ["EFPConfig", "EFPForSegmentation", "EFPImageProcessor", "__version__"]
