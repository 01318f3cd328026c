"""A document as one HTML file that needs no network: it holds styles, script and pictures."""

import base64
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from dml_bench.plots.colours import style
from dml_bench.report.document import Block, Cell, Column, Document, Heading, Picture
from dml_bench.system.files import write_atomically
from dml_bench.system.templates import templates

if TYPE_CHECKING:
    import jinja2

__all__ = ["blocks", "text", "write"]


def write(path: Path, document: Document) -> None:
    """The page as one file."""
    content = text(document).encode()
    write_atomically(path, lambda file: file.write(content))


def text(document: Document) -> str:
    """The whole page."""
    parts = [block for block in document.blocks if isinstance(block, Heading) and block.level == 2]
    template = environment_of(document).get_template("page.html.jinja")
    return template.render(document=document, parts=parts, colours=Markup(style()))


def blocks(document: Document) -> Markup:
    """Its blocks alone, for a page that has more; it needs `page.css`."""
    template = environment_of(document).get_template("blocks.html.jinja")
    block_of = template.module.__dict__["block_of"]
    return Markup("\n").join(map(block_of, document.blocks))


def environment_of(document: Document) -> "jinja2.Environment":
    """`blocks.html.jinja` says how each kind of block is set."""
    environment = templates(Path(__file__).parent)
    environment.filters |= {
        "kind": kind,
        "spoken": partial(spoken, names=document.names),
        "figure": partial(figure_svg, names=document.names),
        "breakable": breakable,
        "sort_key": sort_key,
        "cell": cell_text,
        "data_uri": data_uri,
    }
    return environment


def kind(block: Block) -> str:
    """The name of the block's class, by which the template chooses."""
    return type(block).__name__


def spoken(sentence: str, names: Mapping[str, str]) -> Markup:
    """A sentence, with what stands between backticks as code that may be broken at its underscores,
    or as a short name that shows the full one on hover."""
    parts = []
    for number, part in enumerate(sentence.split("`")):
        if not number % 2:
            parts.append(escape(part))
        elif part in names:
            name = Markup('<b class="name" title="{}">{}</b>')
            parts.append(name.format(names[part], part))
        else:
            parts.append(Markup("<code>{}</code>").format(breakable(part)))
    return Markup("").join(parts)


def figure_svg(svg: str, names: Mapping[str, str]) -> Markup:
    """A figure in which short names show the full ones on hover."""
    for short, name in names.items():
        end = f">{escape(short)}</text>"
        svg = svg.replace(end, f"><title>{escape(name)}</title>{end[1:]}")
    return Markup(svg)


def breakable(name: str) -> Markup:
    """A name that may be broken after each underscore and plus sign."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_+])", name))


def sort_key(cell: Cell) -> str:
    """What the page's script sorts a cell by; empty where there is nothing."""
    if cell.sort is None:
        return ""
    return cell.sort if isinstance(cell.sort, str) else repr(cell.sort)


def cell_text(cell: Cell, column: Column) -> Markup:
    """A number above its interval, or above the spread of its draws; a name that may be broken."""
    estimate, *behind = re.split(r" (?=[\[(])", cell.text, maxsplit=1)
    if column.numeric and behind:
        return Markup("{}<span>{}</span>").format(estimate, behind[0])
    return breakable(cell.text) if not column.numeric else escape(cell.text)


def data_uri(picture: Picture) -> str:
    """The picture itself as a link."""
    assert picture.jpeg is not None
    return f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}"
