"""The systems that are measured, in every runtime."""

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from zlib import crc32

import torch
from transformers import (
    AutoConfig,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SwinConfig,
)
from transformers.exporters.base import EXPORT_MANIFEST_FILE

from ... import configuration_efp, modeling_efp
from ...data.synthetic import draw_lesion
from ...image_processing_efp import EFPImageProcessor
from ...inference import export
from ...inference.checkpoint import load_checkpoint, weights_digest
from ...inference.export import export_model
from ...inference.runtimes import start_exported
from ...training import encoders
from ...training.encoders import new_model
from .. import baselines
from ..baselines import BaselineConfig, new_baseline
from ..comparison import ENCODER
from .machine import VERSIONED_PACKAGES

EFP, NANO, SEGFORMER, MASKFORMER, UNET = "EFP", "EFP nano", "SegFormer-B0", "MaskFormer Swin-T", "U-Net"
# on EFP's encoder: the benchmark's name → the system of scripts/compare.py, whose accuracy is known
ON_ENCODER = {UNET: "unet", "U-Net + attention": "unet_attention", "SegFormer's decoder": "segformer"}
TIMED_SYSTEMS = (EFP, NANO, SEGFORMER, MASKFORMER, *ON_ENCODER)
FLOAT_RUNTIMES = ("torch", "onnx", "openvino")
TIMED_RUNTIMES = (*FLOAT_RUNTIMES, "openvino bf16", "onnx int8", "openvino int8")
CUDA = "torch cuda bf16"
EXPORTING_MODULES = (baselines, configuration_efp, encoders, export, modeling_efp)
NUM_CALIBRATION_IMAGES = 16  # drawings: enough for int8's latency, not for its accuracy

AutoConfig.register("efp_baseline", BaselineConfig)  # the folder of an exported one names it


def new_timed_system(system: str, checkpoint: str | Path) -> torch.nn.Module:
    """EFP from its checkpoint; the others with random weights, for their latency alone."""
    torch.manual_seed(0)
    if system == EFP:
        return load_checkpoint(checkpoint, runtime="torch")[0].cpu()
    if system == NANO:
        return new_model(ENCODER, pretrained=False, nano=True).eval()
    if system == SEGFORMER:
        return SegformerForSemanticSegmentation(SegformerConfig(num_labels=2)).eval()
    if system in ON_ENCODER:
        return new_baseline(ON_ENCODER[system], ENCODER, pretrained=False).eval()
    swin_tiny = SwinConfig(out_features=["stage1", "stage2", "stage3", "stage4"])
    return MaskFormerForInstanceSegmentation(MaskFormerConfig(backbone_config=swin_tiny, num_labels=2)).eval()


def code_version() -> str:
    """Changes with the modules that build and export the networks, and with the packages' versions."""
    code = [Path(module.__file__).read_bytes() for module in EXPORTING_MODULES]
    names = (*VERSIONED_PACKAGES, "torch", "transformers", "timm")
    packages = [f"{name} {version(name)}" for name in names if find_spec(name)]
    return f"{crc32(b''.join(code) + repr(packages).encode()):08x}"


def export_once(system: str, runtime: str, checkpoint: str | Path, exports: Path) -> Path:
    """
    The folder of a system for a runtime of `TIMED_RUNTIMES` but "torch", made where it is not there. OpenVINO's
    bfloat16 runs the same folder as its float32. The name has the version of the code and of EFP's weights.
    """
    runtime = runtime.removesuffix(" bf16")
    versions = [code_version()]
    if system == EFP:
        versions.append(weights_digest(checkpoint))
    folder = exports / "-".join([system, *versions, runtime]).replace(" ", "-").lower()
    if not (folder / EXPORT_MANIFEST_FILE).is_file():
        processor = load_checkpoint(checkpoint, runtime="torch")[1] if system == EFP else EFPImageProcessor()
        to, _, int8 = runtime.partition(" ")
        images = [draw_lesion(seed)[0] for seed in range(NUM_CALIBRATION_IMAGES)] if int8 else None
        export_model(new_timed_system(system, checkpoint), processor, folder, to, images)
    return folder


def ready_model(system: str, runtime: str, checkpoint: str | Path, exports: Path, threads: int) -> Callable:
    """The system in the runtime, to be called with `pixel_values`."""
    if runtime == "torch":
        return new_timed_system(system, checkpoint).to(memory_format=torch.channels_last)
    if runtime == CUDA:
        model = new_timed_system(system, checkpoint).to("cuda", torch.bfloat16, memory_format=torch.channels_last)
        return torch.compile(model)
    folder = export_once(system, runtime, checkpoint, exports)
    return start_exported(folder, bf16=runtime.endswith(" bf16"), threads=threads)


def build_all(builders: dict) -> tuple[dict, dict[object, str]]:
    """Name → what its function returns, and name → why there is none: the others are measured all the same."""
    built, left_out = {}, {}
    for name, build in builders.items():
        try:
            built[name] = build()
        except Exception as error:  # a package that is not installed, or what a runtime cannot do
            left_out[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return built, left_out
