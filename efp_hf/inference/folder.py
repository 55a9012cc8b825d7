"""Image files, or images of a stream, to mask files: one after the other, in batches, past the bad ones."""

import errno
import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from zlib import crc32

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from transformers.image_processing_utils import BatchFeature

from ..data.channels import ARRAY_SUFFIX, channels_in, further_columns, is_array, join_files, picture_of, read_channels
from ..data.files import REPAIRED, is_image_file, read_sized_image, rows_of_table, write_atomically
from ..image_processing_efp import NUM_COLOURS, EFPImageProcessor
from ..lesion.contour import bounding_box
from ..lesion.structures import LABELS, LESION, structure_variety
from ..modeling_efp import EFPForSegmentation
from .correction import NOTHING_IN_BOX, Correction, expected_after
from .drawing import add_legend, outline_labels, outline_lesion, palette_picture, tint_classes
from .prediction_table import (
    WRITER,
    PredictionTable,
    columns_for,
    is_written,
    made_from,
    mask_path,
    mask_paths,
    overlay_path,
    read_files,
    start_table,
    table_path,
    table_text,
    written_paths,
)
from .task import class_names_of

logger = logging.getLogger(__name__)
DECODING_MARGIN = 2  # a JPEG is decoded at least this many times larger than the model's input
STRUCTURE_MASK = re.compile(r"_attribute_[a-z_]+$")  # the end of a name of Task 2
RUN_LENGTHS = 3  # zlib's strategy: a mask is written in two thirds of the time, and is a little smaller
# errors of the place that is written to, and not of one file: full, read-only, failing, or gone
PLACE_ERRORS = tuple(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EIO", "EACCES", "EPERM", "ENOENT", "ENOTDIR", "ESTALE")
    if hasattr(errno, name)  # Windows has not all
)


@dataclass
class StreamedImage:
    """An image of a dataset: the content of its file, and the path that names its mask, where no file is."""

    path: Path
    content: bytes


@dataclass(frozen=True)
class ImageFiles:
    """An image in several files, by the name of the first one."""

    path: Path
    further: tuple[Path, ...]


@dataclass
class Prediction:
    """
    What became of one file: `mask` (bool) and `probabilities` at the image's own size and the mask's
    `expected_jaccard`, and a `note` where the file had to be repaired to be read; or the `error`. Of several classes
    `mask` holds the labels (uint8), and the two others are not there. Of labels that overlap there is one of each, a
    list of expected Jaccards, `mask` and `probabilities` of the shape `(num_labels, height, width)`.
    """

    path: Path
    mask: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    expected_jaccard: float | list[float] | None = None
    note: str = ""
    error: str | None = None
    content: bytes | None = None  # of a [`StreamedImage`]
    further: tuple[Path, ...] = ()  # of [`ImageFiles`]

    @classmethod
    def of(cls, path: Path, result: BatchFeature) -> "Prediction":
        """Of a file and its result of [`segment`]."""
        if "expected_jaccard" not in result:
            return cls(path, mask=result["segmentation"].to(torch.uint8).cpu().numpy())
        return cls(
            path,
            mask=result["segmentation"].cpu().numpy(),
            probabilities=result["probabilities"].cpu().numpy(),
            expected_jaccard=result["expected_jaccard"],
        )

    def add_note(self, note: str) -> None:
        self.note = f"{self.note}; {note}" if self.note else note


