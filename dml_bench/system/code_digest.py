"""A digest of the code that decides which images are nearest to a query: what a record of a run is
known by, besides its configuration and its data.

It is of the package's own modules that draw, decode, augment, train, embed and search. Docstrings,
comments and empty lines don't count, so that words may change. What measures and shows (protocols,
statistics, reports) is left out, as records keep the answers and everything is measured of those
again. Readers of data sets are left out, as the data have fingerprints of their own.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

__all__ = ["code_digest", "code_of"]

PACKAGE = Path(__file__).parent.parent
DECIDE = (
    "data/*.py",
    "data/synthetic/*.py",
    "losses/*.py",
    "models/*.py",
    "training/*.py",
    "evaluation/metrics.py",
    "evaluation/search.py",
    "runs/embed_and_search.py",
    "system/devices.py",
    "system/distributed.py",
    "system/seeding.py",
)
"""Patterns of the modules that decide."""
LEFT_OUT = (
    "data/check.py",
    "data/csv_table.py",
    "data/fetch.py",
    "data/identity.py",
    "data/sessions.py",
    "training/channel_statistics.py",
    "training/contact_sheet.py",
    "training/lr_finder.py",
    "training/preview.py",
)
"""Modules that the patterns match and that only read, check or show."""


@cache
def code_digest() -> str:
    """SHA-256 of the deciding modules of the package, with their names."""
    digest = hashlib.sha256()
    for path in deciding_modules(PACKAGE):
        name = path.relative_to(PACKAGE).as_posix()
        source = path.read_text(encoding="utf-8")
        digest.update(f"{name}\n{code_of(source)}\n".encode())
    return digest.hexdigest()


def deciding_modules(package: Path) -> list[Path]:
    """In the order of their names."""
    modules = {path for pattern in DECIDE for path in package.glob(pattern)}
    return sorted(modules - {package / name for name in LEFT_OUT})


def code_of(source: str) -> str:
    """The lines of a module without docstrings, lines of comment and empty lines."""
    said = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
            continue
        if isinstance(node.value.value, str) and node.end_lineno:
            said |= set(range(node.lineno, node.end_lineno + 1))
    kept = []
    for number, line in enumerate(source.splitlines(), start=1):
        text = line.strip()
        if text and number not in said and not text.startswith("#"):
            kept.append(line.rstrip())
    return "\n".join(kept)
