"""What the web page does, as plain functions; `app.py` only wires them to the page and to its API."""

import base64
import io
import json
import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from skimage.measure import find_contours
from transformers.image_processing_utils import BatchFeature

from .image_io import is_image_file, open_image, read_image, read_mask, write_atomically
from .image_processing_efp import EFPImageProcessor
from .measures import measure_lesion
from .modeling_efp import EFPForSegmentation
from .prediction import (
    COLUMNS,
    OUTLINE_COLOR,
    Prediction,
    draw_overlay,
    is_mask_name,
    predict_files,
    read_for_model,
    table_row,
    write_mask,
    write_predictions,
)
from .results import read_rows, write_rows
from .trust import image_notes

MAX_FILE_BYTES = 50_000_000
MAX_PIXELS = 50_000_000  # below `image_io.MAX_PIXELS`: several people share the machine
MAX_FILES = 100  # of one batch
MAX_BATCH_BYTES = 500_000_000  # of one batch, unpacked
PREVIEW_SIDE = 1024  # longer side of the pictures on the page
THUMBNAIL_SIDE = 320
MAX_ZIP_BYTES = 200_000_000
MAX_DIRECTORY_BYTES = 1_000_000  # of a zip: some 5000 entries
MAX_NAME_BYTES = 150  # of a file from a zip, without its ending; file systems allow 255
PIXELS_PER_MM = (0.01, 10_000)
BATCH_SIZE = 2  # images of a batch that are held at their own size

TINT = 0.25  # share of the outline's colour inside the lesion
# Viridis of Matplotlib (CC0) at nine even steps: even in brightness, and readable without red-green vision
COLOR_MAP = np.array(
    [
        (68, 1, 84),
        (72, 40, 120),
        (62, 74, 137),
        (49, 104, 142),
        (38, 130, 142),
        (31, 158, 137),
        (53, 183, 121),
        (144, 215, 67),
        (253, 231, 37),
    ]
)
# Of the palette of Okabe and Ito 2008, "Color universal design": told apart under every colour blindness
AGREEMENT_COLORS = {"hit": (86, 180, 233), "missed": (240, 228, 66), "false": (213, 94, 0)}
AGREEMENT_OPACITY = 0.65
METRIC = Path(__file__).parent / "metrics" / "lesion_segmentation"
SCORE_NAMES = {
    "jaccard": "Jaccard (J)",
    "threshold_jaccard": "threshold Jaccard (TJ): J, and 0 below 0.65",
    "dice": "Dice",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
MEASURES = {
    "area": "pixels of the lesion",
    "area_share": "the lesion's share of the image",
    "feret_diameter_max": "longest diameter (scikit-image)",
    "perimeter_crofton": "length of the outline (scikit-image); outlines along the axes up to 5 % short",
    "compactness": "4π · area / perimeter²; a disc has about 1, other outlines less (a square 0.88: see perimeter)",
    "asymmetry_major": "share left uncovered when folded about the longer principal axis (A of the ABCD rule)",
    "asymmetry_minor": "the same about the shorter principal axis",
    "border_irregularity": "outline over that of the convex hull; 1 for convex outlines, others more",
    "color_variety": "colours of the ABCD rule that the lesion has (C): white, red, light and dark brown, "
    "blue-grey, black",
}
MILLIMETRES = {"area": "mm2", "feret_diameter_max": "mm", "perimeter_crofton": "mm"}
AGREEMENT_NAMES = {
    "hit": "hit (lesion in both)",
    "missed": "missed (in the true mask alone)",
    "false": "false (in the found mask alone)",
}


@dataclass
class SegmentedPhoto:
    """
    A photo after its one run through the model: what every tab is drawn from.

    `size` is (height, width) of the upright photo, `preview` the photo at the page's size, `logits` `(1, 1, height,
    width)` at the model's size, `maps` the name and the `(height, width)` array of F1..F4, F*1..F*4 (means over the
    channels) and M_s 1..4.
    """

    path: Path
    size: tuple[int, int]
    preview: Image.Image
    logits: torch.Tensor
    maps: dict[str, np.ndarray]


def check_photo(path: str | Path | None) -> Path:
    """
    The path of an uploaded photo that the page takes.

    Raises:
        ValueError: nothing was uploaded, the file or the image is too large, or it is no image. Messages name the file
            without its folder on the server.
    """
    if path is None:
        raise ValueError("There is no photo yet. Upload one, paste it or use the camera.")
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path.name}: the server has deleted the photo by now. Upload it again.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(
            f"{path.name}: the file has {path.stat().st_size / 1e6:.0f} MB, more than {MAX_FILE_BYTES / 1e6:.0f} MB. "
            "Reduce it first."
        )
    with naming(path):
        open_image(path, MAX_PIXELS).close()
    return path


