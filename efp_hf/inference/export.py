"""A checkpoint to a folder for another runtime, through the exporters and quantizers of Transformers."""

import copy
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import reduce
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from timm.layers.conv2d_same import Conv2dSame
from torch import nn
from torch.export import Dim
from transformers.exporters.auto import AutoExportConfig, AutoHfExporter
from transformers.exporters.base import EXPORT_MANIFEST_FILE, ExportedModel

from ..configuration_efp import NUM_LEVELS, with_code_files
from ..image_processing_efp import EFPImageProcessor, to_upright_rgb
from ..modeling_efp import SIZE_DIVISOR, EFPCrossScaleEnhancement, EFPForSegmentation, EFPSpatialAttention
from .checkpoint import EXPORTED_SUFFIXES, FIGURE, TRAINING_IMAGES
from .runtimes import DECODER, ENCODER, PACKAGES, PROMPTED_DECODER, WHOLE, no_prompts, require_packages

EXPORT_FORMATS = tuple(PACKAGES)
CODE_FILE = "modeling_efp.py"  # of a folder for the Hub
CARD = "README.md"
WRITTEN_FILES = (CARD, FIGURE, TRAINING_IMAGES)
WRITTEN_SUFFIXES = (".json", ".py", ".safetensors", *EXPORTED_SUFFIXES)
TRACED_SIDES = (192, 256)  # of the example that is traced; the exported model takes others
POOLING_CHUNKS = 8
EXECUTORCH_LIMITS = (8, 512)  # images a batch and pixels a side: its memory is planned for the largest input


def export_model(
    model: EFPForSegmentation,
    processor: EFPImageProcessor,
    folder: Path,
    to: str,
    calibration_images: Iterable[Image.Image] | None = None,
    half: bool = False,
    overwrite: bool = False,
    fingerprint: Path | None = None,
) -> None:
    """
    Write a folder with the model for another runtime, the processor and the configuration, which
    [`load_checkpoint`] loads. Batch size, height and width stay free (ExecuTorch: up to
    `EXECUTORCH_LIMITS`).

    A model that takes prompts gets three graphs more, [`prompt_graphs`], in ONNX and OpenVINO; in ExecuTorch, in int8,
    and where its levels do not halve in size, the folder makes the automatic mask alone.

    Args:
        folder: is there afterwards whole, or as it was before.
        to: "onnx", "openvino" or "executorch".
        calibration_images: quantize the automatic mask's graph to int8, with the ranges that these images give; they
            should be training images.
        half: weights of 16 bits, for ONNX and ExecuTorch the computation too.
        overwrite: replace an exported folder.
        fingerprint: the checkpoint's `training_images.csv`, that goes along.

    Raises:
        ImportError: a package is not installed; the message names the extra that brings it.
        FileExistsError: the folder is there, and is to stay or is no exported one.
        ValueError: another format, or int8 and half at once.
    """
    if to not in EXPORT_FORMATS:
        raise ValueError(f"`to` must be one of {', '.join(EXPORT_FORMATS)}, got {to!r}.")
    if half and calibration_images is not None:
        raise ValueError("`half` must not be given with int8: weights have 16 or 8 bits. Choose one.")
    require_packages(PACKAGES[to], f"The export to {to}")
    with replaced_folder(Path(folder), overwrite, EXPORT_MANIFEST_FILE) as partial:
        quantizer = None
        if calibration_images is not None:
            quantizer = make_quantizer(to, list(calibration_inputs(calibration_images, processor)))
        options = {"export_format": to}
        if to == "openvino":
            options["compress_to_fp16"] = half  # it does not halve the convolutions of a model of 16 bits
        model = traceable(model)
        if to == "onnx":
            write_poolings_for_onnx(model)
        dtype = torch.float16 if half and to != "openvino" else model.dtype
        graphs = {WHOLE: (model, {"pixel_values": traced_image(model, dtype)}, free_sizes(to))}
        takes_prompts = getattr(model, "prompt_encoder", None) is not None and has_exact_halves(model)
        if takes_prompts and to != "executorch" and quantizer is None:
            graphs |= prompt_graphs(model, dtype)
        model.to(dtype)
        components = {}
        for name, (module, inputs, sizes) in graphs.items():
            config = AutoExportConfig.from_dict(
                {**options, "dynamic_shapes": sizes, "quantizer": quantizer if name == WHOLE else None}
            )
            exported = AutoHfExporter.from_config(config).export(module, inputs, config)
            components[name] = next(iter(exported.components.values()))
        if to == "onnx":
            # the Python lines that made each node: three quarters of a graph's bytes, which no runtime reads
            from onnx_ir.passes.common import ClearMetadataAndDocStringPass

            for component in components.values():
                ClearMetadataAndDocStringPass()(component.program)
        ExportedModel(components, to, model.config).save_pretrained(partial)
        processor.save_pretrained(partial)
        if fingerprint is not None:
            shutil.copy(fingerprint, partial)


