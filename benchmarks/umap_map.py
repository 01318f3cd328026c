"""Time `project`, which draws the map of `browse` and `umap`, with nothing compiled and later.

    python benchmarks/umap_map.py

The vectors are drawn around 200 class centres. umap compiles its loops by numba, which keeps a part
of them in a folder. In each round one process finds that folder empty, as on a new machine, and one
finds what the first left there. Writes reports/speed/umap_map.json and umap_map.md.
"""

import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    alone,
    facts,
    in_processes,
    median_spread,
    memory_of_this,
    options_of,
    table,
    write,
)
from galleries import DIM, around

from dml_bench.browse.projection import project

CLASSES = 200
FIRST, LATER = "nothing compiled", "a later process"
HEADS = ("seconds", "processor_seconds", "peak_gigabytes", "seconds_kept")


def map_once(images: int, folder: Path) -> dict[str, Any]:
    """Seconds and memory of the first map in this process, which has imported no umap, and of
    reading it where it was kept; and the SHA-256 of its points."""
    centres = np.random.default_rng(1).normal(size=(CLASSES, DIM)).astype(np.float32)
    embeddings = around(centres[np.arange(images) % CLASSES], 2)
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    cache, memory = folder / f"{os.getpid()}.safetensors", memory_of_this()["VmRSS"]
    start, used = time.perf_counter(), time.process_time()
    points = project(embeddings, embeddings[:0], cache)
    measured = {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - used,
        "peak_gigabytes": (memory_of_this()["VmHWM"] - memory) / 1e9,
    }
    start = time.perf_counter()
    kept = project(embeddings, embeddings[:0], cache)
    measured["seconds_kept"] = time.perf_counter() - start
    assert np.array_equal(points, kept)
    return {**measured, "sha256": hashlib.sha256(points.tobytes()).hexdigest()}


def values_of(head: str, maps: list[dict[str, Any]]) -> list[float]:
    return [made[head] for made in maps]


def main() -> None:
    options = options_of(__doc__, images=12_000)
    images = 500 if options.quick else options.images
    maps: dict[str, list[dict[str, Any]]] = {FIRST: [], LATER: []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            arguments = [str(images), folder]
            for name, made in in_processes(__file__, dict.fromkeys(maps, arguments), 1).items():
                maps[name] += made
    rows = []
    for name, of_name in maps.items():
        rows.append([name, *(median_spread(values_of(head, of_name)) for head in HEADS)])
    every = [made["sha256"] for made in maps[FIRST] + maps[LATER]]
    lines = [
        "",
        f"{images:,} embeddings of {DIM} numbers. From the call to the points, with the import of"
        " umap and all that it compiles; the peak is above what the process had before. Then"
        " reading a map that was kept.",
        "",
        *table(["", "s", "s of processors", "GB at the peak", "s if kept"], rows),
        "",
        f"Distinct maps by {len(every)} processes: {len(set(every))}.",
    ]
    title = "Drawing a map by UMAP for the first time"
    write("umap_map", title, {**facts(), "images": images, "maps": maps}, lines, options.out)


if __name__ == "__main__":
    if (arguments := alone()) is not None:
        print(json.dumps(map_once(int(arguments[0]), Path(arguments[1]))))
    else:
        main()
