"""What all figures share: style, colours, canvas, axes, and how a figure is saved.

Only this module and `system.lettering` import matplotlib, and inside functions, so that nothing
else waits for it. Each figure is drawn once. Ink that is neither data nor a colour is written as
INK: the inline SVG of a page turns it into the text colour of the page, light or dark, and the PNG
has a white ground.
"""

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from typing import Any, TypeAlias

import numpy as np

from dml_bench.evaluation.statistics import Interval
from dml_bench.system.lettering import families_for, literal, shortened, text_style

__all__ = [
    "FILE_STYLE",
    "INK",
    "Axes",
    "Figure",
    "ReportFigure",
    "as_error",
    "canvas",
    "finish_rows",
    "inline",
    "integer_ticks",
    "key_line",
    "log_ticks",
    "percents",
    "plain_number",
    "saved",
    "standalone",
    "style",
    "untrained_place",
    "with_palette",
    "wrapped",
]


Axes: TypeAlias = Any  # matplotlib's, which is not imported for types either
Figure: TypeAlias = Any


INK = "#010203"
WIDTH = 9.0
LETTERS = 100
"""Of titles beside each other, in the width of a figure."""
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.18,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "text.hinting": "none",  # else a name is up to 10% wider on a page than where room was found
    "svg.hashsalt": "dml-bench",
    **dict.fromkeys(
        (
            "text.color",
            "axes.edgecolor",
            "axes.labelcolor",
            "xtick.color",
            "ytick.color",
            "grid.color",
        ),
        INK,
    ),
}

FILE_STYLE = (
    "<style>svg{color:#222;background:#fff}@media(prefers-color-scheme:dark)"
    "{svg{color:#ddd;background:#16181c}}</style>"
)
"""Of a figure as a file of its own, by which such a file is known too."""


RESOLUTION = 110
"""Of a PNG, in pixels per inch."""


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """One figure."""

    name: str
    title: str
    caption: str
    svg: str
    """For the page: its neutral ink is the colour of the text around it."""
    png: bytes


def style() -> AbstractContextManager[None]:
    """matplotlib draws in the style of these figures within it."""
    import matplotlib as mpl

    return mpl.rc_context(STYLE | text_style())


def saved(figure: Figure, name: str, title: str, caption: str) -> ReportFigure:
    """The figure as SVG for a page and as PNG."""
    import matplotlib as mpl
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    fonts = families_for("".join(text.get_text() for text in texts))
    for text in texts:
        text.set_fontfamily(fonts)
    svg, png = io.StringIO(), io.BytesIO()
    with mpl.rc_context({"font.family": fonts}):  # of the ticks that are still to come
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
        figure.set_layout_engine(None)  # it stays as it was laid out, and is drawn once
        # Hinted letters are sharper, take fewer bytes, and are no wider at this resolution.
        with mpl.rc_context({"text.hinting": "default"}):
            figure.savefig(png, format="png", dpi=RESOLUTION, facecolor="white")
    page_svg = inline(svg.getvalue(), name, title)
    return ReportFigure(name, title, caption, page_svg, with_palette(png.getvalue()))


def with_palette(png: bytes) -> bytes:
    """A drawing as a PNG of 64 colours, which takes a quarter of the bytes. White stays white."""
    from PIL import Image

    colours = Image.open(io.BytesIO(png)).convert("RGB")
    few = colours.quantize(64, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    file = io.BytesIO()
    few.save(file, "png", optimize=True)
    return file.getvalue()


def inline(svg: str, name: str, title: str) -> str:
    """The <svg> element alone, in the page's colour; its ids carry the figure's name, so that many
    fit into one page."""
    text = re.sub(r'style="[^"]*"', lambda style: of_page(style[0]), svg[svg.index("<svg") :])
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    for known in set(re.findall(r' id="([^"]+)"', text)):
        text = text.replace(f'id="{known}"', f'id="{name}-{known}"').replace(
            f"#{known}", f"#{name}-{known}"
        )
    text = re.sub(
        r'(<svg[^>]*?) width="([\d.]+)pt" height="[\d.]+pt"', r'\1 style="width:\2pt"', text
    )
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def of_page(style: str) -> str:
    """A style attribute with the page's colour for ink, and without the fonts of the PNG, which a
    browser finds itself."""
    return re.sub(
        r"font-family: [^;\"]*",
        "font-family: 'DejaVu Sans', Verdana, sans-serif",
        style.replace(INK, "currentColor"),
    )


def standalone(svg: str) -> str:
    """The same as a file of its own: it needs a colour, and follows the viewer's light or dark
    mode."""
    head, end, rest = svg.partition(">")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}{end}{FILE_STYLE}{rest}'


