"""`efp score --task structures`: the official scores of ISIC 2018, Task 2."""

import argparse

import numpy as np
from tqdm import tqdm

from ..data.folders import load_isic
from ..data.split import SPLITS, get_split
from ..inference.checkpoint import load_checkpoint, weights_digest
from ..inference.task import class_names_of
from ..lesion.structures import LABELS, STRUCTURES
from ..metrics.rows import append_row, shorten, split_columns
from ..metrics.scores import jaccard
from ..metrics.structures import (
    presence_of,
    segment_structures,
    structure_counts,
    structure_masks_of_folder,
    summarize_structures,
)
from ..training.fingerprint import read_fingerprint
from .arguments import check_table, command_provenance, one_line_errors, say_found, write_errors
from .score import count_training_images

TABLE = "structure_scores.csv"


def score_structures(arguments: argparse.Namespace) -> int:
    """The official scores of Task 2 of a checkpoint's masks, or those of a folder → a row a structure and two more."""
    row = {
        **command_provenance(arguments),
        **split_columns(arguments.data, arguments.split, arguments.split_seed, 0),
        "training_images": "",
        "scored": shorten(arguments.checkpoint if arguments.masks is None else str(arguments.masks)),
        **dict.fromkeys(("weights", "image_size", "threshold"), ""),
    }
    table = arguments.output / TABLE
    nothing = np.ones((1, len(STRUCTURES), 4), np.int64)
    check_table(table, [*row, *summarize_structures(nothing, num_resamples=1)[0]])
    counts, presences, thresholds = [], [], {}
    with one_line_errors():
        get_split(dict.fromkeys(SPLITS), arguments.split)  # before the images are read
        if arguments.masks is None:
            model, processor = load_checkpoint(arguments.checkpoint, allow_overlap=True)
            if class_names_of(model.config) != LABELS:
                raise ValueError(
                    f"{arguments.checkpoint} must have the labels {', '.join(LABELS)}, got "
                    f"{', '.join(class_names_of(model.config))}. Train it with `efp train --task structures`."
                )
            fingerprint = read_fingerprint(arguments.checkpoint)
        data = load_isic(arguments.data, seed=arguments.split_seed, max_side=None, task="structures")
        say_found(data)
        dataset = get_split(data, arguments.split)
        row["images"] = len(dataset)
        if arguments.masks is None:
            row["weights"] = weights_digest(arguments.checkpoint)
            row["image_size"] = f"{processor.size['height']}x{processor.size['width']}"
            row["training_images"] = count_training_images(arguments, dataset, fingerprint)
            thresholds = dict(zip(LABELS, processor.threshold, strict=True))
            masks = segment_structures(dataset, model, processor, arguments.batch_size)
        else:
            masks = structure_masks_of_folder(dataset, arguments.masks)
        for _, found, truths in tqdm(masks, total=len(dataset), unit="image", disable=None):
            if arguments.masks is None:
                presences.append(presence_of(found["probabilities"].cpu().numpy()))
                found = found["segmentation"].cpu().numpy()
            counts.append(structure_counts(found, truths))
    num_structures = len(STRUCTURES)
    counts = np.array(counts)
    scores = summarize_structures(
        counts[:, -num_structures:], np.array(presences)[:, -num_structures:] if presences else None
    )
    try:
        print(f"{row['scored']}, {row['split']} split of {row['data']}: {row['images']} images")
        print(f"{'':22}{'J (official)':26}{'Dice':8}{'J an image':12}{'present: AUC':26}images")
        for of_one in scores:
            official, auc = (
                f"{of_one[name]:.4f}  [{of_one[f'{name}_low']:.4f}, {of_one[f'{name}_high']:.4f}]"
                for name in ("jaccard", "auc")
            )
            dice, per_image = (f"{of_one[name]:.4f}" for name in ("dice", "image_jaccard"))
            print(f"{of_one['structure']:22}{official:26}{dice:8}{per_image:12}{auc:26}{of_one['images_with_it']}")
        if presences:
            print(f"the lesion's own J: {jaccard(counts[:, 0]).mean():.4f}")
    finally:  # also where nobody reads what is printed
        with write_errors():
            for of_one in scores:
                numbers = {name: value if isinstance(value, str) else round(value, 6) for name, value in of_one.items()}
                append_row(table, row | {"threshold": thresholds.get(of_one["structure"], "")} | numbers)
    print(f"rows in {table}")
    return 0