def save_for_hub(
    model: EFPForSegmentation,
    processor: EFPImageProcessor,
    folder: Path,
    card: Path | None = None,
    overwrite: bool = False,
    fingerprint: Path | None = None,
) -> None:
    """
    Write a folder that loads from the Hub where this package is not installed: weights, configuration, processor, their
    code files, the `card` as its `README.md` with its figure, and the `fingerprint`, `training_images.csv`.

    Raises:
        FileExistsError: the folder is there and not empty, and is to stay or was not written by this function.
    """
    with replaced_folder(Path(folder), overwrite, CODE_FILE) as partial:
        with model.saved_with_code(), with_code_files(AutoImageProcessor=type(processor)):
            model.save_pretrained(partial)
            processor.save_pretrained(partial)
        if card is not None:
            shutil.copyfile(card, partial / CARD)
            figure = Path(card).with_name(FIGURE)
            if figure.is_file() and f"]({FIGURE})" in Path(card).read_text(encoding="utf-8"):
                shutil.copyfile(figure, partial / FIGURE)
        if fingerprint is not None:
            shutil.copy(fingerprint, partial)


@contextmanager
def replaced_folder(folder: Path, overwrite: bool, mark: str) -> Iterator[Path]:
    """
    A new folder to write into, whose files are those of `folder` at the end, or which is deleted after an error. A
    folder without the file `mark`, or with anything that no export writes, is never replaced.
    """
    there = list(folder.iterdir()) if folder.is_dir() else []
    if there or folder.is_file():
        if not overwrite:
            raise FileExistsError(f"{folder} is there. Choose another folder, or pass --overwrite.")
        others = [path.name for path in there if path.is_dir() or not is_written_here(path)]
        if not (folder / mark).is_file() or others:
            holds = f" (it holds {others[0]})" if others else ""
            raise FileExistsError(
                f"{folder} is no exported model and is not overwritten{holds}. Choose another folder."
            )
    # in the folder, where there is one: it may be a link, a mounted disk or the current folder, and stays the same
    name = f".{os.getpid()}-{folder.name}"
    partial = folder / name if folder.is_dir() else folder.with_name(name)
    try:
        partial.mkdir(parents=True)
        yield partial
        if partial.parent == folder:
            for path in there:
                if path.name != CARD:  # it may be the user's own, and there may be no new one
                    path.unlink()
            for path in partial.iterdir():
                path.replace(folder / path.name)
        else:
            partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def is_written_here(path: Path) -> bool:
    return path.suffix in WRITTEN_SUFFIXES or path.name in WRITTEN_FILES


def free_sizes(to: str) -> dict:
    """Which axes of `pixel_values` have a free size; an export in which it would become a constant is an error."""
    if to == "executorch":
        most, longest = EXECUTORCH_LIMITS
        axes = {0: Dim.DYNAMIC(max=most), 2: Dim.DYNAMIC(max=longest), 3: Dim.DYNAMIC(max=longest)}
    else:
        axes = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    return {"pixel_values": axes}


def traced_image(model: EFPForSegmentation, dtype: torch.dtype) -> torch.Tensor:
    """An example of `pixel_values`; of three colours where a network of others does not say its channels."""
    return torch.zeros(2, getattr(model.config, "num_channels", 3), *TRACED_SIDES, dtype=dtype)


def prompt_graphs(model: EFPForSegmentation, dtype: torch.dtype) -> dict[str, tuple[nn.Module, dict, dict]]:
    """
    The three graphs of a correction → network, example of its inputs, and their free sizes:

        encoder             pixel_values, of sides that are multiples of `SIZE_DIVISOR` → F1..F4
        decoder             image_embeddings F1..F4 → logits of the automatic mask
        prompted_decoder    image_embeddings F1..F4, input_points, input_labels, input_boxes, input_masks → logits

    The prompted decoder takes all prompts; those of [`no_prompts`] say nothing.
    """
    batch, rows, columns = Dim("batch"), Dim("rows"), Dim("columns")  # of SIZE_DIVISOR pixels
    image = traced_image(model, dtype)
    batch_size, _, height, width = image.shape
    strides = [model.first_stride * 2**i for i in range(NUM_LEVELS)]
    embeddings = tuple(
        torch.zeros(batch_size, channels, height // stride, width // stride, dtype=dtype)
        for channels, stride in zip(model.encoder.channels, strides, strict=True)
    )

    def free_sides(stride: int) -> dict:
        count = SIZE_DIVISOR // stride
        return {0: batch, 2: count * rows, 3: count * columns} if count > 1 else {0: batch, 2: rows, 3: columns}

    points = {0: batch, 1: Dim("points")}
    embeddings_sizes = {"image_embeddings": tuple(free_sides(stride) for stride in strides)}
    prompt_sizes = {
        "input_points": points,
        "input_labels": points,
        "input_boxes": {0: batch},
        "input_masks": {0: batch, 2: Dim("mask_height"), 3: Dim("mask_width")},
    }
    inputs = {"image_embeddings": embeddings}
    prompts = no_prompts(batch_size, dtype, length=3)
    return {
        ENCODER: (model.encoder, {"pixel_values": image}, {"pixel_values": free_sides(1)}),
        DECODER: (model, inputs, embeddings_sizes),
        PROMPTED_DECODER: (model, inputs | prompts, embeddings_sizes | prompt_sizes),
    }


def traceable(model: EFPForSegmentation) -> EFPForSegmentation:
    """A copy on the CPU, in evaluation mode, whose convolutions pad by constants."""
    model = copy.deepcopy(model).cpu().eval()
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Conv2dSame) and child.dilation == (1, 1):
                setattr(parent, name, SamePaddingConv(child))
    return model


