"""A document as Markdown, for places that show no HTML."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from dml_bench.plots.canvas import ReportFigure
from dml_bench.report.assets import FIGURES, IMAGES
from dml_bench.report.document import (
    Block,
    Card,
    Cell,
    Code,
    Details,
    Document,
    Facts,
    Heading,
    Images,
    Items,
    Panels,
    Picture,
    Row,
    Table,
    Text,
)
from dml_bench.system.files import write_atomically
from dml_bench.system.markdown import Markdown, fenced, markdown, markdown_row, picture, sentence

__all__ = ["text", "write"]


def write(path: Path, document: Document) -> None:
    """The page as one file; its figures and pictures are files beside it."""
    content = text(document).encode()
    write_atomically(path, lambda file: file.write(content))


def text(document: Document) -> str:
    """The whole page."""
    paragraphs = [f"# {markdown(document.title)}", *of_blocks(document.blocks)]
    return "\n\n".join(paragraphs) + "\n"


def of_blocks(blocks: Sequence[Block]) -> Iterator[str]:
    """Paragraphs, tables and lists, between which a line is left empty."""
    for block in blocks:
        yield from of_block(block)


def of_block(block: Block) -> Iterator[str]:  # noqa: C901 - a case for each kind of block
    match block:
        case Heading():
            yield f"{'#' * block.level} {sentence(block.text)}"
        case Text():
            yield f"**{sentence(block.text)}**" if block.style == "strong" else sentence(block.text)
        case Items():
            yield "\n".join(f"- {sentence(item)}" for item in block.items)
        case Facts():
            yield "\n".join(
                f"- **{sentence(term)}**: {sentence(text)}" for term, text in block.items
            )
        case Table():
            yield of_table(block)
        case ReportFigure():
            if block.caption:
                yield f"**{markdown(block.title)}.** {markdown(block.caption)}"
            yield picture(f"{FIGURES}/{block.name}.png", block.title)
        case Images():
            yield of_images(block)
        case Code():
            yield fenced(block.text, block.language)
        case Details():
            yield f"<details><summary>{escape(block.summary)}</summary>"
            yield from of_blocks(block.blocks)
            yield "</details>"
        case Panels():
            for panel in block.panels:
                yield from of_blocks(panel)


def of_table(table: Table) -> str:
    """Remarks have a column of their own where there are some."""
    has_remarks = any(row.remarks for row in table.rows)
    heads = [column.head for column in table.columns]
    rules = ["---" if not column.numeric else "--:" for column in table.columns]
    if has_remarks:
        heads.append("remarks")
        rules.append("---")
    lines = [markdown_row(heads), markdown_row(rules)]
    lines += [markdown_row(cells_of(row, has_remarks)) for row in table.rows]
    return "\n".join(lines)


def cells_of(row: Row, has_remarks: bool) -> list[str]:
    cells: list[str] = [of_cell(cell) for cell in row.cells]
    return [*cells, "; ".join(row.remarks)] if has_remarks else cells


def of_cell(cell: Cell) -> Markdown:
    return sentence(cell.text)


def of_images(images: Images) -> str:
    """A row for each card."""
    lines = [
        markdown_row([*images.heads, ""]),
        markdown_row(["---"] * (len(images.heads) + 1)),
    ]
    lines += [markdown_row(cells_of_card(card)) for card in images.cards]
    return "\n".join(lines)


def cells_of_card(card: Card) -> list[str]:
    votes = []
    for vote in card.votes:
        elected = " (elected)" if vote.elected else ""
        votes.append(f"{vote.count} {vote.label}{elected}")
    return [*map(of_picture, card.pictures), ", ".join(votes) or card.text]


def of_picture(shown: Picture) -> Markdown:
    """The copy above its caption."""
    caption = f"{shown.caption} ({shown.remark})" if shown.remark else shown.caption
    if shown.jpeg is None:
        return Markdown(f"{markdown(shown.path)} (not there)<br>{markdown(caption)}")
    return Markdown(f"{picture(f'{IMAGES}/{shown.name}')}<br>{markdown(caption)}")
