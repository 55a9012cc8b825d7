"""EFP, the enhanced feature pyramid for skin-lesion segmentation, as a Transformers model."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (a clone can be run by any Python)
    raise ImportError("efp_hf needs Python 3.11 or newer, got %d.%d." % sys.version_info[:2])  # noqa: UP031

try:
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation

    from .configuration_efp import EFPConfig
    from .image_processing_efp import EFPImageProcessor
    from .modeling_efp import EFPForSegmentation
except KeyboardInterrupt:  # in the seconds that this takes
    if sys.argv[0] != "-m" and sys.argv[0].rpartition("/")[2] != "efp":  # no command: the user's program decides
        raise
    print("efp: interrupted", file=sys.stderr)
    sys.exit(130)

__version__ = "0.2.0"

AutoConfig.register("efp", EFPConfig, exist_ok=True)
AutoImageProcessor.register(EFPConfig, image_processor_classes={"torchvision": EFPImageProcessor}, exist_ok=True)
AutoModelForSemanticSegmentation.register(EFPConfig, EFPForSegmentation, exist_ok=True)

__all__ = ["EFPConfig", "EFPForSegmentation", "EFPImageProcessor", "__version__"]
