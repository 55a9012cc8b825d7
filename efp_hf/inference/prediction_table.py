"""The table of a folder of masks: a row a file, on disk before the next file is read."""

import csv
import io
import os
import re
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from ..data.files import write_atomically

COLUMNS = (
    "image",
    "height",
    "width",
    "lesion_pixels",
    "lesion_share",
    "top",
    "left",
    "bottom",
    "right",
    "mean_confidence",
    "expected_jaccard",
    "note",
    "error",
    "made_by",
)
LEFTOVER = re.compile(r"\.\d+-.+_(segmentation\.png|overlay\.jpg)|\.\d+-predictions\.csv")


def mask_path(output: Path, image: str | Path) -> Path:
    return output / f"{Path(image).stem}_segmentation.png"


def overlay_path(output: Path, image: str | Path) -> Path:
    return output / f"{Path(image).stem}_overlay.jpg"


class PredictionTable:
    """
    `predictions.csv` of an output folder, with the columns `COLUMNS`. Each row is handed to the file system as it
    comes, so that a run that is killed leaves the rows of its masks.

    Args:
        output: the folder, which is there.
        finished: rows of an earlier run that stay ([`finished_rows`]); the others go. Hidden files that a killed run
            left are removed.
        made_by: of every row: the checkpoint and settings that the masks are of.
    """

    def __init__(self, output: Path, finished: dict[str, dict[str, str]], made_by: str = ""):
        self.path = output / "predictions.csv"
        self.made_by = made_by
        for leftover in output.iterdir():
            if LEFTOVER.fullmatch(leftover.name):
                leftover.unlink(missing_ok=True)
        header = dict(zip(COLUMNS, COLUMNS, strict=True))
        table = csv_lines([header, *finished.values()])
        write_atomically(self.path, lambda path: path.write_bytes(table))
        self.file = self.path.open("ab")

    def append(self, row: dict) -> None:
        before = self.file.tell()
        try:
            self.file.write(csv_lines([row | {"made_by": self.made_by}]))
            self.file.flush()
        except OSError:  # a full disk: no half row stays
            os.ftruncate(self.file.fileno(), before)
            raise

    def __enter__(self) -> "PredictionTable":
        return self

    def __exit__(self, *_) -> None:
        try:
            self.file.close()
        except OSError:  # what a full disk did not take was reported by `append`
            pass


def csv_lines(rows: Iterable[dict]) -> bytes:
    """
    A line a row, in UTF-8, empty where a row has nothing for a column; bytes of a file name that are no UTF-8 are
    written as \\xNN.
    """
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, lineterminator="\n").writerows(rows)
    names = text.getvalue().encode("utf-8", errors="surrogateescape")
    return names.decode("utf-8", errors="backslashreplace").encode("utf-8")


def finished_rows(output: Path, made_by: str = "", overlays: bool = False) -> dict[str, dict[str, str]]:
    """
    File name → row, of the images whose row is whole, has no error and is `made_by` this, and whose mask is there,
    whole, and of their size; with `overlays` the overlay is there, too.

    Raises:
        ValueError: a `predictions.csv` of other columns.
    """
    path = output / "predictions.csv"
    if not path.is_file():
        return {}
    lines = path.read_bytes().decode("utf-8", errors="replace").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()  # cut by a kill
    rows = csv.DictReader(lines)
    if lines and tuple(rows.fieldnames or ()) != COLUMNS:
        raise ValueError(f"{path}: another table than this version writes. Choose another --output.")
    return {
        row["image"]: row
        for row in rows
        if not row["error"]
        and row["made_by"] == made_by
        and is_whole(mask_path(output, row["image"]), row)
        and (not overlays or overlay_path(output, row["image"]).is_file())
    }


def is_whole(mask: Path, row: dict[str, str]) -> bool:
    try:
        with Image.open(mask, formats=("PNG",)) as picture:
            picture.load()
            return picture.size == (int(row["width"]), int(row["height"]))
    except (OSError, SyntaxError, ValueError, TypeError):
        return False
