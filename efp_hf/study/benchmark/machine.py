"""What a row says of the machine that it was measured on."""

import os
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from ...metrics.rows import processor_name

VERSIONED_PACKAGES = ("onnxruntime", "openvino", "nncf", "segmentation_models_pytorch", "evaluate")  # in the rows
# The last one that a processor has decides how fast int8 and bfloat16 are
X86_INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


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
