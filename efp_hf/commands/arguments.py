"""Arguments and checks that several commands share: the same word means the same in each of them."""

import argparse
import os
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..inference.checkpoint import DEFAULT_CHECKPOINT, SHIPPED_CHECKPOINTS
from ..metrics.rows import check_columns, provenance, shorten, without_secrets


class InputError(Exception):
    """Arguments or input that a command refuses before it does anything: one line, and exit code 2."""


class WriteError(Exception):
    """The work is done, and cannot be written: one line, and exit code 1."""


class CommandParser(argparse.ArgumentParser):
    """Says what is wrong in one line: the usage of some commands is longer than a screen."""

    def error(self, message: str):
        raise InputError(message)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What the package raises about a user's input, or about packages that are missing, as an [`InputError`]."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        raise InputError(str(error)) from error


@contextmanager
def write_errors() -> Iterator[None]:
    """What goes wrong with the files that are written after the work, as a [`WriteError`]."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise WriteError(f"{error}") from error


def positive_integer(text: str) -> int:
    """The `type` of an option that counts something."""
    return integer_between(text, 1)


def port_number(text: str) -> int:
    """The `type` of `--port`."""
    return integer_between(text, 1, 65535)


def integer_between(text: str, least: int, most: int | None = None) -> int:
    rule = f"at least {least}" if most is None else f"between {least} and {most}"
    try:
        number = int(text)
    except ValueError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        raise argparse.ArgumentTypeError(f"must be {rule}, got {text}")
    return number


def own_path(text: str) -> Path:
    """The `type` of an option that names a file or folder. A shell leaves the `~` of `--output=~/masks` as it is."""
    if not text:  # as of a variable that is not set
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(os.path.expanduser(text))


def add_checkpoint_argument(parser: argparse.ArgumentParser, default: str | Path = DEFAULT_CHECKPOINT) -> None:
    parser.add_argument(
        "--checkpoint",
        metavar="NAME",
        default=default,
        help="a shipped one, a folder, or a Hub id (default: %(default)s)",
    )


def add_own_checkpoint_argument(parser: argparse.ArgumentParser) -> None:
    """`--checkpoint` of a command that writes into it: see [`own_checkpoint`]."""
    parser.add_argument("--checkpoint", metavar="FOLDER", required=True, help="folder of yours, which is changed")


def own_checkpoint(folder: str) -> Path:
    """
    The folder of a checkpoint that may be changed.

    Raises:
        InputError: a shipped one, or no folder.
    """
    if folder in SHIPPED_CHECKPOINTS:
        raise InputError(f"{folder} is shipped with the package and stays as it is. Pass a copy of its folder.")
    if not os.path.isdir(os.path.expanduser(folder)):
        raise InputError(f"{folder}: no such folder. A checkpoint of the Hub has to be downloaded to be changed.")
    return Path(os.path.expanduser(folder))


def add_data_arguments(parser: argparse.ArgumentParser, split: str | None = "test") -> None:
    """`--data`, `--split-seed` and, with a default `split`, `--split`: what [`load_lesions`] is asked for."""
    parser.add_argument("--data", required=True, help="folder in one of the forms of docs/data.md, or a Hub id")
    if split is not None:
        parser.add_argument("--split", default=split, help="train, validation or test (default: %(default)s)")
    add_split_seed_argument(parser)


def add_split_seed_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split-seed", metavar="N", type=int, default=0, help="of the 70/10/20 split, where the data has none"
    )


def add_labels_overlap_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels-overlap",
        action="store_true",
        help="of COCO: each category has a mask of its own",
    )


def check_task(arguments: argparse.Namespace, model) -> None:
    """
    Raises:
        ValueError: `--task structures` of a checkpoint that is not for them.
    """
    from ..inference.task import class_names_of
    from ..lesion.structures import LABELS

    if arguments.task == "structures" and class_names_of(model.config) != LABELS:
        raise ValueError(
            f"{arguments.checkpoint} must have the labels {', '.join(LABELS)}, got "
            f"{', '.join(class_names_of(model.config))}. Train it with `efp train --task structures`."
        )


def load_data(arguments: argparse.Namespace, labels_overlap: bool = False):
    """The images of `--data`, with a mask a label where they overlap, at their own size; a line says what was found."""
    from ..data.lesions import load_lesions

    data = load_lesions(arguments.data, seed=arguments.split_seed, max_side=None, labels_overlap=labels_overlap)
    say_found(data)
    return data


def say_found(data) -> None:
    """Prints the line of `found_line`. Where nobody reads it, the work goes on: its results are files."""
    from ..data.found import found_line

    with suppress(BrokenPipeError):
        print(found_line(data), flush=True)


def add_output_argument(parser: argparse.ArgumentParser, default: str, what: str) -> None:
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=own_path,
        default=Path(default),
        help=f"folder for {what} (default: %(default)s)",
    )


def add_batch_size_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-size", metavar="N", type=positive_integer, default=8, help="images at once (default: %(default)s)"
    )


def check_output(folder: Path) -> None:
    """For a command that adds to a folder: it is one that can be written to, or can be made."""
    while True:
        try:
            folder.stat()
            break
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            if os.path.islink(folder):
                raise InputError(f"{folder} is a link to nothing. Choose another --output.") from None
            folder = folder.parent
        except OSError as error:  # a name that is too long, links in a circle
            raise InputError(f"{folder} cannot be used ({error.strerror}). Choose another --output.") from error
    if not folder.is_dir():
        raise InputError(f"{folder} is a file. Choose another --output.")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written to. Choose another --output.")


def check_table(path: Path, columns: Iterable[str]) -> None:
    """For a command that appends rows of these columns to a table, if it is there."""
    with one_line_errors():
        check_columns(path, columns)


def check_new_output(folder: Path, overwrite: bool, other_way: str = "") -> None:
    """For a command that fills a folder, which must be new or empty without `--overwrite`."""
    check_output(folder)
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise InputError(f"{folder} is not empty. Choose another --output, {other_way}or pass --overwrite.")


def command_provenance(arguments: argparse.Namespace) -> dict[str, str]:
    """The [`provenance`] of a row that an `efp` command writes."""
    command = shlex.join(shorten(argument) for argument in without_secrets(arguments.command_line))
    return {**provenance(), "command": command}
