"""A checkpoint's model card, from the rows about it."""

import math
from pathlib import Path

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, Undefined
from PIL import Image, ImageDraw, ImageOps
from PIL.PngImagePlugin import PngInfo

from ..configuration_efp import EFPConfig
from ..data.channels import picture_of
from ..data.files import write_atomically
from ..image_processing_efp import EFPImageProcessor, value_of_each
from ..inference.checkpoint import FIGURE, weights_digest
from ..inference.drawing import add_legend, draw_agreement, resize_mask, tint_classes
from ..inference.task import class_names_of, has_structures, is_lesion, labels_overlap, num_first_labels
from .classes import MEAN, MEAN_OF_LABELS, MICRO
from .rows import read_rows
from .scores import JACCARD_THRESHOLD

SCORES, CLASS_SCORES, LABEL_SCORES = "scores.csv", "class_scores.csv", "label_scores.csv"  # of `efp score`
TEMPLATE = Path(__file__).with_name("card.md.jinja")
RANKING = "the challenge's ranking"  # of lesions
# scores of a card, in this order
LABELS = {
    "jaccard": "Jaccard (J)",
    "threshold_jaccard": f"threshold Jaccard (TJ, {RANKING})",
    "dice": "Dice",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "pixel accuracy",
    "pooled_iou": "lesion IoU, pooled over all pixels",
    "pooled_dice": "lesion Dice, pooled over all pixels",
    "pooled_mean_iou": "mean IoU of the two classes, pooled",
    "hd95": "HD95, share of the image's diagonal (lower is better)",
    "boundary_f1": "boundary F1",
    "failure_rate": "failures: share of images with J < 0.65 (lower is better)",
    "worst_decile_jaccard": "mean J of the worst tenth",
}
# what they mean, in a sentence
DEFINITIONS = {
    "jaccard": "pixels in both masks over pixels in one or the other; mean of the images",
    "threshold_jaccard": f"J, but zero where it is below {JACCARD_THRESHOLD}; mean of the images",
    "dice": "twice the pixels in both masks over the sum of their pixels; mean of the images",
    "sensitivity": "share of the lesion's pixels that were found; mean of the images",
    "specificity": "share of the skin's pixels that were left; mean of the images",
    "accuracy": "share of the pixels that are right; mean of the images",
    "pooled_iou": "J of the pixels of all images together, so that large lesions weigh more",
    "pooled_dice": "Dice of the pixels of all images together",
    "pooled_mean_iou": "mean of the pooled IoU of lesion and of skin; the skin is large and easy",
    "hd95": "distance to the other outline that 95 % of the points of an outline keep; mean of the images",
    "boundary_f1": "share of the outlines that lie close to each other; mean of the images",
    "failure_rate": f"a J below {JACCARD_THRESHOLD}, where the challenge takes a mask for wrong",
    "worst_decile_jaccard": "of the tenth of the images with the lowest J",
}
CLASS_LABELS = {"jaccard": "Jaccard (J)", "dice": "Dice", "pooled_iou": "IoU, pooled over all pixels"}
OVERLAP_LABELS = {  # of labels that overlap
    "jaccard": "Jaccard (J), over all images",
    "dice": "Dice, over all images",
    "image_jaccard": "J, mean of the images",
    "auc": "presence, area under the ROC curve",
}
TAGS = ["efp"]
LESION_TAGS = ["skin-lesion-segmentation", "dermoscopy", "medical"]
LESION = ("lesion",)  # what the classes of a checkpoint are called where nobody named them
SHOWN = 4  # of the best masks in the figure, and as many of the worst
TILE = 240  # pixels


class Extremes:
    """The masks of a split with the lowest and the highest J, in this order; those between are let go as they come."""

    def __init__(self):
        self.found: list[tuple[float, int, np.ndarray, np.ndarray]] = []  # J, row of the split, mask, truth

    def add(self, jaccard: float, row: int, mask: np.ndarray, truth: np.ndarray) -> None:
        self.found.append((jaccard, row, mask, truth))
        self.found.sort(key=lambda found: found[:2])
        if len(self.found) > 2 * SHOWN:
            del self.found[SHOWN]


