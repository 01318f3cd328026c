"""What a newcomer sees of a report: few words before the table, short names, figures whose labels
don't overlap, and sentences that can't contradict the tables."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib.text
import numpy as np
import pytest
from handmade import COST, finish, store
from PIL import Image

from dml_bench.analysis.collect import collect, studies_of
from dml_bench.analysis.short_names import LONGEST
from dml_bench.config.experiments import resolve
from dml_bench.config.tables import read_table
from dml_bench.plots import colours
from dml_bench.report import html, markdown
from dml_bench.report.compose import compose
from dml_bench.report.document import Details, Document, Facts, Heading, Panels, Table, Text, walk
from dml_bench.runs.arrays import write_arrays

CLASSES, UNSEEN, QUERIES = 12, 4, 4
UNTRAINED = "frozen_resnet18"
NO_COST = {"train_seconds": 0.01, "embed_images_per_second": 400.0, "peak_memory_bytes": 2**30}


@dataclass(frozen=True)
class DrawnPage:
    document: Document
    overlaps: list[str]
    """Pairs of labels of a figure that overlap."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DrawnPage]:
    """The page of the study with all its sixteen rows, and one that trains nothing."""
    from matplotlib.figure import Figure

    runs = tmp_path_factory.mktemp("runs")
    for number, name in enumerate((*read_table("study").rows, UNTRAINED)):
        cost = NO_COST if name == UNTRAINED else COST
        for seed in (42, 43, 44):
            finish_row(runs, name, seed, np.random.default_rng([number, seed]), cost)
    overlaps: list[str] = []
    save = Figure.savefig

    def measured(figure: Any, file: Any, **options: Any) -> None:
        if options.get("format") != "png":
            save(figure, file, **options)
            return
        figure.draw_without_rendering()
        overlaps.extend(overlapping(figure))
        Image.new("RGB", (1, 1)).save(file, "png")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", measured)
        yield DrawnPage(compose("Report", [], studies_of(collect([runs]))), overlaps)


def finish_row(
    runs: Path,
    name: str,
    seed: int,
    rng: np.random.Generator,
    cost: Mapping[str, float],
) -> None:
    skill = rng.uniform(0.4, 0.9)
    right = {}
    for phase, factor in (("all", 1.0), ("limited", 0.8)):
        right[phase] = (rng.random((CLASSES, QUERIES)) < skill * factor).astype(int).tolist()
    run = finish(runs, resolve(name, overrides=[f"seed={seed}"]), right, UNSEEN, cost=cost)
    gallery, queries = {}, {}
    for label in range(CLASSES):
        gallery[f"class {label}"] = [25.0 * label]
        queries[f"class {label}"] = [25.0 * label + 3.0 * place for place in range(QUERIES)]
    store(run, "limited", gallery=gallery, query=queries)
    labels = np.repeat(np.arange(CLASSES), QUERIES)
    is_right = rng.random(len(labels)) < 0.6
    predicted = np.where(is_right, labels, (labels + 1) % CLASSES)
    write_arrays(run.folder / "all" / "logits.safetensors", {"predicted": predicted})


# Labels of figures


def labels_of(figure: Any) -> Iterator[Any]:
    """All text of a figure that is drawn."""
    for axes in figure.axes:
        yield from axes.texts
        yield from (axes.title, axes._left_title)
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            yield axis.label
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if low <= tick.get_loc() <= high:
                    yield tick.label1
    for legend in figure.legends:
        yield from legend.get_texts()


def text_box(label: Any) -> Any:
    """In pixels, without the line of an annotation: the box around both is mostly empty."""
    return matplotlib.text.Text.get_window_extent(label)


def overlapping(figure: Any) -> list[str]:
    labels = [label for label in labels_of(figure) if label.get_visible() and label.get_text()]
    boxes = [text_box(label).padded(-0.5) for label in labels]
    pairs = []
    for (label, box), (other, other_box) in combinations(zip(labels, boxes, strict=True), 2):
        if box.overlaps(other_box):
            pairs.append(f"{label.get_text()} / {other.get_text()}")
    return pairs


