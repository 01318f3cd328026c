"""The folder in which everything is kept that can be made again, and which plug-ins were run."""

import os
from pathlib import Path

__all__ = ["DEFAULT_CACHE", "cache_folder"]

DEFAULT_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "dml-bench"


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """The folder of decoded images, drawn birds and pretrained weights: the named one, or that of
    the environment variable DML_BENCH_CACHE, or ~/.cache/dml-bench. Raises ValueError where there
    is no home folder."""
    folder = Path(cache_dir or os.environ.get("DML_BENCH_CACHE") or DEFAULT_CACHE)
    try:
        return folder.expanduser()
    except RuntimeError:
        raise ValueError(
            f"{folder}: there is no home folder here: set HOME, or name a folder with"
            " --cache-dir DIR"
        ) from None