def draw_extremes(extremes: Extremes, dataset, classes: tuple[str, ...]) -> Image.Image:
    """
    The worst masks over the best ones, on the images of the split: of one class the pixels that are found, missed and
    false; of several the drawn classes and, to their right, those that were found.
    """
    found, columns = extremes.found, -(-len(extremes.found) // 2)
    width, height = TILE * (1 if len(classes) < 2 else 2), TILE + 16  # with a line of text
    sheet = Image.new("RGB", (columns * width, 2 * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (jaccard, row, mask, truth) in enumerate(found):
        left, top = place % columns * width, place // columns * height
        image = dataset[row]["image"]
        image = picture_of(image) if isinstance(image, np.ndarray) else image.convert("RGB")
        image = ImageOps.contain(image, (TILE - 4, TILE - 4))
        pictures = [draw_agreement(image, mask, truth)] if len(classes) < 2 else []
        for labels in (truth, mask) if len(classes) > 1 else ():
            pictures.append(tint_classes(image, resize_mask(labels.astype(np.uint8), image.size), len(classes)))
        for number, picture in enumerate(pictures):
            sheet.paste(picture, (left + number * TILE + 2, top + 2))
        draw.text((left + 2, top + TILE), f"{dataset[row]['image_id'][-24:]}  J {jaccard:.2f}", fill="black")
    return add_legend(sheet, classes) if len(classes) > 1 else sheet


def save_figure(picture: Image.Image, checkpoint: Path, split: str) -> None:
    """The picture of [`draw_extremes`] beside the card, with the weights and the split that it is of."""
    facts = PngInfo()
    facts.add_text("weights", weights_digest(checkpoint))
    facts.add_text("split", split)
    write_atomically(checkpoint / FIGURE, lambda path: picture.save(path, "PNG", pnginfo=facts))


def figure_of(checkpoint: Path) -> tuple[str, str] | None:
    """Weights and split of the figure in a checkpoint's folder; `None` without one, or of a file of somebody else."""
    try:
        with Image.open(checkpoint / FIGURE, formats=("PNG",)) as picture:
            return picture.text["weights"], picture.text["split"]
    except (OSError, KeyError, SyntaxError, ValueError):
        return None


def scores_for(checkpoint: str | Path) -> str:
    """The name of the table that `efp score` writes for a checkpoint."""
    return table_of(EFPConfig.from_pretrained(checkpoint))[0]


def table_of(config: EFPConfig) -> tuple[str, dict[str, str], str | None, list[str]]:
    """
    The name of the table that `efp score` writes for a model, the scores of a card, and, where there are several rows,
    the column that names them and these names.
    """
    names = class_names_of(config)
    if is_lesion(config):
        return SCORES, LABELS, None, []
    if labels_overlap(config):
        return LABEL_SCORES, OVERLAP_LABELS, "label", [*names[num_first_labels(config) :], MICRO, MEAN_OF_LABELS]
    return CLASS_SCORES, CLASS_LABELS, "class", [*names, MEAN]


def newest_rows(scores: Path, checkpoint: str | Path, split: str = "test") -> list[dict[str, str]]:
    """
    The newest row of a `scores.csv` about these very weights on a split; of several classes or labels those of each and
    of all, of a `class_scores.csv` or `label_scores.csv`.

    Raises:
        ValueError: there is none, or the file holds no scores.
    """
    digest = weights_digest(checkpoint)
    if not digest:
        raise ValueError(
            f"{checkpoint} must have model.safetensors: the scores of a folder of masks or of an exported model are no "
            "checkpoint's. Pass the checkpoint that was exported."
        )
    table, labels, of_one, expected = table_of(EFPConfig.from_pretrained(checkpoint))
    columns = ("data", "split", "weights", *labels, *((of_one,) if of_one else ()))
    try:
        rows = read_rows(scores)
    except ValueError:
        rows = [{}]
    if any(row.get(column) is None for row in rows for column in columns):
        raise ValueError(f"{scores} must hold the scores that `efp score` writes, got other columns. Pass its {table}.")
    rows = [row for row in rows if row["weights"] == digest and row["split"] == split]
    if not rows:
        raise ValueError(
            f"{scores}: no row of the {split} split for {checkpoint} ({digest}). "
            f"Make one: efp score --checkpoint {checkpoint} --split {split} --data …"
        )
    if of_one:
        rows = rows[-len(expected) :]
        found = [row[of_one] for row in rows]
        if found != expected:
            raise ValueError(
                f"{scores}: the rows must be of {', '.join(expected)}, got {', '.join(found)}. Score anew."
            )
        return rows
    for name in LABELS:
        if not is_number(rows[-1][name]):
            raise ValueError(
                f"{scores}: `{name}` must be a number, got {rows[-1][name][:40]!r}. Mend or remove the row."
            )
    return rows[-1:]


def is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def scores_of(
    row: dict[str, str], name_of_class: str = LESION[0]
) -> list[tuple[str, str, str, str | None, str | None]]:
    """Metric, its name in the card, value, and the ends of its interval, of all that a row has."""
    of_class = row.get("class") or row.get("label")
    labels = CLASS_LABELS if row.get("class") else OVERLAP_LABELS if of_class else LABELS
    if name_of_class != LESION[0] and not of_class:
        labels = {name: label.replace(RANKING, f"a J below {JACCARD_THRESHOLD} is 0") for name, label in labels.items()}
    return [
        (
            name,
            f"{of_class}: {label}" if of_class else label.replace(LESION[0], name_of_class),
            row[name],
            row.get(f"{name}_low"),
            row.get(f"{name}_high"),
        )
        for name, label in labels.items()
        if is_number(row[name])  # a class that is in no image has no scores
    ]


def render(template: Path, metadata: ModelCardData, undefined: type[Undefined] = Undefined, **values) -> str:
    """
    A card of a template, which may include those of this folder. A value that is not given is "", or an error where
    `undefined` is jinja's `StrictUndefined`.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, TEMPLATE.parent]),
        undefined=undefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(card_data=metadata.to_yaml(), **values)


def length_of(training: dict[str, str]) -> str:
    """How long a row of `training.csv` trained: epochs, also a part of one, or the steps of a stream."""
    if not is_number(training["epochs"]):
        return training["epochs"]
    epochs = float(training["epochs"])
    return f"{epochs:.2g} epochs" if epochs < 1 else f"{round(epochs, 2)} epochs"


def write_card(checkpoint: Path, rows: list[dict[str, str]], license: str = "apache-2.0") -> None:
    """The README.md of a checkpoint's folder, [`card_text`]."""
    ModelCard(card_text(checkpoint, rows, license, checkpoint / "training.csv")).save(checkpoint / "README.md")


def card_text(checkpoint: Path, rows: list[dict[str, str]], license: str, training: Path) -> str:
    """
    The card of a checkpoint: metadata, how to use it, the scores of [`newest_rows`], its row of the table `training`
    where that is there, and the figure of these weights and this split where there is one.
    """
    row = rows[-1]
    config = EFPConfig.from_pretrained(checkpoint)
    classes = class_names_of(config)
    scores = [score for row in rows for score in scores_of(row, classes[0])]
    data = ModelCardData(
        license=license,
        library_name="transformers",
        pipeline_tag="image-segmentation",
        tags=[*(LESION_TAGS if classes == LESION or has_structures(config) else ()), *TAGS],
        metrics=["jaccard", "dice"],
        model_name=checkpoint.name,
        eval_results=[
            EvalResult(
                task_type="image-segmentation",
                dataset_type=row["data"],
                dataset_name=row["data"],
                dataset_split=row["split"],
                metric_type=name,
                metric_name=label,
                metric_value=float(value),
            )
            for name, label, value, _, _ in scores
        ],
    )
    processor = EFPImageProcessor.from_pretrained(checkpoint)
    runs = read_rows(training, missing_ok=True)
    run = next((run for run in runs if run.get("weights") == row["weights"]), None)
    return render(
        TEMPLATE,
        data,
        name=checkpoint.name,
        config=config,
        classes=() if classes == LESION else classes,
        overlap=config.labels_overlap,
        num_first=num_first_labels(config),
        processor=processor,
        figure=FIGURE if figure_of(checkpoint) == (row["weights"], row["split"]) else None,
        row=row,
        thresholds=value_of_each("threshold", processor.threshold, config.num_labels),
        scores=[score[1:] for score in scores],
        training=run,
        trained=run and length_of(run),
    )
