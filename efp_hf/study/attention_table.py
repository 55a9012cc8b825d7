"""Whether the attention maps find the lesion, with and without supervision."""

from pathlib import Path

from ..configuration_efp import NUM_LEVELS
from ..inference.checkpoint import weights_digest
from .comparison import SUPERVISED, Run
from .tables import find_rows, read_results, to_table

COMPARED = {"EFP, the paper's loss": "", "EFP, supervised attention": SUPERVISED}  # of the track "small"


def attention_table(results: Path, checkpoints: tuple[Path, ...]) -> str:
    """
    A line a shipped checkpoint and each of `COMPARED`, their means over the seeds, on validation: the area under the
    ROC curve of each M_s for the lesion, J, and J with each M_s and with the weights of the pairs made even.
    """
    measured = find_rows(read_results(results / "attention.csv", missing_ok=True), split="validation")
    if measured.empty:
        return "Nothing is measured yet: `python scripts/measure.py attention`."
    found = {f"`{path.name}`": find_rows(measured, weights=weights_digest(path)).tail(1) for path in checkpoints}
    for title, variant in COMPARED.items():
        rows = measured[measured["run"].str.startswith(Run("small", "efp", 0, variant).name.removesuffix("0"))]
        found[title] = rows.drop_duplicates("run", keep="last")
    lines = []
    for title, rows in found.items():
        if rows.empty:
            continue
        mean = rows.mean(numeric_only=True)
        jaccards = mean[["jaccard", "jaccard_of_mean_attention", "jaccard_of_equal_pairs"]]
        areas = [f"{mean[f'area_{level}']:.2f}" for level in range(1, NUM_LEVELS + 1)]
        lines.append([title, str(len(rows)), *areas, *(f"{value:.3f}" for value in jaccards)])
    levels = " | ".join(f"level {level}" for level in range(1, NUM_LEVELS + 1))
    return to_table(f"model | runs | {levels} | J | J, M_s made even | J, pairs made even", lines)