class naming:
    """Inside, errors about a file become `ValueError`s that name it without its folder on the server."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if isinstance(error, OSError | ValueError):
            raise ValueError(without_folder(str(error), self.path)) from error


def without_folder(message: str, path: Path) -> str:
    return message.replace(str(path), path.name)


@torch.inference_mode()
def segment_photo(path: str | Path | None, model: EFPForSegmentation, processor: EFPImageProcessor) -> SegmentedPhoto:
    """
    Runs the model once, on the very input of `scripts/predict.py`.

    Raises:
        ValueError: as [`check_photo`], and for a damaged file.
    """
    path = check_photo(path)
    read = read_for_model(path, processor)
    if isinstance(read, str):
        raise ValueError(without_folder(read, path))
    image, size = read
    inputs = processor([image], return_tensors="pt").to(model.device, model.dtype)
    outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
    levels = range(1, len(outputs.hidden_states) // 2 + 1)
    names = [f"F{i}" for i in levels] + [f"F*{i}" for i in levels]
    maps = dict(zip(names, (level.mean(1) for level in outputs.hidden_states), strict=True))
    maps.update({f"M_s {i}": attention[:, 0] for i, attention in enumerate(outputs.attentions or (), start=1)})
    return SegmentedPhoto(
        path=path,
        size=size,
        preview=make_preview(image, path, size),
        logits=outputs.logits.float().cpu(),
        maps={name: values[0].float().cpu().numpy() for name, values in maps.items()},
    )


def make_preview(image: Image.Image, path: Path, size: tuple[int, int]) -> Image.Image:
    """The photo with a longer side of `PREVIEW_SIDE` at most, from what was read for the model if that is enough."""
    height, width = preview_size(size)
    if max(image.size) < 0.9 * max(height, width):
        image = read_image(path, min_size=min(height, width))
    return image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2)


def preview_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the preview of a photo of this (height, width)."""
    scale = min(1, PREVIEW_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def find_lesion(
    photo: SegmentedPhoto,
    processor: EFPImageProcessor,
    threshold: float | None = None,
    largest_region: bool | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mask (bool) and probabilities of [`post_process`]."""
    result = post_process(photo, processor, threshold, largest_region, size)
    return result["segmentation"].numpy(), result["probabilities"].numpy()


def post_process(
    photo: SegmentedPhoto,
    processor: EFPImageProcessor,
    threshold: float | None = None,
    largest_region: bool | None = None,
    size: tuple[int, int] | None = None,
) -> BatchFeature:
    """
    `segmentation`, `probabilities` and `expected_jaccard` of the kept logits, `(height, width)` of `size`, by default
    the photo's own: there they are those of `scripts/predict.py`, to the last bit. The model is not run.
    """
    return processor.post_process_semantic_segmentation(
        SimpleNamespace(logits=photo.logits),
        target_sizes=[photo.size if size is None else size],
        threshold=threshold,
        largest_region=largest_region,
        return_probabilities=True,
    )[0]


# ---------------------------------------------------------------------------------------------------------- Segment


@dataclass
class View:
    """What the Segment tab shows: the photo, the lesion in it, its probabilities, and a sentence."""

    before: Image.Image
    after: Image.Image
    probabilities: Image.Image
    summary: str


def draw_view(
    photo: SegmentedPhoto,
    processor: EFPImageProcessor,
    threshold: float | None = None,
    largest_region: bool | None = None,
) -> View:
    """The Segment tab at the page's size, from the kept logits."""
    threshold = processor.threshold if threshold is None else threshold
    mask, probabilities = find_lesion(photo, processor, threshold, largest_region, photo.preview.size[::-1])
    height, width = photo.size
    if mask.any():
        summary = f"The lesion covers {mask.mean():.1%} of {photo.path.name} ({width} × {height} pixels)."
    else:
        summary = f"No lesion found in {photo.path.name} ({width} × {height} pixels) above {threshold:.2f}."
    return View(
        before=photo.preview,
        after=draw_lesion(photo.preview, mask),
        probabilities=draw_outline(color_map(probabilities), mask, (255, 255, 255)),
        summary=summary,
    )


def draw_lesion(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """The image with the lesion tinted and outlined."""
    pixels = np.array(image)
    pixels[mask] = (pixels[mask] * (1 - TINT) + np.array(OUTLINE_COLOR) * TINT).astype(np.uint8)
    return draw_overlay(Image.fromarray(pixels), mask)


def draw_outline(image: Image.Image, mask: np.ndarray, color: tuple[int, int, int]) -> Image.Image:
    """The image with the lesion's border, one pixel wide, in `color`."""
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    pixels = np.array(image)
    pixels[mask & ~inner] = color
    return Image.fromarray(pixels)


def color_map(values: np.ndarray) -> Image.Image:
    """`(height, width)` in [0, 1] in the colours of `COLOR_MAP`."""
    steps = np.linspace(0, 1, len(COLOR_MAP))
    table = np.stack([np.interp(np.linspace(0, 1, 256), steps, channel) for channel in COLOR_MAP.T], axis=1)
    return Image.fromarray(np.round(table).astype(np.uint8)[np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)])


def write_mask_file(photo, processor, folder: Path, threshold=None, largest_region=None) -> Path:
    """`<id>_segmentation.png` of the photo's own size, byte for byte what `scripts/predict.py` writes."""
    path = Path(folder) / f"{photo.path.stem}_segmentation.png"
    write_mask(find_lesion(photo, processor, threshold, largest_region)[0], path)
    return path


def write_overlay_file(photo, processor, folder: Path, threshold=None, largest_region=None) -> Path:
    """`<id>_overlay.png`: the photo at its own size with the lesion tinted and outlined."""
    check_photo(photo.path)
    mask, _ = find_lesion(photo, processor, threshold, largest_region)
    path = Path(folder) / f"{photo.path.stem}_overlay.png"
    overlay = draw_lesion(read_image(photo.path), mask)
    write_atomically(path, lambda partial: overlay.save(partial, "PNG", compress_level=1))
    return path


def write_contour_file(photo, processor, folder: Path, threshold=None, largest_region=None) -> Path:
    """`<id>_contour.json`: the lesion as a COCO data set of one image."""
    mask, _ = find_lesion(photo, processor, threshold, largest_region)
    path = Path(folder) / f"{photo.path.stem}_contour.json"
    text = json.dumps(coco_contour(mask, photo.path.name))
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    return path


def lesion_polygons(mask: np.ndarray) -> tuple[list[list[float]], list[list[float]]]:
    """
    Outer borders and holes of a mask as COCO polygons: x1, y1, x2, y2, … from the image's upper left corner, where
    the pixel in row r and column c covers c..c+1 and r..r+1.

    The borders run half-way between lesion and skin pixels, so that they cut each corner of a pixel by an eighth.
    """
    outer, holes = [], []
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5, fully_connected="high"):
        y, x = (contour - 0.5).T  # -1 for the padding, +0.5 from the pixel's centre to its corner
        doubled_area = np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])
        polygon = np.stack([x, y], axis=1)[:-1].ravel().tolist()  # COCO closes its polygons itself
        (outer if doubled_area > 0 else holes).append(polygon)
    return outer, holes


