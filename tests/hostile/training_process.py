"""A process that runs `efp train`, forked from one that has imported everything: it trains after milliseconds."""

import multiprocessing
import sys
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["hostile.training_process", "efp_hf.commands.train", "efp_hf.training.trainer"])


def run_command(arguments: list[str], log: Path) -> None:
    import torch

    from efp_hf.commands import main

    torch.set_num_threads(1)
    with log.open("a") as sys.stderr:
        sys.exit(main(["train", *arguments]))


def start_training(arguments: list[str], log: Path) -> multiprocessing.Process:
    """`efp train` with these arguments; what it says goes to `log`."""
    process = CONTEXT.Process(target=run_command, args=(arguments, log))
    process.start()
    return process
