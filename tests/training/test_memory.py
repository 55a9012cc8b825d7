import platform
from pathlib import Path

import pytest
import torch

from efp_hf.training.memory import keep_freed_memory

PAGE = 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_stays_with_the_process():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE

    assert keep_freed_memory()
    block = torch.ones(16 << 20)
    used = resident()
    del block
    assert used - resident() < 16 << 20


def test_another_allocator_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
