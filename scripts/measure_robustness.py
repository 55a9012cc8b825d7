"""Score a checkpoint on the same images under other light, other cameras and worse files.

    python scripts/measure_robustness.py --data ISIC_FOLDER                # the shipped checkpoint on the test split
    python scripts/measure_robustness.py --data ISIC_FOLDER --split validation --checkpoint runs/mine

Each change of `efp_hf/robustness.py` has one fixed strength, for images of at most 256 pixels, to which larger ones are
reduced. Appends a row a change to `results/robustness.csv`: J, TJ, Dice, failures, and the mean expected Jaccard, which
should fall with J.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from efp_hf.commands.arguments import add_scoring_arguments
from efp_hf.data.lesions import get_split, load_lesions
from efp_hf.inference.checkpoint import load_checkpoint
from efp_hf.metrics import confusion_counts, summarize
from efp_hf.metrics.evaluation import segment_rows
from efp_hf.metrics.rows import append_row, checkpoint_columns, provenance, split_columns
from efp_hf.study.robustness import CHANGES, change_images

HERE = Path(__file__).resolve().parents[1]
DEFAULT_CHECKPOINT = HERE / "checkpoints" / "efp-isic"
SCORES = ("jaccard", "threshold_jaccard", "dice", "failure_rate")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_scoring_arguments(parser, DEFAULT_CHECKPOINT, "results/robustness.csv")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    row = provenance()
    try:
        dataset = get_split(load_lesions(arguments.data, seed=arguments.split_seed), arguments.split)
        model, processor = load_checkpoint(arguments.checkpoint)
        row |= split_columns(arguments.data, arguments.split, arguments.split_seed, len(dataset))
        row |= checkpoint_columns(arguments.checkpoint, model, processor)
        row["jaccard_temperature"] = processor.jaccard_temperature
        print(f"{row['checkpoint']}, {arguments.split} split: {len(dataset)} images")
        measured = []
        for name in CHANGES:
            counts, expected = [], []
            rows = segment_rows(change_images(dataset, name), model, processor)
            for _, result, truth in tqdm(rows, total=len(dataset), unit="image", desc=name, leave=False, disable=None):
                mask = result["segmentation"].numpy(force=True)
                counts.append(confusion_counts(mask, truth))
                expected.append(result["expected_jaccard"])
            scores = summarize(np.array(counts))
            print(f"{name:20} J {scores['jaccard']:.4f}  expected {np.mean(expected):.4f}", flush=True)
            measured.append(
                {
                    **row,
                    "change": name,
                    **{score: round(scores[score], 6) for score in SCORES},
                    "expected_jaccard": round(float(np.mean(expected)), 6),
                }
            )
        for of_change in measured:  # all of a run or none
            append_row(arguments.results, of_change)
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
