"""How well the expected Jaccard was measured to work, as a checkpoint's own card says."""

from pathlib import Path

from huggingface_hub import ModelCard
from transformers.utils.hub import cached_file

from ..inference.checkpoint import find_checkpoint
from ..metrics.scores import JACCARD_THRESHOLD

# Of the 259 validation images of `results/split_isic2018.csv`, with the shipped `efp-isic` and, in brackets, the nano:
# 2 of the 157 (1 of 158) masks from GOOD_FROM on failed (Jaccard below 0.65), 10 of the 14 (11 of 15) below LOOK_FROM,
# 12 of the 88 (12 of 86) between. All without clicks or a box.
GOOD_FROM = 0.85
LOOK_FROM = 0.65
NOT_MEASURED = "How well this estimate predicts the real Jaccard was not measured for this checkpoint."


def trust_word(expected_jaccard: float) -> str:
    """What a person should do with a mask of this expected Jaccard."""
    if expected_jaccard >= GOOD_FROM:
        return "good"
    return "look again" if expected_jaccard >= LOOK_FROM else "likely wrong"


def trust_evidence(checkpoint: str | Path) -> str:
    """What the results of the test split in the card of a checkpoint say of the estimate, or that they say nothing."""
    path = cached_file(
        find_checkpoint(checkpoint),
        "README.md",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return NOT_MEASURED
    results = ModelCard.load(path, ignore_metadata_errors=True).data.eval_results or []
    results = [result for result in results if result.dataset_split == "test"]
    measured = {result.metric_type: result.metric_value for result in results}
    if not {"images", "jaccard", "expected_jaccard_mean"} <= measured.keys():
        return NOT_MEASURED
    words = [
        f"On the {measured['images']:.0f} test images of {results[0].dataset_name}, the mean estimate was "
        f"{measured['expected_jaccard_mean']:.3f} and the mean Jaccard {measured['jaccard']:.3f}."
    ]
    if "expected_jaccard_rank_correlation" in measured:
        words.append(f"The rank correlation of the two was {measured['expected_jaccard_rank_correlation']:.2f}.")
    if {"failures", "failure_auc"} <= measured.keys():
        words.append(
            f"Of a failed mask (Jaccard below {JACCARD_THRESHOLD}; {measured['failures']:.0f} of them) and a good one, "
            f"the failed one had the lower estimate in {measured['failure_auc']:.0%} of all pairs."
        )
    return " ".join(words)
