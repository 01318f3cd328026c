"""Results that print themselves, in a notebook too, as the commands show them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from dml_bench.report.document import Document

__all__ = ["Printed", "PrintedDocument", "PrintedRecord"]


class Printed:
    """Its text is what `show` shows. A dataclass of this kind says `repr=False`."""

    def show(self, console: "Console") -> None:
        """Print it on a terminal."""
        raise NotImplementedError

    def __str__(self) -> str:
        from dml_bench.system.terminal import as_text

        return as_text(self.show)

    __repr__ = __str__


class PrintedRecord(Printed):
    """One that is plain values too."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as the command prints them with --json."""
        raise NotImplementedError

    def as_json(self) -> str:
        """The same as JSON."""
        from dml_bench.system.files import json_text

        return json_text(self.as_dict())


@dataclass(frozen=True, repr=False)
class PrintedDocument(Printed):
    """A composed page, with the tables that belong to it."""

    document: "Document"

    def show(self, console: "Console") -> None:
        """Print it on a terminal."""
        from dml_bench.report.terminal import show

        show(console, self.document)

    def write(self, out: str | Path) -> Path:
        """Write index.html, report.md and tables into `out`, and return the page."""
        from dml_bench.report.compose import write

        Path(out).mkdir(parents=True, exist_ok=True)
        write(Path(out), self.document)
        return Path(out) / "index.html"