class SamePaddingConv(nn.Module):
    """
    The function of timm's `Conv2dSame` at sizes that its stride divides, for kernels not smaller than their stride:
    there the padding is a constant. EFP has such sizes for every image, other networks for images of such sizes. timm
    computes the padding from the size, which a tracer of unknown sizes does not get through and which runtimes do not
    fold into the convolution.
    """

    def __init__(self, convolution: Conv2dSame):
        super().__init__()
        self.convolution = convolution

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        conv = self.convolution
        padding = []
        for axis in (1, 0):  # width first, as `F.pad` wants it
            total = conv.kernel_size[axis] - conv.stride[axis]
            padding += [total // 2, total - total // 2]
        return F.conv2d(F.pad(feature_map, padding), conv.weight, conv.bias, conv.stride, groups=conv.groups)


def write_poolings_for_onnx(model: nn.Module) -> None:
    """The same poolings as ONNX Runtime computes them fast: over slices of the channels, and without ceil mode."""
    for module in list(model.modules()):
        if isinstance(module, EFPSpatialAttention):
            module.pooling = ChunkedPooling()
        if isinstance(module, EFPCrossScaleEnhancement):
            module.ceil_mode = not has_exact_halves(model)


@torch.no_grad()
def has_exact_halves(model: EFPForSegmentation) -> bool:
    """Whether each level has half the size of the one before, whatever the image: so it is at an odd multiple, too."""
    size = 3 * SIZE_DIVISOR
    levels = model.encoder(torch.zeros(1, model.config.num_channels, size, size, dtype=model.dtype))
    sizes = [level.shape[-1] for level in levels]
    return all(finer == 2 * coarser for finer, coarser in pairwise(sizes))


class ChunkedPooling(nn.Module):
    """
    The function of [`EFPChannelPooling`], first over up to `POOLING_CHUNKS` equal slices of the channels: ONNX Runtime
    takes the sum or the maximum of two maps much faster than it reduces a long axis.
    """

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        chunks = feature_map.chunk(math.gcd(POOLING_CHUNKS, feature_map.shape[1]), dim=1)
        mean = reduce(torch.add, chunks).mean(1, keepdim=True) / len(chunks)
        largest = reduce(torch.maximum, chunks).amax(1, keepdim=True)
        return torch.cat([mean, largest], dim=1)


def calibration_inputs(images: Iterable[Image.Image], processor: EFPImageProcessor) -> Iterator[dict]:
    """What the model is given for each image: `pixel_values` `(1, 3, height, width)`."""
    for image in images:
        yield {"pixel_values": processor([to_upright_rgb(image)], return_tensors="pt")["pixel_values"]}


def make_quantizer(to: str, samples: list[dict]):
    """Weights and activations to int8, weights a scale a channel: the runtime's own quantizer."""
    if to == "onnx":
        from onnxruntime.quantization import QuantType
        from transformers.exporters import OnnxRuntimeQuantizer, OnnxRuntimeStaticConfig

        # unsigned, so that a ReLU is the quantization itself
        config = OnnxRuntimeStaticConfig(per_channel=True, activation_type=QuantType.QUInt8)
        return OnnxRuntimeQuantizer(config, samples)
    if to == "openvino":
        require_packages(("nncf",), "int8 for openvino")
        import nncf
        from transformers.exporters import NNCFOpenVINOQuantizer, NNCFQuantizationConfig

        config = NNCFQuantizationConfig(preset=nncf.QuantizationPreset.MIXED, subset_size=len(samples))
        return NNCFOpenVINOQuantizer(config, samples)
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from transformers.exporters import PT2EQuantizer

    return PT2EQuantizer(XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True)), samples)