def coco_contour(mask: np.ndarray, file_name: str) -> dict:
    """
    A COCO data set of one image; without a lesion it has no annotation. `area` counts the mask's pixels. COCO has no
    holes in polygons: they are named beside, in `holes`, and are not part of `area`.
    """
    annotations = []
    if mask.any():
        outer, holes = lesion_polygons(mask)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, left = int(rows[0]), int(columns[0])
        annotations.append(
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "segmentation": outer,
                "holes": holes,
                "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                "area": int(np.count_nonzero(mask)),
                "iscrowd": 0,
            }
        )
    return {
        "images": [{"id": 1, "file_name": file_name, "height": mask.shape[0], "width": mask.shape[1]}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "lesion"}],
    }


def lesion_data(photo, processor, threshold=None, largest_region=None) -> dict:
    """The lesion in numbers: the row of `predictions.csv`, the settings, and the contour as a COCO data set."""
    prediction = Prediction.of(photo.path, post_process(photo, processor, threshold, largest_region))
    row = table_row(prediction)
    return {
        **{name: None if value == "" else value for name, value in row.items()},
        "threshold": processor.threshold if threshold is None else threshold,
        "largest_region": processor.largest_region if largest_region is None else largest_region,
        "contour": coco_contour(prediction.mask, photo.path.name),
    }


