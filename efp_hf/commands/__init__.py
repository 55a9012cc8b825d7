"""The `efp` command, a file a subcommand: `add_arguments(parser)` says what it takes, `run(arguments)` does it."""

import argparse
import io
import sys
from collections.abc import Sequence
from importlib import import_module

from transformers.utils import logging

from .. import __version__
from .arguments import CommandParser, InputError, WriteError

COMMANDS = {
    "predict": "masks of image files and folders",
    "data": "what is in a folder of images and masks, and what is wrong with it",
    "train": "train on your images and masks, or fine-tune a checkpoint",
    "score": "the challenge's scores of a checkpoint or of a folder of masks",
    "calibrate": "choose a checkpoint's temperature, threshold and input size on validation",
    "export": "a checkpoint for ONNX Runtime, OpenVINO, ExecuTorch or the Hub",
    "publish": "a checkpoint to the Hub, and the page as a Space",
    "app": "the web page",
    "review": "from a folder of photos to a training set, the most doubtful masks first",
    "card": "a model card from a checkpoint's scores",
}
EXAMPLE = """\
example:
  efp predict photo.jpg                   writes masks/photo_segmentation.png
  efp predict --help                      the options of a command

exit codes:
  0    all done
  1    some files failed, or the work broke off
  2    bad arguments or input, nothing was done
  130  interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, by default this process's → the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path that is printed may have bytes that are no UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(
        prog="efp",
        usage="efp COMMAND [options]",
        description="Segment skin lesions in dermoscopy images, or what else a checkpoint of yours finds.",
        epilog="\n".join(["commands:", *(f"  {name:10} {does}" for name, does in COMMANDS.items()), "", EXAMPLE]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"efp {__version__}")
    if not argv:
        parser.print_help()
        return 0
    try:
        command = parser.parse_args(argv[:1]).command
    except SystemExit as stopped:
        return stopped.code
    return run_command(command, argv[1:])


def run_command(name: str, argv: Sequence[str]) -> int:
    """Run one command with its own arguments → the exit code."""
    command = import_module(f".{name}", __name__)
    logging.disable_progress_bar()  # Transformers' own, of every loading; the commands have theirs
    # its table of weights that do not fit: they are an error, of one line
    logging.get_logger("transformers.modeling_utils").addFilter(lambda record: "LOAD REPORT" not in record.getMessage())
    parser = CommandParser(
        prog=f"efp {name}",
        description=command.__doc__,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=28),
        allow_abbrev=False,
    )
    parser.set_defaults(command_line=["efp", name, *argv], takes_others=False)
    command.add_arguments(parser)
    try:
        arguments, arguments.others = parser.parse_known_args(argv)
        if arguments.others and not arguments.takes_others:
            parser.error(f"unrecognized arguments: {' '.join(arguments.others)}")
        return command.run(arguments)
    except SystemExit as stopped:  # of the parser's help
        return stopped.code
    except (InputError, WriteError) as error:
        print(f"efp {name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except BrokenPipeError:  # of `efp score … | true`, and the like
        sys.stdout = None
        print(f"efp {name}: nobody reads what is printed", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interruption:
        print(f"efp {name}: " + ", ".join(["interrupted", *map(str, interruption.args)]), file=sys.stderr)
        return 130  # as a shell says it
