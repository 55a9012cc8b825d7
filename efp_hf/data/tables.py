"""Pairs that a table lists: `metadata.jsonl` or `metadata.csv` of an imagefolder, or a CSV of paths."""

import csv
import glob
from pathlib import Path

from ..extras import needing
from .channels import further_columns
from .files import delimiter_of, is_image_file, rows_of_table
from .found import Found
from .names import listed
from .pairs import mask_files
from .split import GROUP_COLUMNS, SPLIT_NAMES

with needing("train", __name__):
    from datasets import Image, config, load_dataset
    from datasets.exceptions import DatasetGenerationError, DatasetsError
    from pyarrow import ArrowInvalid

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
IMAGE_COLUMNS = ("image", "image_path")
MASK_COLUMNS = ("mask", "mask_path")
COLUMNS = (("image", IMAGE_COLUMNS), ("mask", MASK_COLUMNS))
OF_OUR_TABLES = "made_by"  # predictions.csv and decisions.csv list no training data


def imagefolder_tables(root: Path) -> list[Path]:
    """The `metadata.*` of a folder, or of its folders `train`, `validation` and `test`; not the ISIC archive's."""
    folders = [root, *(root / name for name in SPLIT_NAMES)]
    tables = [folder / name for folder in folders for name in METADATA if (folder / name).is_file()]
    return [path for path in tables if path.suffix != ".csv" or "file_name" in ",".join(columns_of(path))]


def find_imagefolder(root: Path, tables: list[Path]) -> Found:
    """
    Raises:
        ValueError: a table that `datasets` cannot read, or without `file_name` and `mask_file_name`; two of a split.
    """
    found = Found(f"imagefolder with {tables[0].name}", {})
    for split, table in table_of_split(tables, lambda path: path.parent.name if path.parent != root else "").items():
        try:
            # of this file alone: `datasets` would take a photo called a_test.jpg for a split
            files = {"data_files": {"train": glob.escape(str(table))}, "cache_dir": str(config.HF_DATASETS_CACHE)}
            rows = load_dataset("imagefolder", split="train", **files)
        except (ArrowInvalid, DatasetGenerationError, DatasetsError, ValueError) as error:
            raise ValueError(f"{table}: the table cannot be read ({error.__cause__ or error}). Mend it.") from error
        if not all(isinstance(rows.features.get(column), Image) for column in ("image", "mask")):
            raise ValueError(
                f"{table}: the columns file_name (image) and mask_file_name (mask) must be there, "
                f"got {', '.join(columns_of(table) or rows.column_names)}. Rename them."
            )
        for column in ("image", "mask", *further_columns(rows.column_names)):
            rows = rows.cast_column(column, Image(decode=False))
        add_rows(found, table, ({"split": split or "train"} | row | paths_of(row) for row in rows))
    found.notes += unlisted(root, found, tables)
    return found


def paths_of(row: dict) -> dict[str, str]:
    return {name: row[name]["path"] if row[name] else "" for name in ("image", "mask", *further_columns(row))}


def path_tables(root: Path) -> list[Path]:
    """The CSV files of a folder with columns of images and masks."""
    return [path for path in sorted(root.glob("*.csv")) if path.is_file() and is_path_table(columns_of(path))]


def is_path_table(columns: list[str]) -> bool:
    return (
        any(name in columns for name in IMAGE_COLUMNS)
        and any(name in columns for name in MASK_COLUMNS)
        and OF_OUR_TABLES not in columns
    )


def find_paths(root: Path, tables: list[Path]) -> Found:
    """
    Raises:
        ValueError: two tables, one without the columns, or a split of another name.
    """
    if len(tables) > 1:
        raise ValueError(f"{root}: two tables of pairs, {listed([path.name for path in tables])}. Pass the one meant.")
    (table,) = tables
    columns = columns_of(table)
    if not is_path_table(columns):
        raise ValueError(f"{table}: the columns image and mask must be there, got {', '.join(columns)}. Rename them.")
    rows = rows_of_table(table)
    if ragged := [str(number) for number, row in enumerate(rows, start=1) if None in row]:
        raise ValueError(f"{table}: rows {listed(ragged)} have more values than the header. Put quotes around commas.")
    found = Found(f"a CSV of paths, {table.name}", {})
    add_rows(found, table, (row | paths_beside(table, row) | {"split": row.get("split", "train")} for row in rows))
    return found


