"""The sections of a report. Each is one function that makes its blocks from a study; SECTIONS says
in which order they come. A new section is a function here and its place in that order."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import tomli_w

from dml_bench.analysis.diagnostics import Diagnostics
from dml_bench.analysis.origin import describe_origin
from dml_bench.analysis.study import Study
from dml_bench.analysis.table import TableRow
from dml_bench.config import as_table
from dml_bench.config.experiments import describe_profile
from dml_bench.plots.figures import draw
from dml_bench.report import catalogue as catalogue_text
from dml_bench.report import changes as change_text
from dml_bench.report import decisions as decided
from dml_bench.report import diagnostics as diagnostics_text
from dml_bench.report import tables
from dml_bench.report.answers import answers, facts
from dml_bench.report.attacks import attacks_blocks
from dml_bench.report.document import (
    Block,
    Code,
    Data,
    Details,
    Facts,
    Heading,
    Items,
    Panels,
    Text,
)
from dml_bench.report.examples import example_blocks
from dml_bench.report.label_corrections import corrections_blocks
from dml_bench.report.scatter import explanation, scatter_data, scatter_table, scatters_of
from dml_bench.report.short import with_short_names
from dml_bench.system.counted import counted

__all__ = ["DATA_FILES", "SECTIONS", "Section"]

Section: TypeAlias = Callable[[Study, Mapping[str, Diagnostics]], Iterator[Block]]
"""Its blocks, from a study and the diagnostics of some of its experiments by name. What it can't
show it adds to `study.missing`."""

DATA_FILES = (
    *("table", "means", "holdouts", "expectations", "family", "survival", "changes", "closer"),
    *("scatter", "scatter_classes", "label_corrections", "catalogue"),
    *("attacks", "attack_changes"),
)
"""The CSV files that sections may write."""


BESIDE_ANSWERS = (
    "The answers above may give the same two rows another difference. Those are of means over"
    " classes, with a classifier's logits on known classes, and each has an interval by itself."
)
BESIDE_RIVAL = "Differences on the same queries. They are exploratory, with 95% intervals."


def folded(summary: str, *blocks: Block | None) -> Details:
    """What most readers don't need."""
    return Details(summary, tuple(block for block in blocks if block is not None))


