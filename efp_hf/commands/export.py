"""Export a checkpoint for another runtime, or as a folder for the Hub.

  efp export --to onnx
  efp export --to openvino --int8 --data ISIC_FOLDER --checkpoint runs/mine
  efp predict photo.jpg --checkpoint exports/efp-isic-onnx
  efp export --to hub --checkpoint runs/mine         weights, card, and code for trust_remote_code

Writes a folder that `efp predict`, `efp score` and `efp app` take as --checkpoint. A checkpoint
that takes clicks and boxes takes them in ONNX and OpenVINO, too.
"""

import argparse
from pathlib import Path

from ..extras import require
from ..inference.checkpoint import TRAINING_IMAGES, find_checkpoint, load_checkpoint
from ..inference.task import labels_overlap
from .arguments import (
    InputError,
    WriteError,
    add_checkpoint_argument,
    add_split_seed_argument,
    check_output,
    load_data,
    one_line_errors,
    own_path,
    positive_integer,
)

HUB = "hub"
CALIBRATION_IMAGES = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..inference.export import EXPORT_FORMATS

    parser.add_argument("--to", required=True, choices=(*EXPORT_FORMATS, HUB))
    add_checkpoint_argument(parser)
    parser.add_argument("--output", metavar="DIR", type=own_path, help="folder (default: exports/CHECKPOINT-FORMAT)")
    parser.add_argument("--half", action="store_true", help="weights of 16 bits")
    parser.add_argument("--int8", action="store_true", help="quantize weights and activations; needs --data")
    parser.add_argument("--data", help="ISIC or own folder, or Hub id: its train split gives int8 its ranges")
    add_split_seed_argument(parser)
    parser.add_argument(
        "--calibration-images", metavar="N", type=positive_integer, help=f"for --int8 (default: {CALIBRATION_IMAGES})"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an exported folder")


def run(arguments: argparse.Namespace) -> int:
    from ..inference.export import export_model, save_for_hub

    if arguments.int8 and arguments.data is None:
        raise InputError("`--int8` needs training images. Pass --data.")
    for option, given in (("--data", arguments.data), ("--calibration-images", arguments.calibration_images)):
        if given is not None and not arguments.int8:
            raise InputError(f"`{option}` must be used with --int8. Pass both, or leave it out.")
    if arguments.to == HUB and (arguments.half or arguments.int8):
        raise InputError("`--half` and `--int8` must be used with a runtime, got --to hub. Leave them out.")
    name = "-".join(
        [Path(arguments.checkpoint).name, arguments.to] + ["half"] * arguments.half + ["int8"] * arguments.int8
    )
    output = arguments.output or Path("exports") / name
    check_output(output)
    check_output(output.parent)  # where it is written, before it takes its place
    with one_line_errors():
        if arguments.int8:
            require("train", "--int8")
        model, processor = load_checkpoint(
            arguments.checkpoint, runtime="torch", allow_overlap=True, allow_channels=True
        )
        if labels_overlap(model.config) and (arguments.int8 or arguments.to not in (HUB, "onnx", "openvino")):
            raise InputError(
                f"{arguments.checkpoint} has labels that overlap: it is exported to hub, onnx or openvino, without "
                "--int8."
            )
        folder = Path(find_checkpoint(arguments.checkpoint))
        card, fingerprint = (
            path if path.is_file() else None for path in (folder / "README.md", folder / TRAINING_IMAGES)
        )
        images = calibration_images(arguments) if arguments.int8 else None
        try:
            if arguments.to == HUB:
                save_for_hub(model, processor, output, card, arguments.overwrite, fingerprint)
            else:
                export_model(
                    model,
                    processor,
                    output,
                    arguments.to,
                    images,
                    half=arguments.half,
                    overwrite=arguments.overwrite,
                    fingerprint=fingerprint,
                )
        except FileExistsError:
            raise
        except OSError as error:
            raise WriteError(f"{error}") from error
    megabytes = sum(file.stat().st_size for file in output.iterdir()) / 1e6
    print(f"{output}: {megabytes:.1f} MB")
    return 0


def calibration_images(arguments: argparse.Namespace):
    """Training images, drawn by chance, each read when it is asked for."""
    from tqdm import tqdm

    train = load_data(arguments)["train"].shuffle(seed=0)
    num_images = min(arguments.calibration_images or CALIBRATION_IMAGES, len(train))
    images = train.select(range(num_images))["image"]
    return tqdm(images, desc="calibration images", unit="image", disable=None)
