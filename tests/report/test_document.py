"""The document: sections make blocks, and each writer shows every kind of block without knowing a
section."""

import io
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from handmade import experiment, finish
from rich.console import Console

from dml_bench.analysis.collect import collect, studies_of
from dml_bench.analysis.diagnostics import Diagnostics
from dml_bench.analysis.study import Study
from dml_bench.plots.canvas import ReportFigure
from dml_bench.report import assets, csv, html, markdown, terminal
from dml_bench.report.compose import compose
from dml_bench.report.document import (
    Block,
    Card,
    Cell,
    Code,
    Column,
    Data,
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
from dml_bench.report.sections import SECTIONS

WRITERS = (html, markdown, terminal, csv, assets)


def in_terminal(document: Document, width: int = 100) -> str:
    file = io.StringIO()
    terminal.show(Console(file=file, width=width), document)
    return file.getvalue()


def written(document: Document) -> dict[str, str]:
    """The document as each of the three writers for people has it."""
    return {
        "html": html.text(document),
        "markdown": markdown.text(document),
        "terminal": in_terminal(document),
    }


def table_of(*heads: str, cells: list[str], numeric: bool = True) -> Table:
    columns = (Column(heads[0], numeric=False), *(Column(head, numeric) for head in heads[1:]))
    return Table("Own table", columns, (Row(tuple(map(Cell, cells)), ("own remark",)),))


# A section is one function


def seeds_per_experiment(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """A section that only this test has."""
    yield Heading("Seeds of each experiment")
    yield Text("How many seeds the experiments have that stand in this report.")
    for line in study.finished:
        yield table_of(
            "experiment", "seeds", cells=[line.name, f"{len(line.runs)} of {line.wanted}"]
        )


def study_of_one_run(out: Path) -> Study:
    right = [[1, 1], [1, 0], [1, 1], [0, 0]]
    finish(out, experiment("alone"), {"all": right, "limited": right})
    [study] = studies_of(collect([out]))
    return study


@pytest.mark.usefixtures("blank_figures")
def test_a_section_is_one_function_that_every_writer_shows(tmp_path):
    study = study_of_one_run(tmp_path)
    sections = (seeds_per_experiment, *SECTIONS)
    for page in written(compose("Own report", [], [study], sections)).values():
        assert "Seeds of each experiment" in page
        assert "How many seeds the experiments have" in page
        assert "1 of 1" in page
    for page in written(compose("Own report", [], [study])).values():
        assert "Seeds of each experiment" not in page


@pytest.mark.usefixtures("blank_figures")
def test_no_writer_knows_a_section(tmp_path):
    document = compose("Report", [], [study_of_one_run(tmp_path)])
    sources = [Path(writer.__file__).read_text() for writer in WRITERS]
    sources.append((Path(html.__file__).parent / "page.html.jinja").read_text())
    headings = [block.text for block in document.walk() if isinstance(block, Heading)]
    headings += [block.summary for block in document.walk() if isinstance(block, Details)]
    assert len(headings) > 8
    names = [*headings, *(data.name for data in document.data if data.name != "table")]
    for name in names:
        assert [source for source in sources if name in source] == [], name
    for source in sources:
        assert "report.sections" not in source
        assert "report.answers" not in source


# Every kind of block in every writer

FIGURE = ReportFigure("own-figure", "Figure title", "Own caption.", "<svg><g/></svg>", b"png")
PICTURE = Picture("own.jpg", "folder/own.png", b"jpeg", "own class", "own remark")
BLOCKS: dict[str, tuple[Block, str]] = {
    "Heading": (Heading("Own heading"), "Own heading"),
    "Text": (Text("Own sentence.", "strong"), "Own sentence."),
    "Items": (Items(("Own item",)), "Own item"),
    "Facts": (Facts((("Own term", "own fact"),)), "own fact"),
    "Table": (table_of("name", "count", cells=["own row", "12"]), "own row"),
    "ReportFigure": (FIGURE, "Figure title"),
    "Images": (Images(("query",), (Card((PICTURE,), "Own card"),)), "own class"),
    "Code": (Code("own = 1", "toml"), "own = 1"),
    "Details": (Details("Own summary", (Text("Folded away."),)), "Own summary"),
    "Panels": (Panels(((Text("Own panel"),),)), "Own panel"),
}


def test_every_kind_of_block_has_an_example_here():
    kinds = {kind.__name__ for kind in typing.get_args(Block)}
    assert kinds == {*BLOCKS, "Data"}


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_is_shown_by_every_writer_for_people(kind):
    block, shown = BLOCKS[kind]
    for writer, page in written(Document("Title", (block,))).items():
        assert shown in page, writer


def test_numbers_for_programs_are_shown_on_no_page_and_written_as_they_are(tmp_path):
    document = Document("Title", (Data("own", ("a", "b"), ((0.1234567, "x"),)),))
    for page in written(document).values():
        assert "1234567" not in page
    csv.write(tmp_path, document)
    assert (tmp_path / "own.csv").read_text().splitlines() == ["a,b", "0.1234567,x"]


def test_figures_and_pictures_are_files_beside_the_pages_also_from_inside_other_blocks(tmp_path):
    for folder in assets.FOLDERS:
        (tmp_path / folder).mkdir()
    inside = Images(("query",), (Card((PICTURE,)),))
    assets.write(tmp_path, Document("Title", (Details("More", (FIGURE,)), Panels(((inside,),)))))
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("own*"))
    assert files == ["figures/own-figure.png", "figures/own-figure.svg", "images/own.jpg"]


def test_a_picture_that_is_gone_is_named_and_has_no_file(tmp_path):
    gone = Picture("own.jpg", "folder/own.png", None, "own class")
    document = Document("Title", (Images(("query",), (Card((gone,)),)),))
    assert document.pictures == []
    pages = written(document)
    assert "folder/own.png (not there)" in pages["markdown"]
    assert "not there" in pages["html"]


def test_what_people_called_their_classes_is_shown_as_they_wrote_it():
    name = "<b>bold</b> a|b *star* [/red]"
    pages = written(Document("Title", (table_of("name", "count", cells=[name, "1"]),)))
    assert "&lt;b&gt;bold&lt;/b&gt; a|b *star* [/red]" in pages["html"]
    assert r"&lt;b&gt;bold&lt;/b&gt; a\|b \*star\* [/red]" in pages["markdown"]
    assert name in pages["terminal"]


# The terminal's width


HEADS = ("experiment", "first number", "second number", "third number", "fourth number")


def test_a_table_of_numbers_that_is_too_wide_goes_on_below_with_its_names():
    cells = ["an_experiment_with_a_name", *[".123 [.012, .345]"] * 4]
    document = Document("Title", (table_of(*HEADS, cells=cells),))
    narrow = in_terminal(document, 80).splitlines()
    assert max(map(len, narrow)) <= 80
    assert sum("an_experiment_with_a_name" in line and ".123" in line for line in narrow) == 2
    wide = in_terminal(document, 160).splitlines()
    assert sum("an_experiment_with_a_name" in line and ".123" in line for line in wide) == 1


def test_a_table_of_sentences_that_is_too_wide_is_a_list():
    cells = ["an_experiment", "holds", "a claim that is a sentence of its own " * 3, "", "x" * 30]
    document = Document("Title", (table_of(*HEADS, cells=cells, numeric=False),))
    text = " ".join(in_terminal(document, 80).split())
    assert "an_experiment holds: second number a claim that is" in text
    assert "third number" not in text, "an empty cell is left out"