@pytest.mark.slow
def test_no_label_of_a_figure_covers_another(page):
    assert len(page.document.figures) >= 9
    assert page.overlaps == []


def test_every_row_with_diagnostics_has_its_line_among_those_of_unknown_classes(page):
    [drawn] = [figure for figure in page.document.figures if figure.name.endswith("open-set")]
    tables = [block for block in page.document.walk() if isinstance(block, Table)]
    [table] = [table for table in tables if table.title == "Unknown classes and votes"]
    assert len(table.rows) >= 4
    for row in table.rows:
        assert f"{row.cells[0].text}: AUROC" in drawn.svg


def test_labels_that_cover_each_other_would_be_found():
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.text(0.5, 0.5, "first")
    axes.text(0.51, 0.5, "second")
    figure.draw_without_rendering()
    assert overlapping(figure) == ["first / second"]


# Words


def before_the_first_table(document: Document) -> str:
    """The text that stands open there."""
    parts = [document.title]
    for block in unfolded(document):
        match block:
            case Table():
                break
            case Heading() | Text():
                parts.append(block.text)
            case Facts():
                parts += [" ".join(pair) for pair in block.items]
    return " ".join(parts)


def unfolded(document: Document) -> Iterator[Any]:
    for block in document.blocks:
        yield from () if isinstance(block, Details) else walk([block])


def test_a_newcomer_reads_few_words_before_the_table(page):
    text = before_the_first_table(page.document)
    assert "Data" in text
    assert len(text.split()) <= 210


def test_rows_of_the_table_have_short_names_and_full_ones_on_hover(page):
    table = next(block for block in page.document.walk() if isinstance(block, Table))
    names = [row.cells[0] for row in table.rows]
    assert [cell.hover for cell in names] == [*read_table("study").rows, UNTRAINED]
    assert max(len(cell.text) for cell in names) <= LONGEST
    text = html.text(page.document)
    assert "<title>EPSHN_cosine_resnet50_sgd_aug</title>EPSHN, resnet50</text>" in text


def test_the_level_of_the_intervals_is_said_once_and_nothing_is_left_untold(page):
    text = before_the_first_table(page.document)
    assert text.count("95% intervals") == 1
    whole_page = markdown.text(page.document)
    assert "can't be told" not in whole_page
    assert "beyond noise" not in whole_page


def test_the_page_holds_no_long_listing(page):
    assert len(markdown.text(page.document).splitlines()) < 700


# Sentences and tables


def sentences(document: Document) -> list[str]:
    [panels] = [block for block in document.blocks if isinstance(block, Panels)]
    blocks = [block for panel in panels.panels for block in panel]
    return [block.text for block in blocks if isinstance(block, Text)]


def test_every_interval_of_an_answer_stands_in_a_table_of_the_page(page):
    """Sentence and table show one value, so that they can't contradict each other."""
    cells = set()
    for table in page.document.walk():
        if isinstance(table, Table):
            for row in table.rows:
                cells |= {cell.text.replace("+", "") for cell in row.cells}
    quoted = re.findall(
        r"([+-]?[\d.]+)(?:%| points)? (\[[^]]+\])", " ".join(sentences(page.document))
    )
    assert len(quoted) >= 6
    for estimate, bounds in quoted:
        assert f"{estimate} {bounds}".replace("+", "") in cells


# Colours


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    dark, light = sorted([luminance(first), luminance(second)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_colours_of_pages_have_enough_contrast_with_their_ground(mode):
    palette = colours.PAGE[mode]
    for name in ("ink", "soft", "accent", "good", "bad", "unsure"):
        assert contrast(palette[name], palette["ground"]) >= 4.5, name
        assert contrast(palette[name], palette["panel"]) >= 4.5, name
    for colour in (colours.BLUE, colours.ORANGE, colours.GREEN, colours.PINK, colours.GOLD):
        assert contrast(colour, palette["ground"]) >= 3, colour
