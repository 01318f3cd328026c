"""What people called their classes is shown by Markdown as they wrote it."""

import pytest
from markdown_it import MarkdownIt

from dml_bench.system.markdown import (
    Markdown,
    code,
    fenced,
    markdown,
    markdown_row,
    picture,
    sentence,
)

NAMES = [
    "Shirt [XL]",
    "[/red] offer",
    "$5 to $10 bag",
    "AC/DC tee",
    'a|b, "quoted"',
    "<b>bold</b> & co",
    "=1+1",
    "C:\\new",
    "50% off %s {0}",
    "_under^score\\frac",
    "*star*",
    "`tick`",
    "~~gone~~",
    "[a](b)",
    "![a](b)",
    "[a]: b",
    "[x] y",
    "&lt;",
    "a_b_c",
    "<script>alert(1)</script>",
    "حقيبة 👜",
]
GITHUB = MarkdownIt("gfm-like", {"linkify": False})


def texts(source: str) -> list[str]:
    """The text of each cell or paragraph as a reader sees it; fails on anything in it that is not
    text."""
    contents = []
    for token in GITHUB.parse(source):
        if token.type == "inline":
            children = token.children or []
            assert {child.type for child in children} <= {"text", "text_special"}, children
            contents.append("".join(child.content for child in children))
        assert token.type != "html_block"
    return contents


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is_written_in_a_cell_and_in_a_sentence(name):
    assert texts(f"class: {markdown(name)}") == [f"class: {name}"]
    assert texts(f"- {markdown(name)}") == [name]
    assert texts(
        "\n".join(
            [
                markdown_row(["class", "P@1"]),
                markdown_row(["---", "--:"]),
                markdown_row([name, ".5"]),
            ]
        )
    ) == [
        "class",
        "P@1",
        name,
        ".5",
    ]


def test_dollars_are_no_formula_on_github():
    assert markdown("$5 to $10") == "\\$5 to \\$10"


def test_ordinary_names_and_intervals_stay_as_they_are():
    for text in (
        "EPSHN_cosine_resnet18+mixup",
        "001.Black_footed",
        ".612 [.560, .661]",
        "+0.1 (it's)",
        "a - b",
    ):
        assert markdown(text) == text
    assert markdown(Markdown("*ours*")) == "*ours*"


@pytest.mark.parametrize("name", ["plain", "a`b", "``", "`a"])
def test_code_ends_where_it_should(name):
    (inline,) = (token for token in GITHUB.parse(code(name)) if token.type == "inline")
    assert [(child.type, child.content) for child in inline.children or []] == [
        ("code_inline", name)
    ]


def test_of_a_sentence_only_what_stands_between_backticks_is_code():
    assert sentence("`a_b*` finds <x> in *y*") == "`a_b*` finds &lt;x&gt; in \\*y\\*"


def test_a_picture_may_have_any_name_and_a_fence_holds_fences():
    assert picture("images/a b)<c>.jpg", "it's [it]") == "![it's [it]](images/a%20b%29%3Cc%3E.jpg)"
    assert fenced("```\nx", "toml") == "````toml\n```\nx\n````"
