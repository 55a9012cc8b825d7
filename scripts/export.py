"""Export a checkpoint for another runtime.

    python scripts/export.py checkpoints/efp-isic --to onnx
    python scripts/export.py checkpoints/efp-isic --to openvino --int8 --data ISIC_FOLDER
    python scripts/predict.py photo.jpg --checkpoint exports/efp-isic-onnx

Writes a folder that `predict.py`, `score.py` and `app.py` take as `--checkpoint`.
"""

import argparse
import sys
from pathlib import Path

from efp_hf.inference.checkpoint import load_checkpoint
from efp_hf.inference.export import FORMATS, export_model


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder or Hub id")
    parser.add_argument("--to", required=True, choices=FORMATS)
    parser.add_argument("--output", type=Path, help="folder (default: exports/CHECKPOINT-FORMAT)")
    parser.add_argument("--half", action="store_true", help="weights of 16 bits")
    parser.add_argument("--int8", action="store_true", help="quantize weights and activations; needs --data")
    parser.add_argument("--data", help="ISIC or own folder, or Hub id: its train split gives int8 its ranges")
    parser.add_argument("--split-seed", type=int, default=0, help="of the 70/10/20 split, where the data has none")
    parser.add_argument("--calibration-images", type=int, default=128, help="for --int8 (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace an exported folder")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.int8 and arguments.data is None:
        sys.exit("`--int8` needs training images. Pass --data.")
    name = "-".join(
        [Path(arguments.checkpoint).name, arguments.to] + ["half"] * arguments.half + ["int8"] * arguments.int8
    )
    output = arguments.output or Path("exports") / name
    try:
        model, processor = load_checkpoint(arguments.checkpoint, runtime="torch")
        calibration_images = None
        if arguments.int8:
            from efp_hf.data.lesions import load_lesions

            train = load_lesions(arguments.data, seed=arguments.split_seed, max_side=None)["train"].shuffle(seed=0)
            calibration_images = train.select(range(min(arguments.calibration_images, len(train))))["image"]
        export_model(
            model,
            processor,
            output,
            arguments.to,
            calibration_images,
            half=arguments.half,
            overwrite=arguments.overwrite,
        )
    except (OSError, ValueError, ImportError) as error:
        sys.exit(str(error))
    megabytes = sum(file.stat().st_size for file in output.iterdir()) / 1e6
    print(f"{output}: {megabytes:.1f} MB")


if __name__ == "__main__":
    main()
