"""`dml-bench report`: runs are collected into studies, composed into one document, and written."""

import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from dml_bench.analysis.collect import collect, studies_of
from dml_bench.analysis.diagnostics import diagnose_chosen
from dml_bench.analysis.study import Study
from dml_bench.data.datasets import Progress
from dml_bench.report import assets, csv, html, markdown
from dml_bench.report.document import Block, Data, Details, Document, Heading, Items, Text
from dml_bench.report.ours import is_ours, require_ours
from dml_bench.report.sections import DATA_FILES, SECTIONS, Section
from dml_bench.report.thumbnails import is_file_name
from dml_bench.system.provenance import commit_here
from dml_bench.version import __version__

__all__ = ["WRITTEN", "compose", "made_by", "problems_of", "report", "write"]

PAGES = ("index.html", "report.md")
WRITTEN = (*PAGES, *(f"{name}.csv" for name in DATA_FILES))
"""Files that a report writes over, beside figures and pictures."""


def report(
    runs: Sequence[Path],
    out: Path,
    command: Sequence[str],
    say: Callable[[str], None] = lambda text: None,
    data_dir: Path | None = None,
    progress: Progress = lambda message, done, total: None,
    figures: Sequence[str] = ("*",),
) -> Document:
    """Write the report on these run folders, or all below them, into `out`, with the figures whose
    names fit a pattern. `data_dir` is where their images lie now, if they were moved. Raises
    ValueError where there is no finished run, or as `write` does.

    `say` gets a line on each thing that can't be used, `progress` how many runs are
    read and how many sections are made.
    """
    begun = time.perf_counter()
    require_ours(out, WRITTEN)
    collection = collect(runs, data_dir, progress)
    studies = studies_of(collection)
    for line in (*collection.problems, *collection.remarks):
        say(line)
    introduction: list[Block] = [
        Text(f"{line[0].upper()}{line[1:]}.", "soft") for line in collection.remarks
    ]
    introduction += problems_of(collection.problems)
    title, end = f"Report: {out.name}", made_by(command)
    document = compose(title, introduction, studies, end=end, progress=progress)
    document = document.with_figures(figures)
    write(out, document)
    num_runs = sum(len(study.group.runs) for study in studies)
    say(f"{out / 'index.html'}: {num_runs} runs in {time.perf_counter() - begun:.0f} s")
    return document


def problems_of(problems: Sequence[str]) -> list[Block]:
    """What was wrong with the runs."""
    if not problems:
        return []
    return [
        Details(f"Problems with these runs: {len(problems)}", (Items(tuple(problems), "notice"),))
    ]


def made_by(command: Sequence[str]) -> list[Block]:
    """What made the report."""
    version = f"dml-bench {__version__}"
    digest, plus, changes = (commit_here() or "").partition("+")
    if digest:
        version += f" (commit {digest[:10]}{plus}{changes})"
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    return [
        Text(f"Made by `{shlex.join(command)}` on {today} with {version}. Do not edit it.", "soft")
    ]


def compose(
    title: str,
    introduction: Sequence[Block],
    studies: Sequence[Study],
    sections: Sequence[Section] = SECTIONS,
    end: Sequence[Block] = (),
    progress: Progress = lambda message, done, total: None,
) -> Document:
    """One document: a part for each study, with all sections in their order, between introduction
    and end."""
    blocks = list(introduction)
    names: dict[str, str] = {}
    number, total = count(1), len(studies) * len(sections)

    def ended() -> None:
        progress("sections of the report", next(number), total)

    for study in studies:
        suffix = f"-{study.slug}" if len(studies) > 1 else ""
        blocks += with_origin(part_of(study, sections, ended), suffix, study.group.split)
        names |= {line.short: line.name for line in study.group.lines}
    return Document(title, (*blocks, *end), names)


def with_origin(blocks: Iterable[Block], suffix: str, split: str) -> list[Block]:
    """Of several studies each has CSV files of its own; all say the kind of split."""
    results: list[Block] = []
    for block in blocks:
        if isinstance(block, Data):
            named = replace(block, name=block.name + suffix)
            results.append(named.beside_split(split))
        elif isinstance(block, Details):
            results.append(replace(block, blocks=tuple(with_origin(block.blocks, suffix, split))))
        else:
            results.append(block)
    return results


def part_of(
    study: Study, sections: Sequence[Section], ended: Callable[[], None]
) -> Iterator[Block]:
    """Its sections; `ended` is called after each."""
    diagnostics = diagnose_chosen(study)
    yield Heading(study.title, 2, study.slug)
    for section in sections:
        for block in section(study, diagnostics):
            if not isinstance(block, Details) or block.blocks:
                yield block
        ended()


def write(out: Path, document: Document) -> None:
    """The pages go first and come last: no page stands beside figures and tables of another report,
    wherever this is stopped. Raises ValueError, and changes nothing, where a file of others would
    be written over."""
    require_ours(out, WRITTEN)
    clear(out)
    csv.write(out, document)
    assets.write(out, document)
    html.write(out / "index.html", document)
    markdown.write(out / "report.md", document)


def clear(out: Path) -> None:
    """Remove what an earlier report left, and no file of others."""
    for page in PAGES:
        (out / page).unlink(missing_ok=True)
    for name in assets.FOLDERS:
        (out / name).mkdir(parents=True, exist_ok=True)
    for drawing in filter(is_ours, (out / assets.FIGURES).glob("*.svg")):
        drawing.with_suffix(".png").unlink(missing_ok=True)
        drawing.unlink()
    for copy in (out / assets.IMAGES).glob("*.jpg"):
        if is_file_name(copy.name):
            copy.unlink()
    for name in DATA_FILES:
        for old in (out / f"{name}.csv", *out.glob(f"{name}-*.csv")):
            if old.exists() and is_ours(old):
                old.unlink()
