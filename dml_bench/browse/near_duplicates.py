"""Images on both sides of the split that show the same picture, recompressed, resized or mirrored:
the embeddings propose pairs, the pixels decide.

Copies of a file byte for byte are found by `dml-bench data check`. A query whose other copy was
seen in training is too easy as well."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dml_bench.browse.images import BrowseTable
from dml_bench.data.images import Unreadable, decode

__all__ = ["find_near_duplicates"]

SIDE = 32
"""The side in pixels of the copies that are compared."""
MOST = 500
"""The number of pairs of each phase whose pixels are compared: those with the most similar
embeddings."""
DIFFERENCE = 0.02
"""The largest mean difference of two small copies of one picture; values are 0 to 1."""


def find_near_duplicates(
    table: BrowseTable, progress: Callable[[str, int, int], None]
) -> list[tuple[int, int]]:
    """(query, gallery image) rows of pairs that show the same picture, the most similar first, each
    query once. Where each image is searched among all others, a pair is listed once."""
    pairs: set[tuple[int, int]] = set()
    for columns in table.phases.values():
        pairs |= set(candidates(columns.nearest, columns.similarity))
    rows = sorted({row for pair in pairs for row in pair})
    copies = {}
    with ThreadPoolExecutor() as pool:
        paths = [table.paths[row] for row in rows]
        for row, copy in zip(rows, pool.map(small_copy, paths), strict=True):
            copies[row] = copy
            progress("looking for near-duplicates", len(copies), len(rows))
    apart = []
    for query, other in pairs:
        apart.append((difference(copies[query], copies[other]), query, other))
    near_duplicates: list[tuple[int, int]] = []
    listed: set[int] = set()
    for distance, query, other in sorted(apart):
        if distance <= DIFFERENCE and query not in listed:
            near_duplicates.append((query, other))
            listed |= {query, other}
    return near_duplicates


def candidates(nearest: np.ndarray, similarity: np.ndarray) -> list[tuple[int, int]]:
    """The queries with the most similar nearest images, and these images."""
    queries = np.flatnonzero(nearest >= 0)
    most = queries[np.argsort(-similarity[queries], kind="stable")[:MOST]]
    return [(int(row), int(nearest[row])) for row in most]


def small_copy(path: str) -> np.ndarray | None:
    """(SIDE, SIDE, 3) float, 0 to 1, of an image stretched to a square; None where the file can't
    be read."""
    try:
        return np.asarray(decode(Path(path)).resize((SIDE, SIDE)), np.float32) / 255
    except Unreadable:
        return None


def difference(one: np.ndarray | None, other: np.ndarray | None) -> float:
    """The mean difference of pixels, to the picture or to its mirror image, whichever is smaller;
    infinite where a file can't be read."""
    if one is None or other is None:
        return float("inf")
    return float(min(np.abs(one - other).mean(), np.abs(one - other[:, ::-1]).mean()))
