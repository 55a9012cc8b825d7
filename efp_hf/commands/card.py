"""Write the model card of a checkpoint of yours, from its scores.

  efp score --checkpoint runs/mine --data MY_FOLDER
  efp card --checkpoint runs/mine                              writes runs/mine/README.md

The card holds the metadata that the Hub reads, how to use the checkpoint, its newest scores with
their intervals, and the commands and commits that made it.
"""

import argparse
from pathlib import Path

from .arguments import InputError, add_own_checkpoint_argument, one_line_errors, own_checkpoint, own_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_own_checkpoint_argument(parser)
    parser.add_argument(
        "--scores",
        metavar="FILE",
        type=own_path,
        help="of `efp score` (default: scores/scores.csv; class_scores.csv, label_scores.csv)",
    )
    parser.add_argument("--split", default="test", help="train, validation or test (default: %(default)s)")
    parser.add_argument("--license", default="apache-2.0", help="of the weights (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace a README.md that is there")


def run(arguments: argparse.Namespace) -> int:
    from ..metrics.card import newest_rows, scores_for, write_card

    folder = own_checkpoint(arguments.checkpoint)
    card = folder / "README.md"
    if card.exists() and not arguments.overwrite:
        raise InputError(f"{card} is there. Pass --overwrite to replace it.")
    if arguments.scores is None:
        with one_line_errors():
            arguments.scores = Path("scores") / scores_for(folder)
    if not arguments.scores.is_file():
        make = f"efp score --output {arguments.scores.parent} --checkpoint {arguments.checkpoint} --data …"
        raise InputError(f"{arguments.scores}: no such file. Run `{make}` first.")
    with one_line_errors():
        write_card(folder.resolve(), newest_rows(arguments.scores, folder, arguments.split), arguments.license)
    print(f"{card}")
    return 0
