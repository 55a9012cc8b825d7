"""The results of one photo: what its tabs show and what its files hold."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from transformers.image_processing_utils import BatchFeature

from ..data.files import read_image, read_mask, write_atomically
from ..image_processing_efp import EFPImageProcessor, check_sizes
from ..inference.correction import NOTHING_IN_BOX
from ..inference.drawing import (
    TINT,
    add_legend,
    agreement,
    class_colors,
    color_map,
    draw_agreement,
    draw_border,
    outline_labels,
    tint_classes,
    tint_lesion,
)
from ..inference.folder import Prediction, table_row, write_classes, write_mask
from ..inference.prediction_table import WRITER, mask_paths
from ..lesion.contour import coco_contour
from ..lesion.measures import measure_lesion
from ..lesion.notes import image_notes
from ..lesion.structures import LESION
from ..metrics.scores import confusion_counts, dice, jaccard, sensitivity, specificity, threshold_jaccard
from .photo import Layers, SegmentedPhoto, find_lesion, post_process
from .pictures import draw_marks, outline_at_once
from .uploads import MAX_UPLOAD_PIXELS, check_photo, naming

PIXELS_PER_MM = (0.01, 10_000)
SCORES = (jaccard, threshold_jaccard, dice, sensitivity, specificity)


@dataclass
class View:
    """
    What the Segment tab shows first: the photo, the lesion in it, a sentence, and how far to trust the mask. Of several
    classes the parts of a legend in place of the last; of a lesion and its structures a row of each label.
    """

    before: Image.Image
    after: Image.Image
    summary: str
    expected_jaccard: float | None = None
    name: str = LESION  # of the one class
    legend: tuple[dict, ...] = ()  # `color` and `words` of each class
    layers: tuple[dict, ...] = ()  # `color`, `name`, `share`, `probability` and `expected_jaccard` of each label


def draw_view(
    photo: SegmentedPhoto,
    processor: EFPImageProcessor,
    threshold: float | None = None,
    largest_region: bool | None = None,
) -> View:
    """The lesion at the page's size, from the kept logits: a person who clicks waits for it."""
    threshold = processor.threshold if threshold is None else threshold
    result = post_process(photo, processor, threshold, largest_region, photo.preview.size[::-1])
    mask = result["segmentation"].numpy()
    if photo.classes:
        return classes_view(photo, mask)
    layers, rows = None, ()
    if photo.layers is not None:
        layers = photo.layers.post_process(mask.shape, threshold)
        rows = layer_rows(layers, photo.layers.names)
    marks = photo.marks.scaled(photo.size, mask.shape)
    height, width = photo.size
    if mask.any():
        summary = f"The {photo.name} covers {mask.mean():.1%} of {photo.path.name} ({width} × {height} pixels)."
    else:
        summary = f"No {photo.name} found in {photo.path.name} ({width} × {height} pixels) above {threshold:.2f}."
        if photo.marks.box is not None:
            summary = f"No {photo.name} found in the box on {photo.path.name}. Draw another, or click."
    if layers is not None:
        after = draw_layers(photo.preview, layers, photo.layers)
    else:
        tint = TINT if photo.correction is None else 0  # it would hide what a person who corrects looks at
        after = draw_marks(outline_at_once(photo.preview, mask, tint), marks)
    return View(
        before=photo.preview,
        after=after,
        summary=f"{summary} The file is damaged: {photo.note}." if photo.note else summary,
        expected_jaccard=result["expected_jaccard"],
        name=photo.name,
        layers=rows,
    )


def layer_rows(layers: BatchFeature, names: tuple[str, ...]) -> tuple[dict, ...]:
    """A row a label, of [`Layers.post_process`]: what the page shows, without the pixels of `predictions.csv`."""
    parts = zip(names, layers["segmentation"], layers["probabilities"], layers["expected_jaccard"], strict=True)
    colors = class_colors(len(names))[1:].tolist()
    return tuple(
        {
            "name": name,
            "color": color,
            "share": float(mask.float().mean()),
            "probability": float(probabilities.max()),
            "expected_jaccard": expected,
        }
        for color, (name, mask, probabilities, expected) in zip(colors, parts, strict=True)
    )


