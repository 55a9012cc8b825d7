"""A checkpoint's model card, from the rows about it."""

import math
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..configuration_efp import EFPConfig
from ..image_processing_efp import EFPImageProcessor
from ..inference.checkpoint import weights_digest
from .rows import read_rows

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
TAGS = ["skin-lesion-segmentation", "dermoscopy", "medical", "efp"]


def newest_row(scores: Path, checkpoint: str | Path, split: str = "test") -> dict[str, str]:
    """
    The newest row of a `scores.csv` about these very weights on a split.

    Raises:
        ValueError: there is none, or the file holds no scores.
    """
    digest = weights_digest(checkpoint)
    if not digest:
        raise ValueError(
            f"{checkpoint} must have model.safetensors: the scores of a folder of masks or of an exported model are no "
            "checkpoint's. Pass the checkpoint that was exported."
        )
    try:
        rows = read_rows(scores)
    except ValueError:
        rows = [{}]
    if any(row.get(column) is None for row in rows for column in ("data", "split", "weights", *LABELS)):
        raise ValueError(
            f"{scores} must hold the scores that `efp score` writes, got other columns. Pass its scores.csv."
        )
    rows = [row for row in rows if row["weights"] == digest and row["split"] == split]
    if not rows:
        raise ValueError(
            f"{scores}: no row of the {split} split for {checkpoint} ({digest}). "
            f"Make one: efp score --checkpoint {checkpoint} --split {split} --data …"
        )
    for name in LABELS:
        if not is_number(rows[-1][name]):
            raise ValueError(
                f"{scores}: `{name}` must be a number, got {rows[-1][name][:40]!r}. Mend or remove the row."
            )
    return rows[-1]


def is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def write_card(checkpoint: Path, row: dict[str, str], license: str) -> None:
    """The README.md of a checkpoint's folder: metadata, how to use it, and the scores of a row."""
    data = ModelCardData(
        license=license,
        library_name="transformers",
        pipeline_tag="image-segmentation",
        tags=TAGS,
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
                metric_value=float(row[name]),
            )
            for name, label in LABELS.items()
        ],
    )
    training = checkpoint / "training.csv"
    scores = [(label, row[name], row.get(f"{name}_low"), row.get(f"{name}_high")) for name, label in LABELS.items()]
    card = ModelCard.from_template(
        data,
        template_path=TEMPLATE,
        name=checkpoint.name,
        config=EFPConfig.from_pretrained(checkpoint),
        processor=EFPImageProcessor.from_pretrained(checkpoint),
        row=row,
        scores=scores,
        training=next((run for run in read_rows(training) if run.get("weights") == row["weights"]), None)
        if training.is_file()
        else None,
    )
    card.save(checkpoint / "README.md")
