"""Look at the masks of a folder of photos, the most doubtful first, and make a training set of them.

  efp review FOLDER --output mine                http://127.0.0.1:7860
  efp review FOLDER --output mine                the same again: goes on where it stopped
  efp review FOLDER --output mine --coco mine.json
  efp train --data mine --output runs/mine

The output gets images/, masks/ and decisions.csv, a row a decision, on disk before the next image
shows, and classes.txt where the checkpoint finds something else than lesions. Only this computer
can open the page, and nobody else is contacted.
"""

import argparse
import sys

from ..configuration_efp import EFPConfig
from ..extras import require
from ..inference.checkpoint import DEFAULT_CHECKPOINT, find_checkpoint, load_checkpoint, weights_digest
from ..inference.task import check_lesion, class_names_of, labels_overlap
from .arguments import (
    InputError,
    add_batch_size_argument,
    add_checkpoint_argument,
    check_output,
    one_line_errors,
    own_path,
    port_number,
    write_errors,
)
from .interruption import interrupted_by_termination


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", type=own_path, help="of photos; it stays as it is")
    parser.add_argument("--output", metavar="DIR", type=own_path, required=True, help="folder of the training set")
    add_checkpoint_argument(parser)
    parser.add_argument("--port", metavar="N", type=port_number, default=7860, help="of the page (%(default)s)")
    parser.add_argument(
        "--coco", metavar="FILE", type=own_path, help="write the decided masks as COCO JSON, and serve no page"
    )
    add_batch_size_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    check_output(arguments.output)
    if arguments.coco is not None:
        return export(arguments)
    with one_line_errors():
        require("app", "this command", ["gradio"])
        from ..inference.prediction_table import printable
        from ..review.decisions import Decisions
        from ..review.page import launch, summary
        from ..review.queue import Queue, find_photos

        photos, failed = find_photos(arguments.folder)
        images = arguments.output / "images"
        if images.exists() and images.samefile(arguments.folder):
            raise InputError(f"{arguments.folder} is of a review itself. Pass the folder of its photos.")
        model, processor = load_checkpoint(arguments.checkpoint, allow_overlap=True)
        if labels_overlap(model.config):
            raise InputError(
                f"{arguments.checkpoint} has labels that overlap, and a review is of one. Pass a checkpoint for "
                f"lesions, as {DEFAULT_CHECKPOINT}."
            )
        check_lesion(model.config, "A review")
        decisions = Decisions(arguments.output, weights_digest(arguments.checkpoint) or arguments.checkpoint)
        decisions.finish()
        decisions.name_class(*class_names_of(model.config))
        queue = Queue(photos, decisions, model, processor, failed, arguments.batch_size)
    with interrupted_by_termination():
        thread = queue.start()
        try:
            with one_line_errors():
                launch(queue, arguments.port)
        except KeyboardInterrupt:  # how a server is stopped
            pass
        finally:
            queue.is_stopped = True
            thread.join(timeout=10)
    print(summary(queue, arguments.output))
    for why in [*queue.failed.values(), *filter(None, [queue.error])]:
        print(f"failed: {printable(why)}", file=sys.stderr)
    return 1 if queue.failed or queue.error else 0


def export(arguments: argparse.Namespace) -> int:
    """The category has the name of the checkpoint's class."""
    from ..review.coco import write_coco
    from ..review.decisions import Decisions

    output, path = arguments.output, arguments.coco
    if not (output / "decisions.csv").is_file():
        raise InputError(f"{output} has no decisions.csv: nothing was decided. Review first, without --coco.")
    if path.exists():
        raise InputError(f"{path} exists. Remove it, or choose another --coco.")
    with one_line_errors():
        decisions = Decisions(output)
        config = EFPConfig.from_pretrained(find_checkpoint(arguments.checkpoint))
        check_lesion(config, "A review")
    with write_errors():
        decisions.finish()
        count = write_coco(decisions, path, *class_names_of(config))
    print(f"{count} image{'s' if count != 1 else ''} in {path}")
    return 0
