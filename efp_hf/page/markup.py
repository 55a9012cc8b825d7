"""The page's HTML and texts: `templates/` filled in. Of HTML, all that is filled in is text: Jinja2 escapes it."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from PIL import Image

from ..inference.drawing import AGREEMENT_COLORS, COLOR_MAP
from ..lesion.structures import title_of
from ..metrics.scores import JACCARD_THRESHOLD
from .batch import Batch
from .evidence import trust_word
from .photo_results import Comparison, View

MEASURES = {  # the library's name → the name that a clinician reads, and what it is
    "area": ("area", "all of the lesion"),
    "area_share": ("share of the image", "that the lesion covers"),
    "feret_diameter_max": ("longest diameter", "between the two points of the outline that lie farthest apart"),
    "perimeter_crofton": ("length of the outline", "along the axes up to 5 % short"),
    "compactness": ("roundness", "4π · area / outline²; a disc has about 1, other outlines less (a square 0.88)"),
    "asymmetry_major": (
        "asymmetry, longer axis",
        "share left uncovered when folded about the longer principal axis; of the outline alone",
    ),
    "asymmetry_minor": ("asymmetry, shorter axis", "the same about the shorter principal axis"),
    "border_irregularity": (
        "border irregularity",
        "outline over that of the convex hull; 1 for convex outlines, others more; says nothing of pigment",
    ),
    "color_variety": (
        "number of colours",
        "C of the ABCD rule: white, red, light and dark brown, blue-grey, black",
    ),
    "structure_variety": (
        "number of structures",
        "D of the ABCD rule, at least: network, streaks, globules; dots and structureless areas are not found",
    ),
}
OUT_OF = {"color_variety": 6, "structure_variety": 5}  # as many as the ABCD rule knows
MILLIMETRES = {"area": "mm2", "feret_diameter_max": "mm", "perimeter_crofton": "mm"}
SCORE_NAMES = {
    "jaccard": "Jaccard (J)",
    "threshold_jaccard": f"threshold Jaccard (TJ): J, and 0 below {JACCARD_THRESHOLD}",
    "dice": "Dice",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
AGREEMENT_NAMES = {
    "hit": "hit (in both masks)",
    "missed": "missed (in the true mask alone)",
    "false": "false (in the found mask alone)",
}


def data_url(image: Image.Image) -> str:
    """The picture as a `data:` address: it is never a file on the server."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def rgb(color: Iterable[int]) -> str:
    """A colour as CSS has it."""
    return f"rgb({', '.join(str(int(channel)) for channel in color)})"


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters.update(data_url=data_url, rgb=rgb, title_of=title_of)


def render(template: str, **values) -> str:
    """A file of `templates/` with its placeholders filled."""
    return TEMPLATES.get_template(template).render(values)


def grid_html(pictures: list[tuple[Image.Image, str]], alternative: str) -> str:
    """Pictures side by side, each with its caption; `alternative` is what all of them show."""
    return TEMPLATES.get_template("macros.html").module.grid(pictures, alternative)


def status_html(view: View) -> str:
    """How far to trust the mask, and its size."""
    return render("status.html", view=view, word=word_of(view))


def view_html(view: View) -> str:
    """How far to trust the mask, then photo and lesion with the slider between them, and the numbers of structures."""
    html = render("view.html", view=view, word=word_of(view))
    return html + render("layers.html", layers=view.layers) if view.layers else html


def word_of(view: View) -> str | None:
    """Of several classes there is none: their expected Jaccard is not known."""
    return None if view.expected_jaccard is None else trust_word(view.expected_jaccard)


def probability_html(picture: Image.Image, threshold: float) -> str:
    """The probability map with its colour bar, the threshold marked on it."""
    return render("probability.html", picture=picture, threshold=threshold, colors=COLOR_MAP.tolist())


