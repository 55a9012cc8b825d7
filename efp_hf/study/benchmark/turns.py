"""Candidates take turns, so that what else the machine does hits all alike; what a row says of their times."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ...metrics.rows import processor_name

PAUSE = 0.2  # seconds before each turn
VERSIONED_PACKAGES = ("onnxruntime", "openvino", "nncf", "segmentation_models_pytorch", "evaluate")  # in the rows
# The last one that a processor has decides how fast int8 and bfloat16 are
X86_INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(
    candidates: dict,
    rounds: int,
    warm_up: int = 1,
    settle: int = 0,
    pause: float = 0.0,
    measure: Callable = seconds_of,
) -> dict[object, list]:
    """
    What `measure` returns for each call, by the candidate's name: every round calls each candidate once, in order.

    Args:
        candidates: name → function without arguments.
        warm_up: calls of each before the first round.
        settle: calls of the same candidate before each measured one, which fill the caches again.
        pause: seconds of sleep before these. A runtime's threads spin for a while after a call and would take time
            from the next candidate.
    """
    for call in candidates.values():
        for _ in range(warm_up):
            call()
    measured = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            time.sleep(pause)
            for _ in range(settle):
                call()
            measured[name].append(measure(call))
    return measured


def median_and_spread(values: list[float]) -> tuple[float, float, float]:
    """Median, first and third quartile."""
    return tuple(float(value) for value in np.quantile(values, (0.5, 0.25, 0.75)))


def spread_columns(values: list[float], unit: str, scale: float = 1) -> dict[str, float]:
    """`median_<unit>`, `quartile1_<unit>`, `quartile3_<unit>` of the values times `scale`, four digits."""
    names = (f"median_{unit}", f"quartile1_{unit}", f"quartile3_{unit}")
    return {name: float(f"{value * scale:.4g}") for name, value in zip(names, median_and_spread(values), strict=True)}


def instruction_set(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The last of `X86_INSTRUCTION_SETS` that this processor has; empty where it cannot be known."""
    flags = cpuinfo.read_text().split() if cpuinfo.is_file() else []
    return next((name for name in reversed(X86_INSTRUCTION_SETS) if name in flags), "")


def conditions(threads: int) -> dict[str, str | int | float]:
    """What a row says of the machine besides `provenance`, and the start of the run, which is its name."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": f"{processor_name()}, {os.cpu_count()} cores",
        "instruction_set": instruction_set(),
        "threads": threads,
        "load_average": round(os.getloadavg()[0], 2),
        "packages": ", ".join(f"{name} {version(name)}" for name in VERSIONED_PACKAGES if find_spec(name)),
    }
