"""A checkpoint's model card, from the rows about it."""

import math
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..configuration_efp import EFPConfig
from ..image_processing_efp import EFPImageProcessor, value_of_each
from ..inference.checkpoint import weights_digest
from ..inference.task import class_names_of, is_lesion, labels_overlap, num_first_labels
from .classes import MEAN, MEAN_OF_LABELS, MICRO
from .rows import read_rows

SCORES, CLASS_SCORES, LABEL_SCORES = "scores.csv", "class_scores.csv", "label_scores.csv"  # of `efp score`
TEMPLATE = Path(__file__).with_name("card.md.jinja")
# scores of a card, in this order
LABELS = {
    "jaccard": "Jaccard (J)",
    "threshold_jaccard": "threshold Jaccard (TJ, the challenge's ranking)",
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
CLASS_LABELS = {"jaccard": "Jaccard (J)", "dice": "Dice", "pooled_iou": "IoU, pooled over all pixels"}
OVERLAP_LABELS = {  # of labels that overlap
    "jaccard": "Jaccard (J), over all images",
    "dice": "Dice, over all images",
    "image_jaccard": "J, mean of the images",
    "auc": "presence, area under the ROC curve",
}
TAGS = ["medical", "efp"]
LESION_TAGS = ["skin-lesion-segmentation", "dermoscopy"]
LESION = ("lesion",)  # what the classes of a checkpoint are called where nobody named them


def scores_for(checkpoint: str | Path) -> str:
    """The name of the table that `efp score` writes for a checkpoint."""
    return kind_of(EFPConfig.from_pretrained(checkpoint))[0]


def kind_of(config: EFPConfig) -> tuple[str, dict[str, str], str | None, list[str]]:
    """
    The table of a checkpoint's scores, those that its card shows, and, where there are several rows, the column that
    says what each is of, and what they are of.
    """
    names = [*class_names_of(config)]
    if labels_overlap(config):
        return LABEL_SCORES, OVERLAP_LABELS, "label", [*names[num_first_labels(config) :], MICRO, MEAN_OF_LABELS]
    return (SCORES, LABELS, None, []) if is_lesion(config) else (CLASS_SCORES, CLASS_LABELS, "class", [*names, MEAN])


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
    config = EFPConfig.from_pretrained(checkpoint)
    table, labels, column, expected = kind_of(config)
    columns = ("data", "split", "weights", *labels, *([column] if column else []))
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
    if column:
        rows = rows[-len(expected) :]
        found = [row[column] for row in rows]
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


def scores_of(row: dict[str, str]) -> list[tuple[str, str, str, str | None, str | None]]:
    """Metric, its name in the card, value, and the ends of its interval, of all that a row has."""
    of_class = row.get("class") or row.get("label")
    labels = CLASS_LABELS if row.get("class") else OVERLAP_LABELS if row.get("label") else LABELS
    return [
        (
            name,
            f"{of_class}: {label}" if of_class else label,
            row[name],
            row.get(f"{name}_low"),
            row.get(f"{name}_high"),
        )
        for name, label in labels.items()
        if is_number(row[name])  # a class that is in no image has no scores
    ]


def write_card(checkpoint: Path, rows: list[dict[str, str]], license: str | None = None) -> None:
    """The README.md of a checkpoint's folder: metadata, how to use it, and the scores of [`newest_rows`]."""
    row = rows[-1]
    config = EFPConfig.from_pretrained(checkpoint)
    classes = class_names_of(config)
    scores = [score for row in rows for score in scores_of(row)]
    data = ModelCardData(
        license=license,
        library_name="transformers",
        pipeline_tag="image-segmentation",
        tags=[*(LESION_TAGS if classes == LESION else ()), *TAGS],
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
    training = checkpoint / "training.csv"
    processor = EFPImageProcessor.from_pretrained(checkpoint)
    card = ModelCard.from_template(
        data,
        template_path=TEMPLATE,
        name=checkpoint.name,
        config=config,
        classes=() if classes == LESION else classes,
        processor=processor,
        row=row,
        thresholds=value_of_each("threshold", processor.threshold, config.num_labels),
        scores=[score[1:] for score in scores],
        training=next((run for run in read_rows(training) if run.get("weights") == row["weights"]), None)
        if training.is_file()
        else None,
    )
    card.save(checkpoint / "README.md")
