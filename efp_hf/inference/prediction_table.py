"""The table of a folder of masks: a row a file, on disk before the next file is read."""

import csv
import io
import os
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from zlib import crc32

from PIL import Image

from ..data.files import write_atomically
from ..lesion.structures import LABELS, LESION, MASK_NAME

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
FIRST_COLUMNS, LAST_COLUMNS = COLUMNS[:3], COLUMNS[-3:]  # of a table of several classes, around those of each
PROBABILITY = "_probability"  # ends a column of a label that overlaps others
LEFTOVER = re.compile(r"\.\d+-.+_(segmentation\.png|overlay\.jpg)|\.\d+-\d+-.+_.+\.png|\.\d+-predictions\.csv")
PART = re.compile(r"predictions\.part-\d+\.csv")
WRITER = "efp_hf"  # what masks and overlays name as their software
NO_PICTURE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises
FORMULA_SIGNS = ("=", "+", "-", "@")  # what a spreadsheet takes for the beginning of a formula


def columns_for(classes: tuple[str, ...] = (), overlap: bool = False) -> tuple[str, ...]:
    """
    The columns of a table: `COLUMNS`, with the name of another class than the lesion; or with several classes the
    pixels and the share of each; of those that overlap also the highest probability, and the Jaccard that the mask is
    expected to have. Of `LABELS` there is also [`structure_variety`].
    """
    if len(classes) < 2 and not overlap:
        (name,) = classes or (LESION,)
        of_class = {f"{LESION}_{unit}": f"{name}_{unit}" for unit in ("pixels", "share")}
        return tuple(of_class.get(column, column) for column in COLUMNS)
    units = ("pixels", "share", PROBABILITY[1:], "expected_jaccard") if overlap else ("pixels", "share")
    of_all = ("structure_variety",) if overlap and classes == LABELS else ()
    return (*FIRST_COLUMNS, *(f"{name}_{unit}" for name in classes for unit in units), *of_all, *LAST_COLUMNS)


def mask_path(output: Path, image: str | Path) -> Path:
    return output / f"{Path(image).stem}_segmentation.png"


def mask_paths(output: Path, image: str | Path, overlapping: tuple[str, ...] = ()) -> list[Path]:
    """
    That of [`mask_path`]; or one a label that overlaps others, `<id>_<label>.png`, and of those of ISIC 2018 under the
    names of its Tasks 1 and 2.
    """
    if not overlapping:
        return [mask_path(output, image)]
    if overlapping != LABELS:
        return [output / f"{Path(image).stem}_{name}.png" for name in overlapping]
    return [
        mask_path(output, image) if name == LESION else output / MASK_NAME.format(Path(image).stem, name)
        for name in overlapping
    ]


def overlay_path(output: Path, image: str | Path) -> Path:
    return output / f"{Path(image).stem}_overlay.jpg"


def written_paths(output: Path, image: str | Path, overlapping: tuple[str, ...] = ()) -> list[Path]:
    """Whatever may be written for an image: its masks and its overlay."""
    return [*mask_paths(output, image, overlapping), overlay_path(output, image)]


def table_path(output: Path, part: int = 0) -> Path:
    """`predictions.csv`; or what the second, third, … of several processes writes until [`join_parts`]."""
    return output / (f"predictions.part-{part}.csv" if part else "predictions.csv")


def tables_in(output: Path) -> list[Path]:
    """`predictions.csv`, if it is there, and the parts that wait to be joined."""
    parts = sorted(path for path in output.iterdir() if PART.fullmatch(path.name))
    return [path for path in (table_path(output), *parts) if os.path.lexists(path)]


def printable(text: str) -> str:
    """With \\xNN for what ends a line or moves a terminal's cursor, and for bytes of a file name that are no UTF-8."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def table_text(value) -> str:
    """A value as the table has it: [`printable`], with an apostrophe before what a spreadsheet would compute."""
    text = printable(str(value))
    return f"'{text}" if isinstance(value, str) and text.startswith(FORMULA_SIGNS) else text


def csv_line(values: Iterable) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([table_text(value) for value in values])
    return text.getvalue().encode("utf-8")


def made_from(made_by: str, content: bytes | None) -> str:
    """The column `made_by`: checkpoint, settings, and what the image's file held."""
    return (
        made_by if content is None or not made_by else f"{made_by}, image of {len(content)} bytes {crc32(content):08x}"
    )


