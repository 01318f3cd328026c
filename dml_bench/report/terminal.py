"""A document in a terminal: its text and tables; figures and pictures by their titles."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from dml_bench.plots.canvas import ReportFigure
from dml_bench.report.document import (
    Block,
    Card,
    Cell,
    Code,
    Column,
    Details,
    Document,
    Facts,
    Heading,
    Images,
    Items,
    Panels,
    Row,
    Style,
    Table,
    Text,
    Tone,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text as RichText

__all__ = ["show"]

TONES: dict[Tone, str] = {"": "", "good": "green", "bad": "red", "unsure": "yellow", "soft": "dim"}
STYLES: dict[Style, str] = {"plain": "", "strong": "bold", "soft": "dim", "notice": "yellow"}
GAP = 2
"""Columns between those of a table."""


def show(console: "Console", document: Document) -> None:
    """Print the document. What is folded away in a page is named by its summary."""
    from rich.text import Text as RichText

    console.print(RichText(document.title, style="bold underline"))
    for block in document.blocks:
        for part in of_block(block, console.width):
            console.print(part)


def of_block(  # noqa: C901 - a case for each kind of block
    block: Block, width: int
) -> Iterator["RenderableType"]:
    match block:
        case Heading():
            yield from ("", styled(block.text, "bold"))
        case Text():
            yield styled(block.text, STYLES[block.style])
        case Items():
            yield from (styled(f"- {item}", STYLES[block.style]) for item in block.items)
        case Facts():
            yield from (styled(f"{term}: {text}", "") for term, text in block.items)
        case Table():
            yield from of_table(block, width)
        case ReportFigure():
            yield styled(f"[figure] {block.title}", "dim")
        case Images():
            yield from (styled(of_card(block, card), "") for card in block.cards)
        case Code():
            yield styled(block.text, "dim")
        case Details():
            yield styled(block.summary, "dim")
        case Panels():
            for panel in block.panels:
                for inner in panel:
                    yield from of_block(inner, width)


def styled(text: str, style: str) -> "RichText":
    """The text, with what stands between backticks in bold."""
    from rich.text import Text as RichText

    line = RichText(style=style)
    for number, part in enumerate(text.split("`")):
        line.append(part, style="bold" if number % 2 else "")
    return line


def of_table(table: Table, width: int) -> Iterator["RenderableType"]:
    """One table; where it is too wide and holds numbers, several with the same rows; where it holds
    text, a list."""
    yield ""
    if widths_of(table, range(len(table.columns))) <= width:
        yield rich_table(table, range(len(table.columns)), table.title)
    elif all(column.numeric for column in table.columns[1:]):
        title: str | None = table.title
        for columns in split_columns(table, width):
            yield from ([] if title else [""])
            yield rich_table(table, columns, title)
            title = None
    else:
        yield from as_list(table)
    for row in table.rows:
        for remark in row.remarks:
            yield styled(f"{row.cells[0].text}: {remark}", "yellow")


def widths_of(table: Table, columns: Sequence[int]) -> int:
    return sum(width_of(table, column) + GAP for column in columns)


def width_of(table: Table, column: int) -> int:
    """Heads are broken between their parts, cells are not."""
    head = max(map(len, table.columns[column].head.split()), default=0)
    return max([head, *(len(row.cells[column].text) for row in table.rows)])


def split_columns(table: Table, width: int) -> list[list[int]]:
    """Columns that fit beside each other, the first of the table before each group of them."""
    groups: list[list[int]] = [[0]]
    for column in range(1, len(table.columns)):
        if len(groups[-1]) > 1 and widths_of(table, [*groups[-1], column]) > width:
            groups.append([0])
        groups[-1].append(column)
    return groups


def rich_table(table: Table, columns: Sequence[int], title: str | None) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    shown = RichTable(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    for column in columns:
        add_column(shown, table.columns[column])
    for row in table.rows:
        shown.add_row(*(of_cell(row.cells[column]) for column in columns))
    return shown


def add_column(shown: Any, column: Column) -> None:
    if column.numeric:
        shown.add_column(column.head.replace(" ", "\n"), justify="right", no_wrap=True)
    else:
        shown.add_column(column.head, overflow="fold")


def of_cell(cell: Cell) -> "RichText":
    return styled(cell.text, TONES[cell.tone])


def as_list(table: Table) -> Iterator["RenderableType"]:
    """Rows of the same name under it: the second cell, then the others with their heads."""
    from rich.padding import Padding

    yield styled(table.title, "bold")
    for name, rows in groupby(table.rows, key=lambda row: row.cells[0].text):
        yield styled(name, "")
        for row in rows:
            yield Padding(list_line(table, row), (0, 0, 0, 2))


def list_line(table: Table, row: Row) -> "RichText":
    line = styled(f"{row.cells[1].text}: ", TONES[row.cells[1].tone])
    others = zip(table.columns[2:], row.cells[2:], strict=True)
    parts = [f"{column.head} {cell.text}" for column, cell in others if cell.text]
    return line.append("; ".join(parts), style="default")


def of_card(images: Images, card: Card) -> str:
    parts = []
    for head, picture in zip(images.heads, card.pictures, strict=True):
        remark = f" ({picture.remark})" if picture.remark else ""
        parts.append(f"{head}: {picture.caption}{remark}")
    votes = ", ".join(f"{vote.count} {vote.label}" for vote in card.votes)
    return "; ".join([*parts, votes or card.text])
