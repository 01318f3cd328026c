"""Freed memory stays with the process, where glibc hands it out, and garbage is rarely looked for.

glibc gives each block of more than 32 MiB back to the system when it is freed. Allocated again, it
comes page by page, each fetched by a fault and filled with zeros: at 224 px a training step of
ResNet-18 with 64 images takes some 250,000 faults, and an eighth of its time
(benchmarks/allocator.py).
"""

import gc
import sys

__all__ = ["collect_garbage_rarely", "keep_freed_memory", "set_thresholds"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of malloc.h."""
LARGEST = 2**31 - 1
NEW_OBJECTS = 10_000
"""After how many new objects Python looks for garbage: its own 700 cost a command most of a second
while it imports modules, which are no garbage."""


def collect_garbage_rarely() -> None:
    """For every program of ours, before it imports anything large."""
    gc.set_threshold(NEW_OBJECTS)


def keep_freed_memory() -> bool:
    """Whether it could be asked for: by glibc only. Peak memory grows by up to a third, because
    blocks of other sizes don't fit each other's gaps."""
    return set_thresholds(mmap=LARGEST, trim=-1)


def set_thresholds(*, mmap: int, trim: int) -> bool:
    """From how many bytes a block is the system's own (mallopt's M_MMAP_THRESHOLD), and how many
    may lie free at the heap's end before they are given back (M_TRIM_THRESHOLD; -1 for any number).
    """
    import ctypes  # here, as `dml-bench --help` needs none of it

    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return False
    return bool(library.mallopt(M_MMAP_THRESHOLD, mmap) and library.mallopt(M_TRIM_THRESHOLD, trim))
