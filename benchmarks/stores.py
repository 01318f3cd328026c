"""Export one gallery into each vector store and look up in it, beside the exact search in memory.

    python benchmarks/stores.py

Writes reports/speed/stores.json and stores.md. The vectors are those of galleries.py. PostgreSQL is
the one in the package pgserver, which listens on a socket in a temporary folder.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import facts, options_of, table, write
from galleries import DIM, draw, queries_of

from dml_bench.gallery.store import Gallery, GalleryImage
from dml_bench.gallery.stores.base import StoreRecord, VectorStore
from dml_bench.gallery.vector_stores import STORES
from dml_bench.version import __version__

LOOK_UPS = 100
LARGEST_FOR = {"qdrant": 10_000}
"""Images up to which a store is measured: Qdrant's local mode is slow to write."""
HEAD = ("store", "written, s", "on the disk, MB", "one look-up, ms", "same nearest image")


def drawn(images: int, folder: Path) -> tuple[Gallery, np.ndarray]:
    """A gallery, and queries."""
    draw(folder / "vectors.npy", images)
    entries = tuple(
        GalleryImage(f"class {row % 1000}", f"/photos/{row:08}.jpg", f"{row:064x}", "run")
        for row in range(images)
    )
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    return Gallery(entries, vectors), np.load(queries_of(folder / "vectors.npy"))[:LOOK_UPS]


def measured(store: VectorStore, gallery: Gallery, query: np.ndarray, size: Any) -> dict[str, Any]:
    """Seconds to write, bytes, milliseconds of one look-up for ten images, and the share of queries
    with the nearest image of the exact search."""
    record = StoreRecord(
        embedder="",
        experiment="benchmark",
        seed=1,
        phase="all",
        dataset="drawn vectors",
        images=len(gallery.entries),
        dim=DIM,
        thresholds=[],
        dml_bench=__version__,
    )
    start = time.perf_counter()
    store.write(gallery, record, "")
    written = time.perf_counter() - start
    times, rows = [], []
    for vector in query:
        start = time.perf_counter()
        rows.append(store.nearest(vector[None], 10).rows[0, 0])
        times.append(1000 * (time.perf_counter() - start))
    exact = (np.asarray(gallery.embeddings) @ query.T).argmax(0)
    return {
        "seconds": written,
        "bytes": size(),
        "milliseconds": statistics.median(times),
        "same_nearest": float((exact == np.array(rows)).mean()),
    }


def size_of(place: Path) -> int:
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def in_postgres(gallery: Gallery, query: np.ndarray, folder: Path) -> dict[str, Any]:
    import pgserver
    import psycopg

    server = pgserver.get_server(folder / "postgres")
    store = STORES["pgvector"](server.get_uri())

    def size() -> int:
        with psycopg.connect(server.get_uri()) as connection:
            row = connection.execute("SELECT pg_total_relation_size('gallery')").fetchone()
        return int(row[0])

    try:
        return measured(store, gallery, query, size)
    finally:
        server.cleanup()


def race(images: int) -> dict[str, dict[str, Any]]:
    """What each store takes for a gallery of so many images."""
    results = {}
    with tempfile.TemporaryDirectory(prefix="stores-") as temporary:
        folder = Path(temporary)
        gallery, query = drawn(images, folder)
        for name, kind in STORES.items():
            if images > LARGEST_FOR.get(name, images):
                continue
            place = folder / name
            if name == "pgvector":
                results[name] = in_postgres(gallery, query, folder)
            else:
                store = kind(str(place))
                results[name] = measured(store, gallery, query, lambda at=place: size_of(at))
            print(images, name, results[name], flush=True)
    return results


def row_of(name: str, result: dict[str, Any]) -> list[str]:
    return [
        f"`{name}`",
        f"{result['seconds']:.2f}",
        f"{result['bytes'] / 1e6:,.1f}",
        f"{result['milliseconds']:.2f}",
        f"{result['same_nearest']:.0%}",
    ]


def main() -> None:
    options = options_of(__doc__, sizes=(10_000, 100_000))
    sizes = (1000,) if options.quick else options.sizes
    results = {str(images): race(images) for images in sizes}
    lines = [
        "",
        (
            f"Unit vectors of {DIM} dimensions with class, path, digest and origin; {LOOK_UPS}"
            " queries, one at a time, ten nearest, exact searches. Raw vectors take 512 bytes an"
            " image."
        ),
    ]
    for images, by_store in results.items():
        rows = [row_of(name, result) for name, result in by_store.items()]
        lines += ["", f"## {int(images):,} images", "", *table(HEAD, rows)]
    write("stores", "Vector stores", {**facts(), "sizes": results}, lines, options.out)


if __name__ == "__main__":
    main()
