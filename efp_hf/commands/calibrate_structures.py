"""`efp calibrate --task structures`: each structure's threshold, and the temperature of its expected Jaccard."""

import argparse

import numpy as np
from tqdm import tqdm

from ..data.folders import load_isic
from ..image_processing_efp import expected_jaccard
from ..inference.checkpoint import load_checkpoint
from ..inference.task import class_names_of
from ..lesion.structures import LABELS, STRUCTURES
from ..metrics.calibration import JACCARD_TEMPERATURES
from ..metrics.rows import append_row, checkpoint_columns
from ..metrics.scores import jaccard
from ..metrics.structures import THRESHOLDS, best_thresholds, segment_structures, structure_counts
from ..training.fingerprint import chosen_on, read_fingerprint, write_fingerprint
from .arguments import check_table, command_provenance, one_line_errors, own_checkpoint, say_found, write_errors

TABLE = "structure_thresholds.csv"
COLUMNS = ("structure", "threshold", "jaccard", "jaccard_temperature", "jaccard_error", "mean_expected", "mean_real")


def calibrate_structures(arguments: argparse.Namespace) -> int:
    """Chosen on the validation split, at the masks' own size, and written into the checkpoint; a row a structure."""
    folder = own_checkpoint(arguments.checkpoint)
    row = command_provenance(arguments)
    table = arguments.output / TABLE
    with one_line_errors():
        model, processor = load_checkpoint(folder, runtime="torch", allow_overlap=True)
        if class_names_of(model.config) != LABELS:
            raise ValueError(
                f"{arguments.checkpoint} must have the labels {', '.join(LABELS)}, got "
                f"{', '.join(class_names_of(model.config))}. Train it with `efp train --task structures`."
            )
        columns = checkpoint_columns(arguments.checkpoint, model, processor)
        row |= {name: columns[name] for name in ("checkpoint", "weights", "image_size")}
        check_table(table, [*row, "images", *COLUMNS])
        fingerprint = read_fingerprint(folder)
        data = load_isic(arguments.data, seed=arguments.split_seed, max_side=None, task="structures")
        say_found(data)
        validation = data["validation"]
        progress = tqdm(total=2 * len(validation), unit="image", disable=None)
        counts = []
        for _, result, truths in segment_structures(validation, model, processor):
            probabilities = result["probabilities"].cpu().numpy()[1:]
            counts.append([structure_counts(probabilities > threshold, truths[1:]) for threshold in THRESHOLDS])
            progress.update()
        thresholds, jaccards = best_thresholds(np.array(counts))
        processor.threshold = [processor.threshold[0], *thresholds]
        expected, real = [], []
        for _, result, truths in segment_structures(validation, model, processor):
            masks, probabilities = result["segmentation"][1:], result["probabilities"][1:]
            real.append(jaccard(structure_counts(masks.cpu().numpy(), truths[1:])))
            pairs = list(zip(probabilities, masks, strict=True))
            expected.append([[expected_jaccard(*pair, value) for value in JACCARD_TEMPERATURES] for pair in pairs])
            progress.update()
        progress.close()
    expected, real = np.array(expected), np.array(real)  # (num_images, num_structures, …)
    errors = np.sqrt(np.mean((expected - real[..., None]) ** 2, axis=0))
    best = errors.argmin(1)
    temperatures = [JACCARD_TEMPERATURES[number] for number in best]
    processor.jaccard_temperature = [processor.jaccard_temperature[0], *temperatures]
    with write_errors():
        for number, name in enumerate(STRUCTURES):
            chosen = (thresholds[number], jaccards[number], temperatures[number], errors[number, best[number]])
            chosen += (expected[:, number, best[number]].mean(), real[:, number].mean())
            values = dict(zip(COLUMNS, (name, *(round(float(value), 5) for value in chosen)), strict=True))
            append_row(table, row | {"images": len(validation)} | values)
            print(
                f"{name:18} threshold {values['threshold']}: validation J {values['jaccard']:.4f}; temperature of the "
                f"expected J {values['jaccard_temperature']}, error {values['jaccard_error']:.3f}"
            )
        if fingerprint is not None:
            write_fingerprint(folder, chosen_on(fingerprint, validation))
        processor.save_pretrained(folder)
    print(f"rows in {table}; written into {arguments.checkpoint}")
    return 0