def draw_layers(image: Image.Image, layers: BatchFeature, kept: Layers) -> Image.Image:
    """The image with the labels that are shown outlined in their colours."""
    is_shown = np.array([name in kept.shown for name in kept.names])
    return outline_labels(image, layers["segmentation"].numpy() & is_shown[:, None, None])


def classes_view(photo: SegmentedPhoto, labels: np.ndarray) -> View:
    """The view of a photo with the labels of several classes at the page's size."""
    shares = np.bincount(labels.ravel(), minlength=len(photo.classes) + 1)[1:] / labels.size
    height, width = photo.size
    found = [name for name, share in zip(photo.classes, shares, strict=True) if share]
    summary = f"{photo.path.name} ({width} × {height} pixels): {', '.join(found) or 'none of the classes'} found."
    colors = class_colors(len(photo.classes))[1:].tolist()
    return View(
        before=photo.preview,
        after=tint_classes(photo.preview, labels, len(photo.classes)),
        summary=f"{summary} The file is damaged: {photo.note}." if photo.note else summary,
        legend=tuple(
            {"color": color, "words": f"{name}: {share:.1%}"}
            for name, share, color in zip(photo.classes, shares, colors, strict=True)
        ),
    )


def draw_probabilities(photo, processor, threshold=None, largest_region=None) -> Image.Image:
    """The probabilities at the page's size, the lesion's border on them."""
    mask, probabilities = find_lesion(photo, processor, threshold, largest_region, photo.preview.size[::-1])
    return draw_border(color_map(probabilities), mask, (255, 255, 255))


def write_mask_file(photo, processor, folder: Path, threshold=None, largest_region=None) -> Path:
    """
    `<id>_segmentation.png` of the photo's own size, byte for byte what `efp predict` writes; with clicks or a box
    without its mark, by which a later run could replace a person's work.
    """
    path = Path(folder) / f"{photo.path.stem}_segmentation.png"
    mask, _ = find_lesion(photo, processor, threshold, largest_region)
    if photo.classes:
        write_classes(mask, path, len(photo.classes))
    else:
        write_mask(mask, path, writer=None if photo.marks else WRITER)
    return path


def write_overlay_file(photo, processor, folder: Path, threshold=None, largest_region=None) -> Path:
    """
    `<id>_overlay.png`: the photo at its own size with the lesion tinted and outlined; of classes, and of the labels
    that are shown, with a legend.
    """
    check_photo(photo.path)
    mask, _ = find_lesion(photo, processor, threshold, largest_region)
    path = Path(folder) / f"{photo.path.stem}_overlay.png"
    image = read_image(photo.path)
    if photo.layers is not None:
        layers = photo.layers.post_process(photo.size, threshold)
        overlay = add_legend(draw_layers(image, layers, photo.layers), photo.layers.names)
    elif photo.classes:
        overlay = add_legend(tint_classes(image, mask, len(photo.classes)), photo.classes)
    else:
        overlay = tint_lesion(image, mask)
    write_atomically(path, lambda partial: overlay.save(partial, "PNG", compress_level=1))
    return path


def write_layers_file(photo, processor, folder: Path, threshold=None, largest_region=None) -> Path:
    """`<id>_masks.zip`: the mask of each label of a photo with structures, byte for byte what `efp predict` writes."""
    path = Path(folder) / f"{photo.path.stem}_masks.zip"
    masks = photo.layers.post_process(photo.size, threshold)["segmentation"].numpy()
    with TemporaryDirectory(dir=folder) as masks_folder, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as packed:
        names = mask_paths(Path(masks_folder), photo.path.name, photo.layers.names)
        for mask_file, mask in zip(names, masks, strict=True):
            write_mask(mask, mask_file)
            packed.write(mask_file, mask_file.name)
    return path


def write_contour_file(photo, processor, folder: Path, threshold=None, largest_region=None) -> Path:
    """`<id>_contour.json`: the lesion as a COCO data set of one image."""
    mask, _ = find_lesion(photo, processor, threshold, largest_region)
    path = Path(folder) / f"{photo.path.stem}_contour.json"
    text = json.dumps(coco_contour(mask, photo.path.name, photo.name))
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    return path


