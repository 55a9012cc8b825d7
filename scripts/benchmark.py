"""Measure the speed of EFP and its peers side by side on this machine.

    python scripts/benchmark.py all                # about an hour; leave the machine alone
    python scripts/benchmark.py model --runtimes torch onnx
    python scripts/benchmark.py job --images 100
    python scripts/benchmark.py all --quick        # a smoke run of a few minutes

Parts: `model` (a forward pass, also on a GPU where there is one), `frontier` (each system with the input that its J is
stated for), `profile` (where EFP's goes), `job` (a folder of 12-megapixel photos to mask files), `training`, `metrics`,
`limit` (what the machine could do at best). Each appends rows to `results/speed_<part>.csv`. Exports are made once and
kept in `exports/benchmark`.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import torch

from efp_hf.inference.checkpoint import DEFAULT_CHECKPOINT
from efp_hf.metrics.rows import append_row, provenance
from efp_hf.study.benchmark.machine import conditions
from efp_hf.study.benchmark.parts import FULL, PARTS, QUICK
from efp_hf.study.benchmark.systems import TIMED_RUNTIMES


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "all"])
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT, help="name or folder (default: %(default)s)")
    parser.add_argument("--runtimes", nargs="+", choices=TIMED_RUNTIMES, default=TIMED_RUNTIMES, metavar="NAME")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="(default: %(default)s)")
    parser.add_argument("--images", type=int, help=f"photos of the job (default: {FULL.images[0]})")
    parser.add_argument("--mean-iou", default="mean_iou", help="folder with evaluate's mean_iou.py, without a network")
    parser.add_argument("--exports", type=Path, default=Path("exports/benchmark"), help="folder (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="little work, to see that it runs; rows to runs/quick")
    parser.add_argument("--results", type=Path, help="folder for the rows (default: results)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    effort = QUICK if arguments.quick else FULL
    if arguments.images is not None:
        effort = replace(effort, images=(arguments.images, effort.images[1]))
    results = arguments.results or Path("runs/quick" if arguments.quick else "results")
    torch.set_num_threads(arguments.threads)
    for part in PARTS if arguments.part == "all" else (arguments.part,):
        row = {**provenance(), **conditions(arguments.threads)}
        for measured in PARTS[part](arguments, effort):
            append_row(results / f"speed_{part}.csv", {**row, **measured})
            print(part, *(f"{name}={value}" for name, value in measured.items()))


if __name__ == "__main__":
    main()
