"""Image files to mask files: one after the other, in batches, past the bad ones."""

import csv
import glob
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from transformers.image_processing_utils import BatchFeature

from ..data.files import is_image_file, read_image, read_sized_image, write_atomically
from ..image_processing_efp import EFPImageProcessor
from ..modeling_efp import EFPForSegmentation
from .checkpoint import segment_one_by_one
from .drawing import outline_lesion

DECODING_MARGIN = 2  # a JPEG is decoded at least this many times larger than the model's input
RUN_LENGTHS = 3  # zlib's strategy: a mask is written in two thirds of the time, and is a little smaller
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
)


@dataclass
class Prediction:
    """
    What became of one file: `mask` (bool) and `probabilities` at the image's own size and the mask's
    `expected_jaccard`, or the `error`.
    """

    path: Path
    mask: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    expected_jaccard: float | None = None
    error: str | None = None

    @classmethod
    def of(cls, path: Path, result: BatchFeature) -> "Prediction":
        """Of a file and its result of [`segment`]."""
        return cls(
            path,
            mask=result["segmentation"].cpu().numpy(),
            probabilities=result["probabilities"].cpu().numpy(),
            expected_jaccard=result["expected_jaccard"],
        )


def find_images(inputs: Iterable[str]) -> list[Path]:
    """
    The files that images, folders and globs name, in this order, each once. Mask files are left out of folders.

    Raises:
        FileNotFoundError: a folder or glob without images, or nothing at all.
    """
    files = {}
    for name in inputs:
        path = Path(name).expanduser()
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if is_image_file(file) and not is_mask_name(file))
            if not found:
                raise FileNotFoundError(f"{name}: no image in the folder.")
        elif glob.has_magic(str(name)) and not path.exists():
            found = [Path(file) for file in sorted(glob.glob(str(path), recursive=True)) if Path(file).is_file()]
            if not found:
                raise FileNotFoundError(f"{name}: no file matches.")
        else:
            found = [path]  # a missing file is reported with the other bad ones
        files.update(dict.fromkeys(found))
    if not files:
        raise FileNotFoundError("No image was given. Pass image files, folders or globs.")
    return list(files)


def is_mask_name(path: Path) -> bool:
    return path.stem.endswith("_segmentation")


def predict_files(
    files: list[Path],
    model: EFPForSegmentation,
    processor: EFPImageProcessor,
    batch_size: int = 8,
    **post_processing,
) -> Iterator[Prediction]:
    """One [`Prediction`] a file, in order. The next batch is decoded while the model runs; a bad file stops nothing."""
    with ThreadPoolExecutor() as readers:
        batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
        ahead = [readers.submit(read_for_model, path, processor) for path in batches[0]] if batches else []
        for number, batch in enumerate(batches):
            read = [future.result() for future in ahead]
            following = batches[number + 1] if number + 1 < len(batches) else []
            ahead = [readers.submit(read_for_model, path, processor) for path in following]
            good = [item for item in read if not isinstance(item, str)]
            images, sizes = [image for image, _ in good], [size for _, size in good]
            results = segment_one_by_one(images, model, processor, sizes, **post_processing)
            for path, item in zip(batch, read, strict=True):
                if isinstance(item, str):
                    yield Prediction(path, error=item)
                    continue
                yield Prediction.of(path, next(results))


def read_for_model(path: Path, processor: EFPImageProcessor) -> tuple[Image.Image, tuple[int, int]] | str:
    """The image, a large JPEG at reduced scale, with its own (height, width); or what is wrong with it."""
    try:
        return read_sized_image(path, min_size=DECODING_MARGIN * max(processor.size["height"], processor.size["width"]))
    except (OSError, ValueError) as error:
        return str(error)


def table_row(prediction: Prediction) -> dict[str, str | int | float]:
    """
    The row of `COLUMNS` of a prediction: lesion area in pixels and as a share of the image, bounding box (half-open:
    rows top..bottom-1, columns left..right-1), the mean probability inside the lesion, and the Jaccard that the mask
    is expected to have. Without a lesion box and confidence are empty.
    """
    mask = prediction.mask
    lesion_pixels = int(np.count_nonzero(mask))
    row = {
        "image": prediction.path.name,
        "height": mask.shape[0],
        "width": mask.shape[1],
        "lesion_pixels": lesion_pixels,
        "lesion_share": round(lesion_pixels / mask.size, 6),
    }
    if lesion_pixels:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        row["top"], row["bottom"] = int(rows[0]), int(rows[-1]) + 1
        row["left"], row["right"] = int(columns[0]), int(columns[-1]) + 1
        row["mean_confidence"] = round(float(prediction.probabilities[mask].mean()), 4)
    row["expected_jaccard"] = round(prediction.expected_jaccard, 4)
    return {column: row.get(column, "") for column in COLUMNS}


def write_mask(mask: np.ndarray, path: Path) -> None:
    """A mask as the challenge wants it: 8-bit grey PNG, 0 skin, 255 lesion."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    write_atomically(path, lambda partial: picture.save(partial, "PNG", compress_type=RUN_LENGTHS))


def write_prediction(prediction: Prediction, output: Path, overlay: bool, table: csv.DictWriter) -> None:
    """Mask and, where wanted, overlay of one good file, then its row."""
    image_id = prediction.path.stem
    write_mask(prediction.mask, output / f"{image_id}_segmentation.png")
    if overlay:
        picture = outline_lesion(read_image(prediction.path), prediction.mask)
        write_atomically(output / f"{image_id}_overlay.jpg", lambda path: picture.save(path, "JPEG"))
    table.writerow(table_row(prediction))


def write_predictions(predictions: Iterable[Prediction], output: Path, overlays: bool = False) -> list[Prediction]:
    """
    `<id>_segmentation.png` for every good file, with `overlays` also `<id>_overlay.jpg`, and `predictions.csv` with a
    row an image; → the predictions that failed. Files of the same name keep the first, the others fail. One image is
    written while the next one is made.
    """
    failed, written = [], {}
    table = output / "predictions.csv"
    rows = table.with_suffix(".csv.partial")  # becomes the table also where the run is interrupted: its masks are there
    try:
        with (
            rows.open("w", newline="", encoding="utf-8") as file,
            ThreadPoolExecutor(max_workers=1) as background,
        ):
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            earlier = None  # the one that is being written; the executor waits for it where the run is interrupted
            for prediction in predictions:
                image_id = prediction.path.stem
                if prediction.error is None and image_id in written:
                    prediction.error = (
                        f"{prediction.path}: its mask would overwrite that of {written[image_id]}. Rename one of them."
                    )
                if prediction.error is not None:
                    failed.append(prediction)
                    continue
                written[image_id] = prediction.path
                if earlier is not None:
                    earlier.result()
                earlier = background.submit(write_prediction, prediction, output, overlays, writer)
            if earlier is not None:
                earlier.result()
    finally:
        rows.replace(table)
    return failed