def find_images(inputs: Iterable[str]) -> list[Path]:
    """
    The files that images, folders and globs name, in this order, each once. Mask files are left out of folders, and
    what [`write_predictions`] has written there.

    Raises:
        FileNotFoundError: a folder or glob without images, nothing at all, or only files that are not there.
    """
    files = {}
    for name in inputs:
        if not str(name):  # as of a shell's variable that is not set; `Path` would take the current folder
            raise FileNotFoundError("An image's name must not be empty. Pass image files, folders or globs.")
        path = expand_user(name)
        if os.path.isdir(path):  # of `Path`, a name that is too long is an error
            is_own = is_written(path)
            inside = sorted(file for file in path.iterdir() if not is_mask_name(file) and not is_own(file))
            arrays = [file for file in inside if file.suffix.lower() == ARRAY_SUFFIX and not file.name.startswith(".")]
            found = [file for file in inside if is_image_file(file)] or arrays
            if arrays and found is not arrays:
                logger.warning("%s: %d .npy files are left out beside images: %s.", name, len(arrays), arrays[0].name)
            if not found:
                raise FileNotFoundError(f"{name}: no image in the folder.")
        elif glob.has_magic(str(name)) and not os.path.exists(path):
            pattern = re.sub(r"(\*\*/)+", "**/", str(path))  # each more would multiply the search
            found = [Path(file) for file in sorted(glob.glob(pattern, recursive=True)) if Path(file).is_file()]
            if not found:
                raise FileNotFoundError(f"{name}: no file matches.")
        else:
            found = [path]  # a missing file is reported with the other bad ones
        files.update(dict.fromkeys(found))
    if not files:
        raise FileNotFoundError("No image was given. Pass image files, folders or globs.")
    if not any(os.path.exists(path) for path in files):
        raise FileNotFoundError(f"{next(iter(files))}: no such file or folder. Check the path.")
    return list(files)


def join_image_files(files: list[Path | ImageFiles], num_channels: int) -> list[Path | ImageFiles]:
    """
    The files with what is named as a further one of another, in the same folder, put to it. A file that has all
    channels is joined with none.
    """
    paths = [file for file in files if isinstance(file, Path) and channels_in(file) != num_channels]
    names = Counter(str(path.with_suffix("")) for path in paths)
    by_name = {
        name: path for path in paths if names[name := str(path.with_suffix(""))] == 1
    }  # of two none is another's
    further = {by_name[name]: tuple(by_name[stem] for stem in stems) for name, stems in join_files(by_name).items()}
    others = {path for paths in further.values() for path in paths}
    kept = [file for file in files if isinstance(file, ImageFiles) or file not in others]
    return [ImageFiles(file, further[file]) if further.get(file) else file for file in kept]


def listed_images(table: Path) -> list[Path | ImageFiles]:
    """
    The images of a CSV with the columns `image` and `image_2`, …, paths from the folder of the table.

    Raises:
        FileNotFoundError, ValueError: no such table, one without these columns, or a row without one of its files.
    """
    if not table.is_file():
        raise FileNotFoundError(f"{table}: no such file. Check the path.")
    rows = rows_of_table(table)
    images = []
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise ValueError(f"{table}: row {number} has more values than the header. Put quotes around commas.")
        paths = [row.get(column) for column in ("image", *further_columns(row))]
        if not all(paths):
            raise ValueError(f"{table}, row {number}: a path is needed in image, image_2, …, got {paths}. Fill it in.")
        first, *further = (table.parent / path for path in paths)
        images.append(ImageFiles(first, tuple(further)) if further else first)
    if not images:
        raise FileNotFoundError(f"{table}: no image in the table. Pass one with the columns image, image_2, ….")
    return images


