"""Freed memory stays with the process, in large pages, where glibc hands it out, and garbage is
rarely looked for.

glibc gives each block of more than 32 MiB back to the system when it is freed. Allocated again, it
comes page by page, each fetched by a fault and filled with zeros: at 224 px a training step of
ResNet-18 with 64 images takes some 250,000 faults, and an eighth of its time
(benchmarks/allocator.py). In pages of 2 MiB there are 512 times fewer faults, and fewer addresses
to translate: embedding takes a fifth less time.
"""

import gc
import sys
from functools import cache
from pathlib import Path

__all__ = ["collect_garbage_rarely", "keep_freed_memory", "set_thresholds"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of malloc.h."""
MADV_HUGEPAGE = 14
"""Of sys/mman.h."""
LARGE_PAGE = 2**21
HEAP_BLOCK, HEAP_BLOCKS = 2**31 - LARGE_PAGE, 4
"""Bytes of addresses, not of memory, in large pages: below LARGEST, and more than runs on a CPU
take in all."""
LARGEST = 2**31 - 1
NEW_OBJECTS = 10_000
"""After how many new objects Python looks for garbage: its own 700 cost a command most of a second
while it imports modules, which are no garbage."""


def collect_garbage_rarely() -> None:
    """For every program of ours, before it imports anything large."""
    gc.set_threshold(NEW_OBJECTS)


def keep_freed_memory() -> bool:
    """Whether it could be asked for: by glibc only. Peak memory grows by up to a third, because
    blocks of other sizes don't fit each other's gaps. The heap is in large pages from here on,
    where the kernel gives them (transparent_hugepage is "madvise" or "always")."""
    if not set_thresholds(mmap=LARGEST, trim=-1):
        return False
    ask_for_large_pages()
    return True


@cache
def ask_for_large_pages() -> None:
    """The heap grows by some blocks of addresses and keeps them, so that one request holds for all
    that it hands out later: for new addresses it would have to be made again."""
    import ctypes

    if Path("/proc/sys/vm/overcommit_memory").read_text(encoding="utf-8").strip() == "2":
        return  # where addresses count as memory
    library = ctypes.CDLL(None)
    library.malloc.restype = library.sbrk.restype = ctypes.c_void_p
    library.malloc.argtypes, library.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    library.sbrk.argtypes = [ctypes.c_ssize_t]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    blocks = [library.malloc(HEAP_BLOCK) for _ in range(HEAP_BLOCKS)]
    for block in blocks:
        library.free(block)
    if all(blocks):  # a limit of the process may forbid it
        start = -(-min(blocks) // LARGE_PAGE) * LARGE_PAGE
        library.madvise(start, library.sbrk(0) // LARGE_PAGE * LARGE_PAGE - start, MADV_HUGEPAGE)


def set_thresholds(*, mmap: int, trim: int) -> bool:
    """From how many bytes a block is the system's own (mallopt's M_MMAP_THRESHOLD), and how many
    may lie free at the heap's end before they are given back (M_TRIM_THRESHOLD; -1 for any number).
    """
    import ctypes  # here, as `dml-bench --help` needs none of it

    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return False
    return bool(library.mallopt(M_MMAP_THRESHOLD, mmap) and library.mallopt(M_TRIM_THRESHOLD, trim))
