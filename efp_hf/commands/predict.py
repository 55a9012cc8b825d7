"""Segment the lesions, or what else a checkpoint finds, in image files.

  efp predict photo.jpg FOLDER 'more/*.png' --output masks --overlays
  efp predict photo.jpg --checkpoint exports/efp-isic-onnx      of `efp export`
  efp predict images.csv --checkpoint runs/two     of several files an image: image,image_2
  efp predict photo.jpg --points 310,220 80,95,0                clicks: lesion, and skin
  efp predict --data SHARDS --split test
  torchrun --nproc-per-node 2 -m efp_hf predict FOLDER          or accelerate launch

Writes <id>_segmentation.png (0 skin, 255 lesion; or the numbers of several classes), of labels that
overlap <id>_LABEL.png of each, and predictions.csv. Files that cannot be read: exit code 1.
"""

import argparse
import math
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from transformers.exporters.base import ExportedModel

from ..image_processing_efp import NUM_COLOURS, EFPImageProcessor
from ..inference.checkpoint import load_checkpoint, settings_digest, weights_digest
from ..inference.folder import ImageFiles, further_of, path_of
from ..inference.processes import Processes, joined_processes
from ..inference.runtimes import RUNTIMES
from ..inference.task import check_lesion, class_names_of, is_lesion, labels_overlap
from ..modeling_efp import EFPForSegmentation
from .arguments import (
    InputError,
    WriteError,
    add_batch_size_argument,
    add_checkpoint_argument,
    add_output_argument,
    check_new_output,
    one_line_errors,
)
from .interruption import interrupted_by_termination


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # argparse takes "-5,20" for an option; a point or box outside of the photo shall be named as one
    parser._negative_number_matcher = re.compile(r"-([\d.]|inf|nan)[\w.,+-]*$", re.IGNORECASE)
    parser.add_argument("inputs", nargs="*", metavar="IMAGE|FOLDER|GLOB")
    parser.add_argument(
        "--data", metavar="DATASET", help="folder of Parquet or WebDataset shards, or a Hub id: streamed"
    )
    parser.add_argument("--split", help="of --data, where it has several")
    add_output_argument(parser, "masks", "the masks")
    add_checkpoint_argument(parser)
    parser.add_argument("--runtime", choices=RUNTIMES, help="refuse another than this one (default: the checkpoint's)")
    parser.add_argument("--bf16", action="store_true", help="OpenVINO: compute in bfloat16, on processors that can")
    parser.add_argument(
        "--overlays", action="store_true", help="also write the images with the outline of what is found"
    )
    parser.add_argument(
        "--threshold", metavar="P", type=float, help="in the mask above this probability (default: the checkpoint's)"
    )
    parser.add_argument(
        "--largest-region",
        action=argparse.BooleanOptionalAction,
        help="keep the largest region, holes filled (default: the checkpoint's)",
    )
    parser.add_argument(
        "--points",
        metavar="X,Y[,0]",
        nargs="+",
        type=click,
        default=(),
        help="of one photo, before them: what is to be found, or background (0)",
    )
    parser.add_argument(
        "--box", metavar="L,T,R,B", type=box, help="of one photo: left, top, right, bottom around what is to be found"
    )
    add_batch_size_argument(parser)
    filled = parser.add_mutually_exclusive_group()
    filled.add_argument("--resume", action="store_true", help="go on with a stopped run: what is finished stays")
    filled.add_argument("--overwrite", action="store_true", help="write into an output folder that is not empty")


def click(text: str) -> tuple[float, float, int]:
    """Of `--points`: "x,y" or "x,y,1" on the lesion, "x,y,0" on skin, in pixels."""
    numbers = finite_numbers(text)
    if len(numbers) not in (2, 3) or numbers[2:] not in ((), (0,), (1,)):
        hint = "" if re.match(r"[-+.\d]", text) else ". A photo goes before --points"
        raise argparse.ArgumentTypeError(f"a click is X,Y, or X,Y,0 for background, got {text!r}{hint}")
    return numbers[0], numbers[1], int(numbers[2]) if len(numbers) == 3 else 1