def expand_user(name: str) -> Path:
    """`~` and `~user` as in a shell: where there is no such user, the name stays as it is."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def is_mask_name(path: Path) -> bool:
    return path.stem.endswith("_segmentation") or STRUCTURE_MASK.search(path.stem) is not None


def share_of(
    files: list[Path | ImageFiles], number: int, count: int, overlapping: tuple[str, ...] = ()
) -> list[Path | ImageFiles]:
    """
    The files of one of `count` processes: all of every `count`-th [`common_name`], so that no two processes write the
    same mask.
    """
    words = words_between(overlapping)
    names = [common_name(path_of(file).name, words) for file in files]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return [file for file, name in zip(files, names, strict=True) if places[name] % count == number]


def common_name(name: str, words: set[str]) -> str:
    """What the names of images have in common whose masks could be one file: the id, without `words` at its end."""
    parts = Path(table_text(name)).stem.split("_")
    while len(parts) > 1 and parts[-1] in words:
        parts.pop()
    return "_".join(parts)


def words_between(overlapping: tuple[str, ...]) -> set[str]:
    """
    Of labels that overlap, the words that one of them has before another: `cell` of `nucleus` and `cell_nucleus`. The
    mask of `1_cell` may then be that of `1`.
    """
    endings = [path.stem[1:] for path in mask_paths(Path(), "x.png", overlapping)]
    before = [one.removesuffix(other) for one in endings for other in endings if one != other and one.endswith(other)]
    return {word for words in before for word in words[1:].split("_")}


def predict_files(
    files: Iterable[Path | StreamedImage | ImageFiles],
    model: EFPForSegmentation,
    processor: EFPImageProcessor,
    batch_size: int = 8,
    **post_processing,
) -> Iterator[Prediction]:
    """
    One [`Prediction`] a file, in order. While the model runs, the next batch is decoded, and the one after it is taken
    from `files`, which may be a stream; a bad file stops nothing.
    """
    remaining = iter(files)

    def next_batch() -> list[Path | StreamedImage | ImageFiles]:
        return list(islice(remaining, batch_size))

    with ThreadPoolExecutor() as readers, ThreadPoolExecutor(max_workers=1) as taker:
        try:
            batch = next_batch()
            following = taker.submit(next_batch)
            ahead = [readers.submit(read_for_model, file, processor) for file in batch]
            while batch:
                read = [future.result() for future in ahead]
                next_one, following = following.result(), taker.submit(next_batch)
                ahead = [readers.submit(read_for_model, file, processor) for file in next_one]
                results = iter(segment_read([item for item in read if not isinstance(item, str)], model, processor))
                for file, item in zip(batch, read, strict=True):
                    if isinstance(item, str):
                        prediction = Prediction(path_of(file), error=item)
                    else:
                        prediction = predict_one(path_of(file), *item, next(results), processor, **post_processing)
                    prediction.content = content_of(file)
                    prediction.further = further_of(file)
                    yield prediction
                batch = next_one
        finally:  # where the run is interrupted, what is not needed is not read
            readers.shutdown(cancel_futures=True)
            taker.shutdown(cancel_futures=True)


def path_of(file: Path | StreamedImage | ImageFiles) -> Path:
    return file if isinstance(file, Path) else file.path


def content_of(file: Path | StreamedImage | ImageFiles) -> bytes | None:
    return file.content if isinstance(file, StreamedImage) else None


def further_of(file: Path | StreamedImage | ImageFiles) -> tuple[Path, ...]:
    return file.further if isinstance(file, ImageFiles) else ()


def read_for_model(
    file: Path | StreamedImage | ImageFiles, processor: EFPImageProcessor
) -> tuple[Image.Image | np.ndarray, tuple[int, int]] | str:
    """
    The image, a large JPEG at reduced scale, with its own (height, width); or what is wrong with it. What is no photo
    is an array of its channels.
    """
    min_size = DECODING_MARGIN * max(processor.size["height"], processor.size["width"])
    try:
        if isinstance(file, StreamedImage):
            if processor.num_channels != NUM_COLOURS:
                raise ValueError(
                    f"{file.path}: an image of {processor.num_channels} channels must be a file of its own."
                )
        elif further_of(file) or processor.num_channels != NUM_COLOURS or is_array(file):
            array = read_channels([path_of(file), *further_of(file)])
            if array.shape[2] != processor.num_channels:
                raise ValueError(wrong_channels(path_of(file), array.shape[2], processor.num_channels))
            return array, array.shape[:2]
        return read_sized_image(path_of(file), min_size=min_size, content=content_of(file))
    except (OSError, ValueError) as error:
        return str(error)
    except MemoryError:
        return f"{path_of(file)}: the image does not fit into memory. Reduce it first."


def wrong_channels(path: Path, found: int, needed: int) -> str:
    way = f"pass a checkpoint that was trained with {found}"
    if needed == NUM_COLOURS:
        return f"{path}: the image has {found} channels, the checkpoint takes a photo's three: {way}, or a photo."
    beside = f"{path.stem}_2{path.suffix}"
    return (
        f"{path}: the image has {found} channels, the checkpoint takes {needed}: pass a file of {needed}, put the "
        f"others beside it as {beside}, or {way}."
    )


@torch.inference_mode()
def segment_read(
    read: list[tuple[Image.Image | np.ndarray, tuple[int, int]]],
    model: EFPForSegmentation,
    processor: EFPImageProcessor,
) -> tuple[torch.Tensor, ...]:
    """The logits `(1, num_labels, height, width)` of each image of a batch, which goes through the model as one."""
    if not read:
        return ()
    inputs = processor([image for image, _ in read], return_tensors="pt").to(model.device, model.dtype)
    return model(**inputs).logits.split(1)


def predict_one(
    path: Path,
    image: Image.Image,
    size: tuple[int, int],
    logits: torch.Tensor,
    processor: EFPImageProcessor,
    **post_processing,
) -> Prediction:
    """The mask of one image of its own (height, width); or the error, where its logits are not finite."""
    try:
        (result,) = processor.post_process_semantic_segmentation(
            SimpleNamespace(logits=logits), [size], return_probabilities=True, **post_processing
        )
    except ValueError as error:
        return Prediction(path, error=f"{path}: {error}")
    prediction = Prediction.of(path, result)
    prediction.note = image.info.get(REPAIRED, "") if isinstance(image, Image.Image) else ""
    return prediction


def correct_file(
    path: Path,
    model: EFPForSegmentation,
    processor: EFPImageProcessor,
    points: list[tuple[float, float, int]],
    box: tuple[float, float, float, float] | None,
    **post_processing,
) -> Prediction:
    """The mask of one file after clicks and a box, as of [`Correction`], in pixels of the upright photo."""
    read = read_for_model(path, processor)
    if isinstance(read, str):
        return Prediction(path, error=read)
    image, size = read
    try:
        outputs = Correction(image, model, processor, size).outputs(points, box, post_processing.get("threshold"))
    except ValueError as error:
        return Prediction(path, error=f"{path}: {error}")
    prompted = bool(points or box)
    prediction = predict_one(path, image, size, outputs.logits, processor, prompted=prompted, **post_processing)
    if prediction.error is None:
        prediction.expected_jaccard = expected_after(prediction.expected_jaccard, prediction.mask, points, box)
        if box is not None and not prediction.mask.any():
            prediction.add_note(NOTHING_IN_BOX.format(*class_names_of(model.config)))
    return prediction


def table_row(prediction: Prediction, classes: tuple[str, ...] = ()) -> dict[str, str | int | float]:
    """
    The row of [`columns_for`] of a prediction: the area in pixels and as a share of the image, bounding box
    (half-open: rows top..bottom-1, columns left..right-1), the mean probability inside the lesion, and the Jaccard that
    the mask is expected to have. Without a lesion box and confidence are empty. Of several classes the area of each,
    and where they overlap the highest probability and the expected Jaccard, too.
    """
    mask = prediction.mask
    if mask.ndim == 3:
        row = {"image": prediction.path.name, "note": prediction.note, "height": mask.shape[1], "width": mask.shape[2]}
        rest = zip(classes, mask, prediction.probabilities, prediction.expected_jaccard, strict=True)
        for name, of_label, probabilities, expected in rest:
            pixels = int(np.count_nonzero(of_label))
            row |= {f"{name}_pixels": pixels, f"{name}_share": round(pixels / of_label.size, 6)}
            row |= {f"{name}_probability": round(float(probabilities.max()), 4)}
            row |= {f"{name}_expected_jaccard": round(expected, 4)}
        if classes == LABELS:
            variety = structure_variety(dict(zip(classes, mask, strict=True)))
            row["structure_variety"] = "" if variety is None else variety
        return {column: row.get(column, "") for column in columns_for(classes, overlap=True)}
    if len(classes) > 1:
        row = {"image": prediction.path.name, "note": prediction.note, "height": mask.shape[0], "width": mask.shape[1]}
        counts = np.bincount(mask.ravel(), minlength=len(classes) + 1)[1:].tolist()
        for name, pixels in zip(classes, counts, strict=True):
            row |= {f"{name}_pixels": pixels, f"{name}_share": round(pixels / mask.size, 6)}
        return {column: row.get(column, "") for column in columns_for(classes)}
    (name,) = classes or (LESION,)
    pixels = int(np.count_nonzero(mask))
    row = {
        "image": prediction.path.name,
        "note": prediction.note,
        "height": mask.shape[0],
        "width": mask.shape[1],
        f"{name}_pixels": pixels,
        f"{name}_share": round(pixels / mask.size, 6),
    }
    if pixels:
        row["top"], row["left"], row["bottom"], row["right"] = bounding_box(mask)
        row["mean_confidence"] = round(float(prediction.probabilities[mask].mean()), 4)
    row["expected_jaccard"] = round(prediction.expected_jaccard, 4)
    return {column: row.get(column, "") for column in columns_for(classes)}


def write_mask(mask: np.ndarray, path: Path, writer: str | None = WRITER) -> None:
    """
    A mask as the challenge wants it: 8-bit grey PNG, 0 skin, 255 lesion.

    Args:
        writer: noted in the file; `None` for a mask that a person has drawn or accepted.
    """
    save_png(Image.fromarray(mask.astype(np.uint8) * 255), path, writer)


def write_classes(labels: np.ndarray, path: Path, num_classes: int) -> None:
    """Labels 0..K as a PNG whose pixels are they, in the colours of its palette."""
    save_png(palette_picture(labels, num_classes), path, WRITER)


def save_png(picture: Image.Image, path: Path, writer: str | None) -> None:
    notes = PngInfo()
    if writer is not None:
        notes.add_text("Software", writer)
    write_atomically(path, lambda partial: picture.save(partial, "PNG", compress_type=RUN_LENGTHS, pnginfo=notes))


def write_prediction(prediction: Prediction, output: Path, overlay: bool, classes: tuple[str, ...] = ()) -> None:
    """Mask and, where wanted, overlay of one good file."""
    if overlay:
        if prediction.further or (prediction.content is None and is_array(prediction.path)):
            image = picture_of(read_channels([prediction.path, *prediction.further]))
        else:
            image, _ = read_sized_image(prediction.path, content=prediction.content)
        if prediction.mask.ndim == 3:
            picture = add_legend(outline_labels(image, prediction.mask), classes)
        elif len(classes) > 1:
            picture = add_legend(tint_classes(image, prediction.mask, len(classes)), classes)
        else:
            picture = outline_lesion(image, prediction.mask)
    if prediction.mask.ndim == 3:
        for path, mask in zip(mask_paths(output, prediction.path, classes), prediction.mask, strict=True):
            write_mask(mask, path)
    elif len(classes) > 1:
        write_classes(prediction.mask, mask_path(output, prediction.path), len(classes))
    else:
        write_mask(prediction.mask, mask_path(output, prediction.path))
    if overlay:
        path = overlay_path(output, prediction.path)
        write_atomically(path, lambda partial: picture.save(partial, "JPEG", comment=WRITER))


def record(
    prediction: Prediction,
    output: Path,
    overlay: bool,
    table: PredictionTable,
    stale: Iterable[Path] = (),
    classes: tuple[str, ...] = (),
) -> str | None:
    """
    Write what became of one file, then its row → its error. Of a file that failed the masks and overlay of an earlier
    run do not stay: the files `stale`. Nor does its overlay beside a new mask, where none is wanted now.

    Raises:
        OSError: of the place that is written to: full, read-only, failing or gone. No later file will fare better.
    """
    if prediction.error is None:
        try:
            write_prediction(prediction, output, overlay, classes)
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) in PLACE_ERRORS:
                raise
            prediction.error = f"{prediction.path}: its mask or overlay cannot be written ({error})."
    if prediction.error is None:
        stale = [] if overlay else [overlay_path(output, prediction.path)]  # it shows an earlier mask
    for path in stale:
        with suppress(OSError, ValueError):  # as of a name that is too long, or of a table and holds a NUL
            path.unlink(missing_ok=True)
    if prediction.error is None:
        table.append(table_row(prediction, classes), read_content(prediction))
    else:
        table.append({"image": prediction.path.name, "error": prediction.error})
    return prediction.error


def read_content(prediction: Prediction) -> bytes | None:
    """Of the image's files, if they are still there."""
    if prediction.content is not None:
        return prediction.content
    try:
        return read_files(prediction.path, prediction.further)
    except OSError:
        return None


