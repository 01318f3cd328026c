"""Names as people write them, in pictures: never markup, in any script, and never an empty box.

matplotlib sets all text, in figures and on what Pillow draws: it takes each character from the
first of several fonts that has it, and joins and turns scripts that need it. Its own DejaVu Sans
comes first; the extra `fonts` adds Noto fonts of other scripts and of emoji.
"""

import unicodedata
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Pen", "families_for", "literal", "shortened", "text_style"]

PACKAGES = ("manimgx_fonts", "manimgx_fonts_cjk")
"""What the extra `fonts` installs, as far as it is there."""
FIRST = "DejaVu Sans"
"""Comes with matplotlib."""


DOTS_PER_INCH = 72
"""At which a point is a pixel."""


@cache
def families() -> tuple[str, ...]:
    """The names of all fonts that may be used, the preferred one first; matplotlib knows them from
    here on."""
    from matplotlib.font_manager import fontManager

    names = [FIRST]
    for package in PACKAGES:
        spec = find_spec(package)
        folders = spec.submodule_search_locations if spec else None
        for file in sorted(
            path for folder in folders or () for path in Path(folder).glob("*.tt[fc]")
        ):
            if "Italic" not in file.name:
                before = len(fontManager.ttflist)
                fontManager.addfont(file)
                # Of a collection the first. A variable font says its lightest weight, and
                # matplotlib would log that it is not the one wanted.
                fontManager.ttflist[before:] = [replace(fontManager.ttflist[before], weight=400)]
                names.append(fontManager.ttflist[before].name)
    return tuple(dict.fromkeys(names))


def text_style() -> dict[str, Any]:
    """matplotlib's settings under which text is taken as it is, a pair of `$` included."""
    return {"font.family": list(families()), "text.parse_math": False}


@cache
def characters(family: str) -> frozenset[int]:
    """Code points that a font can draw."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(family)).get_charmap())


def literal(text: str) -> str:
    """The text as it can be drawn in one line: what no font has is told by its code, `\\U0001f45c`;
    invisible marks are left out."""
    return "".join(map(drawn, text))


@cache
def family_of(letter: str) -> str | None:
    """The first font that has a character."""
    return next((family for family in families() if ord(letter) in characters(family)), None)


def families_for(text: str) -> list[str]:
    """The names of the fonts that a text needs. matplotlib looks up every font that it may use for
    every text, which takes ten times as long with all of them."""
    return list(dict.fromkeys([FIRST, *filter(None, map(family_of, text))]))


def drawn(letter: str) -> str:
    if family_of(letter) is not None:
        return letter
    if unicodedata.category(letter) in ("Cf", "Mn"):
        return ""
    return letter.encode("unicode_escape").decode()


def shortened(text: str, most: int = 60) -> str:
    """The drawable text, with its middle left out where it is longer than `most` characters: names
    often differ at their end."""
    text = literal(text)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"


class Pen:
    """Sets lines of text of one size on Pillow images."""

    def __init__(self, size: float):
        """`size` of the letters in pixels."""
        from matplotlib.backends.backend_agg import RendererAgg

        self.size = size
        self._renderer = RendererAgg
        self._ruler = RendererAgg(1, 1, DOTS_PER_INCH)
        self._widths: dict[str, float] = {}

    def _font(self, line: str) -> Any:
        from matplotlib.font_manager import FontProperties

        return FontProperties(family=families_for(line), size=self.size)

    def width(self, line: str) -> float:
        """In pixels."""
        line = literal(line)
        if line not in self._widths:
            self._widths[line] = float(
                self._ruler.get_text_width_height_descent(line, self._font(line), False)[0]
            )
        return self._widths[line]

    def fitted(self, line: str, width: float) -> str:
        """The line, its end left out where it is wider than so many pixels."""
        line = literal(line)
        full_width = self.width(line)
        if full_width <= width:
            return line
        kept = int(len(line) * width / full_width)  # about
        while kept and self.width(f"{line[:kept]}…") > width:
            kept -= 1
        return f"{line[:kept]}…"

    def write(
        self,
        sheet: "Image",
        corner: tuple[float, float],
        line: str,
        ink: str | tuple[int, int, int],
    ) -> None:
        """`corner` is the upper left one of the line."""
        from PIL import Image

        line = literal(line)
        if not line.strip():
            return
        renderer = self._renderer(
            int(self.width(line)) + 3, int(1.5 * self.size) + 2, DOTS_PER_INCH
        )
        renderer.draw_text(renderer.new_gc(), 1, round(1.05 * self.size), line, self._font(line), 0)
        mask = Image.fromarray(np.asarray(renderer.buffer_rgba())[..., 3])
        left, top = round(corner[0]) - 1, round(corner[1])
        sheet.paste(ink, (left, top, left + mask.width, top + mask.height), mask)