def box(text: str) -> tuple[float, ...]:
    numbers = finite_numbers(text)
    if len(numbers) != 4 or not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
        raise argparse.ArgumentTypeError(f"a box is L,T,R,B with L < R and T < B, got {text!r}")
    return numbers


def finite_numbers(text: str) -> tuple[float, ...]:
    """Those between the commas; none where one of them is no finite number."""
    try:
        numbers = tuple(float(number) for number in text.split(","))
    except ValueError:
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


@dataclass
class Job:
    """What all processes of a run have to know: the files, `None` for a stream, and how their masks are made."""

    files: list[Path | ImageFiles] | None
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

    from ..inference.folder import correct_file, predict_files, share_of, stream_share, unfinished, write_predictions
    from ..inference.prediction_table import columns_for, join_parts, printable, table_text

    job = None
    if processes.number == 0:
        try:
            job, stream, model, processor = prepare(arguments, held)
        finally:
            job = processes.from_first(job)
    else:
        job = processes.from_first(None)
        if job is None:  # the first one says what is wrong
            return 2
        with one_line_errors():
            stream = open_stream(arguments)
            model, processor = load_any(arguments)

    number, count = processes.number, processes.count
    classes, overlap = class_names_of(model.config), labels_overlap(model.config)
    labels = classes if overlap else ()
    places = []  # (place, name in the table) of the images of this process
    if job.files is None:
        share = stream_share(stream, number, count, job.finished, job.made_by, places, labels)
        num_images = None
    else:
        names = [table_text(path_of(file).name) for file in job.files] if number == 0 else []
        places = list(enumerate(names))
        share = share_of(unfinished(job.files, job.finished), number, count, labels)
        num_images = len(share)
    post_processing = {"threshold": job.threshold, "largest_region": job.largest_region}
    if arguments.points or arguments.box:
        prompts = (arguments.points, arguments.box)
        predictions = (correct_file(path, model, processor, *prompts, **post_processing) for path in share)
    else:
        predictions = predict_files(share, model, processor, batch_size=arguments.batch_size, **post_processing)
    is_quiet = True if number else None  # None: quiet where no terminal is
    progress = tqdm(predictions, total=num_images, unit="image", disable=is_quiet)
    settings = {"finished": job.finished, "made_by": job.made_by, "part": number, "classes": classes}
    settings["overlap"] = overlap
    failed = write_predictions(progress, arguments.output, arguments.overlays, **settings)
    failed = [(prediction.path, prediction.error) for prediction in failed]
    places, failed = (list(chain(*parts)) for parts in zip(*processes.gather((places, failed)), strict=True))
    if number == 0 and (count > 1 or job.finished):
        join_parts(arguments.output, [name for _, name in sorted(places)], columns_for(classes, overlap))
    processes.from_first(None)  # a launcher ends all processes when the first one fails
    if number:
        return 0
    num_masks = len(places) - len(failed)
    print(f"{num_masks} mask{'s' if num_masks != 1 else ''} in {printable(str(arguments.output))}")
    if job.files is not None:
        order = {path_of(file): place for place, file in enumerate(job.files)}
        failed.sort(key=lambda failure: order[failure[0]])
    for _, error in failed:
        print(f"failed: {printable(error)}", file=sys.stderr)
    return 1 if failed else 0