def unfinished(files: list[Path | ImageFiles], finished: dict[str, dict]) -> list[Path | ImageFiles]:
    """The files that are not among the rows of [`finished_rows`]; a second file of a name there is another one."""
    done = set(finished)
    remaining = []
    for file in files:
        if (name := table_text(path_of(file).name)) in done:
            done.remove(name)
        else:
            remaining.append(file)
    return remaining


def stream_share(
    images: Iterable[tuple[str, bytes]],
    number: int,
    count: int,
    finished: dict[str, dict[str, str]],
    made_by: str,
    places: list[tuple[int, str]],
    overlapping: tuple[str, ...] = (),
) -> Iterator[StreamedImage]:
    """
    The images of a stream that one of `count` processes has to do: of its ids those that are not `finished`. Each
    process reads the whole stream; images of one [`common_name`] meet in one.

    Args:
        images: (name, content) of each.
        places: gets the place in the stream and the [`table_text`] of each name of this process, finished or not.

    Raises:
        OSError: a finished image has changed.
    """
    done, words = set(finished), words_between(overlapping)
    for place, (file_name, content) in enumerate(images):
        path = Path(file_name)
        if crc32(common_name(path.name, words).encode()) % count != number:
            continue
        name = table_text(path.name)
        places.append((place, name))
        if name not in done:
            yield StreamedImage(path, content)
            continue
        done.remove(name)
        if finished[name]["made_by"] not in (made_by, made_from(made_by, content)):
            raise OSError(f"{name}: the image is not the one that the mask in --output was made of")


