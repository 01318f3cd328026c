"""What is being made or removed beside its place: a file or folder gets its name when it is whole,
and loses it before it is taken apart.

Both happen in a folder `.dml-XXXXXXXX` that is locked while its process lives, wherever that runs.
The system frees the lock however the process ends, so whoever gets it may remove what is left: the
next process that works in that place does.
"""

import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dml_bench.system.failures import named

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = ["drafted", "remove", "scratch", "sweep", "whole_files"]

PREFIX = ".dml-"
SCRATCH = re.compile(r"\.dml-[a-z0-9_]{8}")
"""Names that `tempfile` makes of the prefix."""
LOCK = ".lock"


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Where to make the file or folder `path`, which it becomes at the end of the context, in one
    step; after an error nothing is left. It has another name, so that nobody takes it for the
    whole, and the same suffix.

    A file replaces another; a folder does not, and raises OSError. What the system refuses is said
    of `path`, not of its draft.
    """
    with named(path, PREFIX), scratch(path.parent) as folder:
        draft = folder / f"draft{path.suffix}"
        yield draft
        os.replace(draft, path)


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it, if it is there. It is gone as a whole before
    anything of it is deleted."""
    if path.exists():
        with scratch(path.parent) as folder:
            path.rename(folder / "removed")


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """An empty folder in `parent`, on the same file system, which is removed at the end or, after a
    crash, by the next `sweep`."""
    _sweep_once(parent.absolute())
    folder, lock = _locked_folder(parent)
    try:
        yield folder
    finally:
        with suppress(OSError):  # what can't be removed now is left to the next sweep
            _discard(folder, lock)


def whole_files(root: Path) -> list[Path]:
    """All files below `root` but those that are being made or removed, sorted."""
    paths = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not SCRATCH.fullmatch(name)]
        paths += [Path(folder, name) for name in files]
    return sorted(paths)


def sweep(*folders: Path) -> None:
    """Remove what dead processes left in these folders, not in folders within. What can't be
    removed, as where nothing may be written, stays."""
    from filelock import FileLock, Timeout

    for folder in folders:
        for left in _scratch_folders(folder):
            with suppress(OSError, Timeout):
                if (left / LOCK).exists():
                    lock = FileLock(left / LOCK, timeout=0)
                    lock.acquire()
                    _discard(left, lock)
                else:
                    # of a process that ended before it had locked it; one that is about to makes
                    # another
                    left.rmdir()


@functools.cache
def _sweep_once(folder: Path) -> None:
    sweep(folder)


def _scratch_folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if SCRATCH.fullmatch(entry.name)]
    except OSError:
        return []


def _locked_folder(parent: Path) -> "tuple[Path, FileLock]":
    """Made anew where a sweep was faster than the lock."""
    from filelock import FileLock, Timeout

    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = FileLock(folder / LOCK, timeout=0)
        try:
            lock.acquire()
        except (FileNotFoundError, Timeout):
            continue
        if (folder / LOCK).exists():
            return folder, lock
        lock.release()


def _discard(folder: Path, lock: "FileLock") -> None:
    """The lock's file goes last, because what is without one would never be removed; and it is
    closed before its folder goes, which NFS needs."""
    try:
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
        (folder / LOCK).unlink(missing_ok=True)
    finally:
        lock.release()
    folder.rmdir()
