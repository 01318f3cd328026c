"""What people called their classes stands in pictures as they wrote it."""

import io
import warnings

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from dml_bench.plots.canvas import STYLE, canvas, finish_rows, key_line, saved, with_palette
from dml_bench.system.lettering import Pen, family_of, literal, shortened, text_style

NAMES = [
    "$5 to $10 bag",
    "<b>bold</b> & co",
    "_under^score\\frac",
    "حقيبة 👜",
    "中文 日本語",
    "Shirt [XL]",
    "#010203",
    "Ярослав",
    "x" * 240,
]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_font_has_is_drawn_as_it_is_written(name):
    assert literal(name) == name


def test_each_character_is_taken_from_the_first_font_that_has_it():
    assert [family_of(letter) for letter in "aح👜中ก"] == [
        "DejaVu Sans",
        "DejaVu Sans",
        "Noto Emoji",
        "Noto Sans CJK JP",
        "Noto Sans Thai",
    ]


def test_what_no_font_has_is_told_by_its_code_and_what_is_invisible_is_left_out():
    assert literal("a\u0378b\ue000") == "a\\u0378b\\ue000"
    assert literal("two\nlines\x7f") == "two\\nlines\\x7f"
    assert literal("a\u180eb") == "ab"


def test_without_the_extra_fonts_a_handbag_is_a_code(monkeypatch):
    monkeypatch.setattr("dml_bench.system.lettering.families", lambda: ("DejaVu Sans",))
    family_of.cache_clear()
    assert literal("bag 👜") == "bag \\U0001f45c"
    family_of.cache_clear()


def test_of_a_long_name_both_ends_are_kept():
    assert shortened("left" + "-" * 100 + "right", most=20) == "left------…----right"


def test_a_line_is_cut_to_its_width_and_is_all_inside():
    pen = Pen(10)
    assert pen.fitted("Wren", 100) == "Wren"
    cut = pen.fitted("x" * 240, 100)
    assert cut.endswith("…") and 80 < pen.width(cut) <= 100


@pytest.mark.parametrize("name", ["Wren", "حقيبة 👜", "中文"])
def test_a_pen_leaves_ink_where_it_writes_and_nowhere_else(name):
    pen, sheet = Pen(12), Image.new("RGB", (200, 60), "white")
    pen.write(sheet, (20, 20), name, "black")
    rows, columns = np.nonzero(np.asarray(sheet)[..., 0] < 128)
    assert columns.min() >= 18 and columns.max() <= 22 + pen.width(name)
    assert rows.min() >= 18 and rows.max() < 42


def test_figures_take_names_literally_and_miss_no_letter():
    with mpl.rc_context(STYLE | text_style()), warnings.catch_warnings():
        warnings.simplefilter("error")
        figure, [[axes]] = canvas(4.0)
        axes.barh(range(len(NAMES)), range(len(NAMES)))
        finish_rows(axes, NAMES, "a pair of $ and another $")
        figure.legend(
            handles=[key_line(name, "#123456") for name in NAMES], loc="outside lower left", ncols=2
        )
        drawn = saved(figure, "names", 'of <b> & "quotes"', "")
    for text in (
        "$5 to $10 bag",
        "&lt;b&gt;bold&lt;/b&gt; &amp; co",
        "_under^score\\frac",
        "حقيبة 👜",
        ">#010203<",
        "a pair of $ and another $",
    ):
        assert drawn.svg.count(text) >= 1, text
    assert (
        drawn.svg.count("_under^score\\frac") == 2
    )  # a legend of matplotlib leaves out what begins with an underscore
    assert 'aria-label="of &lt;b&gt; &amp; &quot;quotes&quot;"' in drawn.svg


def test_a_drawing_has_few_colours_in_a_third_of_the_bytes_and_stays_white_where_it_was():
    noise = np.random.default_rng(0)
    with mpl.rc_context(STYLE):
        figure, [[axes]] = canvas(4.0)
        for _ in range(12):
            axes.plot(noise.normal(size=40).cumsum(), lw=1, color=noise.uniform(size=3))
        undiminished = io.BytesIO()
        figure.savefig(undiminished, format="png", dpi=110, facecolor="white")
    png = with_palette(undiminished.getvalue())
    drawing = Image.open(io.BytesIO(png))
    assert drawing.mode == "P" and len(png) < len(undiminished.getvalue()) / 2
    before = np.asarray(Image.open(undiminished).convert("RGB")).astype(int)
    after = np.asarray(drawing.convert("RGB")).astype(int)
    white = (before == 255).all(axis=-1)
    assert (after[white] == 255).all()
    assert np.abs(after - before).mean() < 1.0