def measures_html(measures: dict[str, float | None]) -> str:
    """The measures, in millimetres first where there is a scale, each with what it is and the library's name."""
    rows = [
        (title, measure_text(name, measures), meaning, name)
        for name, (title, meaning) in MEASURES.items()
        if name in measures
    ]
    caption = "Measures of the lesion" if measures["area"] else "No lesion found: there is nothing to measure"
    return table_html(caption, ("measure", "value", "what it is", "name in the library"), rows, numbers=(1,))


def measure_text(name: str, measures: dict[str, float | None]) -> str:
    """One measure with its unit."""
    value = measures[name]
    if value is None:
        return ""
    if name in MILLIMETRES:
        unit = MILLIMETRES[name]
        in_mm = measures.get(f"{name}_{unit}")
        in_pixels = f"{value:,.0f} px"
        return in_pixels if in_mm is None else f"{in_mm:.2f} {unit.replace('2', '²')} ({in_pixels})"
    if name == "area_share":
        return f"{value:.2%}"
    return f"{value:d} of {OUT_OF[name]}" if name in OUT_OF else f"{value:.3f}"


def trust_html(trusted: dict, evidence: str) -> str:
    """The estimate, the notes, and how well the estimate was measured to work."""
    word = trust_word(trusted["expected_jaccard"])
    return render("trust.html", **trusted, word=word, evidence=evidence, failed_below=JACCARD_THRESHOLD)


def comparison_html(comparison: Comparison) -> str:
    """The scores, the picture and its legend."""
    scores = [(SCORE_NAMES[name], f"{value:.4f}") for name, value in comparison.scores.items()]
    parts = [
        {"color": AGREEMENT_COLORS[name], "words": f"{AGREEMENT_NAMES[name]}: {pixels:,} pixels"}
        for name, pixels in comparison.pixels.items()
    ]
    return render("comparison.html", scores=scores, picture=comparison.picture, parts=parts)


def batch_html(batch: Batch) -> str:
    """The table of a batch, bad files with what is wrong with them, and the lesions."""
    failed = sum(bool(row["error"]) for row in batch.rows)
    caption = f"{len(batch.rows) - failed} of {len(batch.rows)} files segmented"
    if batch.left_out:
        caption += f"; {batch.left_out} other files in the zip were left out (no images, or masks)"
    if batch.classes:
        header = ("file", "width × height", *batch.classes, "note")
        rows = [(row["image"], *class_cells(row, batch.classes)) for row in batch.rows]
        numbers = tuple(range(1, len(batch.classes) + 2))
        return table_html(caption, header, rows, numbers) + grid_html(batch.pictures, "What was found in a photo")
    header = ("file", "width × height", batch.name, "mean probability inside", "note")
    rows = [(row["image"], *batch_cells(row, batch.name)) for row in batch.rows]
    pictures = grid_html(batch.pictures, f"The {batch.name} in a photo")
    return table_html(caption, header, rows, numbers=(1, 2, 3)) + pictures


def class_cells(row: dict, classes: tuple[str, ...]) -> tuple[str, ...]:
    """A row of a batch of several classes as text, without the file's name."""
    if row["error"]:
        return ("", *[""] * len(classes), row["error"])
    shares = (f"{row[f'{name}_share']:.1%}" for name in classes)
    return (f"{row['width']} × {row['height']}", *shares, row["note"])


def batch_cells(row: dict, name: str) -> tuple[str, str, str, str]:
    """A row of a batch as text, without the file's name."""
    if row["error"]:
        return "", "", "", row["error"]
    size, share = f"{row['width']} × {row['height']}", f"{row[f'{name}_share']:.1%}"
    return (
        (size, share, f"{row['mean_confidence']:.2f}", "")
        if row[f"{name}_pixels"]
        else (size, share, "", f"no {name} found")
    )


def table_html(caption: str, header: Iterable[str], rows: Iterable[Iterable], numbers: Iterable[int] = ()) -> str:
    """A table; the columns `numbers` are set to the right."""
    return TEMPLATES.get_template("macros.html").module.table(caption, header, rows, numbers)
