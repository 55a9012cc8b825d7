"""Segment the lesions of image files.

  efp predict photo.jpg
  efp predict FOLDER 'more/*.png' --output masks --overlays
  efp predict photo.jpg --checkpoint exports/efp-isic-onnx      of `efp export`

Writes <id>_segmentation.png (0 skin, 255 lesion, the size of the image) and predictions.csv.
Files that cannot be read are named at the end, and the exit code is then 1.
"""

import argparse
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.exporters.base import ExportedModel

from ..image_processing_efp import EFPImageProcessor
from ..inference.checkpoint import load_checkpoint, weights_digest
from ..inference.processes import Processes, joined_processes
from ..inference.runtimes import RUNTIMES
from ..modeling_efp import EFPForSegmentation
from .arguments import (
    WriteError,
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


@dataclass
class Job:
    """What all processes of a run have to know: the files, and how their masks are made."""

    files: list[Path]
    finished: dict[str, dict[str, str]]
    threshold: float
    largest_region: bool
    made_by: str


def run(arguments: argparse.Namespace) -> int:
    with ExitStack() as held:
        with one_line_errors():
            processes = held.enter_context(joined_processes())
        held.enter_context(interrupted_by_termination())
        try:
            return run_among(processes, arguments, held)
        except KeyboardInterrupt as interruption:
            raise KeyboardInterrupt("go on with --resume") from interruption
        except ConnectionError as error:
            raise WriteError(f"{error}. Go on with --resume.") from error
        except OSError as error:  # a full disk: no later file will fare better
            raise WriteError(f"{error}. Mend it, and go on with --resume.") from error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise WriteError(
                "A batch does not fit into memory. Go on with --resume and a smaller --batch-size."
            ) from error


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def run_among(processes: Processes, arguments: argparse.Namespace, held: ExitStack) -> int:
    """The part of one process → its exit code. The first one prepares the folder, and joins the tables in the end."""
    from tqdm import tqdm

    from ..inference.folder import predict_files, share_of, unfinished, write_predictions
    from ..inference.prediction_table import join_parts, printable, table_text

    job = None
    if processes.number == 0:
        try:
            job, model, processor = prepare(arguments, held)
        finally:
            job = processes.from_first(job)
    else:
        job = processes.from_first(None)
        if job is None:  # the first one says what is wrong
            return 2
        with one_line_errors():
            model, processor = load_checkpoint(arguments.checkpoint, arguments.runtime, arguments.bf16)

    files = share_of(unfinished(job.files, job.finished), processes.number, processes.count)
    predictions = predict_files(
        files,
        model,
        processor,
        batch_size=arguments.batch_size,
        threshold=job.threshold,
        largest_region=job.largest_region,
    )
    is_quiet = True if processes.number else None  # None: quiet where no terminal is
    progress = tqdm(predictions, total=len(files), unit="image", disable=is_quiet)
    failed = write_predictions(
        progress, arguments.output, arguments.overlays, job.finished, job.made_by, part=processes.number
    )
    failed = [(prediction.path, prediction.error) for prediction in failed]
    failed = dict(failure for part in processes.gather(failed) for failure in part)
    if processes.number == 0 and (processes.count > 1 or job.finished):
        join_parts(arguments.output, [table_text(path.name) for path in job.files])
    processes.from_first(None)  # a launcher ends all processes when the first one fails
    if processes.number:
        return 0
    num_masks = len(job.files) - len(failed)
    print(f"{num_masks} mask{'s' if num_masks != 1 else ''} in {printable(str(arguments.output))}")
    for path in job.files:
        if path in failed:
            print(f"failed: {printable(failed[path])}", file=sys.stderr)
    return 1 if failed else 0


def prepare(
    arguments: argparse.Namespace, held: ExitStack
) -> tuple[Job, EFPForSegmentation | ExportedModel, EFPImageProcessor]:
    """The job, its model and processor, and an output folder with the table of what is finished."""
    from ..inference.folder import find_images
    from ..inference.output_folder import check_own_folder, only_writer
    from ..inference.prediction_table import finished_rows, start_table

    output = arguments.output
    check_new_output(output, arguments.overwrite or arguments.resume, "go on with --resume, ")
    with one_line_errors():
        files = find_images(arguments.inputs)
        check_own_folder(output, files)
        model, processor = load_checkpoint(arguments.checkpoint, arguments.runtime, arguments.bf16)
        threshold = processor.threshold if arguments.threshold is None else arguments.threshold
        region = processor.largest_region if arguments.largest_region is None else arguments.largest_region
        processor.check_threshold(threshold)
        weights = weights_digest(arguments.checkpoint) or arguments.checkpoint
        made_by = f"{weights}, threshold {threshold}, largest region {region}"
        output.mkdir(parents=True, exist_ok=True)
        held.enter_context(only_writer(output))
        finished = finished_rows(output, made_by, arguments.overlays, files) if arguments.resume else {}
    start_table(output, finished.values())
    return Job(files, finished, threshold, region, made_by), model, processor
