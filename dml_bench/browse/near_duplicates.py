"""Images that stand on both sides of the split, recompressed, resized or mirrored: the embeddings
say where to look, the pixels decide.

Copies of a file byte for byte are found by `dml-bench data check`; a query that was seen in
training in another copy is easy all the same.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dml_bench.browse.images import BrowseTable
from dml_bench.data.images import Unreadable, decode

__all__ = ["near_duplicates"]

SIDE = 32
MOST = 500
"""Pairs of each phase whose pixels are compared: those with the most similar embeddings."""
DIFFERENCE = 0.02
"""Mean difference of two small copies, of a range of 0 to 1, up to which they show the same
picture."""


def near_duplicates(
    images: BrowseTable, progress: Callable[[str, int, int], None]
) -> list[tuple[int, int]]:
    """(query, gallery image) rows of pairs that show the same picture, the most alike first, a
    query once. Where each image is asked among all others, a pair is listed once."""
    pairs = sorted(
        {
            pair
            for answered in images.phases.values()
            for pair in candidates(answered.nearest, answered.similarity)
        }
    )
    rows = sorted({row for pair in pairs for row in pair})
    small = {}
    with ThreadPoolExecutor() as pool:
        for done, (row, copy) in enumerate(
            zip(rows, pool.map(lambda row: small_copy(images.paths[row]), rows), strict=True),
            start=1,
        ):
            small[row] = copy
            progress("looking for near-duplicates", done, len(rows))
    found: list[tuple[int, int]] = []
    for apart, query, other in sorted(
        (difference(small[query], small[other]), query, other) for query, other in pairs
    ):
        if apart <= DIFFERENCE and query not in {row for pair in found for row in pair}:
            found.append((query, other))
    return found


def candidates(nearest: np.ndarray, similarity: np.ndarray) -> list[tuple[int, int]]:
    asked = np.flatnonzero(nearest >= 0)
    most = asked[np.argsort(-similarity[asked], kind="stable")[:MOST]]
    return [(int(row), int(nearest[row])) for row in most]


def small_copy(path: str) -> np.ndarray | None:
    """(SIDE, SIDE, 3) float, 0 to 1, stretched to a square; None where the file can't be read."""
    try:
        return np.asarray(decode(Path(path)).resize((SIDE, SIDE)), np.float32) / 255
    except Unreadable:
        return None


def difference(one: np.ndarray | None, other: np.ndarray | None) -> float:
    """Mean over pixels, of the picture or its mirror image; infinite where one can't be read."""
    if one is None or other is None:
        return float("inf")
    return float(min(np.abs(one - other).mean(), np.abs(one - other[:, ::-1]).mean()))