def canvas(
    height: float, columns: int = 1, rows: int = 1, *, width: float = WIDTH, **how: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of so many inches, and its (rows, columns) axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.set_layout_engine(
        "constrained", w_pad=0.12
    )  # room for fonts that are wider than matplotlib's
    return figure, figure.subplots(rows, columns, squeeze=False, **how)


def as_error(intervals: Sequence[Interval | None]) -> np.ndarray:
    """(2, n) lengths of the error bars; 0 where there is no interval."""
    low = [i.estimate - i.low if i else 0.0 for i in intervals]
    high = [i.high - i.estimate if i else 0.0 for i in intervals]
    return np.maximum(np.nan_to_num(np.array([low, high])), 0)


def percents(intervals: Sequence[Interval | None]) -> tuple[np.ndarray, np.ndarray]:
    """(n) estimates, nan where there is none, and (2, n) lengths of the error bars, in percent."""
    estimates = [value.estimate if value else np.nan for value in intervals]
    return 100 * np.array(estimates), 100 * as_error(intervals)


def finish_rows(axes: Axes, names: Sequence[str], label: str) -> None:
    """Axes with a row for each name, the first on top; a name may have several lines. `label` is
    that of the x axis."""
    axes.set_yticks(range(len(names)), ["\n".join(map(shortened, n.split("\n"))) for n in names])
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(label)


def key_line(label: str, colour: str, **how: Any) -> Any:
    """An entry of a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, label=shortened(label), **how)


def wrapped(name: str, panels: int = 3) -> str:
    """The title of one of so many panels beside each other: a long name in several lines, broken
    after underscores and spaces."""
    width = LETTERS // max(panels, 3)
    lines = [""]
    for part in re.findall(r"[^_ ]*[_ ]|[^_ ]+$", literal(name)):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def integer_ticks(axes: Axes) -> None:
    """A few whole numbers along the x axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


MANY_DECADES = 1000.0
"""A logarithmic axis whose ends differ by more has labels at powers of ten alone."""
UNTRAINED_WIDTH = 0.16
"""The part of the axis of training times that rows without training have for themselves."""


def log_ticks(axes: Axes) -> None:
    """A logarithmic x axis with plain numbers: at powers of ten, of a shorter axis also at 2 and 5
    times them, of a short one at all digits. It stays linear where it is shorter than a factor of
    two, within which there may be no digit, and then shows a fifth of its middle or more: nearly
    equal values stand together, with short labels."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    low, high = axes.get_xlim()
    if 0 < high < 2 * low:
        middle = (low + high) / 2
        half = max((high - low) / 2, middle / 10)
        axes.set_xlim(middle - half, middle + half)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        return
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    digits: Sequence[int] = range(1, 10)
    if high > MANY_DECADES * low:
        digits = (1,)
    elif high > 5 * low:
        digits = (1, 2, 5)
    axes.xaxis.set_major_locator(LogLocator(subs=digits, numticks=7))
    axes.xaxis.set_major_formatter(plain_number)
    axes.xaxis.set_minor_formatter(NullFormatter())


def untrained_place(axes: Axes) -> float:
    """Where on the x axis of times rows without training stand: a place of their own at its left
    end, which this makes and names. It stretches no axis, and its distance means nothing."""
    from matplotlib.ticker import FixedLocator

    scale = axes.xaxis.get_transform()
    low, high = scale.transform(axes.get_xlim())
    left = high - (high - low) / (1 - UNTRAINED_WIDTH)
    begin, place, edge = scale.inverted().transform([left, (left + low) / 2, low])
    ticks = [tick for tick in axes.xaxis.get_majorticklocs() if edge <= tick <= axes.get_xlim()[1]]
    labels = axes.xaxis.get_major_formatter().format_ticks(ticks)
    axes.set_xlim(begin, axes.get_xlim()[1])
    axes.set_xticks([place, *ticks], ["no\ntraining", *labels])
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.axvline(edge, color=INK, linewidth=0.8)
    return float(place)


def plain_number(value: float, _: int) -> str:
    """For a logarithmic axis, whose own labels are formulas."""
    return f"{value:g}"
