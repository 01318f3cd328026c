"""The sections of a report. Each is one function that makes its blocks from a study; SECTIONS says
in which order they come. A new section is a function here and its place in that order."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import tomli_w

from dml_bench.analysis.diagnostics import Diagnostics
from dml_bench.analysis.origin import describe_origin
from dml_bench.analysis.study import Study
from dml_bench.analysis.table import TableRow
from dml_bench.config import as_table
from dml_bench.plots.figures import draw
from dml_bench.report import changes as change_text
from dml_bench.report import decisions as decided
from dml_bench.report import diagnostics as diagnostics_text
from dml_bench.report import tables
from dml_bench.report.document import Block, Code, Data, Details, Heading, Items, Panels, Text
from dml_bench.report.examples import example_blocks
from dml_bench.report.findings import findings
from dml_bench.report.format import seeds_of

__all__ = ["DATA_FILES", "SECTIONS", "Section"]

Section: TypeAlias = Callable[[Study, Mapping[str, Diagnostics]], Iterator[Block]]
"""Its blocks, from a study and the diagnostics of some of its experiments by name. What it can't
show it adds to `study.missing`."""

DATA_FILES = ("table", "holdouts", "expectations", "family", "changes", "closer")
"""The CSV files that sections may write."""


def answers(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """The study's four questions."""
    panels = []
    for number, finding in enumerate(findings(study, dict(diagnostics)), start=1):
        blocks: list[Block] = [
            Heading(f"{number}. {finding.question}"),
            Text(finding.short, "strong"),
        ]
        if finding.sentences:
            blocks.append(Items(finding.sentences))
        panels.append(tuple(blocks))
    yield Panels(tuple(panels))
    yield Text(
        "Brackets hold 95% intervals over classes, their test images and seeds. Points are"
        " percentage points.",
        "soft",
    )


def experiments(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """The table of all experiments."""
    yield Heading("The experiments")
    yield tables.results_table(study.group)
    yield tables.explanations(study.group)
    yield tables.results_data(study.group)


def holdouts(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """The cost of being unseen and the drop on the unseen classes of each hold-out, a row for each
    seed, where there are several hold-outs."""
    if len(study.holdouts) < 2:
        return
    rows: list[list[Any]] = []
    for line in study.finished:
        costs, drops = study.holdout_costs(line), study.holdout_drops(line)
        for place, phase in enumerate(study.holdouts):
            numbers = zip(costs[place].tolist(), drops[place].tolist(), strict=True)
            for run, (cost, drop) in zip(line.runs, numbers, strict=True):
                rows.append([line.name, run.seed, phase, cost, drop])
    measured = ("cost_of_being_unseen", "precision_drop_unseen_classes")
    yield Data("holdouts", ("experiment", "seed", "phase", *measured), rows)


def claims(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """What was claimed of the experiments, and what else was to be decided."""
    decisions = study.decisions
    yield decided.claims_data(decisions.claims)
    if decisions.contrasts:
        yield decided.contrasts_data(decisions.contrasts)
    if decisions.claims or decisions.contrasts:
        yield Heading("What was decided")
        yield from decided.decided_blocks(decisions)


def changes(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """Each experiment beside the one that it extends."""
    if not study.changes:
        return
    yield Heading("What each change does")
    yield Items(tuple(change_text.describe(study.changes)))
    yield change_text.changes_table(study.changes)
    yield change_text.changes_data(study.changes)


def figures(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """All figures for which there are numbers."""
    drawn = draw(study, dict(diagnostics))
    if drawn:
        yield Heading("Figures")
        yield from drawn


def unknown_classes_and_votes(
    study: Study, diagnostics: Mapping[str, Diagnostics]
) -> Iterator[Block]:
    """Open-set numbers and the calibration of the vote."""
    yield diagnostics_text.diagnostics_data(diagnostics)
    if diagnostics:
        yield Heading("Unknown classes and votes")
        yield Items(tuple(diagnostics_text.describe(diagnostics)), "soft")
        yield diagnostics_text.diagnostics_table(diagnostics)
        thresholds = diagnostics_text.thresholds_table(diagnostics)
        if thresholds is not None:
            yield Items(tuple(diagnostics_text.describe_thresholds(diagnostics)), "soft")
            yield thresholds


def examples(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """The images behind the predictions of the best experiment."""
    yield from example_blocks(study)


def missing(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """What the sections before could not show, and why."""
    lines = []
    if study.rival is None:
        lines.append("a softmax classifier to compare with: none of these runs is one")
    for line in study.group.lines:
        lines += [f"{line.name}, {remark}" for remark in line.remarks]
    lines += study.missing
    if study.absent:
        lines.append(
            f"{len(study.absent)} experiments of the study have no run here:"
            f" {', '.join(study.absent)}"
        )
    if lines:
        yield Heading("What is missing")
        yield Items(tuple(dict.fromkeys(lines)), "notice")


def origin(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """Data, hardware, versions, and the configuration of each experiment as it ran."""
    yield Heading("How it was made")
    yield Items(
        (
            *describe_origin(study.group.runs),
            f"data set fingerprint `{study.fingerprint}`",
        )
    )
    for line in study.finished:
        yield Details(f"{line.name}, {seeds_of(line)}", configuration(line))


def configuration(line: TableRow) -> tuple[Block, ...]:
    runs = [
        f"seed {run.seed}: split `{run.split_fingerprint}`, `{run.folder}`" for run in line.runs
    ]
    settings = as_table(line.runs[0].experiment)
    shared = {key: value for key, value in settings.items() if key not in ("seed", "expects")}
    return Items(tuple(runs)), Code(tomli_w.dumps(shared).strip(), "toml")


SECTIONS: tuple[Section, ...] = (
    answers,
    experiments,
    holdouts,
    claims,
    changes,
    figures,
    unknown_classes_and_votes,
    examples,
    missing,
    origin,
)