def paths_beside(table: Path, row: dict) -> dict[str, str]:
    """
    `image`, `mask` and further images of a row, from the folder of its table; where there is no such file, with
    Windows' folders.
    """
    written = {name: next((row[column] for column in columns if row.get(column)), "") for name, columns in COLUMNS}
    written |= {name: row[name] for name in further_columns(row)}
    paths = {name: table.parent / path for name, path in written.items() if path}
    paths = {name: path if path.exists() else Path(str(path).replace("\\", "/")) for name, path in paths.items()}
    return {name: str(paths.get(name, "")) for name in written}


def add_rows(found: Found, table: Path, rows) -> None:
    """
    Rows of `image`, `mask` and maybe `image_2`, … (paths, or empty), `split`, and maybe `image_id`, `patient_id`,
    `lesion_id`.
    """
    without = []
    for number, row in enumerate(rows, start=1):
        further = [row[column] for column in further_columns(row)]
        if not all((row["image"], row["mask"], *further)):
            without.append(Path(row["image"] or f"row {number}").name)
            continue
        split = SPLIT_NAMES.get(str(row["split"] or "").strip().lower())
        if split is None:
            raise ValueError(
                f"{table}, row {number}: `split` must be one of {', '.join(SPLIT_NAMES)}, got {row['split']!r}."
            )
        # a number is none: the table may have said 001
        image_id = row["image_id"] if isinstance(row.get("image_id"), str) else ""
        image_id = image_id or Path(row["image"]).stem
        found.pairs.setdefault(split, []).append(tuple([image_id, *map(Path, (row["image"], row["mask"], *further))]))
        values = {column: row.get(column) for column in GROUP_COLUMNS}
        found.groups[image_id] = [f"{column}:{value}" for column, value in values.items() if value not in (None, "")]
    for pairs in found.pairs.values():
        pairs.sort()
    if without:
        found.problems.append(
            f"{table}: {len(without)} rows have no image or no mask: {listed(without)}. Fill them in or remove them."
        )


def table_of_split(tables: list[Path], name_of) -> dict[str | None, Path]:
    """
    The table of each split, by the name that `name_of` gives; `None` for one that names no split and is alone.

    Raises:
        ValueError: two tables of one split.
    """
    found = {}
    for table in tables:
        split = SPLIT_NAMES.get(name_of(table))
        if split in found or (found and None in (split, *found)):
            other = found.get(split, next(iter(found.values())))
            raise ValueError(
                f"{other} and {table} may be tables of the same images. Pass the one meant, or remove one."
            )
        found[split] = table
    return found


def unlisted(root: Path, found: Found, tables: list[Path]) -> list[str]:
    """A note of the image files of a folder that its tables do not list."""
    pairs = [pair for of_split in found.pairs.values() for pair in of_split]
    used = {
        path.resolve() for _, image, masks, *further in pairs for path in (image, *mask_files(masks), *further) if path
    }
    others = [str(path.relative_to(root)) for path in image_files(root) if path.resolve() not in used]
    if not others:
        return []
    return [f"{len(others)} image files are not in {tables[0].name} and are left out: {listed(others)}."]


def image_files(root: Path) -> list[Path]:
    return [path for path in sorted(root.rglob("*")) if is_image_file(path) and not path.is_dir()]


def columns_of(table: Path) -> list[str]:
    """The header of a CSV file; nothing for other files, and for what is no text."""
    if table.suffix != ".csv":
        return []
    with table.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        try:
            return next(csv.reader(file, delimiter=delimiter_of(table)), [])
        except csv.Error:
            return []
