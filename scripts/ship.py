"""Write a trained checkpoint into `efp_hf/checkpoints/`: weights, configuration, processor, fingerprint; then its card.

    python scripts/ship.py runs/efp-isic efp-isic --overwrite
    python scripts/ship.py runs/structures efp-isic-structures --overwrite --half added_

`efp calibrate`, `efp score` and `scripts/measure.py` come before `scripts/report.py`, which writes the card.
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.utils import SAFE_WEIGHTS_NAME

from efp_hf.inference.checkpoint import SHIPPED, TRAINING_IMAGES, load_checkpoint, weights_digest
from efp_hf.metrics.rows import append_row, provenance, read_rows
from efp_hf.training.fingerprint import read_fingerprint, write_fingerprint

RESULTS = Path(__file__).parents[1] / "results"


def halved(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """
    Raises:
        ValueError: a prefix that no weight has.
    """
    if not any(name.startswith(prefix) for name in weights):
        raise ValueError(f"`--half` must be the beginning of some weights' names, got {prefix!r}.")
    return {
        name: tensor.half() if name.startswith(prefix) and tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
    }


def training_row(source: Path) -> dict[str, str]:
    """
    That of the weights of `source`.

    Raises:
        ValueError: there is none.
    """
    weights = weights_digest(source)
    rows = [row for row in read_rows(source / "training.csv") if row["weights"] == weights]
    if not rows:
        raise ValueError(f"{source / 'training.csv'} must have a row of the weights {weights}. Train with `efp train`.")
    return rows[-1]


def row_of_half(training: dict[str, str], source: Path, target: Path) -> dict:
    """That of the weights in half precision, which learnt nothing: their scores stand in their own rows."""
    scores = {name: "" for name in training if name.startswith("validation_")}
    changed = {"epochs": 0, "precision": "float16", "minutes_this_session": 0}
    digests = {"checkpoint": f"{source.name} {training['weights']}", "weights": weights_digest(target)}
    return training | provenance() | scores | changed | digests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of a trained checkpoint")
    parser.add_argument("name", help="that it gets among the shipped ones")
    parser.add_argument("--overwrite", action="store_true", help="replace the checkpoint of this name")
    parser.add_argument(
        "--half",
        metavar="PREFIX",
        help="store the weights whose names begin so in half precision; they load as float32, and a row of "
        "results/label_training.csv says what they were made from",
    )
    arguments = parser.parse_args()
    target = SHIPPED / arguments.name
    if target.exists() and not arguments.overwrite:
        sys.exit(f"{target} exists. Choose another name, or pass --overwrite.")
    try:
        model, processor = load_checkpoint(arguments.source, runtime="torch", allow_overlap=True)
        fingerprint = read_fingerprint(arguments.source)
        training = training_row(arguments.source) if arguments.half else None
        weights = halved(model.state_dict(), arguments.half) if arguments.half else None
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    if fingerprint is None:
        sys.exit(f"{arguments.source} has no {TRAINING_IMAGES}. Make it: python -m efp_hf.training.fingerprint --help")
    model.save_pretrained(target)
    if arguments.half:
        save_file(weights, target / SAFE_WEIGHTS_NAME, metadata={"format": "pt"})
        append_row(RESULTS / "label_training.csv", row_of_half(training, arguments.source, target))
    processor.save_pretrained(target)
    write_fingerprint(target, fingerprint)


if __name__ == "__main__":
    main()