def start_table(output: Path, finished: Iterable[dict[str, str]], columns: tuple[str, ...] = COLUMNS) -> None:
    """
    `predictions.csv` with the rows of an earlier run that stay, of [`finished_rows`]. What a killed run left goes:
    hidden files, and the parts of several processes.
    """
    remove_files(output, LEFTOVER)
    lines = [columns, *([row[column] for column in columns] for row in finished)]
    write_atomically(table_path(output), lambda path: path.write_bytes(b"".join(map(csv_line, lines))))
    remove_files(output, PART)


def remove_files(output: Path, names: re.Pattern) -> None:
    for path in output.iterdir():
        if names.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)


class PredictionTable:
    """
    A table of an output folder, of [`columns_for`], to be added to. Each row is handed to the file system as
    it comes, so that a run that is killed leaves the rows of its masks.

    Args:
        path: of [`table_path`]; a part is made with its header.
        made_by: of every row: the checkpoint and settings that the masks are of.
    """

    def __init__(self, path: Path, made_by: str = "", columns: tuple[str, ...] = COLUMNS):
        self.made_by = made_by
        self.columns = columns
        self.file = path.open("ab", buffering=0)
        if self.file.tell() == 0:
            self.write(csv_line(columns))

    def append(self, row: dict, content: bytes | None = None) -> None:
        """A row of the columns, empty where `row` has nothing; `content` of the image's file."""
        row = row | {"made_by": made_from(self.made_by, content)}
        self.write(csv_line(row.get(column, "") for column in self.columns))

    def write(self, line: bytes) -> None:
        before = self.file.tell()
        try:
            while line:  # a disk that gets full takes a part
                line = line[self.file.write(line) :]
        except OSError:
            os.ftruncate(self.file.fileno(), before)  # no half row stays
            raise

    def __enter__(self) -> "PredictionTable":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()


