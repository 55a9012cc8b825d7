"""Write a trained checkpoint into `efp_hf/checkpoints/`: weights, configuration, processor, fingerprint; then its card.

    python scripts/ship.py runs/efp-isic efp-isic --overwrite
    python scripts/ship.py runs/structures efp-isic-structures --overwrite --half added_

`efp calibrate`, `efp score` and `scripts/measure.py` come before `scripts/report.py`, which writes the card.
"""

import argparse
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers.utils import SAFE_WEIGHTS_NAME

from efp_hf.inference.checkpoint import SHIPPED, TRAINING_IMAGES, load_checkpoint, weights_digest
from efp_hf.metrics.rows import append_row, provenance, read_rows
from efp_hf.training.fingerprint import read_fingerprint, write_fingerprint

RESULTS = Path(__file__).parents[1] / "results"


def store_half(path: Path, prefix: str) -> None:
    """The weights of a safetensors file, those with the prefix in float16."""
    weights = {
        name: tensor.half() if name.startswith(prefix) and tensor.is_floating_point() else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(weights, path, metadata={"format": "pt"})


def row_of_half(source: Path, target: Path) -> dict:
    """That of the training of `source`, with what was made of its weights without learning anything."""
    weights = weights_digest(source)
    training = next(row for row in read_rows(source / "training.csv") if row["weights"] == weights)
    changed = {"epochs": 0, "precision": "float16", "minutes_this_session": 0}
    digests = {"checkpoint": f"{source.name} {weights}", "weights": weights_digest(target)}
    return training | provenance() | changed | digests


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
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    if fingerprint is None:
        sys.exit(f"{arguments.source} has no {TRAINING_IMAGES}. Make it: python -m efp_hf.training.fingerprint --help")
    model.save_pretrained(target)
    if arguments.half:
        store_half(target / SAFE_WEIGHTS_NAME, arguments.half)
        append_row(RESULTS / "label_training.csv", row_of_half(arguments.source, target))
    processor.save_pretrained(target)
    write_fingerprint(target, fingerprint)


if __name__ == "__main__":
    main()
