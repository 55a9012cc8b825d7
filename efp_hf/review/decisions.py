"""What a person decided of each image: a row a decision, and images and masks as a training set beside them."""

import csv
import io
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

import numpy as np

from ..data.files import write_atomically
from ..inference.folder import is_mask_name, write_mask
from ..inference.prediction_table import csv_line, mask_path, table_text
from ..lesion.structures import LESION
from ..metrics import confusion_counts, jaccard
from ..metrics.rows import lock, write_all

DECISIONS = ("accepted", "corrected", "no lesion", "unusable")
COLUMNS = (
    "time",
    "image",
    "decision",
    "seconds",
    "clicks",
    "points",
    "box",
    "jaccard",
    "expected_jaccard",
    "photo",
    "mask",
    "made_by",
)
HEADER = csv_line(COLUMNS)


class OtherDecision(ValueError):
    """Somebody else has decided of this image since it was shown."""


class Decisions:
    """
    A folder with `decisions.csv`, `images/` and `masks/`: at once a folder of [`load_isic`].

    A decision is in three steps: mask and image are written to `.pending/`, its row to the table, and then both are
    moved to their places. Killed before the row, or on a full disk, nothing was decided; killed after it, [`finish`]
    does the rest. The last row of an image counts. Each step is under the table's lock, so that several servers may
    work on one folder.

    Args:
        output: new, empty, or begun before.
        made_by: of every row: the weights that the masks are of.

    Raises:
        ValueError: a folder of something else.
    """

    def __init__(self, output: Path, made_by: str = ""):
        self.output, self.made_by = output, made_by
        self.table, self.images, self.masks = output / "decisions.csv", output / "images", output / "masks"
        self.pending = output / ".pending"
        self.thread_lock = threading.Lock()
        if output.exists() and any(output.iterdir()) and not self.table.exists():
            raise ValueError(f"{output} is not empty and has no {self.table.name}. Choose another --output.")
        output.mkdir(parents=True, exist_ok=True)
        with self.locked():  # makes the table first: it says whose folder this is
            for folder in (self.images, self.masks, self.pending):
                folder.mkdir(exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[tuple[BinaryIO, dict[str, list[dict[str, str]]]]]:
        """
        The table's file, which nobody else writes meanwhile, and the rows of each image. A last row that a kill has cut
        goes.

        Raises:
            ValueError: another table.
        """
        with self.thread_lock, self.table.open("a+b", buffering=0) as file:
            lock(file)
            file.seek(0)
            data = file.read()
            if not data.startswith(HEADER) and not HEADER.startswith(data):
                raise ValueError(f"{self.table}: {other_table(data)}. Choose another --output.")
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                file.truncate(len(whole))
            if not whole:
                write_all(file, HEADER)
            rows = {}
            for row in csv.DictReader(io.StringIO(whole.decode("utf-8", errors="replace"), newline="")):
                rows.setdefault(row["image"], []).append(row)
            yield file, rows

    def rows(self) -> dict[str, list[dict[str, str]]]:
        """Image's name as [`table_text`] → its rows, the last one counts; in the order of their first ones."""
        with self.locked() as (_, rows):
            return rows

    def name_class(self, name: str) -> None:
        """
        What the masks show, for a training with the set: in `classes.txt`, if it is no lesion. A file that is there
        stays.

        Raises:
            ValueError: the file names something else, or there is none and lesions were decided.
        """
        path = self.output / "classes.txt"
        with self.locked() as (_, rows):
            if path.exists():
                found = path.read_text(encoding="utf-8", errors="replace").splitlines()
            else:
                found = [LESION] if rows else [name]
            if name not in found:
                raise ValueError(
                    f"{self.output} must be of {name}, as the checkpoint is, got {found}. Choose another --output."
                )
            if name != LESION and not path.exists():
                write_atomically(path, lambda partial: partial.write_text(f"{name}\n", encoding="utf-8"))

    def decide(
        self,
        image: Path,
        decision: str,
        mask: np.ndarray | None,
        seen: int = 0,
        found: np.ndarray | None = None,
        points: list[tuple[float, float, int]] = (),
        box: tuple[float, float, float, float] | None = None,
        seconds: float = 0.0,
        expected_jaccard: float | None = None,
        photo: str = "",
    ) -> None:
        """
        Keep a decision; when this returns it is on disk.

        Args:
            image: the file, which is copied byte for byte.
            decision: of `DECISIONS`.
            mask: boolean, of the upright image's size; `None` of an unusable image.
            seen: the number of decisions of this image that the person knew of.
            found: the model's own mask, for the row's J between both.
            points: the clicks, (x, y, label) in pixels of the image.
            box: (left, top, right, bottom), in the same pixels.
            seconds: for which the image was looked at.
            expected_jaccard: of `found`.
            photo: [`digest`] of the file that the person saw.

        Raises:
            OtherDecision: there are more decisions than were seen.
            FileExistsError: as of [`refusals`].
            ValueError: no such decision; a mask that is missing, or not wanted; another photo than the person saw.
            OSError: the disk is full, or the image is gone. Where the files could not be moved to their places, the
                decision is in the table and not in the set: [`finish`], or the next decision, moves them.
        """
        if decision not in DECISIONS:
            raise ValueError(f"`decision` must be one of {', '.join(DECISIONS)}, got {decision!r}.")
        if (mask is None) != (decision == "unusable"):
            raise ValueError(f"`mask` must be there unless the image is unusable, got {decision!r}.")
        with self.locked() as (file, rows):
            earlier = rows.get(table_text(image.name), [])
            if len(earlier) != seen:
                raise OtherDecision(f"{image.name}: somebody else has decided meanwhile.")
            if earlier:  # its files may still be staged, where another server was killed
                self.place(image.name, earlier)
            if why := self.refusals([image], rows).get(image):
                raise FileExistsError(why)
            row = {
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "image": image.name,
                "decision": decision,
                "seconds": round(seconds, 1),
                "clicks": len(points),
                "points": write_points(points),
                "box": "" if box is None else " ".join(f"{side:.1f}" for side in box),
                "photo": photo,
                "mask": "",
                "made_by": self.made_by,
            }
            if expected_jaccard is not None:
                row["expected_jaccard"] = round(expected_jaccard, 4)
            if mask is not None:
                if not image.is_file():
                    raise FileNotFoundError(f"{image}: no such file. It was moved since the review began.")
                staged, staged_mask = self.pending / image.name, mask_path(self.pending, image)
                write_mask(mask, staged_mask, writer=None)
                write_atomically(staged, lambda partial: shutil.copyfile(image, partial))
                row["photo"], row["mask"] = digest(staged), digest(staged_mask)
                if found is not None:
                    row["jaccard"] = round(float(jaccard(confusion_counts(mask, found))), 4)
            elif image.is_file():
                row["photo"] = digest(image)
            if photo and row["photo"] != photo:
                raise ValueError(f"{image}: the file was replaced since it was shown. Load the page again.")
            append(file, csv_line(row.get(column, "") for column in COLUMNS))
            self.place(image.name, [*earlier, row])

    def finish(self) -> None:
        """What a killed server left: masks and images of last rows get their places, all else of it goes."""
        with self.locked() as (_, rows):
            stems = {}  # as the table has them → of the files
            for folder in (self.images, self.masks, self.pending):
                for path in folder.iterdir():
                    stem = path.name.removesuffix(mask_path(Path(), "").name) if is_mask_name(path) else path.stem
                    stems[table_text(stem)] = stem
            for name, of_image in rows.items():
                if (stem := stems.get(Path(name).stem)) is not None:
                    self.place(stem + Path(name).suffix, of_image)
            shutil.rmtree(self.pending)
            self.pending.mkdir()

    def place(self, name: str, rows: list[dict[str, str]]) -> None:
        """
        The image's files as its last row wants them, unless somebody else's are in their places. At each moment, all
        images of the set have their own masks.
        """
        target, mask = self.images / name, mask_path(self.masks, name)
        staged, staged_mask = self.pending / name, mask_path(self.pending, name)
        is_unusable = rows[-1]["decision"] == "unusable"
        has_work = staged.exists() or (is_unusable and target.exists())
        if not has_work or self.foreign(name, rows):
            return
        if is_unusable:
            if target.exists():
                target.replace(staged)  # says after a kill whose the mask is: `x.png` may have one that is the same
            mask.unlink(missing_ok=True)
            staged.unlink()
            return
        if holds(staged_mask, [rows[-1]["mask"]]):
            staged_mask.replace(mask)
        if holds(staged, [rows[-1]["photo"]]):
            staged.replace(target)

    def foreign(self, name: str, rows: list[dict[str, str]]) -> Path | None:
        """Of the image's two places in the set one with a file that is of none of these rows."""
        decided = [row for row in rows if row["mask"]]
        places = ((self.images / name, "photo"), (mask_path(self.masks, name), "mask"))
        for path, column in places:
            if os.path.lexists(path) and not holds(path, [row[column] for row in decided]):
                return path
        return None

    def is_decided(self, image: Path, rows: dict[str, list[dict[str, str]]]) -> bool:
        """Its last row stands, is of this photo, and its files are where they belong."""
        of_image = rows.get(table_text(image.name))
        if not of_image:
            return False
        has_files = (self.images / image.name).exists() and mask_path(self.masks, image).exists()
        return (has_files or of_image[-1]["decision"] == "unusable") and is_of(of_image[-1], image)

    def refusals(self, images: Iterable[Path], rows: dict[str, list[dict[str, str]]]) -> dict[Path, str]:
        """Images that would take another file's place in the set → why."""
        names = {Path(name).stem: name for name, of_name in rows.items() if of_name[-1]["decision"] != "unusable"}
        refused = {}
        for image in images:
            name = table_text(image.name)
            of_image = rows.get(name, [])
            other = names.get(Path(name).stem, name)
            if other != name:
                refused[image] = f"{image}: its mask would be that of {other} in {self.table}. Rename it."
            elif path := self.foreign(image.name, of_image):
                refused[image] = f"{path} is not of this review, and would be replaced. Move it away."
            elif (self.images / image.name).exists() and not is_of(of_image[-1], image):
                refused[image] = (
                    f"{image}: another photo of this name is in {self.images}: the one that was decided. Rename it, or "
                    "bring that one back."
                )
        return refused


def other_table(data: bytes) -> str:
    found = data.split(b"\n")[0].decode("utf-8", errors="replace").split(",")
    missing = [column for column in ("photo", "box") if column not in found]
    if found == [column for column in COLUMNS if column not in missing]:
        return f"an earlier version's table, without the column {' and '.join(map(repr, missing))}"
    return "another table than this version writes"


def digest(path: Path) -> str:
    return f"{crc32(path.read_bytes()):08x}"


def holds(path: Path, checksums: list[str]) -> bool:
    return path.is_file() and digest(path) in checksums


def is_of(row: dict[str, str], photo: Path) -> bool:
    """The photo is the one that was decided; one that is gone, or cannot be read, was not replaced."""
    try:
        return digest(photo) == row["photo"]
    except OSError:
        return True


def write_points(points: list[tuple[float, float, int]]) -> str:
    return "; ".join(f"{x:.1f} {y:.1f} {label}" for x, y, label in points)


def read_points(text: str) -> list[tuple[float, float, int]]:
    points = [point.split() for point in text.split(";") if point.strip()]
    return [(float(x), float(y), int(label)) for x, y, label in points]


def read_box(text: str) -> tuple[float, float, float, float] | None:
    return tuple(map(float, text.split())) or None


def append(file: BinaryIO, line: bytes) -> None:
    end = file.seek(0, os.SEEK_END)
    try:
        write_all(file, line)
    except OSError:
        file.truncate(end)  # a full disk has taken a part
        raise
