"""The texts that hold numbers of `results/`: README.md, model_card.md, docs/ and the cards of the checkpoints."""

from pathlib import Path

from huggingface_hub import EvalResult, ModelCard

from ..inference.checkpoint import DEFAULT_CHECKPOINT, SHIPPED, SHIPPED_CHECKPOINTS
from ..metrics.card import LABELS
from .attention_table import attention_table
from .checkpoint_tables import checkpoint_blocks, checkpoints_table, short_checkpoints_table
from .comparison_tables import ablation_table, comparison_table, short_comparison_table, wide_table
from .frontier_table import frontier_table
from .prompt_tables import prompts_block
from .review_table import review_block
from .speed_tables import short_speed_block, speed_block
from .tables import last_row_about
from .trials_table import trials_table

# file of rows → type of a metric in a card's metadata → its column, and its name
METRIC_TYPES = {
    "scores.csv": {name: (name, LABELS[name]) for name in ("jaccard", "threshold_jaccard", "dice")},
    "trust.csv": {
        "expected_jaccard_mean": ("mean_expected", "mean expected Jaccard"),
        "expected_jaccard_rank_correlation": ("rank_correlation", "rank correlation of expected and real Jaccard"),
        "failure_auc": ("failure_auc", "area under the ROC curve of the expected Jaccard for failures"),
        "failures": ("failures", "failures, images with J < 0.65"),
        "images": ("images", "images"),
    },
}


def blocks(results: Path) -> dict[str, str]:
    """Name → Markdown of all that is printed; what is said of one checkpoint is of the default one."""
    checkpoints = tuple(SHIPPED / name for name in SHIPPED_CHECKPOINTS)
    return {
        "results": short_comparison_table(results),
        "pretrained": comparison_table(results, "pretrained"),
        "scratch": comparison_table(results, "scratch"),
        "wide": wide_table(results),
        "ablation": ablation_table(results),
        "small": ablation_table(results, "small"),
        "attention": attention_table(results, checkpoints),
        "checkpoints": checkpoints_table(results, checkpoints),
        "checkpoints-short": short_checkpoints_table(results, checkpoints),
        "prompts": prompts_block(results, checkpoints),
        "review": review_block(results, SHIPPED / DEFAULT_CHECKPOINT),
        "frontier": frontier_table(results),
        "speed": speed_block(results),
        "speed-short": short_speed_block(results),
        "trials": trials_table(results),
        **checkpoint_blocks(results, SHIPPED / DEFAULT_CHECKPOINT),
    }


def fill(text: str, blocks: dict[str, str]) -> str:
    """
    `text` with what stands between `<!-- name -->` and `<!-- /name -->` replaced, of each block that it has.

    Raises:
        ValueError: a block that does not end.
    """
    for name, block in blocks.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if start not in text:
            continue
        before, _, rest = text.partition(start)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"The text must have the line {end} below the line {start.strip()}.")
        text = f"{before}{start}{block}\n{end}{after}"
    return text


def eval_results(results: Path, checkpoint: Path) -> list[EvalResult]:
    """The newest scores and trust of the test split of ISIC 2018, as a card's metadata holds them."""
    rows = {file: last_row_about(results / file, checkpoint) for file in METRIC_TYPES}
    return [
        EvalResult(
            task_type="image-segmentation",
            dataset_type="isic2018",
            dataset_name="ISIC 2018 Task 1",
            dataset_split="test",
            metric_type=metric,
            metric_name=name,
            metric_value=rows[file][column].item(),
        )
        for file, types in METRIC_TYPES.items()
        for metric, (column, name) in types.items()
    ]


def card_of(results: Path, checkpoint: Path, template: str) -> str:
    """
    The card of a shipped checkpoint: `template`, which speaks of the default one, with the name and the numbers of this
    one, also as `model-index` of its metadata.
    """
    named = template.replace(f'("{DEFAULT_CHECKPOINT}")', f'("{checkpoint.name}")')
    named = named.replace(f'/{DEFAULT_CHECKPOINT}"', f'/{checkpoint.name}"')
    card = ModelCard(fill(named, checkpoint_blocks(results, checkpoint)))
    card.data.model_name, card.data.eval_results = checkpoint.name, eval_results(results, checkpoint)
    return str(card)


def filled_texts(root: Path, results: Path) -> dict[Path, str]:
    """Path → what it should say, of the texts of a clone and the cards of the shipped checkpoints."""
    written = blocks(results)
    pages = [root / "README.md", root / "model_card.md", *sorted((root / "docs").glob("*.md"))]
    texts = {page: fill(page.read_text(encoding="utf-8"), written) for page in pages}
    for name in SHIPPED_CHECKPOINTS:
        checkpoint = SHIPPED / name
        texts[checkpoint / "README.md"] = card_of(results, checkpoint, texts[root / "model_card.md"])
    return texts
