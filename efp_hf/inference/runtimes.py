"""Exported models in the place of PyTorch's: which runtime a folder is for, and its model ready to run."""

import json
import os
from pathlib import Path

import torch
from transformers.exporters.base import EXPORT_MANIFEST_FILE, ExportedComponent, ExportedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

from ..configuration_efp import PADDING, damage_named
from ..extras import require
from ..modeling_efp import Prompts, check_sides

PACKAGES = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("openvino",),
    "executorch": ("executorch",),
}
RUNTIMES = ("torch", *PACKAGES)
TRIAL_SIZE = (64, 96)  # of the image that a loaded model is tried on
# graphs of an exported folder
WHOLE, ENCODER, DECODER, PROMPTED_DECODER = "model", "encoder", "decoder", "prompted_decoder"


class ExportedSegmentation(ExportedModel):
    """
    An exported network that is called like [`EFPForSegmentation`]. Its graph `model` makes the automatic mask; where it
    takes prompts `encoder`, `decoder` and `prompted_decoder` are its parts.
    """

    @property
    def prompt_encoder(self) -> ExportedComponent | None:
        """As of [`EFPForSegmentation`] `None` where the network takes no prompts."""
        return self.components.get(PROMPTED_DECODER)

    def get_image_embeddings(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """
        F1..F4 of images whose sides are multiples of `SIZE_DIVISOR`.

        Raises:
            ValueError: other sides, or a folder without the graphs for prompts.
        """
        if self.prompt_encoder is None:
            raise ValueError(
                "The network must have been trained with prompts to take some, and exported to onnx or openvino "
                "without --int8. Load another checkpoint, or train with `efp train --prompts`."
            )
        check_sides(pixel_values)
        return self.runners[ENCODER](pixel_values=pixel_values)

    def __call__(
        self,
        pixel_values: torch.Tensor | None = None,
        image_embeddings: tuple[torch.Tensor, ...] | None = None,
        input_points: torch.Tensor | None = None,
        input_labels: torch.Tensor | None = None,
        input_boxes: torch.Tensor | None = None,
        input_masks: torch.Tensor | None = None,
        **others,
    ) -> SemanticSegmenterOutput:
        """`others`, what else [`EFPForSegmentation`] takes, is dropped as by [`ExportedModel`]."""
        prompts = Prompts(input_points, input_labels, input_boxes, input_masks).with_a_point()
        given = {name: value for name, value in vars(prompts).items() if value is not None}
        if image_embeddings is None and not given:
            return self.runners[WHOLE](pixel_values=pixel_values)
        if not given:
            return self.runners[DECODER](image_embeddings=image_embeddings)
        if image_embeddings is None:
            image_embeddings = self.get_image_embeddings(pixel_values)
        inputs = no_prompts(len(image_embeddings[0]), self.dtype)
        inputs |= {name: value.to(inputs[name].dtype) for name, value in given.items()}
        outputs = self.runners[PROMPTED_DECODER](image_embeddings=image_embeddings, **inputs)
        batch_size, _, height, width = outputs.logits.shape  # the image's, which the embeddings do not tell
        prompts.check(batch_size, height, width)
        return outputs


def no_prompts(batch_size: int, dtype: torch.dtype, length: int = 1) -> dict[str, torch.Tensor]:
    """The prompts of `prompted_decoder` that say nothing: `length` points, and a mask of as many pixels a side."""
    return {
        "input_points": torch.full((batch_size, length, 2), float(PADDING)),
        "input_labels": torch.full((batch_size, length), PADDING),
        "input_boxes": torch.full((batch_size, 4), float(PADDING)),
        "input_masks": torch.zeros(batch_size, 1, length, length, dtype=dtype),
    }


def require_packages(packages: tuple[str, ...], purpose: str) -> None:
    """[`require`] of the extra that brings a runtime's packages."""
    require("executorch" if "executorch" in packages else "export", purpose, packages)


def runtime_of(checkpoint: str | Path) -> str:
    """
    The runtime that a folder is exported for; "torch" for everything else, a checkpoint or a Hub id.

    Raises:
        OSError, ValueError: the folder's `EXPORT_MANIFEST_FILE` is damaged.
    """
    manifest = Path(os.path.expanduser(checkpoint)) / EXPORT_MANIFEST_FILE
    if not manifest.is_file():
        return "torch"
    with damage_named(checkpoint, EXPORT_MANIFEST_FILE):
        found = json.loads(manifest.read_text(encoding="utf-8")).get("export_format")
        if not isinstance(found, str) or found not in PACKAGES:
            raise ValueError(f"`export_format` must be one of {', '.join(PACKAGES)}, got {found!r}. Export it again.")
        return found


def openvino_precision(bf16: bool = False) -> dict[str, str]:
    """
    OpenVINO's setting for products in bfloat16 or float32: unasked, it takes the first where the processor has it.

    Raises:
        ValueError: bfloat16 on a processor that does not compute in it.
    """
    import openvino

    if bf16 and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ValueError("`bf16` needs a processor that computes in bfloat16, and this one does not. Leave it out.")
    return {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32"}


def runner_options(runtime: str, bf16: bool, threads: int | None) -> dict:
    """What the runtime is told when it loads a model."""
    if runtime == "openvino":
        config = openvino_precision(bf16)
        return {"device": "cpu", "config": config if threads is None else config | {"INFERENCE_NUM_THREADS": threads}}
    if threads is None:
        return {}
    if runtime != "onnx":
        raise ValueError(f"`threads` must be used with onnx or openvino, got {runtime!r}. Leave it out.")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return {"device": "cpu", "session_options": options}


def load_exported(folder: str | Path, bf16: bool = False, threads: int | None = None) -> ExportedSegmentation:
    """
    The model of an exported folder, ready to run. It is called like [`EFPForSegmentation`] and returns an output with
    `logits`; it has `device`, `dtype` and `config`.

    Args:
        bf16: products in bfloat16, for OpenVINO: logits differ from the second or third digit on.
        threads: of OpenVINO or ONNX Runtime; by default their own choice.

    Raises:
        ImportError: the runtime is not installed.
        OSError: a file of the folder is missing.
        ValueError: one is damaged, or `bf16` in another runtime or on a processor that has none, or `threads` for
            ExecuTorch.
    """
    model = start_exported(folder, bf16, threads)
    with damage_named(folder, "the exported model is damaged"):
        check_outputs(model)
    return model


def start_exported(folder: str | Path, bf16: bool = False, threads: int | None = None) -> ExportedSegmentation:
    """As [`load_exported`], of any network: it is not tried on an image."""
    runtime = runtime_of(folder)
    require_packages(PACKAGES.get(runtime, ()), f"{folder}: the runtime {runtime}")
    if bf16 and runtime != "openvino":
        raise ValueError(f"{folder}: `bf16` must be used with a folder of OpenVINO, got one for {runtime}.")
    options = runner_options(runtime, bf16, threads)
    with damage_named(folder, "the exported model is damaged"):
        return ExportedSegmentation.from_pretrained(Path(os.path.expanduser(folder)), **options)


@torch.inference_mode()
def check_outputs(model: ExportedSegmentation) -> None:
    """
    Raises:
        ValueError: a small black image does not give finite logits of the configuration's labels: some weights are
            damaged, or a file is another network's.
    """
    shape = (1, model.config.num_channels, *TRIAL_SIZE)
    pixel_values = torch.zeros(shape, dtype=model.dtype, device=model.device)
    trials = [{"pixel_values": pixel_values}]
    if model.prompt_encoder is not None:
        embeddings = model.get_image_embeddings(pixel_values)
        trials += [{"image_embeddings": embeddings, **prompts} for prompts in ({}, no_prompts(1, model.dtype))]
    expected = (1, model.config.num_labels, *TRIAL_SIZE)
    for inputs in trials:
        logits = model(**inputs).logits
        if tuple(logits.shape) != expected:
            raise ValueError(f"its logits must have the shape {expected}, got {tuple(logits.shape)}.")
        if not logits.isfinite().all():
            raise ValueError("its logits must be finite, got NaN or infinity for a black image.")
