"""Locks between processes that do not wait."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["held"]


@contextmanager
def held(
    file: Path, busy: str, error: type[Exception] = ValueError, *, file_stays: bool = True
) -> Iterator[None]:
    """The lock `file`, held inside. Raises the error, with the words of `busy`, where another
    process holds it. Its folder must exist."""
    try:
        lock = FileLock(file).acquire(timeout=0)
    except Timeout:
        raise error(busy) from None
    with lock:
        try:
            yield
        finally:
            if not file_stays:
                # While it is held: afterwards it may be that of the next process.
                file.unlink(missing_ok=True)
