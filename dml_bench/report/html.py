"""The report as one HTML file that needs no network: styles, script, figures and images are
inside."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
from markupsafe import Markup, escape

from dml_bench.analysis.ablation import Ablation
from dml_bench.analysis.claims import ClaimResult, Verdict
from dml_bench.analysis.table import TableRow
from dml_bench.evaluation.statistics import Interval
from dml_bench.report import changes
from dml_bench.report.markdown import NUMBERS, closer_cells, closer_words, missing
from dml_bench.runs.metrics import COST
from dml_bench.suite import page as table_page
from dml_bench.system.files import write_atomically

if TYPE_CHECKING:
    from dml_bench.report.compose import Report, Section

__all__ = ["write"]

MARKS = {
    Verdict.holds: "holds",
    Verdict.does_not: "not",
    Verdict.within_noise: "noise",
    Verdict.not_tested: "untested",
}


def write(path: Path, whole: "Report") -> None:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"spoken": spoken, "breakable": breakable}
    chapters = [shown(chapter) for chapter in whole.chapters]
    text = environment.get_template("report.html.jinja").render(report=whole, chapters=chapters)
    write_atomically(path, lambda file: file.write(text.encode()))


def spoken(text: str) -> Markup:
    """A sentence, with what stands between backticks as code that may be broken at its
    underscores."""
    parts = re.split(r"`([^`]*)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(breakable(part)) if i % 2 else escape(part)
        for i, part in enumerate(parts)
    )


def breakable(name: str) -> Markup:
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_+])", name))


def shown(chapter: "Section") -> dict[str, Any]:
    """What the template asks of a chapter."""
    group = chapter.section.group
    kept = table_page.shown_cost([group])
    heads = [
        "experiment",
        "seeds",
        *(column.head for column in group.columns),
        *(COST[i].head for i in kept),
    ]
    return {
        "chapter": chapter,
        "section": chapter.section,
        "heads": heads,
        "rows": [row_of(chapter, line, kept) for line in group.lines],
        "explained": (
            *group.explanation,
            table_page.INTERVALS,
            table_page.COSTS,
        ),
        "verdicts": table_page.count_verdicts(chapter.section.verdicts),
        "numbers": NUMBERS,
        "closer_words": closer_words(chapter),
        "closer": [(name, closer_cells(look)) for name, look in chapter.closer.items()],
        "change_heads": changes.HEADS,
        "change_words": changes.words(chapter.section.effects),
        "changes": [
            (changes.cells(effect), sortable(effect)) for effect in chapter.section.effects
        ],
        "missing": list(missing(chapter)),
        "configurations": [(line, toml(table)) for line, table in chapter.configurations],
        "figures": [(drawn, Markup(drawn.svg)) for drawn in chapter.figures],
    }


def sortable(effect: Ablation) -> list[str]:
    """What each cell of a change is sorted by."""
    estimates = (part.difference.estimate for part in (effect.seen, effect.unseen, effect.drop))
    return [
        effect.changed,
        effect.without,
        *("" if math.isnan(value) else repr(value) for value in estimates),
        effect.verdict,
    ]


def toml(table: dict[str, Any]) -> str:
    return tomli_w.dumps(
        {key: value for key, value in table.items() if key not in ("seed", "expects")}
    ).strip()


def row_of(chapter: "Section", line: TableRow, kept: list[int]) -> dict[str, Any]:
    group = chapter.section.group
    cells: list[tuple[str, float | None]] = [(table_page.seeds(line), float(len(line.runs)))]
    cells += [
        (cell, value.estimate if isinstance(value, Interval) else value)
        for cell, value in zip(table_page.cells(group, line), line.values, strict=True)
    ]
    cells += [(table_page.cost_cell(COST[i].key, line.cost[i]), line.cost[i]) for i in kept]
    return {
        "name": line.name,
        "remarks": line.remarks,
        "cells": [
            (text, "" if value is None or math.isnan(value) else repr(value))
            for text, value in cells
        ],
        "claims": [
            claim(judged) for judged in chapter.section.verdicts if judged.experiment == line.name
        ],
    }


def claim(judged: ClaimResult) -> dict[str, str]:
    """A claim in few words, with the whole of it for those who ask."""
    versus = f" against {judged.expectation.versus}" if judged.expectation.versus else ""
    measured = table_page.interval_cell(judged.measured, signed=judged.signed)
    return {
        "mark": MARKS[judged.verdict],
        "verdict": judged.verdict.value,
        "text": f"{judged.head} {table_page.claimed(judged)}",
        "versus": versus,
        "measured": "" if judged.measured is None else f"measured {measured}",
        "reason": judged.reason,
        "source": f"{judged.words} ({judged.expectation.source})",
    }
