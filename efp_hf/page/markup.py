"""The HTML of the page: pictures with their words, tables, and what is said of a mask."""

import base64
import io
from collections.abc import Iterable
from html import escape
from pathlib import Path

from PIL import Image

from ..inference.drawing import AGREEMENT_COLORS, COLOR_MAP
from ..metrics.rows import read_rows
from .batch import Batch
from .tabs import SCORE_NAMES, Comparison, View

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
    [`~efp_hf.study.card.weights_digest`]), or that there is none.
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
