"""Threads that wait for nothing else, for computations whose bits don't depend on how many do them.

Most bits do: where numbers are summed over a batch, PyTorch and oneDNN cut the sum by the number of
threads. The maps of a convolution, its gradient of the images, and what is computed element by
element are the same on any number; only these use the threads that are lent here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from dml_bench.system.devices import torch_threads

__all__ = ["are_threads_spare", "lend_threads", "on_spare_threads", "spare_threads"]

LENT: ContextVar[int] = ContextVar("lent", default=0)
"""How many threads there are in all; 0: as many as torch has anyhow."""


def lend_threads(threads: int) -> None:
    """From now on so many threads are there for what gives the same bits on them; 0 takes them
    back."""
    LENT.set(threads)


@contextmanager
def spare_threads(threads: int) -> Iterator[None]:
    """Within, so many threads are lent."""
    before = LENT.set(threads)
    try:
        yield
    finally:
        LENT.reset(before)


def are_threads_spare() -> bool:
    """Whether there are more threads than torch has."""
    return LENT.get() > torch.get_num_threads()


@contextmanager
def on_spare_threads() -> Iterator[None]:
    """Within, torch computes on all threads that are there."""
    if not are_threads_spare():
        yield
        return
    with torch_threads(LENT.get()):
        yield
