"""The numbers of a document as CSV files."""

from pathlib import Path

from dml_bench.report.document import Document
from dml_bench.system.files import write_csv

__all__ = ["write"]


def write(folder: Path, document: Document) -> None:
    """A file in `folder` for each Data block of the document."""
    for data in document.data:
        write_csv(folder / f"{data.name}.csv", data.heads, data.rows)
