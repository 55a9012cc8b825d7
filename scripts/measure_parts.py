"""Measure what a trained EFP makes of cross-scale weights, attention and each level.

    python scripts/measure_parts.py --data ISIC_FOLDER                     # the shipped checkpoint on validation
    python scripts/measure_parts.py --data ISIC_FOLDER --checkpoint runs/compare/pretrained-efp-seed0/model

Each part is replaced by something that knows no place, without training again: M_s and F_out of a level by their means,
the weights of the pairs by 1/3. What J loses is the most that the trained network makes of the part; it was not trained
to do without. Appends a row a replacement to `results/parts.csv`, with mean and standard deviation of M_s of each level
as the network makes it.
"""

import argparse
import sys
from pathlib import Path

from efp_hf.arguments import add_scoring_arguments
from efp_hf.card import checkpoint_columns
from efp_hf.configuration_efp import NUM_LEVELS
from efp_hf.isic import get_split, load_lesions
from efp_hf.parts import attention_statistics, measure_parts
from efp_hf.prediction import load_checkpoint
from efp_hf.results import append_row, provenance, split_columns

HERE = Path(__file__).resolve().parents[1]
DEFAULT_CHECKPOINT = HERE / "checkpoints" / "efp-isic"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_scoring_arguments(parser, DEFAULT_CHECKPOINT, "results/parts.csv", split="validation")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    row = provenance()
    try:
        dataset = get_split(load_lesions(arguments.data, seed=arguments.split_seed), arguments.split)
        model, processor = load_checkpoint(arguments.checkpoint, runtime="torch")
        row |= split_columns(arguments.data, arguments.split, arguments.split_seed, len(dataset))
        row |= checkpoint_columns(arguments.checkpoint, model, processor)
        statistics = attention_statistics(dataset, model, processor) or [("", "")] * NUM_LEVELS
        for number, (mean, deviation) in enumerate(statistics, start=1):
            row |= {f"attention_{number}": mean, f"attention_deviation_{number}": deviation}
            print(f"M_s of level {number}: {mean} ± {deviation}", flush=True)
        measured = measure_parts(dataset, model, processor)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    for name, value in measured.items():
        print(f"{name:28} J {value:.4f}")
        append_row(arguments.results, {**row, "replaced": name, "jaccard": round(value, 6)})


if __name__ == "__main__":
    main()
