"""The figures and pictures of a document as files beside its pages."""

from pathlib import Path

from dml_bench.plots.canvas import standalone
from dml_bench.report.document import Document
from dml_bench.system.failures import named

__all__ = ["FOLDERS", "write"]

FIGURES, IMAGES = "figures", "images"
FOLDERS = (FIGURES, IMAGES)
"""Below the folder of the pages; Markdown pages link to the files in them."""


def write(folder: Path, document: Document) -> None:
    """`figures/NAME.svg` and `.png`, and `images/NAME.jpg`; the folders have to be there."""
    for figure in document.figures:
        write_file(folder / FIGURES / f"{figure.name}.svg", standalone(figure.svg).encode())
        write_file(folder / FIGURES / f"{figure.name}.png", figure.png)
    for picture in document.pictures:
        assert picture.jpeg is not None
        write_file(folder / IMAGES / picture.name, picture.jpeg)


def write_file(path: Path, content: bytes) -> None:
    with named(path):
        path.write_bytes(content)
