"""Tables that were written with full names of experiments, with the short ones and the full ones on
hover."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from dml_bench.report.document import Block, Cell, Details, Row, Table

__all__ = ["with_short_names"]


def with_short_names(blocks: Iterable[Block], names: Mapping[str, str]) -> Iterator[Block]:
    """The same blocks; `names` are the short names by the full ones."""
    longest_first = sorted(names, key=len, reverse=True)
    for block in blocks:
        match block:
            case Table():
                rows = [short_row(row, names, longest_first) for row in block.rows]
                yield replace(block, rows=tuple(rows))
            case Details():
                yield replace(block, blocks=tuple(with_short_names(block.blocks, names)))
            case _:
                yield block


def short_row(row: Row, names: Mapping[str, str], longest_first: Iterable[str]) -> Row:
    cells = [short_cell(cell, names, longest_first) for cell in row.cells]
    return replace(row, cells=tuple(cells))


def short_cell(cell: Cell, names: Mapping[str, str], longest_first: Iterable[str]) -> Cell:
    """A cell that is a name, or a sentence that has some."""
    if cell.text in names:
        short = names[cell.text]
        return replace(cell, text=short, sort=short, hover=cell.text)
    text = cell.text
    for name in longest_first:
        text = text.replace(name, names[name])
    return cell if text == cell.text else replace(cell, text=text, hover=cell.text)
