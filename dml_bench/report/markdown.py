"""The report as Markdown, for places that show no HTML."""

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w

from dml_bench.analysis.diagnostics import WANTED_PRECISION, Diagnostics, Example
from dml_bench.report import changes
from dml_bench.report.thumbnails import Pictures
from dml_bench.suite.page import (
    INTERVALS,
    claimed,
    interval_cell,
    markdown_table,
    write_text,
)
from dml_bench.system.markdown import code, fenced, markdown, markdown_row, picture, sentence

if TYPE_CHECKING:
    from dml_bench.report.compose import Report, Section

__all__ = ["NUMBERS", "closer_cells", "closer_words", "write"]

NUMBERS = (
    "AUROC",
    "AUPR",
    "FPR at 95% TPR",
    "OSCR",
    f"precision where {WANTED_PRECISION:.0%} was wanted",
    "queries answered",
    "calibration error of ten votes",
)
"""What is told of each experiment that is looked at more closely."""


def closer_cells(look: Diagnostics) -> list[str]:
    values = [look.mean(name) for name in ("auroc", "aupr", "fpr_at_95_tpr", "oscr")]
    values += [
        *(look.answered if look.open_set else (float("nan"), float("nan"))),
        look.calibration_error,
    ]
    return ["-" if value != value else f"{value:.3f}" for value in values]  # noqa: PLR0124 - nan


def write(path: Path, whole: "Report") -> None:
    write_text(path, lines(whole))


def lines(whole: "Report") -> Iterable[str]:
    yield f"# {markdown(whole.title)}"
    yield ""
    yield (
        f"Made by {code(whole.command)}, {whole.made}; never edited by hand. The same with sortable"
        " tables: [index.html](index.html)."
    )
    yield ""
    if whole.problems:
        yield from (
            "**Found, and to be known:**",
            "",
            *(f"- {markdown(problem)}" for problem in whole.problems),
            "",
        )
    for chapter in whole.chapters:
        yield from of_chapter(chapter)


def of_chapter(chapter: "Section") -> Iterable[str]:
    section = chapter.section
    yield from (f"## {markdown(section.title)}", "")
    for number, answer in enumerate(chapter.answers, start=1):
        yield from (f"### {number}. {answer.question}", "", f"**{sentence(answer.short)}**", "")
        yield from (*(f"- {sentence(told)}" for told in answer.sentences), "")
    yield from ("### The experiments", "", *markdown_table(section.group), "")
    yield from (*(f"- {line}" for line in (*section.group.explanation, INTERVALS)), "")
    yield from expectations(chapter)
    yield from changes_made(chapter)
    yield from ("### Figures", "")
    for drawn in chapter.figures:
        yield from (
            f"**{markdown(drawn.title)}.** {markdown(drawn.caption)}",
            "",
            picture(f"figures/{drawn.name}.png", drawn.title),
            "",
        )
    yield from closer_looks(chapter)
    yield from examples(chapter)
    if section.missing or section.absent:
        yield from (
            "### What is missing",
            "",
            *(f"- {sentence(what)}" for what in missing(chapter)),
            "",
        )
    yield from how(chapter)


def missing(chapter: "Section") -> Iterable[str]:
    yield from dict.fromkeys(chapter.section.missing)
    if absent := chapter.section.absent:
        yield f"{len(absent)} experiments of the study have no run here: {', '.join(absent)}"


def expectations(chapter: "Section") -> Iterable[str]:
    if not chapter.section.verdicts:
        return
    yield from (
        "### What was claimed",
        "",
        markdown_row(["experiment", "claim", "claimed", "measured", "verdict"]),
    )
    yield markdown_row(["---", "---", "--:", "--:", "---"])
    for judged in chapter.section.verdicts:
        verdict = judged.verdict.value + (f": {judged.reason}" if judged.reason else "")
        cells = [
            judged.experiment,
            f"{judged.words} ({judged.expectation.source})",
            claimed(judged),
        ]
        yield markdown_row([*cells, interval_cell(judged.measured, signed=judged.signed), verdict])
    yield ""


