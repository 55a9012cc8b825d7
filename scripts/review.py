"""Play a review on images with true masks: clicks and seconds an image, and how J of the folder rises.

    python scripts/review.py --data ISIC_FOLDER --checkpoint efp-isic

Every image is clicked on, in the middle of the largest error, until its mask reaches `--target` or has 20 clicks;
`--anywhere` draws the clicks anywhere in the error, as people's are. `review.csv` gets a row a share of the images that
were reviewed: the worst first by their expected Jaccard, and in a random order, of which the mean over all orders is
given. The seconds are the computer's alone, for one image after the other.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from efp_hf.commands.arguments import add_checkpoint_argument, add_data_arguments
from efp_hf.data.lesions import load_lesions
from efp_hf.data.split import get_split
from efp_hf.inference.checkpoint import load_checkpoint
from efp_hf.metrics.rows import append_row, checkpoint_columns, provenance, split_columns
from efp_hf.review.replay import ORDERS, TARGET, replay, review_curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_arguments(parser)
    add_checkpoint_argument(parser)
    parser.add_argument("--target", type=float, default=TARGET, help="J at which a mask is accepted (%(default)s)")
    parser.add_argument("--anywhere", action="store_true", help="click anywhere in the error, not in its middle")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the rows (%(default)s)")
    arguments = parser.parse_args()
    if not 0 < arguments.target <= 1:
        sys.exit(f"`--target` must be above 0 and at most 1, got {arguments.target}.")
    of_run = provenance()  # of the code that measures: the commit may move on while it does
    try:
        model, processor = load_checkpoint(arguments.checkpoint, runtime="torch")
        if model.prompt_encoder is None:
            raise ValueError(f"{arguments.checkpoint} takes no clicks. Choose one trained with `efp train --prompts`.")
        dataset = get_split(load_lesions(arguments.data, seed=arguments.split_seed, max_side=None), arguments.split)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    rows = list(replay(dataset, model, processor, arguments.target, seed=0 if arguments.anywhere else None))
    clicks, seconds = (np.array([row[name] for row in rows]) for name in ("clicks", "seconds"))
    reached = float(np.mean([row["after"] >= arguments.target for row in rows]))
    print(f"{clicks.mean():.2f} clicks and {seconds.mean():.2f} s an image; {reached:.1%} reach J {arguments.target}")
    of_run |= {
        **split_columns(arguments.data, arguments.split, arguments.split_seed, len(rows)),
        **checkpoint_columns(arguments.checkpoint, model, processor),
        "target": arguments.target,
        "clicks_lie": "anywhere" if arguments.anywhere else "middle",
        "reached": round(reached, 4),
        "clicks_an_image": round(float(clicks.mean()), 3),
        "seconds_an_image": round(float(seconds.mean()), 4),
        "median_seconds": round(float(np.median(seconds)), 4),
    }
    for order in ORDERS:
        for point in review_curve(rows, order):
            print(f"{order:12} {point['share']:5.0%}  J {point['jaccard']:.4f}  failures {point['failure_rate']:.1%}")
            append_row(arguments.results / "review.csv", {**of_run, **point})


if __name__ == "__main__":
    main()