def layers_data(photo, threshold: float | None = None) -> dict:
    """
    The row of `predictions.csv` of a photo with structures: pixels, share, highest probability and expected Jaccard of
    each label.
    """
    prediction = Prediction.of(photo.path, photo.layers.post_process(photo.size, threshold))
    prediction.note = photo.note
    row = table_row(prediction, photo.layers.names)
    return {name: None if value == "" else value for name, value in row.items()}


def lesion_data(photo, processor, threshold=None, largest_region=None) -> dict:
    """
    The lesion in numbers: the row of `predictions.csv`, the settings, and the contour as a COCO data set. Of several
    classes the row alone.
    """
    prediction = Prediction.of(photo.path, post_process(photo, processor, threshold, largest_region))
    prediction.note = photo.note
    if photo.classes:
        return {name: None if value == "" else value for name, value in table_row(prediction, photo.classes).items()}
    if photo.marks.box is not None and not prediction.mask.any():
        prediction.add_note(NOTHING_IN_BOX.format(photo.name))
    row = table_row(prediction, (photo.name,))
    if largest_region is None:
        largest_region = processor.largest_region
    return {
        **{name: None if value == "" else value for name, value in row.items()},
        "threshold": processor.threshold if threshold is None else threshold,
        "largest_region": largest_region and not photo.marks.points,
        **(photo.marks.data() if photo.marks else {}),
        "contour": coco_contour(prediction.mask, photo.path.name, photo.name),
    }


def measure_photo(photo, processor, threshold=None, largest_region=None, pixels_per_mm: float | None = None) -> dict:
    """[`measure_lesion`] of the lesion at the photo's own size; `pixels_per_mm` adds millimetres."""
    check_photo(photo.path)
    low, high = PIXELS_PER_MM
    if pixels_per_mm is not None and not low <= pixels_per_mm <= high:
        raise ValueError(
            f"`pixels per mm` must be between {low} and {high}, got {pixels_per_mm}. Leave it empty if it is unknown."
        )
    mask, _ = find_lesion(photo, processor, threshold, largest_region)
    structures = None
    if photo.layers is not None:
        masks = photo.layers.post_process(photo.size, threshold)["segmentation"].numpy()
        structures = dict(zip(photo.layers.names, masks, strict=True))
    return measure_lesion(mask, np.asarray(read_image(photo.path)), pixels_per_mm, structures)


def trust_photo(photo, processor, threshold=None, largest_region=None) -> dict:
    """`expected_jaccard` of this mask, and `notes` on what speaks against trusting it."""
    check_photo(photo.path)
    prediction = Prediction.of(photo.path, post_process(photo, processor, threshold, largest_region))
    notes = []
    if photo.name == LESION:  # they are about lesions and skin
        notes = image_notes(np.asarray(read_image(photo.path)), prediction.mask, prediction.probabilities)
    return {"expected_jaccard": prediction.expected_jaccard, "notes": notes}


@dataclass
class Comparison:
    """`scores` of a mask against the true one, `pixels` by kind of agreement, and the picture of it."""

    scores: dict[str, float]
    pixels: dict[str, int]
    picture: Image.Image


def compare_photo(photo, processor, truth: str | Path | None, threshold=None, largest_region=None) -> Comparison:
    """
    The lesion against the mask file `truth`, scored at their own size.

    Raises:
        ValueError: no file, no mask of 0 and 255, or one of another size than the photo.
    """
    if truth is None:
        raise ValueError("There is no true mask yet. Upload the mask that an expert drew on this photo.")
    path = check_photo(truth)
    with naming(path):
        lesion = read_mask(path, MAX_UPLOAD_PIXELS)
    check_sizes(photo.path.name, photo.size, lesion.shape)
    mask, _ = find_lesion(photo, processor, threshold, largest_region)
    counts = confusion_counts(mask, lesion)
    return Comparison(
        scores={score.__name__: float(score(counts)) for score in SCORES},
        pixels={name: int(np.count_nonzero(part)) for name, part in agreement(mask, lesion).items()},
        picture=draw_agreement(photo.preview, mask, lesion),
    )


def map_data(photo: SegmentedPhoto) -> dict[str, list[list[float]]]:
    """The maps of [`draw_maps`] as numbers, rows of columns."""
    return {name: np.round(values.astype(np.float64), 4).tolist() for name, values in photo.maps.items()}
