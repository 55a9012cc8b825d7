"""Whether a processor computes in bfloat16, or only pretends to."""

from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")
# x86's two, and ARM's
INSTRUCTION_SETS = ("avx512_bf16", "amx_bf16", "bf16")


def bf16_instructions() -> tuple[str, ...] | None:
    """This processor's instruction sets for bfloat16; `None` where the system does not tell."""
    if CPUINFO.is_file():
        for line in CPUINFO.read_text().splitlines():
            name, _, flags = line.partition(":")
            if name.strip().lower() in ("flags", "features"):
                return tuple(name for name in INSTRUCTION_SETS if name in flags.split())
        return None
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return None if asked is None else ("avx512_bf16",) * asked()


def check_bf16(use_cpu: bool) -> None:
    """
    Raises:
        ValueError: bfloat16 would be computed by a processor that has no instructions for it.
    """
    on_cpu = use_cpu or not torch.accelerator.is_available()
    if on_cpu and bf16_instructions() == ():
        raise ValueError(
            "`--bf16` is about ten times slower than float32 on this processor, which has no instructions for it "
            f"({' or '.join(INSTRUCTION_SETS[:2])}). Leave it out, or pass --force-bf16."
        )
