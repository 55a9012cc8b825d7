"""Score a checkpoint, or a folder of masks, with the ISIC metrics at the masks' own size.

    python scripts/score.py --data ISIC_FOLDER                             # the shipped checkpoint on the test split
    python scripts/score.py --data ISIC_FOLDER --split validation --checkpoint runs/mine
    python scripts/score.py --data ISIC_FOLDER --masks masks               # files named <id>_segmentation.png

Prints every definition with its 95 % bootstrap interval over images and appends a row to `results/scores.csv`.
"""

import argparse
import sys
from pathlib import Path

import evaluate
from tqdm import tqdm

from efp_hf.commands.arguments import add_scoring_arguments
from efp_hf.data.lesions import get_split, load_lesions
from efp_hf.inference.checkpoint import load_checkpoint, weights_digest
from efp_hf.metrics.evaluation import boundary_scores, folder_masks, model_masks
from efp_hf.metrics.rows import append_row, provenance, shorten, split_columns

HERE = Path(__file__).resolve().parents[1]
METRIC = HERE / "efp_hf" / "metrics" / "lesion_segmentation"
DEFAULT_CHECKPOINT = HERE / "checkpoints" / "efp-isic"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_scoring_arguments(parser, DEFAULT_CHECKPOINT, "results/scores.csv")
    parser.add_argument("--masks", type=Path, help="score the masks of this folder instead of a checkpoint")
    parser.add_argument("--batch-size", type=int, default=8)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.batch_size < 1:
        sys.exit(f"`--batch-size` must be at least 1, got {arguments.batch_size}.")
    row = provenance()
    try:
        dataset = get_split(load_lesions(arguments.data, seed=arguments.split_seed, max_side=None), arguments.split)
        if arguments.masks is not None:
            scored, settings = (
                arguments.masks,
                dict.fromkeys(("weights", "image_size", "threshold", "largest_region"), ""),
            )
            masks = folder_masks(dataset, arguments.masks)
        else:
            scored = arguments.checkpoint
            model, processor = load_checkpoint(arguments.checkpoint)
            settings = {
                "weights": weights_digest(arguments.checkpoint),
                "image_size": f"{processor.size['height']}x{processor.size['width']}",
                "threshold": processor.threshold,
                "largest_region": processor.largest_region,
            }
            masks = model_masks(dataset, model, processor, arguments.batch_size)
        metric = evaluate.load(str(METRIC))
        boundary = {"hd95": [], "boundary_f1": []}
        for _, mask, truth in tqdm(masks, total=len(dataset), unit="image", disable=None):
            metric.add(prediction=mask, reference=truth)
            for name, value in boundary_scores(mask, truth).items():
                boundary[name].append(value)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(str(error))
    scores = metric.compute()
    scores.update({name: sum(values) / len(values) for name, values in boundary.items()})

    print(f"{shorten(str(scored))}, {arguments.split} split of {Path(arguments.data).name}: {len(dataset)} images")
    for name, value in scores.items():
        if not name.endswith(("_low", "_high")):
            interval = (
                f"  [{scores[f'{name}_low']:.4f}, {scores[f'{name}_high']:.4f}]" if f"{name}_low" in scores else ""
            )
            print(f"{name:24} {value:.4f}{interval}")
    append_row(
        arguments.results,
        {
            **row,
            **split_columns(arguments.data, arguments.split, arguments.split_seed, len(dataset)),
            "scored": shorten(str(scored)),
            **settings,
            **{name: round(value, 6) for name, value in scores.items()},
        },
    )


if __name__ == "__main__":
    main()
