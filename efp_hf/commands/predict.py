"""Segment the lesions of image files.

  efp predict photo.jpg
  efp predict FOLDER 'more/*.png' --output masks --overlays
  efp predict photo.jpg --checkpoint exports/efp-isic-onnx      of `efp export`

Writes <id>_segmentation.png (0 skin, 255 lesion, the size of the image) and predictions.csv.
Files that cannot be read are named at the end, and the exit code is then 1.
"""

import argparse
import sys

from ..inference.checkpoint import load_checkpoint, weights_digest
from ..inference.runtimes import RUNTIMES
from .arguments import (
    add_batch_size_argument,
    add_checkpoint_argument,
    add_output_argument,
    check_new_output,
    one_line_errors,
)
from .interruption import interrupted_by_termination


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="IMAGE|FOLDER|GLOB")
    add_output_argument(parser, "masks", "the masks")
    add_checkpoint_argument(parser)
    parser.add_argument("--runtime", choices=RUNTIMES, help="refuse another than this one (default: the checkpoint's)")
    parser.add_argument("--bf16", action="store_true", help="OpenVINO: compute in bfloat16, on processors that can")
    parser.add_argument("--overlays", action="store_true", help="also write the images with the lesion's outline")
    parser.add_argument(
        "--threshold", metavar="P", type=float, help="lesion above this probability (default: the checkpoint's)"
    )
    parser.add_argument(
        "--largest-region",
        action=argparse.BooleanOptionalAction,
        help="keep the largest region, holes filled (default: the checkpoint's)",
    )
    add_batch_size_argument(parser)
    filled = parser.add_mutually_exclusive_group()
    filled.add_argument("--resume", action="store_true", help="go on with a stopped run: what is finished stays")
    filled.add_argument("--overwrite", action="store_true", help="write into an output folder that is not empty")


def run(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ..inference.folder import find_images, predict_files, unfinished, write_predictions
    from ..inference.prediction_table import finished_rows

    check_new_output(arguments.output, arguments.overwrite or arguments.resume, "go on with --resume, ")
    with one_line_errors():
        found = find_images(arguments.inputs)
        model, processor = load_checkpoint(arguments.checkpoint, arguments.runtime, arguments.bf16)
        threshold = processor.threshold if arguments.threshold is None else arguments.threshold
        region = processor.largest_region if arguments.largest_region is None else arguments.largest_region
        processor._check_threshold(threshold)
        weights = weights_digest(arguments.checkpoint) or arguments.checkpoint
        made_by = f"{weights}, threshold {threshold}, largest region {region}"
        finished = finished_rows(arguments.output, made_by, arguments.overlays) if arguments.resume else {}
        files = unfinished(found, finished)
        arguments.output.mkdir(parents=True, exist_ok=True)

    predictions = predict_files(
        files,
        model,
        processor,
        batch_size=arguments.batch_size,
        threshold=threshold,
        largest_region=region,
    )
    progress = tqdm(predictions, total=len(files), unit="image", disable=None)
    try:
        with interrupted_by_termination():
            failed = write_predictions(progress, arguments.output, arguments.overlays, finished, made_by)
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt("go on with --resume") from interruption
    except OSError as error:  # a full disk: no later file will fare better
        print(f"efp predict: {error}. Mend it, and go on with --resume.", file=sys.stderr)
        return 1
    num_masks = len(found) - len(failed)
    print(f"{num_masks} mask{'s' if num_masks != 1 else ''} in {arguments.output}")
    for prediction in failed:
        print(f"failed: {prediction.error}", file=sys.stderr)
    return 1 if failed else 0
