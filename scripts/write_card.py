"""Write the numbers of `results/` into README.md, model_card.md and the checkpoint's own card.

python scripts/write_card.py
"""

from pathlib import Path

from efp_hf.card import fill, newest_score, score_table, trust_sentence

HERE = Path(__file__).resolve().parents[1]
CHECKPOINT = HERE / "checkpoints" / "efp-isic"


def main() -> None:
    table = score_table(newest_score(HERE / "results" / "scores.csv", CHECKPOINT))
    trust = trust_sentence(newest_score(HERE / "results" / "trust.csv", CHECKPOINT))
    for name in ("README.md", "model_card.md"):
        path = HERE / name
        path.write_text(fill(path.read_text(), {"scores": table, "trust": trust}))
    (CHECKPOINT / "README.md").write_text((HERE / "model_card.md").read_text())


if __name__ == "__main__":
    main()
