"""On how many threads NumPy and SciPy multiply matrices."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within, matrices are multiplied on one thread: for many small products. Two threads of
    OpenBLAS wait for each other in each of them: the fits of a linear probe took twice as long on
    idle cores, and eight times as long beside other programs. The bits are the same on any number
    of cores."""
    with controller().limit(limits=1, user_api="blas"):
        yield


@cache
def controller() -> "ThreadpoolController":
    """Of the libraries that are loaded by now."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
