"""Write the numbers of `results/` into README.md, model_card.md and the checkpoint's own card.

python scripts/write_card.py
"""

from pathlib import Path

from efp_hf.card import fill, newest_score, score_table, trust_sentence
from efp_hf.report import ablation_table, comparison_table
from efp_hf.speed import speed_block

HERE = Path(__file__).resolve().parents[1]
CHECKPOINT = HERE / "checkpoints" / "efp-isic"


def blocks() -> dict[str, str]:
    """Name → Markdown of everything that is written into the cards."""
    results = HERE / "results"
    return {
        "scores": score_table(newest_score(results / "scores.csv", CHECKPOINT)),
        "trust": trust_sentence(newest_score(results / "trust.csv", CHECKPOINT)),
        "pretrained": comparison_table(results, "pretrained"),
        "scratch": comparison_table(results, "scratch"),
        "ablation": ablation_table(results),
        "speed": speed_block(results),
    }


def main() -> None:
    written = blocks()
    for name in ("README.md", "model_card.md"):
        path = HERE / name
        text = path.read_text()
        path.write_text(fill(text, {block: written[block] for block in written if f"<!-- {block} -->" in text}))
    (CHECKPOINT / "README.md").write_text((HERE / "model_card.md").read_text())


if __name__ == "__main__":
    main()
