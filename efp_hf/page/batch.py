"""Many images: masks and a table in a zip, past the bad files."""

import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from ..image_processing_efp import EFPImageProcessor
from ..inference.folder import Prediction, predict_files, table_row, write_predictions
from ..inference.prediction_table import COLUMNS, columns_for, table_text
from ..inference.task import class_names_of, is_lesion, labels_overlap
from ..lesion.structures import LESION
from ..metrics.rows import write_rows
from ..modeling_efp import EFPForSegmentation
from .photo import with_lesion_threshold
from .pictures import draw_thumbnail
from .uploads import check_photo, collect_files, without_folder

BATCH_SIZE = 2  # images of a batch that are held at their own size


@dataclass
class Batch:
    """A row a file (`COLUMNS` and `error`), the pictures of the good ones, and the zip of masks and table."""

    rows: list[dict]
    pictures: list[tuple[Image.Image, str]]
    archive: Path
    left_out: int  # files in zips that are no images
    classes: tuple[str, ...] = ()  # where there are several
    name: str = LESION  # of the one class


def segment_batch(
    uploads: Iterable[str | Path] | None,
    model: EFPForSegmentation,
    processor: EFPImageProcessor,
    folder: Path,
    threshold: float | None = None,
    largest_region: bool | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Batch:
    """
    Image files and zips of them → masks and a table in `folder/masks.zip`. A bad file gets a row with its error.

    Raises:
        ValueError: nothing to segment, too many files, a zip that is damaged, encrypted or unpacks to too much.
    """
    # the same file chosen twice has one path
    uploads = list(dict.fromkeys(Path(upload) for upload in uploads or ()))
    names, overlap = class_names_of(model.config), labels_overlap(model.config)
    classes = () if is_lesion(model.config) else names
    columns = columns_for(names, overlap)
    post_processing = {"threshold": threshold, "largest_region": largest_region}
    if overlap:
        post_processing = {"threshold": with_lesion_threshold(processor, threshold)}
    with TemporaryDirectory(dir=folder) as unpacked, TemporaryDirectory(dir=folder) as output:
        files, refused, left_out = collect_files(uploads, Path(unpacked))
        rows, pictures = {path: error_row(path, error, columns) for path, error in refused.items()}, []
        accepted = []
        for path in files:
            try:
                if path not in refused:
                    check_photo(path)
                    accepted.append(path)
            except ValueError as error:
                rows[path] = error_row(path, str(error), columns)

        def watched(predictions: Iterator[Prediction]) -> Iterator[Prediction]:
            for done, prediction in enumerate(predictions, start=1):
                yield prediction
                # here the mask is being written; those of which none comes are what `write_predictions` returns
                if prediction.error is None:
                    rows[prediction.path] = {**table_row(prediction, names), "error": ""}
                    pictures.append(draw_thumbnail(prediction, classes, names[0]))
                progress(done, len(accepted))

        predictions = predict_files(accepted, model, processor, batch_size=BATCH_SIZE, **post_processing)
        for prediction in write_predictions(watched(predictions), Path(output), classes=names, overlap=overlap):
            error = prediction.error.replace(f"{output}/", "")
            for path in files:
                error = without_folder(error, path)
            rows[prediction.path] = error_row(prediction.path, error, columns)
        ordered = [rows[path] for path in files]
        write_table(ordered, Path(output, "predictions.csv"))
        archive = Path(folder, "masks.zip")
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:  # PNG files do not get smaller
            for path in sorted(Path(output).iterdir()):
                packed.write(path, path.name)
    return Batch(ordered, pictures, archive, left_out, classes, names[0])


def error_row(path: Path, error: str, columns: tuple[str, ...] = COLUMNS) -> dict:
    return {**dict.fromkeys(columns, ""), "image": path.name, "error": error}


def write_table(rows: list[dict], path: Path) -> None:
    """The rows of a batch as CSV, their texts as [`table_text`] has them."""
    write_rows([{name: table_text(value) for name, value in row.items()} for row in rows], path)
