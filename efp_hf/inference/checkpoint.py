"""A checkpoint: found by its name, loaded, and run on images."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers.exporters.base import ExportedModel
from transformers.image_processing_utils import BatchFeature
from transformers.utils import IMAGE_PROCESSOR_NAME

from ..configuration_efp import damage_named
from ..image_processing_efp import NUM_COLOURS, EFPImageProcessor, to_upright_rgb
from ..modeling_efp import SIZE_DIVISOR, EFPForSegmentation
from .runtimes import load_exported, runtime_of
from .task import class_names_of, labels_overlap

SHIPPED = Path(__file__).parents[1] / "checkpoints"
SHIPPED_CHECKPOINTS = tuple(sorted(path.parent.name for path in SHIPPED.glob("*/config.json")))
DEFAULT_CHECKPOINT = "efp-isic"
STRUCTURE_CHECKPOINT = "efp-isic-structures"  # the shipped one that also finds dermoscopic structures
LESION_CHECKPOINTS = tuple(name for name in SHIPPED_CHECKPOINTS if name != STRUCTURE_CHECKPOINT)
TRAINING_IMAGES = "training_images.csv"  # in a checkpoint's folder, of efp_hf.training.fingerprint
FIGURE = "masks.png"  # of a card, beside it
NO_SETTINGS = ("_name_or_path", "transformers_version")  # of a configuration
# of both configurations, that count where they are set: a folder of masks that an earlier version began can be resumed
LATER_SETTINGS = ("num_added_labels", "use_added_encoder", "added_backbone_config", "shared_size", "labels_overlap")
EXPORTED_SUFFIXES = (".onnx", ".data", ".xml", ".bin", ".pte")


def find_checkpoint(name: str | Path) -> str:
    """
    The folder or Hub id that a checkpoint's name stands for: one of `SHIPPED_CHECKPOINTS`, a folder, or an id with
    exactly one "/". Nothing is asked of the Hub here.

    Raises:
        FileNotFoundError: a name that is none of these, or a path whose folder is not there.
    """
    name = str(name)
    if name in SHIPPED_CHECKPOINTS:
        return str(SHIPPED / name)
    folder = Path(os.path.expanduser(name))  # where there is no such user, the path as it is
    if name and folder.is_dir():
        return str(folder)
    owner, _, rest = name.partition("/")
    # `checkpoints/efp-isic` was a path of earlier versions, and is no organisation to be asked for
    is_path = name.startswith((".", "/", "~")) or owner == "checkpoints" or Path(owner).is_dir()
    if is_path or not owner or not rest or "/" in rest:
        raise FileNotFoundError(no_checkpoint(name))
    return name


def no_checkpoint(name: str) -> str:
    return (
        f"{name}: no checkpoint there (no config.json). Check the path, or take a shipped one: "
        f"{', '.join(SHIPPED_CHECKPOINTS)}."
    )


def load_checkpoint(
    checkpoint: str | Path,
    runtime: str | None = None,
    bf16: bool = False,
    threads: int | None = None,
    allow_overlap: bool = False,
    allow_channels: bool = False,
) -> tuple[EFPForSegmentation | ExportedModel, EFPImageProcessor]:
    """
    Model (in evaluation mode, on the GPU where there is one) and image processor of a shipped checkpoint, a folder or
    Hub id, or of a folder that [`export_model`] wrote.

    Args:
        runtime: "torch", "onnx", "openvino" or "executorch", where no other is wanted.
        bf16: as in [`load_exported`], of a folder of OpenVINO.
        threads: as there, of an exported folder; PyTorch's are set by `torch.set_num_threads`.
        allow_overlap: also a model whose labels overlap, each with a mask of its own.
        allow_channels: also a model of images with other channels than three colours.

    Raises:
        FileNotFoundError: a name that [`find_checkpoint`] does not find, or a folder that is no checkpoint.
        ValueError: a damaged checkpoint, one of another architecture, whose processor crops or pads or is not for the
            model's channels or kind of labels, as in [`check_prompted_size`], or for another runtime; a model whose
            labels overlap or that has other channels, unless it may; `bf16` where it cannot be had.
        ImportError: the runtime of an exported folder is not installed.
    """
    name, checkpoint = str(checkpoint), find_checkpoint(checkpoint)
    if Path(checkpoint).is_dir() and not (Path(checkpoint) / "config.json").is_file():
        raise FileNotFoundError(no_checkpoint(name))
    found = runtime_of(checkpoint)
    if runtime is not None and runtime != found:
        raise ValueError(
            f"{name}: the runtime must be the folder's own, {found}, got {runtime!r}. "
            "Choose another folder, or make one with `efp export`."
        )
    is_exported = found != "torch"
    if bf16 and not is_exported:
        raise ValueError(f"{name}: `bf16` must be used with a folder of OpenVINO, got a checkpoint. Export it.")
    if is_exported:
        model = load_exported(checkpoint, bf16, threads)
    else:
        model = EFPForSegmentation.from_pretrained(checkpoint).eval()
        model.config.return_dict = True  # [`segment`] reads the outputs by their names
    channels = model.config.num_channels
    if channels != NUM_COLOURS and not allow_channels:
        raise ValueError(
            f"{name}: the model must take the three colours of an image here, got {channels} channels. "
            "`efp predict`, `efp calibrate` and `efp score` take such a checkpoint."
        )
    overlap = labels_overlap(model.config)
    if overlap and not allow_overlap:
        raise ValueError(
            f"{name}: the labels must exclude each other here, got {', '.join(class_names_of(model.config))}, which "
            "overlap. `efp train`, `efp calibrate`, `efp score`, `efp predict` and `efp export` take such a "
            "checkpoint, and `efp app` one of the lesion and its structures."
        )
    processor = EFPImageProcessor.from_pretrained(checkpoint)
    if processor.num_channels != channels:
        raise ValueError(
            f"{name}: {IMAGE_PROCESSOR_NAME}: `image_mean` must have a number for each of the model's {channels} "
            f"channels, got {processor.num_channels}. Copy the file of the training."
        )
    if processor.labels_overlap != overlap:
        raise ValueError(
            f"{name}: {IMAGE_PROCESSOR_NAME}: `labels_overlap` must be {overlap}, as the model's labels are, got "
            f"{processor.labels_overlap}. Change it there."
        )
    if processor.do_center_crop or processor.do_pad or None in (processor.size["height"], processor.size["width"]):
        raise ValueError(
            f"{name}: {IMAGE_PROCESSOR_NAME}: the whole image must be resized to a height and a width, without "
            f"do_center_crop and do_pad, as the mask is laid over all of it; got size {dict(processor.size)}."
        )
    with damage_named(name, IMAGE_PROCESSOR_NAME):
        check_prompted_size(model, {side: processor.size[side] for side in ("height", "width")})
    if not is_exported:
        model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    return model, processor


def check_prompted_size(model: EFPForSegmentation | ExportedModel, size: dict[str, int]) -> None:
    """
    Raises:
        ValueError: an input size with which a model that takes clicks and boxes could not keep what its encoder made.
    """
    if getattr(model, "prompt_encoder", None) is not None and any(side % SIZE_DIVISOR for side in dict(size).values()):
        raise ValueError(
            f"The input size of a checkpoint that takes clicks and boxes must be a multiple of {SIZE_DIVISOR}, "
            f"got {size['height']}×{size['width']}. Choose for example 192."
        )


def segment(
    images: list[Image.Image | np.ndarray],
    model: EFPForSegmentation | ExportedModel,
    processor: EFPImageProcessor,
    target_sizes: list[tuple[int, int]] | None = None,
    **post_processing,
) -> list[BatchFeature]:
    """
    PIL images, made upright, or with `target_sizes` arrays `(height, width, channels)` → one `BatchFeature` an image:
    `segmentation` (boolean mask), `probabilities` (of the lesion), both `(height, width)` of `target_sizes`, by default
    of the images, and the mask's `expected_jaccard`. Of several classes `segmentation` holds their labels, int64, and
    `probabilities` are of each label.

    `post_processing`: `threshold`, `largest_region` of `EFPImageProcessor.post_process_semantic_segmentation`.
    """
    return list(segment_one_by_one(images, model, processor, target_sizes, **post_processing))


@torch.inference_mode()
def segment_one_by_one(
    images: list[Image.Image],
    model: EFPForSegmentation | ExportedModel,
    processor: EFPImageProcessor,
    target_sizes: list[tuple[int, int]] | None = None,
    **post_processing,
) -> Iterator[BatchFeature]:
    """As [`segment`]: one batch through the model, then each result when it is asked for."""
    if target_sizes is None:
        images = [to_upright_rgb(image) for image in images]
        target_sizes = [image.size[::-1] for image in images]
    arrays = {} if isinstance(images[0], Image.Image) else {"input_data_format": "channels_last"}
    inputs = processor(images, return_tensors="pt", **arrays).to(model.device, model.dtype)
    outputs = model(**inputs)
    yield from processor.post_process_one_by_one(outputs, target_sizes, return_probabilities=True, **post_processing)


def weights_digest(checkpoint: str | Path) -> str:
    """
    The first 12 digits of the SHA-256 of a checkpoint's weights: which weights a row of results is about. Of an
    exported folder it is that of the files that hold its model; empty for a Hub id.
    """
    folder = Path(find_checkpoint(checkpoint))
    paths = [folder / "model.safetensors"]
    if not paths[0].is_file():
        paths = sorted(path for path in folder.glob("*") if path.suffix in EXPORTED_SUFFIXES)
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths))
    return digest.hexdigest()[:12] if paths else ""


def settings_digest(model: EFPForSegmentation | ExportedModel, processor: EFPImageProcessor) -> str:
    """The first 8 digits of the SHA-256 of both configurations, on which masks of the same weights depend."""
    fields = {name: value for name, value in model.config.to_dict().items() if name not in NO_SETTINGS}
    settings = [
        {name: value for name, value in of_one.items() if value or name not in LATER_SETTINGS}
        for of_one in (fields, processor.to_dict())
    ]
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
