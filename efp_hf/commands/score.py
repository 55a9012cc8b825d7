"""Score a checkpoint, or a folder of masks, with the ISIC metrics at the masks' own size.

  efp score --data ISIC_FOLDER                         the shipped checkpoint on the test split
  efp score --data ISIC_FOLDER --split validation --checkpoint runs/mine
  efp score --data ISIC_FOLDER --masks masks           files named <id>_segmentation.png

Prints every score with its 95 % bootstrap interval over images, and adds a row to scores.csv in
--output.
"""

import argparse
from pathlib import Path

from ..extras import require
from ..inference.checkpoint import load_checkpoint, weights_digest
from .arguments import (
    add_batch_size_argument,
    add_checkpoint_argument,
    add_data_arguments,
    add_output_argument,
    check_batch_size,
    check_output,
    command_provenance,
    one_line_errors,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    scored = parser.add_mutually_exclusive_group()
    add_checkpoint_argument(scored)
    scored.add_argument("--masks", metavar="DIR", type=Path, help="score the masks of this folder instead")
    add_batch_size_argument(parser)
    add_output_argument(parser, "scores", "scores.csv")


def run(arguments: argparse.Namespace) -> int:
    check_batch_size(arguments.batch_size)
    check_output(arguments.output)
    with one_line_errors():
        require("train", "this command")
    import evaluate
    from tqdm import tqdm

    from ..data.lesions import get_split, load_lesions
    from ..data.split import SPLITS
    from ..metrics.evaluation import boundary_scores, folder_masks, model_masks
    from ..metrics.rows import append_row, shorten, split_columns

    row = command_provenance(arguments)
    with one_line_errors():
        get_split(dict.fromkeys(SPLITS), arguments.split)  # before the images are read
        if arguments.masks is None:
            model, processor = load_checkpoint(arguments.checkpoint)
        dataset = get_split(load_lesions(arguments.data, seed=arguments.split_seed, max_side=None), arguments.split)
        if arguments.masks is not None:
            scored = str(arguments.masks)
            settings = dict.fromkeys(("weights", "image_size", "threshold", "largest_region"), "")
            masks = folder_masks(dataset, arguments.masks)
        else:
            scored = arguments.checkpoint
            settings = {
                "weights": weights_digest(arguments.checkpoint),
                "image_size": f"{processor.size['height']}x{processor.size['width']}",
                "threshold": processor.threshold,
                "largest_region": processor.largest_region,
            }
            masks = model_masks(dataset, model, processor, arguments.batch_size)
        metric = evaluate.load(str(Path(__file__).parents[1] / "metrics" / "lesion_segmentation"))
        boundary = {"hd95": [], "boundary_f1": []}
        for _, mask, truth in tqdm(masks, total=len(dataset), unit="image", disable=None):
            metric.add(prediction=mask, reference=truth)
            for name, value in boundary_scores(mask, truth).items():
                boundary[name].append(value)
    scores = metric.compute()
    scores.update({name: sum(values) / len(values) for name, values in boundary.items()})

    print(f"{shorten(scored)}, {arguments.split} split of {Path(arguments.data).name}: {len(dataset)} images")
    for name, value in scores.items():
        if not name.endswith(("_low", "_high")):
            low, high = scores.get(f"{name}_low"), scores.get(f"{name}_high")
            print(f"{name:24} {value:.4f}" + ("" if low is None else f"  [{low:.4f}, {high:.4f}]"))
    with one_line_errors():
        append_row(
            arguments.output / "scores.csv",
            {
                **row,
                **split_columns(arguments.data, arguments.split, arguments.split_seed, len(dataset)),
                "scored": shorten(scored),
                **settings,
                **{name: round(value, 6) for name, value in scores.items()},
            },
        )
    return 0