def table_of(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace")


def read_lines(path: Path) -> list[str]:
    """
    The lines of a table without its header, and without a last one that a kill has cut.

    Raises:
        ValueError: no table, or one of other columns.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no file, but a table has to be written there. Choose another --output.")
    text = table_of(path)
    if not is_table(text):
        raise ValueError(f"{path}: another table than this version writes. Choose another --output.")
    return text.split("\n")[1:-1]


def is_table(text: str) -> bool:
    """Whether it begins as a table of one class or several, or is cut before its first row."""
    header = text.partition("\n")[0]
    of_ours = header.startswith(",".join(FIRST_COLUMNS)) and header.endswith(",".join(LAST_COLUMNS))
    return of_ours or ",".join(COLUMNS).startswith(text)


def read_row(line: str, columns: tuple[str, ...] = COLUMNS) -> dict[str, str] | None:
    """The row of a line; `None` for a line that is none, as of a damaged file."""
    try:
        (values,) = csv.reader([line])
    except (csv.Error, ValueError):
        return None
    return dict(zip(columns, values, strict=True)) if len(values) == len(columns) else None


def finished_rows(
    output: Path,
    made_by: str = "",
    overlays: bool = False,
    files: Iterable[Path] = (),
    columns: tuple[str, ...] = COLUMNS,
    overlapping: tuple[str, ...] = (),
    further: Mapping[Path, tuple[Path, ...]] | None = None,
) -> dict[str, dict[str, str]]:
    """
    Image's name as [`table_text`] → row, of the images whose row is whole, has no error and is `made_by` this, and
    whose masks ([`mask_paths`]) are there, whole, and of their size; with `overlays` the overlay is there, too.

    Args:
        files: those to predict now. One that holds anything else than the row's is not finished: it was changed, or
            comes from another folder.
        further: the other files of an image in several, by the first one.

    Raises:
        ValueError: a `predictions.csv` of other columns.
    """
    made_by = table_text(made_by)
    of_any_image = re.compile(re.escape(made_by) + r"(, image of \d+ bytes [0-9a-f]{8})?")
    rows = {}
    for path in tables_in(output):
        for row in (read_row(line, columns) for line in read_lines(path)):
            if row is not None and not row["error"] and of_any_image.fullmatch(row["made_by"]):
                rows[row["image"]] = row
    written = {table_text(path.name): path for path in output.iterdir()}
    sources = {}
    for path in files:
        sources.setdefault(table_text(path.name), (path, (further or {}).get(path, ())))
    finished = {}
    for name, row in rows.items():
        masks = [written.get(path.name) for path in mask_paths(Path(), name, overlapping)]
        overlay = written.get(overlay_path(Path(), name).name)
        if (
            all(mask is not None and is_whole(mask, row) for mask in masks)
            and (overlay is not None or not overlays)
            and (name not in sources or is_made_from(row, *sources[name], made_by))
        ):
            finished[name] = row
    return finished


def is_written(output: Path) -> Callable[[Path], bool]:
    """
    Whether a file of a folder is a mask or overlay that was written there: of a mask a row of its tables says so; or,
    as a run that was killed or another one has left it, the file itself. An overlay says so itself: not every run with
    a row draws one. Without a table nothing is.
    """
    texts = {path: table_of(path) for path in tables_in(output) if path.is_file()}
    named, tables = set(), {path: text for path, text in texts.items() if is_table(text)}
    for path, text in tables.items():
        columns = next(csv.reader([text.partition("\n")[0]]), [])
        labels = tuple(name.removesuffix(PROBABILITY) for name in columns if name.endswith(PROBABILITY))
        for row in (read_row(line, tuple(columns)) for line in read_lines(path)):
            if row is not None and not row["error"]:
                named.update(path.name for path in mask_paths(Path(), row["image"], labels))
    return lambda path: bool(tables) and (table_text(path.name) in named or is_marked(path))


def is_marked(path: Path) -> bool:
    try:
        if not path.is_file():  # a pipe may have no end
            return False
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            notes = picture.info.get("Software"), picture.info.get("comment")  # the latter of a JPEG are bytes
            return WRITER in notes or WRITER.encode() in notes
    except NO_PICTURE:
        return False


def is_made_from(row: dict[str, str], image: Path, further: tuple[Path, ...], made_by: str) -> bool:
    """The image's files hold what those of the row did. One that is gone was not changed."""
    try:
        return not image.exists() or row["made_by"] in (made_by, made_from(made_by, read_files(image, further)))
    except OSError:
        return False


def read_file(path: Path) -> bytes | None:
    """`None` where there is no file: a pipe or a device may have no end."""
    return path.read_bytes() if path.is_file() else None


def read_files(path: Path, further: tuple[Path, ...]) -> bytes | None:
    """Of an image in one file or several, one after the other."""
    contents = [read_file(file) for file in (path, *further)]
    return None if None in contents else b"".join(contents)


def is_whole(mask: Path, row: dict[str, str]) -> bool:
    try:
        if not mask.is_file():
            return False
        with Image.open(mask, formats=("PNG",)) as picture:
            picture.load()
            return picture.size == (int(row["width"]), int(row["height"]))
    except (*NO_PICTURE, TypeError):
        return False


def join_parts(output: Path, names: list[str], columns: tuple[str, ...] = COLUMNS) -> None:
    """
    `predictions.csv` with the rows of all its parts, in the order of `names`, of [`table_text`]; rows of other images
    come first. Then the parts go.

    Raises:
        FileNotFoundError: an image has no row; the parts stay.
    """
    lines = defaultdict(deque)
    for path in tables_in(output):
        for line in read_lines(path):
            if (row := read_row(line, columns)) is not None:
                lines[row["image"]].append(line)
    if missing := sum((Counter(names) - Counter({name: len(of_name) for name, of_name in lines.items()})).values()):
        raise FileNotFoundError(f"{table_path(output)}: {missing} rows that were written are gone")
    ordered = [lines[name].popleft() for name in names]
    others = [line for of_name in lines.values() for line in of_name]
    table = csv_line(columns) + "\n".join([*others, *ordered, ""]).encode("utf-8")
    write_atomically(table_path(output), lambda path: path.write_bytes(table))
    remove_files(output, PART)
