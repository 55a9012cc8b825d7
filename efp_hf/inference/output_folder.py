"""The folder that a run writes to: whose it is, and who writes there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .prediction_table import LEFTOVER, is_written, mask_paths, read_lines, tables_in

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

WRITTEN_ENDINGS = ("_segmentation.png", "_overlay.jpg")


def check_own_folder(
    output: Path, images: list[Path] | None, dataset: str | None = None, overlapping: tuple[str, ...] = ()
) -> None:
    """
    Args:
        images: all files of those whose masks will be written; `None` for a `dataset`, a folder or Hub id.
        overlapping: labels that have a mask each.

    Raises:
        ValueError: images are read from the folder, or it holds masks or overlays of somebody else, such as true masks.
    """
    if not output.exists():
        return
    folders = [Path(os.path.expanduser(dataset))] if images is None else dict.fromkeys(path.parent for path in images)
    for folder in folders:
        if os.path.exists(folder) and os.path.samefile(folder, output):
            raise ValueError(f"{output}: --output must not be a folder that images are read from. Choose another one.")
    for table in tables_in(output):
        read_lines(table)
    is_own = is_written(output)
    endings = WRITTEN_ENDINGS + tuple(path.name[1:].lower() for path in mask_paths(Path(), "x.png", overlapping))
    for path in sorted(output.iterdir()):  # also one that is of no image of this run: it may be of the next one's
        if path.name.lower().endswith(endings) and not LEFTOVER.fullmatch(path.name) and not is_own(path):
            raise ValueError(
                f"{path} could be replaced, and is not of `efp predict` (it does not say so, and no row of a "
                "predictions.csv beside it names such a mask). Choose another --output."
            )


@contextmanager
def only_writer(output: Path, command: str = "efp predict") -> Iterator[None]:
    """
    Raises:
        BlockingIOError: another process is within, for this folder: each would remove the files that the other writes,
            or take them for its own.
    """
    if fcntl is None:
        yield
        return
    folder = os.open(output, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"{output}: another `{command}` writes there. Wait for it, or choose another --output."
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(folder)
