"""Image files as a network sees them, a batch at a time and without a cache."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from dml_bench.data.cache import View
from dml_bench.data.images import Unreadable, bytes_of, decode

__all__ = ["PhotoBatch", "photo_batches"]


@dataclass(frozen=True, slots=True)
class PhotoBatch:
    """Image files as a network sees them."""

    paths: tuple[Path, ...]
    """(images) those that could be read."""
    pixels: np.ndarray
    """(images, size, size, 3) uint8."""
    problems: tuple[Unreadable, ...]
    """The others."""


def photo_batches(
    view: View,
    paths: Sequence[Path],
    batch_size: int,
    digests: Mapping[Path, str] = MappingProxyType({}),
) -> Iterator[PhotoBatch]:
    """The files in their order, so many at a time. Raises ValueError where a file's SHA-256 is not
    that of `digests`."""

    def see(path: Path) -> np.ndarray | Unreadable:
        try:
            return view.apply(decode(path, data=bytes_of(path, digests.get(path, ""))))
        except Unreadable as problem:
            return problem

    with ThreadPoolExecutor() as pool:
        for first in range(0, len(paths), batch_size):
            batch = paths[first : first + batch_size]
            readable: list[Path] = []
            problems: list[Unreadable] = []
            pixels = [np.empty((0, view.size, view.size, 3), np.uint8)]
            for path, seen in zip(batch, pool.map(see, batch), strict=True):
                if isinstance(seen, Unreadable):
                    problems.append(seen)
                else:
                    readable.append(path)
                    pixels.append(seen[None])
            yield PhotoBatch(tuple(readable), np.concatenate(pixels), tuple(problems))