def first_screen(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """What it is about, and the answers."""
    yield Facts(tuple(facts(study)))
    panels = []
    for answer in answers(study, diagnostics):
        blocks: list[Block] = [Heading(answer.question), Text(answer.sentence, "strong")]
        if answer.figure:
            blocks.append(answer.figure)
        panels.append(tuple(blocks))
    yield Panels(tuple(panels))


def experiments(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """The table of all experiments, and what explains it."""
    yield Heading("The experiments")
    yield tables.main_table(study.group)
    if study.group.untested:
        yield Text(study.group.untested, "soft")
    yield tables.results_data(study.group)
    yield from tables.means_blocks(study)
    yield folded("What the columns mean", tables.explanations(study.group))
    yield folded("All columns", tables.results_table(study.group))
    rival = tables.rival_table(study)
    if rival is not None:
        yield folded(rival.title, Text(BESIDE_RIVAL, "soft"), rival)


def holdouts(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """The cost of being unseen and the drop on the unseen classes of each hold-out, a row for each
    seed, where there are several hold-outs."""
    if len(study.holdouts) < 2:
        return
    rows: list[list[Any]] = []
    for line in study.trained:
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
    yield from decided.data_of(decisions)
    if decisions.claims or decisions.contrasts:
        blocks = decided.decided_blocks(decisions)
        blocks.insert(1, Text(BESIDE_ANSWERS, "soft"))
        yield folded(decided.summary(decisions), *with_short_names(blocks, study.names))


def changes(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """Each experiment beside the one that it extends."""
    if not study.changes:
        return
    table = change_text.changes_table(study.changes, study.names)
    yield folded(
        f"What each change does: {counted(len(study.changes), 'change')}",
        Items(tuple(change_text.describe(study.changes))),
        *with_short_names([table], study.names),
        change_text.changes_data(study.changes),
    )


def label_corrections(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """How many corrections of labels were right."""
    yield from corrections_blocks(study)


def attacks(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """How right the logits are of images that were changed against them."""
    yield from attacks_blocks(study)


def figures(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """All figures for which there are numbers."""
    drawn = draw(study, dict(diagnostics))
    if drawn:
        yield folded("More figures", *drawn)


def unknown_classes_and_votes(
    study: Study, diagnostics: Mapping[str, Diagnostics]
) -> Iterator[Block]:
    """Open-set numbers and the calibration of the vote."""
    yield diagnostics_text.diagnostics_data(diagnostics)
    enrolment = tables.enrolment_table(diagnostics)
    if enrolment is not None:
        note = "In parentheses: from where to where 95% of the draws of images lie, over all seeds."
        yield folded("Images that a new class needs", Text(note, "soft"), enrolment)
    if diagnostics:
        blocks: list[Block] = [
            Items(tuple(diagnostics_text.describe(diagnostics)), "soft"),
            diagnostics_text.diagnostics_table(diagnostics),
        ]
        thresholds = diagnostics_text.thresholds_table(diagnostics)
        if thresholds is not None:
            blocks.append(Items(tuple(diagnostics_text.describe_thresholds(diagnostics)), "soft"))
            blocks.append(thresholds)
        yield folded("Unknown classes, thresholds and votes", *blocks)


def scatter(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """How far test images scatter against training images, in the experiments with diagnostics."""
    if not study.has_drop:
        return
    scatters = scatters_of([measured.line for measured in diagnostics.values()], study.missing)
    if not scatters:
        return
    table = scatter_table(scatters, study.names)
    yield scatter_data(scatters)
    yield folded("How far test images scatter", explanation(), table)


def catalogue(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """Studio photos as the gallery of test photos, where runs have a catalogue."""
    catalogues = catalogue_text.catalogues_of(study.finished)
    if not catalogues:
        return
    table = catalogue_text.catalogue_table(catalogues, study.names)
    yield catalogue_text.catalogue_data(catalogues)
    yield folded("The catalogue as gallery", catalogue_text.explanation(), table)


def examples(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """The images behind the predictions of the best experiment."""
    yield folded("Confusions and examples", *example_blocks(study))


def missing(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """What the sections before could not show, and why."""
    lines = []
    if study.rival is None:
        lines.append(
            "a softmax classifier to compare with: none of these runs is one;"
            " `dml-bench run crossentropy_resnet18_sgd_aug` adds one"
        )
    for line in study.group.lines:
        lines += [f"{line.name}, {remark}" for remark in line.remarks]
    lines += study.missing
    if study.is_original and study.absent:
        lines.append(
            f"{len(study.absent)} experiments of the study have no run here:"
            f" {', '.join(study.absent)}"
        )
    if lines:
        lines = list(dict.fromkeys(lines))
        yield folded(f"What is missing: {len(lines)}", Items(tuple(lines), "notice"))


def settings(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """What the profile changes; the full names, and how the experiments differ."""
    if study.group.profile:
        changes = describe_profile(study.group.profile)
        summary = f"What the profile {study.group.profile} changes: {len(changes)} settings"
        yield folded(summary, Items(changes))
    first = tables.reference(study)
    yield folded(
        "Full names and settings",
        tables.names_table(study),
        Text(f"All settings of `{first.short}`:"),
        Code(tomli_w.dumps(settings_of(first)).strip(), "toml"),
    )


def settings_of(line: TableRow) -> dict[str, Any]:
    table = as_table(line.runs[0].experiment)
    return {key: value for key, value in table.items() if key not in ("seed", "expects")}


def origin(study: Study, diagnostics: Mapping[str, Diagnostics]) -> Iterator[Block]:
    """Data, hardware, versions and run folders."""
    runs = [run for line in study.finished for run in line.runs]
    splits: dict[str, set[int]] = {}
    folders: dict[Path, list[str]] = {}
    for run in runs:
        splits.setdefault(run.split_fingerprint, set()).add(run.seed)
        folders.setdefault(run.folder.parent, []).append(run.folder.name)
    yield folded(
        "How it was made",
        Items(
            (
                *describe_origin(study.group.runs),
                f"data set fingerprint `{study.fingerprint}`",
                *(
                    f"split `{split}`: {'seeds' if len(seeds) > 1 else 'seed'}"
                    f" {', '.join(map(str, sorted(seeds)))}"
                    for split, seeds in splits.items()
                ),
            )
        ),
        folded(
            f"Runs: {len(runs)}",
            Items(tuple(f"`{place}`: {', '.join(names)}" for place, names in folders.items())),
        ),
    )


SECTIONS: tuple[Section, ...] = (
    first_screen,
    experiments,
    holdouts,
    claims,
    changes,
    label_corrections,
    attacks,
    figures,
    unknown_classes_and_votes,
    scatter,
    catalogue,
    examples,
    settings,
    missing,
    origin,
)
