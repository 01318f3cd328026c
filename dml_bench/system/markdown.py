"""Text as Markdown: what people wrote stays what they wrote, and what is Markdown already is left
alone."""

import re
from collections.abc import Iterable
from html import escape

__all__ = ["Markdown", "code", "fenced", "markdown", "markdown_row", "picture", "sentence"]

SPECIAL = re.compile(r"[\\`*|~$]|(?<!\w)_|_(?!\w)|^\[|\](?=[(\[])|!(?=\[)")
"""What begins something in Markdown as GitHub reads it; an underscore between letters and a bracket
by itself begin nothing."""


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def markdown(text: str) -> Markdown:
    """The text in one line, so that it is shown as it is: no HTML, no formula, no emphasis, no cell
    of a table."""
    if isinstance(text, Markdown):
        return text
    return Markdown(SPECIAL.sub(r"\\\g<0>", escape(" ".join(text.splitlines()), quote=False)))


def code(text: str) -> Markdown:
    """The text as code, between more backticks than it has in a row."""
    ticks = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return Markdown(f"{ticks}{space}{text}{space}{ticks}")


def sentence(text: str) -> Markdown:
    """Our own sentence, in which names of experiments and commands stand between backticks: those
    as code, the rest as it is."""
    parts = re.split(r"`([^`]*)`", text)
    return Markdown(
        "".join(code(part) if number % 2 else markdown(part) for number, part in enumerate(parts))
    )


def picture(path: str, description: str = "") -> Markdown:
    """A picture, with words for those who can't see it; `path` is relative to the page."""
    from urllib.parse import quote

    return Markdown(f"![{markdown(description)}]({quote(path)})")


def fenced(text: str, language: str) -> Markdown:
    """Lines of code, between more backticks than they have in a row."""
    fence = "`" * max(3, max(map(len, re.findall("`+", text)), default=0) + 1)
    return Markdown(f"{fence}{language}\n{text}\n{fence}")


def markdown_row(cells: Iterable[str]) -> Markdown:
    """A line of a table."""
    return Markdown(f"| {' | '.join(map(markdown, cells))} |")
