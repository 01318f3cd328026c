"""Public functions over the cache: what is kept between commands, and how to remove it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dml_bench.api.arguments import PathLike, texts_of
from dml_bench.runs import layout
from dml_bench.system.cache_folder import cache_folder

__all__ = ["CacheEntry", "cached", "clear_cache"]

CACHE_KINDS = {
    "images": "decoded images",
    "features": "features of frozen networks",
    "pretrained": "weights of pretraining inside a phase",
    "drawn": "drawn birds",
    "digests": "digests of image files",
    "browse": "FiftyOne databases",
    "maps": "maps of embeddings",
    "thumbnails": "small copies of images",
}
"""What is kept, in words. All but `drawn` are folders of that name; what is removed is made anew
when it is needed."""


@dataclass(frozen=True)
class CacheEntry:
    """One thing that is kept: its kind, its file or folder, and its size in bytes.

    >>> entries = db.cached()
    >>> entries[0].kind, entries[0].num_bytes > 0
    ('images', True)
    """

    kind: str
    path: Path
    num_bytes: int


def cached(kinds: Sequence[str] = (), *, cache_dir: PathLike | None = None) -> list[CacheEntry]:
    """What is kept in the cache, by kind and path; of some kinds, or of all.

    `cache_dir` is by default DML_BENCH_CACHE or ~/.cache/dml-bench. Sizes are in bytes.

    Raises ValueError on a kind that there is not.
    Source: docs/performance.md.

    >>> [entry.kind for entry in db.cached(["images"])][:1]
    ['images']
    """
    root = cache_folder(cache_dir)
    chosen = texts_of(kinds, "kinds")
    for kind in chosen:
        if kind not in CACHE_KINDS:
            raise ValueError(f"unknown kind {kind!r}: choose from {', '.join(CACHE_KINDS)}")
    entries = []
    for kind in chosen or CACHE_KINDS:
        pattern = "*-edition*" if kind == "drawn" else f"{kind}/*"
        paths = [path for path in sorted(root.glob(pattern)) if not path.name.startswith(".")]
        entries += [CacheEntry(kind, path, bytes_of(path)) for path in paths]
    return entries


def bytes_of(path: Path) -> int:
    """The size of a file, or of all files below a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def clear_cache(
    kinds: Sequence[str] = (), *, cache_dir: PathLike | None = None
) -> list[CacheEntry]:
    """Remove what is kept in the cache, of some kinds or of all, and return what was removed. Run
    folders are never removed, wherever the cache is.

    Raises ValueError on a kind that there is not, and where a database is in use.
    Source: docs/performance.md.

    >>> db.draw_birds("small_cache/few-edition1", classes=1, per_class=1, size=32)
    PosixPath('small_cache/few-edition1')
    >>> [entry.path.name for entry in db.clear_cache(cache_dir="small_cache")]
    ['few-edition1']
    """
    from dml_bench.browse.database import DatabaseFolder
    from dml_bench.system.drafts import remove

    removed = []
    for entry in cached(kinds, cache_dir=cache_dir):
        if holds_a_run(entry.path):
            continue
        if entry.kind == "browse" and entry.path.is_dir():
            database = DatabaseFolder(entry.path)
            with database.lock():
                database.remove()
        else:
            remove(entry.path)
        removed.append(entry)
    return removed


def holds_a_run(path: Path) -> bool:
    return path.is_dir() and any(path.rglob(layout.EXPERIMENT))
