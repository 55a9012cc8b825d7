"""Command-line arguments that several scripts share."""

import argparse
from pathlib import Path

from ..data.split import SPLITS


def add_data_arguments(parser: argparse.ArgumentParser, split: str | None = "test") -> None:
    """`--data`, `--split-seed` and, with a default `split`, `--split`: what [`load_lesions`](isic.py) is asked for."""
    parser.add_argument("--data", required=True, help="ISIC or own folder, or the Hub id of a dataset")
    if split is not None:
        parser.add_argument("--split", default=split, help=f"{', '.join(SPLITS)} (default: %(default)s)")
    parser.add_argument("--split-seed", type=int, default=0, help="of the 70/10/20 split, where the data has none")


def add_scoring_arguments(parser: argparse.ArgumentParser, checkpoint: Path, results: str, split: str = "test") -> None:
    """
    Those of [`add_data_arguments`], `--checkpoint` and `--results`: of a script that measures a checkpoint on a split.
    """
    add_data_arguments(parser, split)
    parser.add_argument("--checkpoint", default=checkpoint, help="folder or Hub id (default: the shipped one)")
    parser.add_argument("--results", type=Path, default=Path(results), help="gets what is measured (%(default)s)")
