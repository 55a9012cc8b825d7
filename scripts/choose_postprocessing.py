"""Choose input size, temperatures, threshold and region filter of a checkpoint on the validation split.

    python scripts/choose_postprocessing.py runs/efp --data ISIC_FOLDER

At each size the temperature that calibrates the probabilities is fitted first. Of the best setting by mean J the
temperature is found whose expected Jaccards are the closest to the real ones. Writes it all into the checkpoint's
`config.json` (temperature) and `preprocessor_config.json` (the rest), every setting that was tried to
`results/postprocessing.csv`, and every temperature of the expected Jaccard to `results/jaccard_temperature.csv`. The
test split is not read.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from efp_hf.commands.arguments import add_data_arguments
from efp_hf.data.lesions import load_lesions
from efp_hf.inference.checkpoint import load_checkpoint
from efp_hf.metrics.calibration import (
    JACCARD_TEMPERATURES,
    fit_temperature,
    grid_jaccard_temperatures,
    pixel_probabilities,
)
from efp_hf.metrics.evaluation import THRESHOLDS, grid_jaccards, segment_rows
from efp_hf.metrics.rows import append_row, checkpoint_columns, provenance, shorten


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder of the checkpoint, which is changed")
    add_data_arguments(parser, split=None)
    parser.add_argument("--image-sizes", type=int, nargs="+", help="default: the checkpoint's own")
    parser.add_argument(
        "--results", type=Path, default="results/postprocessing.csv", help="the other file is beside it (%(default)s)"
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    row = provenance()
    if not Path(arguments.checkpoint).is_dir():
        sys.exit(f"{arguments.checkpoint}: no such folder. A checkpoint of the Hub has to be downloaded to be changed.")
    try:
        validation = load_lesions(arguments.data, seed=arguments.split_seed, max_side=None)["validation"]
        model, processor = load_checkpoint(arguments.checkpoint)
    except (OSError, ValueError) as error:
        sys.exit(str(error))

    tried = {}
    for image_size in tqdm(arguments.image_sizes or [processor.size["height"]], unit="size", disable=None):
        processor.size = {"height": image_size, "width": image_size}
        model.config.temperature = 1.0
        model.config.temperature = round(fit_temperature(pixel_probabilities(validation, model, processor)), 3)
        for (threshold, region), value in grid_jaccards(validation, model, processor, THRESHOLDS).items():
            tried[image_size, model.config.temperature, threshold, region] = value
            append_row(
                arguments.results,
                {
                    **row,
                    "checkpoint": shorten(arguments.checkpoint),
                    "validation_images": len(validation),
                    "image_size": image_size,
                    "temperature": model.config.temperature,
                    "threshold": threshold,
                    "largest_region": region,
                    "validation_jaccard": round(value, 5),
                },
            )
    best = max(tried, key=tried.get)
    image_size, model.config.temperature, threshold, region = best
    processor.size = {"height": image_size, "width": image_size}
    processor.threshold = threshold
    processor.largest_region = region
    row |= {"validation_images": len(validation), **checkpoint_columns(arguments.checkpoint, model, processor)}
    temperatures = grid_jaccard_temperatures(segment_rows(validation, model, processor))
    for temperature, errors in temperatures.items():
        append_row(
            arguments.results.with_name("jaccard_temperature.csv"),
            {
                **row,
                "jaccard_temperature": temperature,
                **{name: round(value, 6) for name, value in errors.items()},
            },
        )
    processor.jaccard_temperature = min(temperatures, key=lambda value: temperatures[value]["jaccard_error"])
    if processor.jaccard_temperature in (JACCARD_TEMPERATURES[0], JACCARD_TEMPERATURES[-1]):
        print("jaccard_temperature is at the end of what is tried: expected Jaccards may be far from the real ones.")
    processor.save_pretrained(arguments.checkpoint)
    model.config.save_pretrained(arguments.checkpoint)
    print(
        f"{image_size}×{image_size}, temperature {model.config.temperature}, threshold {threshold}, "
        f"largest_region {region}, jaccard_temperature {processor.jaccard_temperature}: validation J "
        f"{tried[best]:.4f}, in {arguments.checkpoint}"
    )


if __name__ == "__main__":
    main()
