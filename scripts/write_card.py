"""Write the numbers of `results/` into README.md, model_card.md and the checkpoints' own cards.

python scripts/write_card.py
"""

from pathlib import Path

from efp_hf.study.card import fill, newest_score, score_table, trust_sentence
from efp_hf.study.report import ablation_table, checkpoints_table, comparison_table, costs, robustness_table
from efp_hf.study.speed import speed_block

HERE = Path(__file__).resolve().parents[1]
CHECKPOINT = HERE / "checkpoints" / "efp-isic"
CHECKPOINTS = tuple(sorted((HERE / "checkpoints").iterdir()))


def blocks() -> dict[str, str]:
    """Name → Markdown of what is the same in README.md and every card."""
    results = HERE / "results"
    return {
        "checkpoints": checkpoints_table(results, CHECKPOINTS),
        "pretrained": comparison_table(results, "pretrained"),
        "scratch": comparison_table(results, "scratch"),
        "ablation": ablation_table(results),
        "speed": speed_block(results),
    }


def blocks_of(checkpoint: Path) -> dict[str, str]:
    """Name → Markdown of what is said of one checkpoint."""
    results = HERE / "results"
    return {
        "costs": "{} parameters, {} multiply-adds".format(*costs(checkpoint)),
        "scores": score_table(newest_score(results / "scores.csv", checkpoint)),
        "trust": trust_sentence(newest_score(results / "trust.csv", checkpoint)),
        "robustness": robustness_table(results, checkpoint),
    }


def fill_present(text: str, written: dict[str, str]) -> str:
    return fill(text, {block: written[block] for block in written if f"<!-- {block} -->" in text})


def card_of(checkpoint: Path, card: str) -> str:
    """`model_card.md`, filled, with the name and the scores of a checkpoint."""
    named = card.replace(f'"checkpoints/{CHECKPOINT.name}"', f'"checkpoints/{checkpoint.name}"')
    return fill_present(named, blocks_of(checkpoint))


def main() -> None:
    written = blocks() | blocks_of(CHECKPOINT)
    for name in ("README.md", "model_card.md"):
        path = HERE / name
        path.write_text(fill_present(path.read_text(), written))
    card = (HERE / "model_card.md").read_text()
    for checkpoint in CHECKPOINTS:
        (checkpoint / "README.md").write_text(card_of(checkpoint, card))


if __name__ == "__main__":
    main()
