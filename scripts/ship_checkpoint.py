"""Write a trained checkpoint into `checkpoints/`, with the code files of this version and nothing else.

python scripts/ship_checkpoint.py runs/efp-isic checkpoints/efp-isic
python scripts/ship_checkpoint.py checkpoints/efp-isic checkpoints/efp-isic    # after a change of the code files
"""

import argparse
import sys
from pathlib import Path

from efp_hf.inference.checkpoint import load_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--overwrite", action="store_true", help="replace another checkpoint")
    arguments = parser.parse_args()
    if arguments.target.exists() and arguments.target.resolve() != arguments.source.resolve():
        if not arguments.overwrite:
            sys.exit(f"{arguments.target} exists. Choose another folder, or pass --overwrite.")
    try:
        model, processor = load_checkpoint(arguments.source)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    model.save_pretrained(arguments.target)
    processor.save_pretrained(arguments.target)


if __name__ == "__main__":
    main()
