"""Measure how far a checkpoint's probabilities can be believed.

    python scripts/measure_trust.py --data ISIC_FOLDER                     # the shipped checkpoint on the test split
    python scripts/measure_trust.py --data ISIC_FOLDER --split validation --checkpoint runs/mine

How well the expected Jaccard of a mask predicts the real one (rank correlation, area under the ROC curve for finding
the failures, both means), and the expected calibration error over all pixels and near the true borders. Appends a row
to `results/trust.csv` and the bins of the reliability diagram to `results/reliability.csv`.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from efp_hf.commands.arguments import add_scoring_arguments
from efp_hf.data.lesions import get_split, load_lesions
from efp_hf.inference.checkpoint import load_checkpoint
from efp_hf.metrics import confusion_counts, jaccard
from efp_hf.metrics.calibration import border_band, calibration_error, count_bins
from efp_hf.metrics.evaluation import segment_rows
from efp_hf.metrics.rows import append_row, checkpoint_columns, provenance, split_columns
from efp_hf.metrics.trust import summarize_trust

HERE = Path(__file__).resolve().parents[1]
DEFAULT_CHECKPOINT = HERE / "checkpoints" / "efp-isic"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_scoring_arguments(parser, DEFAULT_CHECKPOINT, "results/trust.csv")
    parser.add_argument("--batch-size", type=int, default=8)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.batch_size < 1:
        sys.exit(f"`--batch-size` must be at least 1, got {arguments.batch_size}.")
    row = provenance()
    try:
        dataset = get_split(load_lesions(arguments.data, seed=arguments.split_seed, max_side=None), arguments.split)
        model, processor = load_checkpoint(arguments.checkpoint)
        expected, real, bins = [], [], {"all": 0, "border": 0}
        rows = segment_rows(dataset, model, processor, arguments.batch_size)
        for _, result, truth in tqdm(rows, total=len(dataset), unit="image", disable=None):
            mask, probabilities = result["segmentation"].numpy(force=True), result["probabilities"].numpy(force=True)
            expected.append(result["expected_jaccard"])
            real.append(float(jaccard(confusion_counts(mask, truth))))
            band = border_band(truth)
            bins["all"] = bins["all"] + count_bins(probabilities, truth)
            bins["border"] = bins["border"] + count_bins(probabilities[band], truth[band])
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    trust = {
        **summarize_trust(expected, real),
        "calibration_error": calibration_error(bins["all"]),
        "border_calibration_error": calibration_error(bins["border"]),
    }
    trust = {name: "" if value is None else round(value, 6) for name, value in trust.items()}

    columns = checkpoint_columns(arguments.checkpoint, model, processor)
    print(f"{columns['checkpoint']}, {arguments.split} split of {Path(arguments.data).name}: {len(dataset)} images")
    for name, value in trust.items():
        print(f"{name:24} {value}")
    append_row(
        arguments.results,
        {
            **row,
            **split_columns(arguments.data, arguments.split, arguments.split_seed, len(dataset)),
            **columns,
            "jaccard_temperature": processor.jaccard_temperature,
            **trust,
        },
    )
    for region, counts in bins.items():
        for number, (num_pixels, probability, lesion) in enumerate(counts):
            append_row(
                arguments.results.with_name("reliability.csv"),
                {
                    **row,
                    "split": arguments.split,
                    "weights": columns["weights"],
                    "temperature": model.config.temperature,
                    "pixels_of": region,
                    "bin": number,
                    "pixels": int(num_pixels),
                    "mean_probability": round(probability / num_pixels, 6) if num_pixels else "",
                    "lesion_share": round(lesion / num_pixels, 6) if num_pixels else "",
                },
            )


if __name__ == "__main__":
    main()
