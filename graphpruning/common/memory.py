"""Keep memory that was freed for the next tensor of its size.

glibc gives a large block back to the system when it is freed, and asks for it anew in the next
layer. The system then fills every page with zeros once more: at 224 px and in 32 bits that is a
fifth of a MobileNet's training step on a processor; in bf16, with blocks of half the size, little.
"""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Numbers of glibc's parameters (malloc.h)."""
_AT_A_TIME = 64 * 2**20
"""Bytes by which the process grows at least."""


def keep_freed_memory() -> bool:
    """From here on this process keeps what it frees; return whether it can be told so.

    It is meant for commands, which are this process's only work: the peak grows by a tenth, and is
    held to the end. Without glibc's allocator nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    never = ((_TRIM_THRESHOLD, -1), (_MMAP_MAX, 0))
    return all(mallopt(name, value) for name, value in (*never, (_TOP_PAD, _AT_A_TIME)))
