"""Which files a report or a suite wrote: nothing else in a folder is written over or removed."""

import re
from collections.abc import Sequence
from pathlib import Path

from dml_bench.plots.canvas import FILE_STYLE

__all__ = ["is_ours", "require_ours"]

OURS = {
    ".html": re.compile('<meta name="generator" content="dml-bench">'),
    ".md": re.compile(r"^Made by .* Do not edit it\.", re.MULTILINE),
    ".csv": re.compile(r"\A(experiment|metric)[,\n]|\A\Z"),
    ".svg": re.compile(re.escape(FILE_STYLE)),
}
"""By this a file is known."""


def require_ours(out: Path, names: Sequence[str], option: str = "--out") -> None:
    """Raises ValueError where a file of one of these names in the folder was written by others.
    `option` is the one that names the folder."""
    for name in names:
        if (out / name).exists() and not is_ours(out / name):
            raise ValueError(
                f"{out / name} was made by no report and would be lost: choose another {option} DIR"
            )


def is_ours(path: Path) -> bool:
    """Whether a report or a suite wrote a file; of what is empty, nothing is lost."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "a folder"
    return OURS[path.suffix].search(text) is not None
