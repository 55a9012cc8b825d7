"""What a training on the processor asks of the memory allocator."""

import ctypes
import platform

# parameters of mallopt(3)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """
    The process keeps what it frees for what it asks for next, from now to its end. By default glibc gives large blocks
    back to the kernel, which clears their pages when they are asked for again, at every step. `False` where there is no
    glibc, and nothing was done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
