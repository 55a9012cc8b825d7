"""Compare exported models with their checkpoint on real images.

    python scripts/check_runtimes.py exports/efp-isic-onnx exports/efp-isic-openvino --data ISIC_FOLDER

Appends a row for each to `results/runtimes.csv`: J between the masks, the largest difference of logits, J with the
truth.
"""

import argparse
import sys
from pathlib import Path

from efp_hf.commands.arguments import add_data_arguments
from efp_hf.data.lesions import get_split, load_lesions
from efp_hf.inference.checkpoint import load_checkpoint, weights_digest
from efp_hf.inference.runtimes import runtime_of
from efp_hf.metrics.evaluation import compare_runtimes
from efp_hf.metrics.rows import append_row, provenance, shorten, split_columns

DEFAULT_CHECKPOINT = Path(__file__).resolve().parents[1] / "checkpoints" / "efp-isic"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exported", nargs="+", type=Path, help="folders of scripts/export.py")
    add_data_arguments(parser, split="validation")
    parser.add_argument("--images", type=int, default=200, help="the first of the split (default: %(default)s)")
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT, help="what was exported (default: the shipped one)")
    parser.add_argument("--bf16", action="store_true", help="folders of OpenVINO, computed in bfloat16")
    parser.add_argument("--results", type=Path, default=Path("results/runtimes.csv"), help="gets a row (%(default)s)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    row = provenance()
    try:
        dataset = get_split(load_lesions(arguments.data, seed=arguments.split_seed, max_side=None), arguments.split)
        dataset = dataset.select(range(min(arguments.images, len(dataset))))
        reference = load_checkpoint(arguments.checkpoint)
        for folder in arguments.exported:
            agreement = compare_runtimes(dataset, reference, load_checkpoint(folder, bf16=arguments.bf16))
            size = reference[1].size
            append_row(
                arguments.results,
                {
                    **row,
                    **split_columns(arguments.data, arguments.split, arguments.split_seed, len(dataset)),
                    "checkpoint": shorten(str(arguments.checkpoint)),
                    "weights": weights_digest(arguments.checkpoint),
                    "image_size": f"{size['height']}x{size['width']}",
                    "exported": folder.name,
                    "runtime": runtime_of(folder) + " bf16" * arguments.bf16,
                    "megabytes": round(sum(file.stat().st_size for file in folder.iterdir()) / 1e6, 2),
                    **{name: float(f"{value:.6g}") for name, value in agreement.items()},
                },
            )
            print(f"{folder}: " + ", ".join(f"{name} {value:.6g}" for name, value in agreement.items()))
    except (OSError, ValueError, ImportError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
