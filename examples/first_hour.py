"""A first hour with the package: a mask, a folder of masks, a corrected mask, a model of your own, its card, a Space.

    pip install "efp_hf-VERSION-py3-none-any.whl[train,app]"
    python first_hour.py FOLDER                     # new or empty; a few minutes, no network, on drawn images
    python first_hour.py FOLDER --record first_hour.csv    # append the times to a table

Each step is a command that you can type yourself, in FOLDER. The table at the end says how long each took.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """`makes` is what the command leaves in the folder."""

    name: str
    command: str
    makes: str


STEPS = (
    Step("drawn photos", "python -m efp_hf.data.synthetic photos", "photos/synthetic_1.jpg"),
    Step("a mask", "efp predict photos/synthetic_1.jpg", "masks/synthetic_1_segmentation.png"),
    Step(
        "a folder of masks",
        "efp predict 'photos/*.jpg' --output folder --overlays",
        "folder/synthetic_4_overlay.jpg",
    ),
    Step(
        "a corrected mask",
        "efp predict photos/synthetic_1.jpg --points 310,220 --output corrected",
        "corrected/synthetic_1_segmentation.png",
    ),
    Step(
        "a fine-tuned model",
        "efp train --data synthetic --checkpoint efp-isic-nano --output runs/mine --image-size 96 --num-train-epochs 4",
        "runs/mine/model.safetensors",
    ),
    Step(
        "its scores and its card",
        "efp score --data runs/mine/synthetic-images --checkpoint runs/mine --card",
        "runs/mine/README.md",
    ),
    Step(
        "a Space to upload",
        "efp publish --checkpoint runs/mine --repo me/mine --space me/efp --dry-run upload",
        "upload/space/app.py",
    ),
)


def seconds_of(step: Step, folder: Path) -> tuple[float, float]:
    """
    Runs a step → the seconds that it took, and those of processors.

    Raises:
        RuntimeError: it failed, or did not make what it should.
    """
    words = shlex.split(step.command)
    module = [sys.executable, "-m", "efp_hf"] if words[0] == "efp" else [sys.executable]
    began, processor = time.perf_counter(), os.times()
    code = subprocess.run([*module, *words[1:]], cwd=folder).returncode
    ended = os.times()
    used = ended.children_user + ended.children_system - processor.children_user - processor.children_system
    if code or not (folder / step.makes).exists():
        raise RuntimeError(f"`{step.command}` ended with {code}; {step.makes} must be there afterwards.")
    return time.perf_counter() - began, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new or empty")
    parser.add_argument("--record", type=Path, metavar="CSV", help="append a row a step")
    arguments = parser.parse_args()
    if arguments.folder.exists() and any(arguments.folder.iterdir()):
        sys.exit(f"{arguments.folder} is not empty. Name another folder.")
    (arguments.folder / "photos").mkdir(parents=True)
    row = {}
    if arguments.record is not None:
        from efp_hf.metrics.rows import append_row, provenance

        row = provenance()
    times = {}
    for step in STEPS:
        print(f"\n== {step.name}: {step.command}", flush=True)
        try:
            times[step] = seconds_of(step, arguments.folder)
        except RuntimeError as error:
            sys.exit(str(error))
        if row:
            seconds, used = (round(value, 1) for value in times[step])
            numbers = {"seconds": seconds, "processor_seconds": used}
            append_row(
                arguments.record, {**row, "step": step.name, "run": step.command, "makes": step.makes, **numbers}
            )
    print(f"\n{'step':26}{'seconds':>8}{'of processors':>15}")
    for step, (seconds, used) in times.items():
        print(f"{step.name:26}{seconds:8.1f}{used:15.1f}")
    print(f"{'all':26}{sum(pair[0] for pair in times.values()):8.1f}{sum(pair[1] for pair in times.values()):15.1f}")


if __name__ == "__main__":
    main()
