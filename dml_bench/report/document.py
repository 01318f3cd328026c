"""A document as values: composed once, then written as HTML, Markdown, CSV files or terminal text.

Writers know the kinds of blocks below and no section by name, so that a new section is written
everywhere. Names and commands stand between backticks in text. Each writer sets them as code, but
for the short names of experiments, behind which it shows the full ones where it can.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias

from dml_bench.plots.canvas import ReportFigure

__all__ = [
    "Block",
    "Card",
    "Cell",
    "Code",
    "Column",
    "Data",
    "Details",
    "Document",
    "Facts",
    "Heading",
    "Images",
    "Items",
    "Panels",
    "Picture",
    "Row",
    "Style",
    "Table",
    "Text",
    "Tone",
    "Vote",
]

Style = Literal["plain", "strong", "soft", "notice"]
"""How text is set: `soft` explains, `notice` warns."""
Tone = Literal["", "good", "bad", "unsure", "soft"]
"""What a cell means to the reader; writers have a colour for it."""


@dataclass(frozen=True, slots=True)
class Heading:
    """The title of a part (level 2), a section (3) or a subsection (4)."""

    text: str
    level: Literal[2, 3, 4] = 3
    anchor: str = ""
    """Where links to it lead, unique in the document; empty without."""


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str
    style: Style = "plain"


@dataclass(frozen=True, slots=True)
class Items:
    """A list of short paragraphs."""

    items: tuple[str, ...]
    style: Style = "plain"


@dataclass(frozen=True, slots=True)
class Facts:
    """A list of terms, each with what there is to say of it."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a table's column."""

    head: str
    numeric: bool = True
    """Its cells are numbers: they are set to the right and sorted by size."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table."""

    text: str
    sort: float | str | None = None
    """What the cell is sorted by; None where there is nothing, which comes last."""
    tone: Tone = ""
    hover: str = ""
    """More about it, where a writer can show that on demand."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table."""

    cells: tuple[Cell, ...]
    remarks: tuple[str, ...] = ()
    """What a reader of its numbers has to know."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first column names its rows."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A small copy of an image."""

    name: str
    """File name of the copy."""
    path: str
    """The image itself, inside its data set."""
    jpeg: bytes | None
    """None where the image can't be read."""
    caption: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Vote:
    """How many of the ten nearest images are of a class."""

    count: int
    label: str
    right: bool
    """It is the class of the query."""
    elected: bool


@dataclass(frozen=True, slots=True)
class Card:
    """Pictures that belong together, with what is to be said of them."""

    pictures: tuple[Picture, ...]
    text: str = ""
    votes: tuple[Vote, ...] = ()


@dataclass(frozen=True, slots=True)
class Images:
    """Cards of pictures, all with the same number of them."""

    heads: tuple[str, ...]
    """What the pictures of a card are, in their order."""
    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Lines that are shown as they are."""

    text: str
    language: str


@dataclass(frozen=True, slots=True)
class Data:
    """Numbers for programs, as they are: the file NAME.csv, which no page shows."""

    name: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def beside_split(self, split: str | Mapping[str, str]) -> "Data":
        """The same with a last column `split`: the kind of split of all rows, or, by its name, of
        the experiment in a row's first cell."""
        if isinstance(split, str):
            rows = [[*row, split] for row in self.rows]
        else:
            rows = [[*row, split[row[0]]] for row in self.rows]
        return Data(self.name, [*self.heads, "split"], rows)


@dataclass(frozen=True, slots=True)
class Details:
    """Blocks that are folded away under a summary."""

    summary: str
    blocks: "tuple[Block, ...]"


@dataclass(frozen=True, slots=True)
class Panels:
    """Groups of blocks that may stand side by side."""

    panels: "tuple[tuple[Block, ...], ...]"


Block: TypeAlias = (
    Heading | Text | Items | Facts | Table | ReportFigure | Images | Code | Data | Details | Panels
)


@dataclass(frozen=True, slots=True)
class Document:
    """A title and blocks in their order."""

    title: str
    blocks: tuple[Block, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    """By the short names of experiments their full ones."""

    def walk(self) -> Iterator[Block]:
        """Every block, those inside others too, in the order of the document."""
        return walk(self.blocks)

    def with_figures(self, patterns: Sequence[str]) -> "Document":
        """The same without figures whose names fit none of these patterns (`changes-*`)."""
        return replace(self, blocks=with_figures(self.blocks, patterns))

    @property
    def figures(self) -> list[ReportFigure]:
        """All its figures."""
        return [block for block in self.walk() if isinstance(block, ReportFigure)]

    @property
    def pictures(self) -> list[Picture]:
        """All its pictures that can be read."""
        cards = [card for block in self.walk() if isinstance(block, Images) for card in block.cards]
        return [picture for card in cards for picture in card.pictures if picture.jpeg is not None]

    @property
    def data(self) -> list[Data]:
        """All its CSV files."""
        return [block for block in self.walk() if isinstance(block, Data)]


def walk(blocks: Sequence[Block]) -> Iterator[Block]:
    """Blocks, and those inside them."""
    for block in blocks:
        yield block
        if isinstance(block, Details):
            yield from walk(block.blocks)
        if isinstance(block, Panels):
            for panel in block.panels:
                yield from walk(panel)


def with_figures(blocks: Sequence[Block], patterns: Sequence[str]) -> tuple[Block, ...]:
    """Blocks without the figures that fit no pattern, and without what then is empty."""
    kept: list[Block] = []
    for block in blocks:
        if isinstance(block, ReportFigure):
            if any(fnmatchcase(block.name, pattern) for pattern in patterns):
                kept.append(block)
        elif isinstance(block, Details):
            if inside := with_figures(block.blocks, patterns):
                kept.append(replace(block, blocks=inside))
        elif isinstance(block, Panels):
            panels = tuple(with_figures(panel, patterns) for panel in block.panels)
            kept.append(replace(block, panels=tuple(filter(None, panels))))
        else:
            kept.append(block)
    return tuple(kept)