def write_predictions(
    predictions: Iterable[Prediction],
    output: Path,
    overlays: bool = False,
    finished: dict[str, dict[str, str]] | None = None,
    made_by: str = "",
    part: int | None = None,
    classes: tuple[str, ...] = (),
    overlap: bool = False,
) -> list[Prediction]:
    """
    `<id>_segmentation.png` for every good file, with `overlays` also `<id>_overlay.jpg`, and `predictions.csv` with a
    row a file; → the predictions that failed. Files of the same name keep the first, the others fail. One image is
    written while the next one is made.

    Args:
        finished: what stays of an earlier run, of [`finished_rows`].
        made_by: checkpoint and settings, for the rows.
        part: of [`table_path`], where several processes write, after [`start_table`].
        classes: of the model, where there are several: masks are then labels 0..K with a palette.
        overlap: the classes do, and have a mask of each ([`mask_paths`]).

    Raises:
        OSError: the disk is full, or the folder cannot be written to. What was written before stays.
    """
    failed = []

    def finish(writing: tuple[Path, Future] | None) -> None:
        if writing is not None and (error := writing[1].result()) is not None:
            failed.append(Prediction(writing[0], error=error))  # without the arrays: there may be many

    finished = finished or {}
    if part is None:
        start_table(output, finished.values(), columns_for(classes, overlap))
    with (
        PredictionTable(table_path(output, part or 0), made_by, columns_for(classes, overlap)) as table,
        ThreadPoolExecutor(max_workers=1) as background,
    ):
        labels = classes if overlap else ()
        written = {path: name for name in finished for path in written_paths(Path(), name, labels)}
        earlier = None  # the one that is being written; the executor waits for it where the run is interrupted
        for prediction in predictions:
            name = table_text(prediction.path.name)
            own = dict(
                zip(written_paths(Path(), name, labels), written_paths(output, prediction.path, labels), strict=True)
            )
            taken = next((written[path] for path in own if path in written), None)
            stale = [path for listed, path in own.items() if listed not in written]
            if prediction.error is None and taken is not None:
                prediction.error = f"{prediction.path}: its mask would overwrite that of {taken}. Rename one of them."
            elif prediction.error is None:
                written |= dict.fromkeys(own, name)
            finish(earlier)
            earlier = prediction.path, background.submit(record, prediction, output, overlays, table, stale, classes)
        finish(earlier)
    return failed
