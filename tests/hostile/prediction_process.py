"""Processes that run `efp predict`, forked from one that has imported everything: they begin after milliseconds."""

import multiprocessing
import os
import socket
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["hostile.prediction_process", "efp_hf.commands.predict", "efp_hf.inference.folder"])


def run_command(arguments: list[str], log: Path, environment: dict[str, str]) -> None:
    import torch

    from efp_hf.commands import main

    os.environ.update(environment)
    torch.set_num_threads(1)
    with log.open("a") as sys.stdout, log.open("a") as sys.stderr:
        sys.exit(main(["predict", *arguments]))


def start_prediction(arguments: list[str], log: Path, num_processes: int = 1) -> list[ForkServerProcess]:
    """`efp predict` with these arguments, in as many processes as a launcher would start; they write to `log`."""
    environments = [{}]
    if num_processes > 1:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(num_processes)}
        environments = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_processes)]
    processes = [
        CONTEXT.Process(target=run_command, args=([*map(str, arguments)], log, environment))
        for environment in environments
    ]
    for process in processes:
        process.start()
    return processes


def exit_codes(processes: list[ForkServerProcess], timeout: float = 60) -> list[int | None]:
    """Those of processes that have ended, each in less than `timeout` seconds; `None` for one that hung."""
    codes = []
    for process in processes:
        process.join(timeout)
        codes.append(process.exitcode)
        process.kill()
    return codes


def files_of(folder: Path) -> dict[str, bytes]:
    """Name → content of everything that lies in a folder, hidden files too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
