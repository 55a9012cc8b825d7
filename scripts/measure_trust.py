"""Measure how well the expected Jaccard of a mask predicts the real one.

    python scripts/measure_trust.py --data ISIC_FOLDER                     # the shipped checkpoint on the test split
    python scripts/measure_trust.py --data ISIC_FOLDER --split validation --checkpoint runs/mine

Prints the rank correlation of the two, the area under the ROC curve for finding the failures, and both means, and
appends a row to `results/trust.csv`.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from efp_hf.card import weights_digest
from efp_hf.isic import SPLITS, get_split, load_lesions
from efp_hf.prediction import load_checkpoint
from efp_hf.results import append_row, provenance, shorten
from efp_hf.trust import expected_and_real_jaccards, summarize_trust

HERE = Path(__file__).resolve().parents[1]
DEFAULT_CHECKPOINT = HERE / "checkpoints" / "efp-isic"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="ISIC or own folder, or the Hub id of a dataset")
    parser.add_argument("--split", default="test", help=f"{', '.join(SPLITS)} (default: %(default)s)")
    parser.add_argument("--split-seed", type=int, default=0, help="of the 70/10/20 split, where the data has none")
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT, help="folder or Hub id (default: the shipped one)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--results", type=Path, default=Path("results/trust.csv"), help="gets a row (%(default)s)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    row = provenance()
    try:
        dataset = get_split(load_lesions(arguments.data, seed=arguments.split_seed, max_side=None), arguments.split)
        model, processor = load_checkpoint(arguments.checkpoint)
        jaccards = expected_and_real_jaccards(dataset, model, processor, arguments.batch_size)
        jaccards = list(tqdm(jaccards, total=len(dataset), unit="image", disable=None))
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    _, expected, real = zip(*jaccards, strict=True)
    trust = {name: "" if value is None else round(value, 6) for name, value in summarize_trust(expected, real).items()}

    checkpoint = shorten(str(arguments.checkpoint))
    print(f"{checkpoint}, {arguments.split} split of {Path(arguments.data).name}: {len(dataset)} images")
    for name, value in trust.items():
        print(f"{name:24} {value}")
    append_row(
        arguments.results,
        {
            **row,
            "data": Path(arguments.data).name,
            "split": arguments.split,
            "split_seed": arguments.split_seed,
            "images": len(dataset),
            "checkpoint": checkpoint,
            "weights": weights_digest(arguments.checkpoint),
            "image_size": f"{processor.size['height']}x{processor.size['width']}",
            "threshold": processor.threshold,
            "largest_region": processor.largest_region,
            **trust,
        },
    )


if __name__ == "__main__":
    main()
