"""A measured number's row in a CSV file: with its command, commit, seed, data and hardware."""

import csv
import io
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import torch
import transformers
from transformers.exporters.base import ExportedModel

from .. import __version__
from ..data.files import write_atomically
from ..image_processing_efp import EFPImageProcessor
from ..inference.checkpoint import weights_digest
from ..modeling_efp import EFPForSegmentation

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

CHUNK = 1 << 20  # characters of a table that are read at once


def provenance() -> dict[str, str]:
    """Where and how this process makes its numbers; paths outside the working folder are cut to their last part."""
    device = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{processor_name()}, {os.cpu_count()} cores"
    )
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": shlex.join(["python", *(shorten(argument) for argument in without_secrets(sys.argv))]),
        "commit": commit(),
        "efp_hf": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "hardware": device,
    }


def split_columns(data: str, split: str, split_seed: int, num_images: int) -> dict[str, str | int]:
    """What a row says of the images that were scored."""
    return {"data": Path(data).name, "split": split, "split_seed": split_seed, "images": num_images}


def checkpoint_columns(
    checkpoint: str | Path, model: EFPForSegmentation | ExportedModel, processor: EFPImageProcessor
) -> dict[str, str | float | bool]:
    """What a row says of the checkpoint that was measured."""
    return {
        "checkpoint": shorten(str(checkpoint)),
        "weights": weights_digest(checkpoint),
        "image_size": f"{processor.size['height']}x{processor.size['width']}",
        "temperature": model.config.temperature,
        "threshold": processor.threshold,
        "largest_region": processor.largest_region,
    }


def without_secrets(arguments: list[str]) -> list[str]:
    """Command-line arguments with `***` in place of the value of every `--…token`, `--…password` and `--…key`."""
    kept = []
    for argument in arguments:
        option, equals, _ = argument.partition("=")
        follows = bool(kept) and is_secret(kept[-1])
        kept.append("***" if follows else f"{option}=***" if equals and is_secret(option) else argument)
    return kept


def is_secret(option: str) -> bool:
    return option.startswith("--") and option.endswith(("token", "password", "key"))


def shorten(argument: str) -> str:
    """A path of an argument, or of `--option=path`, without the folders above the working folder."""
    option, equals, value = argument.partition("=")
    if equals and option.startswith("--"):
        return f"{option}={shorten(value)}"
    path = Path(argument)
    if ".." in path.parts:
        return path.name
    if not path.is_absolute():
        return argument
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):  # elsewhere; or the working folder was deleted
        return path.name


def commit() -> str:
    """The commit of this code, with `+changes` where a tracked source file differs from it; empty without git."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=10", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "diff", "--name-only", "HEAD", "--", "*.py"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{head}+changes" if changed else head


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def read_rows(path: Path, missing_ok: bool = False) -> list[dict[str, str]]:
    """
    The rows of a CSV file, by column; with `missing_ok` none where there is no file.

    Raises:
        ValueError: no table in UTF-8.
    """
    if missing_ok and not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} must be a table in UTF-8, got {error}. Mend or remove it.") from error


def write_rows(rows: list[dict], path: Path) -> None:
    """A CSV file of at least one row, whole or not at all; the columns are those of the first row."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(path, write)


def check_columns(path: Path, columns: Iterable[str]) -> None:
    """
    Raises:
        ValueError: there is something at the path to which a row of these columns cannot be appended: no file, a file
            that is no table in UTF-8, was cut off, or has other columns.
    """
    check_file(path)
    if not path.exists() or path.stat().st_size == 0:
        return
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            found = next(rows)
            for _ in rows:  # what cannot be read again is not appended to
                pass
            file.seek(0)
            last = ""
            while chunk := file.read(CHUNK):
                if "\0" in chunk:
                    raise ValueError("a zero byte")
                last = chunk[-1]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} must be a table in UTF-8, got {error}. Write to another file.") from error
    if found != list(columns):
        found = [column[:40] for column in found[:100]]  # the file may be anything
        raise ValueError(f"{path} has the columns {found}, the row {list(columns)}. Write to another file.")
    if last != "\n":
        raise ValueError(f"{path} must end with a line break: its last line was cut off. Mend or remove that line.")


def check_file(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise ValueError(f"{path} is a link to nothing. Write to another file.")
    if path.exists() and not (path.is_file() and os.access(path, os.R_OK | os.W_OK)):
        raise ValueError(f"{path} must be a file that can be read and written. Write to another file.")


def append_row(path: str | Path, row: dict) -> None:
    """
    Append a row to a CSV file, made with a header where it is not there. Of several processes one writes at a time; a
    row is written whole, or, on a full disk, not at all.

    Raises:
        ValueError: as [`check_columns`]; nothing is written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    check_file(path)
    with path.open("ab", buffering=0) as file:
        lock(file)
        check_columns(path, row)  # under the lock: another process may be writing
        start = file.seek(0, os.SEEK_END)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(row), lineterminator="\n")
        if start == 0:
            writer.writeheader()
        writer.writerow(row)
        try:
            # a path in it may have bytes that are no UTF-8
            write_all(file, text.getvalue().encode(errors="backslashreplace"))
        except OSError:
            file.truncate(start)
            raise


def lock(file: BinaryIO) -> None:
    """Waits until no other process holds the file's lock, which ends with the file."""
    if fcntl is not None:
        with suppress(OSError):  # file systems of some clusters have no locks
            fcntl.flock(file, fcntl.LOCK_EX)


def write_all(file: BinaryIO, data: bytes) -> None:
    """To a file without a buffer, which on a full disk takes a part before it says so."""
    while data:
        data = data[file.write(data) :]