# ------------------------------------------------------------------------------------------- Measure, Trust, Compare


def measure_photo(photo, processor, threshold=None, largest_region=None, pixels_per_mm: float | None = None) -> dict:
    """[`measure_lesion`] of the lesion at the photo's own size; `pixels_per_mm` adds millimetres."""
    check_photo(photo.path)
    low, high = PIXELS_PER_MM
    if pixels_per_mm is not None and not low <= pixels_per_mm <= high:
        raise ValueError(
            f"`pixels per mm` must be between {low} and {high}, got {pixels_per_mm}. Leave it empty if it is unknown."
        )
    mask, _ = find_lesion(photo, processor, threshold, largest_region)
    return measure_lesion(mask, np.asarray(read_image(photo.path)), pixels_per_mm)


def trust_photo(photo, processor, threshold=None, largest_region=None) -> dict:
    """`expected_jaccard` of this mask, and `notes` on what speaks against trusting it."""
    check_photo(photo.path)
    prediction = Prediction.of(photo.path, post_process(photo, processor, threshold, largest_region))
    return {
        "expected_jaccard": prediction.expected_jaccard,
        "notes": image_notes(np.asarray(read_image(photo.path)), prediction.mask, prediction.probabilities),
    }


@dataclass
class Comparison:
    """`scores` of a mask against the true one, `pixels` by kind of agreement, and the picture of it."""

    scores: dict[str, float]
    pixels: dict[str, int]
    picture: Image.Image


def compare_photo(photo, processor, truth: str | Path | None, threshold=None, largest_region=None) -> Comparison:
    """
    The lesion against the mask file `truth`, scored at their own size by the `evaluate` module.

    Raises:
        ValueError: no file, no mask of 0 and 255, or one of another size than the photo.
    """
    if truth is None:
        raise ValueError("There is no true mask yet. Upload the mask that an expert drew on this photo.")
    path = check_photo(truth)
    with naming(path):
        lesion = read_mask(path, MAX_PIXELS)
    if lesion.shape != photo.size:
        raise ValueError(
            f"{photo.path.name}: image is {photo.size[0]}×{photo.size[1]}, mask {lesion.shape[0]}×{lesion.shape[1]}. "
            "A mask must have the size of its image."
        )
    mask, _ = find_lesion(photo, processor, threshold, largest_region)
    scores = score_masks([mask], [lesion])
    return Comparison(
        scores={name: scores[name] for name in SCORE_NAMES},
        pixels={name: int(np.count_nonzero(part)) for name, part in agreement(mask, lesion).items()},
        picture=draw_agreement(photo.preview, mask, lesion),
    )


@cache
def lesion_metric_class() -> type:
    import evaluate  # slow to import, and only two functions of the page need it

    return type(evaluate.load(str(METRIC)))


def score_masks(masks: list[np.ndarray], truths: list[np.ndarray]) -> dict[str, float]:
    """The project's `evaluate` module on masks in memory. One object a call: people compare at the same time."""
    metric = lesion_metric_class()(keep_in_memory=True)
    return metric.compute(predictions=masks, references=truths, num_resamples=1)