def prepare(
    arguments: argparse.Namespace, held: ExitStack
) -> tuple[Job, Iterator[tuple[str, bytes]] | None, EFPForSegmentation | ExportedModel, EFPImageProcessor]:
    """The job, the stream of `--data`, model and processor; and an output folder with the table of what is finished."""
    from ..inference.correction import check_prompts
    from ..inference.folder import join_image_files, read_for_model
    from ..inference.output_folder import check_own_folder, only_writer
    from ..inference.prediction_table import columns_for, finished_rows, start_table

    output = arguments.output
    if (arguments.data is None) == (not arguments.inputs):
        raise InputError("Pass images, folders or globs, or a dataset with --data.")
    if arguments.split is not None and arguments.data is None:
        raise InputError("`--split` must be used with --data. Leave it out.")
    check_new_output(output, arguments.overwrite or arguments.resume, "go on with --resume, ")
    with one_line_errors():
        stream = open_stream(arguments)
        files = None if stream is not None else find_all(arguments.inputs)
        model, processor = load_any(arguments)
        if files is not None and processor.num_channels not in (1, NUM_COLOURS):
            files = join_image_files(files, processor.num_channels)
        classes, overlap = class_names_of(model.config), labels_overlap(model.config)
        masks = classes if overlap else ()
        read = None if files is None else [path for file in files for path in (path_of(file), *further_of(file))]
        check_own_folder(output, read, arguments.data, masks)
        columns = columns_for(classes, overlap)
        check_options(arguments, model)
        threshold = processor.threshold if arguments.threshold is None else arguments.threshold
        region = processor.largest_region if arguments.largest_region is None else arguments.largest_region
        processor.check_threshold(threshold)
        prompts = ""
        if arguments.points or arguments.box:
            if files is None or len(files) != 1:
                raise ValueError("`--points` and `--box` must be of one photo. Pass a single image.")
            if getattr(model, "prompt_encoder", None) is None:
                raise ValueError(
                    f"{arguments.checkpoint} must take clicks and boxes, and does not. "
                    "Pass a checkpoint of `efp train --prompts`."
                )
            read = read_for_model(files[0], processor)
            if not isinstance(read, str):  # of a photo that cannot be read the table says so
                check_prompts(arguments.points, arguments.box, read[1])
            if arguments.points and arguments.largest_region is None:
                region = False  # a person may mean several
            prompts = f", points {arguments.points}, box {arguments.box}"
        weights = weights_digest(arguments.checkpoint) or arguments.checkpoint
        settings = settings_digest(model, processor) + " bfloat16" * arguments.bf16
        made_by = f"{weights}, settings {settings}"
        if is_lesion(model.config):
            made_by += f", threshold {threshold}, largest region {region}{prompts}"
        output.mkdir(parents=True, exist_ok=True)
        held.enter_context(only_writer(output))
        finished = {}
        if arguments.resume:
            paths = [path_of(file) for file in files or ()]
            further = {path_of(file): further_of(file) for file in files or ()}
            finished = finished_rows(output, made_by, arguments.overlays, paths, columns, masks, further)
    start_table(output, finished.values(), columns)
    return Job(files, finished, threshold, region, made_by), stream, model, processor


def find_all(inputs: list[str]) -> list[Path | ImageFiles]:
    """The files of [`find_images`], and the images of tables."""
    from ..inference.folder import expand_user, find_images, listed_images

    tables = [name for name in inputs if name.lower().endswith(".csv")]
    others = [name for name in inputs if name not in tables]
    listed = [image for name in tables for image in listed_images(expand_user(name))]
    return listed + (find_images(others) if others or not tables else [])


def check_options(arguments: argparse.Namespace, model: EFPForSegmentation | ExportedModel) -> None:
    """
    Raises:
        ValueError: an option that a checkpoint of several classes has no use for.
    """
    given = {
        "--threshold": arguments.threshold is not None,
        "--largest-region": arguments.largest_region is not None,
        "--points": bool(arguments.points),
        "--box": arguments.box is not None,
    }
    for option in (option for option, is_given in given.items() if is_given):
        check_lesion(model.config, f"`{option}`")


def load_any(arguments: argparse.Namespace) -> tuple[EFPForSegmentation | ExportedModel, EFPImageProcessor]:
    return load_checkpoint(
        arguments.checkpoint, arguments.runtime, arguments.bf16, allow_overlap=True, allow_channels=True
    )


def open_stream(arguments: argparse.Namespace) -> Iterator[tuple[str, bytes]] | None:
    if arguments.data is None:
        return None
    from ..data.stream import stream_images

    return stream_images(arguments.data, arguments.split)
