"""Build each kind of index of large galleries and look up in it, beside the exact search, in turns.

    python benchmarks/galleries.py

Writes reports/speed/galleries.json and galleries.md. The vectors are drawn: unit vectors around
class centres, as a trained network gives them, since no index can search noise that is the same
everywhere. They lie in a file; each index is built and opened in a process of its own.
"""

import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    alone,
    facts,
    in_processes,
    median_spread,
    memory_of_this,
    of_rounds,
    options_of,
    table,
    write,
)

from dml_bench.gallery.index_recall import IndexRecall, RecallQueries, measure_recall
from dml_bench.gallery.index_store import OpenIndex, tuned
from dml_bench.gallery.indexes import build, one_thread, open_mapped, parse

DIM = 128
PER_CLASS = 50
NOISE = 1.0
"""Standard deviation around a centre, in each dimension that of the centres: a class's images have
cosines about .5."""
QUERIES = 1000
CHUNK = 50_000
LARGEST_FOR = {"hnsw": 100_000}
"""Images up to which a kind is built unless --kinds names it: on one thread a graph of a million
takes a quarter of an hour or more."""
KINDS = ("flat", "sq8", "hnsw", "ivf", "ivfpq", "ivfpq:k_factor=0")


def draw(path: Path, images: int) -> None:
    """Write (images, DIM) float32 and, beside it, queries of the same classes; a part in memory at
    a time."""
    centres = (
        np.random.default_rng(1).normal(size=(max(1, images // PER_CLASS), DIM)).astype(np.float32)
    )
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (images, DIM))
    for first in range(0, images, CHUNK):
        rows = np.arange(first, min(first + CHUNK, images))
        vectors[rows] = around(centres[rows % len(centres)], 2 + first)
    vectors.flush()
    classes = np.random.default_rng(0).integers(0, len(centres), QUERIES)
    np.save(queries_of(path), around(centres[classes], 1))


def around(centres: np.ndarray, seed: int) -> np.ndarray:
    drawn = centres + NOISE * np.random.default_rng(seed).normal(size=centres.shape).astype(
        np.float32
    )
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def queries_of(path: Path) -> Path:
    return path.with_suffix(".queries.npy")


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def build_one(kind: str, vectors: Path, index: Path) -> dict[str, Any]:
    """Build and write an index with the number of cells it chooses to search, in this process:
    seconds, bytes, and the peak above the vectors, which are read into memory first."""
    import faiss

    embeddings, spec = np.load(vectors), parse(kind)
    plan, live = spec.plan(*embeddings.shape), np.ones(len(embeddings), bool)
    before, start = peak(), time.perf_counter()
    made = tuned(OpenIndex(spec, plan, build(plan, embeddings), live, embeddings))
    took, above = time.perf_counter() - start, peak() - before
    faiss.write_index(made.index, str(index))
    return {
        "seconds": took,
        "bytes": index.stat().st_size,
        "peak_bytes_above_vectors": above,
        "parameters": made.plan.parameters,
    }


def look_up_one(kind: str, vectors: Path, index: Path, mapped: bool) -> dict[str, Any]:
    """Open an index, in this process: what is resident then and after the queries, its times and
    its recall."""
    import faiss

    embeddings, query = np.load(vectors, mmap_mode="r"), np.load(queries_of(vectors))
    before = memory_of_this()
    opened = open_mapped(index) if mapped else faiss.read_index(str(index))
    after_opening = memory_of_this()
    with one_thread():
        opened.search(query, 10)
    after_queries = memory_of_this()
    recall_queries = RecallQueries(query, np.full(len(query), -1), "queries")
    recall = measure_recall(opened.search, embeddings, recall_queries, index.stat().st_size)

    def grown(after: dict[str, int]) -> dict[str, int]:
        return {part: after[part] - before[part] for part in before}

    resident = {"opened": grown(after_opening), "asked": grown(after_queries)}
    return {"measured": recall.as_dict(), "resident": resident}


def one(what: str, kind: str, vectors: str, index: str) -> dict[str, Any]:
    if what == "build":
        return build_one(kind, Path(vectors), Path(index))
    return look_up_one(kind, Path(vectors), Path(index), mapped=what == "mapped")


def race(
    size: int, kinds: Sequence[str], rounds: int, folder: Path
) -> dict[str, dict[str, list[Any]]]:
    """By kind: `built`, `mapped` and `in_memory`, each by round. All are built in turns, then all
    are asked in turns."""
    vectors = folder / f"{size}.npy"
    draw(vectors, size)
    index = {kind: str(folder / f"{kind.replace(':', '-')}.faiss") for kind in kinds}
    by_kind: dict[str, dict[str, list[Any]]] = {kind: {} for kind in kinds}
    for what, name in (("build", "built"), ("mapped", "mapped"), ("in_memory", "in_memory")):
        ways = {kind: [what, kind, str(vectors), index[kind]] for kind in kinds}
        for kind, results in in_processes(__file__, ways, rounds).items():
            by_kind[kind][name] = results
    vectors.unlink()
    return by_kind


def times(kind: str, results: dict[str, list[Any]]) -> list[str]:
    cells = [median_spread([built["seconds"] for built in results["built"]])]
    for part in ("mapped", "in_memory"):
        measured = [run["measured"] for run in results[part]]
        cells.append(median_spread([recall["milliseconds"] for recall in measured]))
        cells.append(median_spread([recall["milliseconds_batched"] for recall in measured]))
    parameters = results["built"][0]["parameters"].items()
    listed = ", ".join(f"{key}={value}" for key, value in parameters)
    return [f"`{kind}` {listed}", *cells]


def costs(kind: str, results: dict[str, list[Any]]) -> list[str]:
    recall = IndexRecall.from_dict(results["mapped"][0]["measured"])

    def megabytes(part: str, *keys: str) -> str:
        return (
            f"{statistics.median(reduce(getitem, keys, run) for run in results[part]) / 1e6:,.1f}"
        )

    return [
        f"`{kind}`",
        recall.recall_at_1.describe(),
        recall.recall_at_10.describe(),
        megabytes("built", "bytes"),
        megabytes("built", "peak_bytes_above_vectors"),
        *(megabytes(part, "resident", "opened", "RssAnon") for part in ("mapped", "in_memory")),
        megabytes("mapped", "resident", "asked", "RssFile"),
    ]


TIMES = (
    "index",
    "built, s",
    "mapped: single, ms",
    "in batches of 100",
    "in memory: single, ms",
    "in batches of 100",
)
COSTS = (
    *("index", "recall@1", "recall@10", "file, MB", "peak of building above the vectors, MB"),
    *(
        "own memory when opened, MB: mapped",
        "in memory",
        "file pages after 1,000 look-ups, mapped, MB",
    ),
)


def page(result: dict[str, Any]) -> list[str]:
    lines = [
        "",
        (
            f"Unit vectors of {DIM} dimensions around class centres, {PER_CLASS} images each;"
            f" {QUERIES:,} queries of the same classes, ten nearest, one thread."
            f" {of_rounds(result['rounds'])}. Recall@k: share of the k images found that are as"
            " near as the k exactly nearest, with a 95% interval."
        ),
    ]
    for size, by_kind in result["sizes"].items():
        measured = [run["measured"] for results in by_kind.values() for run in results["mapped"]]
        single = median_spread([recall["exact_milliseconds"] for recall in measured])
        batched = median_spread([recall["exact_milliseconds_batched"] for recall in measured])
        lines += [
            "",
            f"## {int(size):,} images",
            "",
            f"Exact, without an index: {single} ms a look-up, {batched} in batches of 100.",
            "",
        ]
        lines += table(TIMES, [times(kind, results) for kind, results in by_kind.items()])
        lines += ["", *table(COSTS, [costs(kind, results) for kind, results in by_kind.items()])]
    return lines


def main() -> None:
    options = options_of(
        __doc__, sizes=(10_000, 100_000, 1_000_000), kinds=(), folder=tempfile.gettempdir()
    )
    wanted = (2000,) if options.quick else options.sizes
    of_size: dict[int, Sequence[str]] = {}
    for size in wanted:
        of_size[size] = [kind for kind in KINDS if size <= LARGEST_FOR.get(kind, size)]
    if options.kinds:
        of_size = dict.fromkeys(wanted, options.kinds)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that measure
    with tempfile.TemporaryDirectory(prefix="galleries-", dir=options.folder) as folder:
        sizes = {
            str(size): race(size, kinds, options.rounds, Path(folder))
            for size, kinds in of_size.items()
        }
    shape = {"dim": DIM, "images_per_class": PER_CLASS, "queries": QUERIES}
    result = {**facts(), "threads": 1, "rounds": options.rounds, **shape, "sizes": sizes}
    write("galleries", "Large galleries", result, page(result), options.out)


if __name__ == "__main__":
    if (arguments := alone()) is not None:
        print(json.dumps(one(*arguments)))
    else:
        main()