def agreement(mask: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Boolean maps: hit (lesion in both), missed (in the truth alone), false (in the mask alone)."""
    return {"hit": mask & truth, "missed": truth & ~mask, "false": mask & ~truth}


def draw_agreement(image: Image.Image, mask: np.ndarray, truth: np.ndarray) -> Image.Image:
    """The image, of any size, with the pixels of each kind of agreement in its colour."""
    pixels = np.array(image)
    parts = agreement(resize_mask(mask, image.size), resize_mask(truth, image.size))
    for name, part in parts.items():
        color = np.array(AGREEMENT_COLORS[name])
        pixels[part] = (pixels[part] * (1 - AGREEMENT_OPACITY) + color * AGREEMENT_OPACITY).astype(np.uint8)
    return Image.fromarray(pixels)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask for a picture of `size`, (width, height). Nearest: a picture of a mask, never a mask to score."""
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


# ------------------------------------------------------------------------------------------------------ Look inside


def draw_maps(photo: SegmentedPhoto) -> list[tuple[Image.Image, str]]:
    """(picture, caption) of F1..F4, F*1..F*4 and M_s 1..4. Levels are scaled to their own range, M_s is in 0..1."""
    width, height = photo.preview.size
    scale = THUMBNAIL_SIDE / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    pictures = []
    for name, values in photo.maps.items():
        low, high = (0, 1) if name.startswith("M_s") else (float(values.min()), float(values.max()))
        scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
        picture = Image.fromarray(scaled.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
        caption = f"{name}: {values.shape[1]} × {values.shape[0]}, {low:.2f} to {high:.2f}"
        pictures.append((color_map(np.asarray(picture)), caption))
    return pictures


def map_data(photo: SegmentedPhoto) -> dict[str, list[list[float]]]:
    """The maps of [`draw_maps`] as numbers, rows of columns."""
    return {name: np.round(values.astype(np.float64), 4).tolist() for name, values in photo.maps.items()}


# ------------------------------------------------------------------------------------------------------ Many images


@dataclass
class Batch:
    """A row a file (`COLUMNS` and `error`), the pictures of the good ones, and the zip of masks and table."""

    rows: list[dict]
    pictures: list[tuple[Image.Image, str]]
    archive: Path
    left_out: int  # files in zips that are no images


def segment_many(
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
    folder = Path(folder)
    try:
        # the same file chosen twice has one path
        uploads = list(dict.fromkeys(Path(upload) for upload in uploads or ()))
        files, refused, left_out = collect_files(uploads, folder / "unpacked")
        return segment_files(files, refused, left_out, model, processor, folder, threshold, largest_region, progress)
    finally:
        for name in ("unpacked", "masks"):
            shutil.rmtree(folder / name, ignore_errors=True)


def segment_files(
    files: list[Path],
    refused: dict[Path, str],
    left_out: int,
    model: EFPForSegmentation,
    processor: EFPImageProcessor,
    folder: Path,
    threshold: float | None,
    largest_region: bool | None,
    progress: Callable[[int, int], None],
) -> Batch:
    """The files that [`collect_files`] found → [`Batch`]; `refused` says of some of them already what is wrong."""
    output = folder / "masks"
    output.mkdir()
    accepted = []
    for path in files:
        try:
            if path not in refused:
                check_photo(path)
                accepted.append(path)
        except ValueError as error:
            refused[path] = str(error)

    rows, pictures = {path: error_row(path, error) for path, error in refused.items()}, []

    def watched(predictions: Iterator[Prediction]) -> Iterator[Prediction]:
        for done, prediction in enumerate(predictions, start=1):
            yield prediction
            # here the mask is being written, or `prediction.error` says why not
            if prediction.error is None:
                rows[prediction.path] = {**table_row(prediction), "error": ""}
                pictures.append(draw_thumbnail(prediction))
            else:
                error = prediction.error
                for path in files:
                    error = without_folder(error, path)
                rows[prediction.path] = error_row(prediction.path, error)
            progress(done, len(accepted))

    predictions = predict_files(
        accepted, model, processor, batch_size=BATCH_SIZE, threshold=threshold, largest_region=largest_region
    )
    write_predictions(watched(predictions), output)
    ordered = [rows[path] for path in files]
    write_table(ordered, output / "predictions.csv")
    archive = folder / "masks.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:  # PNG files do not get smaller
        for path in sorted(output.iterdir()):
            packed.write(path, path.name)
    return Batch(ordered, pictures, archive, left_out)


def error_row(path: Path, error: str) -> dict:
    return {**dict.fromkeys(COLUMNS, ""), "image": path.name, "error": error}


def write_table(rows: list[dict], path: Path) -> None:
    """The rows of a batch as CSV. A name that a spreadsheet would take for a formula gets an apostrophe before it."""
    write_rows([{name: harmless(value) for name, value in row.items()} for row in rows], path)


def harmless(value):
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def draw_thumbnail(prediction: Prediction) -> tuple[Image.Image, str]:
    """(picture with the lesion, caption) of a good file."""
    image = read_image(prediction.path, min_size=THUMBNAIL_SIDE)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    share = prediction.mask.mean()
    caption = f"{prediction.path.name}: lesion {share:.1%}" if share else f"{prediction.path.name}: no lesion found"
    return draw_lesion(image, resize_mask(prediction.mask, image.size)), caption


def collect_files(uploads: list[Path], folder: Path) -> tuple[list[Path], dict[Path, str], int]:
    """
    The image files of the uploads, zips unpacked into numbered folders in `folder`; what is wrong with those that a
    zip did not give; and how many other files the zips held. Names in a zip are cut to their last part, long ones
    shortened: nothing is written outside of `folder`.

    Raises:
        ValueError: as [`segment_many`].
    """
    if not uploads:
        raise ValueError("There is no file yet. Choose images, or a zip of images.")
    files, refused, left_out, num_bytes = [], {}, 0, 0
    for upload in uploads:
        if upload.suffix.lower() != ".zip":
            files.append(upload)
            check_batch(len(files), num_bytes)
            continue
        with open_zip(upload) as packed:
            members = [member for member in packed.infolist() if not member.is_dir()]
            images = [member for member in members if is_batch_image(member.filename)]
            left_out += len(members) - len(images)
            check_batch(len(files) + len(images), num_bytes + sum(member.file_size for member in images))
            for member in images:
                target = folder / f"{len(files):04d}" / short_name(member.filename)
                target.parent.mkdir(parents=True)
                files.append(target)
                try:
                    num_bytes += unpack(packed, member, target, MAX_BATCH_BYTES - num_bytes)
                except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
                    refused[target] = f"{target.name}: damaged, encrypted or packed in an unknown way ({error})."
    if not files:
        raise ValueError("There is no image in the zip. It must hold JPEG, PNG, TIFF, BMP or WebP files.")
    return files, refused, left_out


def open_zip(path: Path) -> zipfile.ZipFile:
    """
    The zip, its directory read.

    Raises:
        ValueError: no zip, a damaged one, or one with a directory that is larger than `MAX_DIRECTORY_BYTES`.
    """
    try:
        if directory_bytes(path) > MAX_DIRECTORY_BYTES:
            raise ValueError(f"{path.name}: the zip has too many entries. A batch has at most {MAX_FILES} images.")
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path.name}: the zip is damaged or of an unknown kind. Pack it again.") from error


def directory_bytes(path: Path) -> int:
    """
    Size of a zip's directory as its end record states it, read before the directory is: `zipfile` reads all of it into
    memory. A zip in the format for more than 4 GB counts as too large.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 66_000))  # the record, with the longest comment behind it
        tail = file.read()
    start = tail.rfind(b"PK\x05\x06")
    if start < 0 or len(tail) - start < 22:
        raise zipfile.BadZipFile("no end record")
    if b"PK\x06\x07" in tail[max(0, start - 20) : start]:
        return MAX_DIRECTORY_BYTES + 1
    return struct.unpack_from("<I", tail, start + 12)[0]


def short_name(name: str) -> str:
    """The last part of a name in a zip, its stem cut so that the names of a mask and its overlay fit a file system."""
    path = Path(name.replace("\\", "/"))
    stem = path.stem.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    return f"{stem}{path.suffix}"


def is_batch_image(name: str) -> bool:
    """By its name in the zip: an image, no mask, and none of the files that macOS adds."""
    path = Path(name.replace("\\", "/"))
    return is_image_file(path) and not is_mask_name(path) and "__MACOSX" not in path.parts


def check_batch(num_files: int, num_bytes: int) -> None:
    if num_files > MAX_FILES:
        raise ValueError(f"A batch must have at most {MAX_FILES} images, got {num_files}. Split it.")
    if num_bytes > MAX_BATCH_BYTES:
        raise ValueError(
            f"A batch must unpack to at most {MAX_BATCH_BYTES / 1e6:.0f} MB, got {num_bytes / 1e6:.0f} MB. Split it."
        )


def unpack(packed: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, max_bytes: int) -> int:
    """
    Unpacks one member, and counts its bytes as they come.

    Raises:
        NotImplementedError: packed by another method than the two of every photo zip: of the others `zipfile` unpacks a
            whole megabyte at once, whatever that becomes.
        ValueError: more than `max_bytes`.
    """
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError("not stored or deflated")
    num_bytes = 0
    with packed.open(member) as source, target.open("wb") as file:
        while chunk := source.read(1 << 20):
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                check_batch(0, MAX_BATCH_BYTES - max_bytes + num_bytes)
            file.write(chunk)
    return num_bytes


# ----------------------------------------------------------------------------------------------------- HTML and text


def picture_source(image: Image.Image) -> str:
    """The picture as a `data:` address: it is never a file on the server."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def figure_html(image: Image.Image, alternative: str, caption: str = "") -> str:
    caption = f"<figcaption>{caption}</figcaption>" if caption else ""
    return (
        f'<figure class="efp-figure"><img src="{picture_source(image)}" alt="{escape(alternative)}" '
        f'width="{image.width}" height="{image.height}">{caption}</figure>'
    )


def grid_html(pictures: list[tuple[Image.Image, str]], alternative: str) -> str:
    """Pictures side by side, each with its caption; `alternative` is what all of them show."""
    figures = (figure_html(image, f"{alternative}, {caption}", escape(caption)) for image, caption in pictures)
    return f'<div class="efp-grid">{"".join(figures)}</div>'


def view_html(view: View) -> str:
    """Before and after in one place, with a slider for the eye, the hand and the keyboard between them."""
    width, height = view.before.size
    size = f'width="{width}" height="{height}"'
    return (
        f'<p role="status">{escape(view.summary)}</p>'
        f'<div class="efp-compare" style="aspect-ratio: {width} / {height}; '
        f'max-width: min(100%, calc(640px * {width / height:.4f}))">'
        f'<img src="{picture_source(view.before)}" alt="The photo" {size}>'
        f'<img src="{picture_source(view.after)}" {size} class="efp-after" '
        f'alt="The photo with the lesion tinted and outlined. {escape(view.summary)}">'
        '<div class="efp-divider"></div></div>'
        '<label class="efp-cut">Photo <input type="range" min="0" max="100" value="100" '
        'aria-label="How much of the picture shows the lesion, from the left, in percent"> Lesion</label>'
    )


def probability_html(view: View, threshold: float) -> str:
    """The probability map with its colour bar, the threshold marked on it."""
    colors = ", ".join(f"rgb{tuple(color)}" for color in COLOR_MAP.tolist())
    bar = (
        f'<span class="efp-bar" style="background: linear-gradient(to right, {colors})">'
        f'<span class="efp-mark" style="left: {threshold:.0%}"></span></span>'
        '<span class="efp-scale"><span>0</span><span>0.25</span><span>0.5</span><span>0.75</span><span>1</span></span>'
        f"Probability of lesion. The white line, here and in the picture, is the threshold, {threshold:.2f}."
    )
    return figure_html(
        view.probabilities, f"Probability of lesion at every pixel, from dark (0) to bright (1). {view.summary}", bar
    )


def table_html(caption: str, header: Iterable[str], rows: Iterable[Iterable], numbers: Iterable[int] = ()) -> str:
    """A table; the columns `numbers` are set to the right. Cells are text, not HTML."""
    numbers = set(numbers)
    head = "".join(
        f'<th scope="col"{number_class(column in numbers)}>{escape(name)}</th>' for column, name in enumerate(header)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{number_class(column in numbers)}>{escape(str(cell))}</td>" for column, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    # the keyboard can scroll what it can focus
    return (
        f'<div class="efp-scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="efp-table">'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def number_class(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


def measures_html(measures: dict[str, float | None]) -> str:
    """The measures in pixels and, where there is a scale, in millimetres, each with what it is."""
    rows = []
    for name, meaning in MEASURES.items():
        value = measures[name]
        if name in MILLIMETRES:
            in_mm = measures.get(f"{name}_{MILLIMETRES[name]}")
            unit = MILLIMETRES[name].replace("mm2", "mm²")
            cells = ("" if value is None else f"{value:,.0f} px", "" if in_mm is None else f"{in_mm:.2f} {unit}")
        elif value is None:
            cells = ("", "")
        elif name == "area_share":
            cells = (f"{value:.2%}", "")
        else:
            cells = (f"{value:d} of 6" if name == "color_variety" else f"{value:.3f}", "")
        rows.append((name, *cells, meaning))
    caption = "Measures of the lesion" if measures["area"] else "No lesion found: there is nothing to measure"
    return table_html(caption, ("measure", "value", "with scale", "what it is"), rows, numbers=(1, 2))


def trust_evidence(results: Path, weights: str) -> str:
    """
    What the newest row of the test split in `results/trust.csv` says of the estimate of these `weights` (of
    [`~efp_hf.card.weights_digest`]), or that there is none.
    """
    rows = read_rows(results, missing_ok=True)
    rows = [row for row in rows if (row["split"], row["weights"]) == ("test", weights)]
    if not rows:
        return "How well this estimate predicts the real Jaccard was not measured for this checkpoint."
    row = rows[-1]
    words = [
        f"On the {row['images']} test images of {row['data']}, at threshold {row['threshold']}, the mean estimate was "
        f"{float(row['mean_expected']):.3f} and the mean Jaccard {float(row['mean_real']):.3f}."
    ]
    if row["rank_correlation"]:
        words.append(f"The rank correlation of the two was {float(row['rank_correlation']):.2f}.")
    if row["failure_auc"]:
        words.append(
            f"Of a failed mask (Jaccard below 0.65; {row['failures']} of them) and a good one, the failed one had the "
            f"lower estimate in {float(row['failure_auc']):.0%} of all pairs."
        )
    return " ".join(words)


def trust_html(trusted: dict, evidence: str) -> str:
    """The estimate, the notes, and how well the estimate was measured to work."""
    notes = "".join(f"<li>{escape(note)}</li>" for note in trusted["notes"])
    return (
        f'<p><span class="efp-estimate">{trusted["expected_jaccard"]:.2f}</span> expected Jaccard of this mask, '
        "computed from the probabilities alone: 1 is a perfect mask, below 0.65 the challenge counts it as failed.</p>"
        + (
            f"<p>What speaks against trusting it:</p><ul>{notes}</ul>"
            if notes
            else "<p>Nothing unusual was found in the image or its mask.</p>"
        )
        + f"<p>{escape(evidence)}</p>"
    )


def comparison_html(comparison: Comparison) -> str:
    """The scores, the picture and its legend."""
    scores = table_html(
        "Scores of this mask, as the ISIC 2018 challenge defines them",
        ("score", "value"),
        [(SCORE_NAMES[name], f"{value:.4f}") for name, value in comparison.scores.items()],
        numbers=(1,),
    )
    legend = "".join(
        f'<span><span class="efp-swatch" style="background: rgb{AGREEMENT_COLORS[name]}"></span>'
        f"{AGREEMENT_NAMES[name]}: {pixels:,} pixels</span>"
        for name, pixels in comparison.pixels.items()
    )
    alternative = "Agreement of the two masks. " + ", ".join(
        f"{AGREEMENT_NAMES[name]}: {pixels:,} pixels" for name, pixels in comparison.pixels.items()
    )
    return scores + figure_html(comparison.picture, alternative, f'<span class="efp-legend">{legend}</span>')


def batch_html(batch: Batch) -> str:
    """The table of a batch, bad files with what is wrong with them, and the lesions."""
    failed = sum(bool(row["error"]) for row in batch.rows)
    caption = f"{len(batch.rows) - failed} of {len(batch.rows)} files segmented"
    if batch.left_out:
        caption += f"; {batch.left_out} other files in the zip were left out (no images, or masks)"
    rows = [
        (row["image"], "", "", "", row["error"])
        if row["error"]
        else (
            row["image"],
            f"{row['width']} × {row['height']}",
            f"{row['lesion_share']:.1%}",
            f"{row['mean_confidence']:.2f}" if row["lesion_pixels"] else "",
            "" if row["lesion_pixels"] else "no lesion found",
        )
        for row in batch.rows
    ]
    table = table_html(
        caption, ("file", "width × height", "lesion", "mean probability inside", "note"), rows, numbers=(1, 2, 3)
    )
    return table + grid_html(batch.pictures, "The lesion in a photo")


# -------------------------------------------------------------------------------------------------------- Privacy


def delete_old_files(folder: Path, max_age: float) -> int:
    """Deletes the files below `folder` that are older than `max_age` seconds, and empty folders → how many files."""
    deleted, limit = 0, time.time() - max_age
    for path in sorted(Path(folder).rglob("*"), reverse=True):  # what lies in a folder comes before the folder
        try:
            if path.is_dir() and not path.is_symlink():
                if path.stat().st_mtime < limit:
                    path.rmdir()
            elif path.lstat().st_ctime < limit:
                path.unlink()
                deleted += 1
        except OSError:  # deleted meanwhile, or a folder that is not empty
            continue
    return deleted
