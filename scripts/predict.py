"""Segment the lesions of image files.

    python scripts/predict.py photo.jpg
    python scripts/predict.py FOLDER 'more/*.png' --output masks --overlays
    python scripts/predict.py photo.jpg --checkpoint exports/efp-isic-onnx --runtime onnx    # of scripts/export.py

Writes `<id>_segmentation.png` (0 skin, 255 lesion, the size of the image) and `predictions.csv`. Files that cannot be
read are named at the end, and the exit code is then 1.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from efp_hf.inference.checkpoint import load_checkpoint
from efp_hf.inference.folder import find_images, predict_files, write_predictions
from efp_hf.inference.runtimes import RUNTIMES

DEFAULT_CHECKPOINT = Path(__file__).resolve().parents[1] / "checkpoints" / "efp-isic"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", metavar="IMAGE|FOLDER|GLOB")
    parser.add_argument(
        "--output", type=Path, default=Path("masks"), help="folder for the masks (default: %(default)s)"
    )
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT, help="folder or Hub id (default: the shipped one)")
    parser.add_argument("--runtime", choices=RUNTIMES, help="refuse another than this one (default: the checkpoint's)")
    parser.add_argument("--bf16", action="store_true", help="OpenVINO: compute in bfloat16, on processors that can")
    parser.add_argument("--overlays", action="store_true", help="also write the images with the lesion's outline")
    parser.add_argument("--threshold", type=float, help="lesion above this probability (default: the checkpoint's)")
    parser.add_argument(
        "--largest-region",
        action=argparse.BooleanOptionalAction,
        help="keep the largest region, holes filled (default: the checkpoint's)",
    )
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--overwrite", action="store_true", help="write into an output folder that is not empty")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    if arguments.batch_size < 1:
        sys.exit(f"`--batch-size` must be at least 1, got {arguments.batch_size}.")
    if arguments.output.is_file():
        sys.exit(f"{arguments.output} is a file. Choose another --output.")
    if arguments.output.exists() and any(arguments.output.iterdir()) and not arguments.overwrite:
        sys.exit(f"{arguments.output} is not empty. Choose another --output, or pass --overwrite.")
    try:
        files = find_images(arguments.inputs)
        model, processor = load_checkpoint(arguments.checkpoint, arguments.runtime, arguments.bf16)
        processor._check_threshold(processor.threshold if arguments.threshold is None else arguments.threshold)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(str(error))

    arguments.output.mkdir(parents=True, exist_ok=True)
    predictions = predict_files(
        files,
        model,
        processor,
        batch_size=arguments.batch_size,
        threshold=arguments.threshold,
        largest_region=arguments.largest_region,
    )
    failed = write_predictions(
        tqdm(predictions, total=len(files), unit="image", disable=None), arguments.output, arguments.overlays
    )
    num_masks = len(files) - len(failed)
    print(f"{num_masks} mask{'s' if num_masks != 1 else ''} in {arguments.output}")
    for prediction in failed:
        print(f"failed: {prediction.error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