def changes_made(chapter: "Section") -> Iterable[str]:
    effects = chapter.section.effects
    if not effects:
        return
    yield from (
        "### What each change does",
        "",
        *(f"- {markdown(told)}" for told in changes.words(effects)),
        "",
    )
    yield from (
        markdown_row(changes.HEADS),
        markdown_row(["---", "---", "--:", "--:", "--:", "---"]),
    )
    for effect in effects:
        yield markdown_row(changes.cells(effect))
    yield ""


def closer_words(chapter: "Section") -> str:
    """What stands above the numbers of the closer looks."""
    told = "Of the experiments looked at more closely, means over seeds."
    chosen_on = "; ".join(
        dict.fromkeys(look.chosen_on for look in chapter.closer.values() if look.open_set)
    )
    if not chosen_on:
        return told
    return (
        f"{told} The first six with the model trained without the unseen classes, which are left"
        f" out of the gallery, too; the threshold is chosen on {chosen_on}, and held against the"
        " queries."
    )


def closer_looks(chapter: "Section") -> Iterable[str]:
    if not chapter.closer:
        return
    yield from (
        "### Unknown classes and votes",
        "",
        closer_words(chapter),
        "",
        markdown_row(["experiment", *NUMBERS]),
    )
    yield markdown_row(["---", *["--:"] * len(NUMBERS)])
    for name, look in chapter.closer.items():
        yield markdown_row([name, *closer_cells(look)])
    yield ""


def examples(chapter: "Section") -> Iterable[str]:
    if not chapter.shown:
        return
    yield from (f"### Taken for another ({markdown(chapter.shown)}, trained on all classes)", "")
    yield markdown_row(["class", "taken for", "queries", "one of them", "its nearest"])
    yield markdown_row(["---", "---", "--:", "---", "---"])
    for mistake in chapter.mistakes:
        pictures = (
            example(chapter.pictures, mistake.example.query),
            example(chapter.pictures, mistake.example.nearest),
        )
        yield markdown_row(
            [mistake.of, mistake.as_, f"{mistake.count} of {mistake.asked}", *pictures]
        )
    yield ""
    for kind, cases in chapter.evidence.items():
        yield from (f"### {kind} ({markdown(chapter.shown)})", "")
        if not cases:
            yield from ("No such query.", "")
            continue
        yield markdown_row(
            ["query", "of class", "nearest", "of class", "classes of the ten nearest"]
        )
        yield markdown_row(["---"] * 5)
        for case in cases:
            yield markdown_row(case_cells(chapter.pictures, case))
        yield ""


def case_cells(pictures: Pictures, case: Example) -> list[str]:
    votes = ", ".join(f"{count} {name}" for name, count in case.votes)
    unseen = " (unseen)" if case.unseen else ""
    return [
        example(pictures, case.query),
        case.query_class + unseen,
        example(pictures, case.nearest),
        case.nearest_class,
        votes,
    ]


def example(pictures: Pictures, path: str) -> str:
    return picture(f"images/{pictures.name(path)}") if pictures.get(path) else f"{path} (not there)"


def how(chapter: "Section") -> Iterable[str]:
    yield from (
        "### How it was made",
        "",
        *(f"- {sentence(line)}" for line in chapter.made_with),
        "",
    )
    yield from (f"- data set fingerprint {chapter.section.fingerprint}", "")
    for line, table in chapter.configurations:
        seeds = ", ".join(str(run.seed) for run in line.runs)
        yield from (f"<details><summary>{escape(line.name)}, seeds {seeds}</summary>", "")
        settings = tomli_w.dumps(
            {key: value for key, value in table.items() if key not in ("seed", "expects")}
        ).strip()
        yield from (fenced(settings, "toml"), "</details>", "")
