"""Let a process that predicts on the CPU keep the memory that every batch asks for again."""

from __future__ import annotations

import ctypes

# malloc.h of the GNU C library.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_NEVER, _STEP = 2**31 - 1, 64 << 20


def keep() -> bool:
    """Have freed memory kept for the next layer; tell whether this C library can.

    A layer's output of tens of megabytes would else be given back to the system and come again page
    by page, each of them cleared. Threads share one heap, since those of their own hold no block
    above 64 MiB. Call it before there are threads.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _STEP}
    return all(bool(mallopt(option, value)) for option, value in wanted.items())
