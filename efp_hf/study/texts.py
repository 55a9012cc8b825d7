"""The texts that hold numbers of `results/`: README.md, docs/, model_card.md and the cards of the checkpoints."""

from pathlib import Path

from ..inference.checkpoint import (
    DEFAULT_CHECKPOINT,
    LESION_CHECKPOINTS,
    SHIPPED,
    SHIPPED_CHECKPOINTS,
    STRUCTURE_CHECKPOINT,
)
from .attention_table import attention_table
from .checkpoint_tables import checkpoint_blocks, checkpoints_table, short_checkpoints_table
from .comparison_tables import ablation_table, comparison_table, short_comparison_table, wide_table
from .first_hour_table import first_hour_table
from .frontier_table import frontier_table
from .model_card import render_card
from .prompt_tables import prompts_block
from .review_table import review_block
from .speed_tables import short_speed_block, speed_block
from .structure_table import expected_sentence, structures_block
from .trials_table import trials_table


def blocks(results: Path) -> dict[str, str]:
    """Name → Markdown of all that is printed; what is said of one checkpoint is of the default one."""
    checkpoints = tuple(SHIPPED / name for name in LESION_CHECKPOINTS)
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
        "first-hour": first_hour_table(results),
        "speed": speed_block(results),
        "speed-short": short_speed_block(results),
        "structures": structures_block(results, SHIPPED / STRUCTURE_CHECKPOINT),
        "expected-of-structures": expected_sentence(results, SHIPPED / STRUCTURE_CHECKPOINT),
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


def filled_texts(root: Path, results: Path) -> dict[Path, str]:
    """
    Path → what it should say, of the texts of a clone and the cards of the shipped checkpoints; `model_card.md` is that
    of the default one.
    """
    written = blocks(results)
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    texts = {page: fill(page.read_text(encoding="utf-8"), written) for page in pages}
    for name in SHIPPED_CHECKPOINTS:
        texts[SHIPPED / name / "README.md"] = render_card(results, SHIPPED / name)
    return {**texts, root / "model_card.md": texts[SHIPPED / DEFAULT_CHECKPOINT / "README.md"]}
