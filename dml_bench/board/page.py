"""The pages of the board: an index with a table for whatever may be compared, and a page of
evidence for each row. They work from the disk, without a network."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from dml_bench.analysis.study import Study
from dml_bench.board.cost_picture import CostPicture, cost_picture
from dml_bench.board.over_data_sets import Aggregate
from dml_bench.board.over_data_sets_page import compose_over_data_sets
from dml_bench.board.ranking import Contrast
from dml_bench.board.tables import KINDS, BoardRow, BoardTable, improvement
from dml_bench.board.verify import Verified
from dml_bench.config import as_table
from dml_bench.data.publications import PUBLICATIONS
from dml_bench.evaluation.statistics import Interval
from dml_bench.plots.colours import style
from dml_bench.report import html
from dml_bench.report.format import cost_cell, interval_cell, number
from dml_bench.runs.folder import decisive, differing
from dml_bench.runs.run import RecordedRun, Run
from dml_bench.system.counted import counted
from dml_bench.system.templates import templates
from dml_bench.system.terminal import duration

if TYPE_CHECKING:
    import jinja2

__all__ = ["Board", "evidence_page", "evidence_path", "index_page"]


@dataclass(frozen=True, slots=True)
class Board:
    """All that the index shows."""

    tables: Sequence[BoardTable]
    aggregates: Sequence[Aggregate]
    studies: Mapping[str, Study]
    """By data set, the rows that are methods of all."""
    verified: Sequence[Verified]
    remarks: Sequence[str]
    """On what could not be used."""
    made_by: str


def environment() -> "jinja2.Environment":
    made = templates(Path(__file__).parent, Path(__file__).parents[1] / "report")
    made.globals |= {"colours": Markup(style()), "kinds": KINDS}
    made.filters |= {"probability": probability, "duration": duration, "counted": counted}
    return made


# The index


def index_page(board: Board) -> str:
    """The page with all tables."""
    tables = [TableView(table) for table in board.tables]
    refused = [verified for verified in board.verified if verified.is_refused]
    template = environment().get_template("index.html.jinja")
    return template.render(
        board=board,
        tables=tables,
        refused=refused,
        over_data_sets=over_data_sets(board),
        num_runs=sum(len(row.line.runs) for table in board.tables for row in table.rows),
    )


def over_data_sets(board: Board) -> Markup:
    """The part on several data sets; empty without."""
    if not board.aggregates:
        return Markup()
    return html.blocks(compose_over_data_sets("", board.aggregates, board.studies))


class TableView:
    """What the template asks of a table."""

    def __init__(self, table: BoardTable):
        self.table = table
        group, run = table.study.group, table.run
        self.slug = table.slug
        self.title = f"{run.dataset_name}, split {group.split}"
        unseen = run.protocol.describe_unseen(run.experiment)
        self.under = f"{group.protocol.replace('_', ' ')}, unseen classes: {unseen}"
        if group.profile:
            self.under += f", profile {group.profile}"
        facts = [group.protocol.replace("_", " "), f"unseen {unseen}"]
        facts += [f"profile {group.profile}"] if group.profile else []
        facts.append(f"images {table.study.fingerprint[:6]}")
        differs = table.study.distinction.split(", ")
        self.link = ", ".join([self.title, *(fact for fact in facts if fact in differs)])
        """Its title with what distinguishes it from tables of the same data and split."""
        self.beside_link = ", ".join(fact for fact in facts if fact not in differs)
        self.ranked = [metric for metric in table.metrics if metric.name in table.rankings]
        self.others = [metric for metric in table.metrics if metric.name not in table.rankings]
        self.logits = any(logits_of(row, table) for row in table.rows)
        self.people = any(row.by for row in table.rows)
        self.facts = facts_of(table)
        self.rows = [RowView(row, table) for row in table.in_order(table.main_metric)]
        self.pictures: dict[str, CostPicture] = {}
        self.labelled: dict[str, list[str]] = {}
        for metric in self.ranked:
            picture = cost_picture(table, metric.name)
            if picture is not None:
                self.pictures[metric.name] = picture
                self.labelled[metric.name] = [dot.row.slug for dot in picture.labelled]

    def text_of(self, metric: str) -> str:
        """What the ranks by a metric rest on."""
        ranking = self.table.rankings[metric]
        better = "Lower" if self.table.metric(metric).lower_is_better else "Higher"
        if not ranking.contrasts:
            return f"{better} is better. No two rows can be compared."
        sure = sum(contrast.sign != 0 for contrast in ranking.contrasts)
        return (
            f"{better} is better. Of {len(ranking.contrasts):,} pairs of rows, {sure:,} surely"
            " differ."
        )


def facts_of(table: BoardTable) -> list[tuple[str, str]]:
    """What all rows of a table have in common."""
    dataset = table.run.summary["dataset"]
    publication = PUBLICATIONS.get(dataset["name"])
    revision = dataset["fingerprint"][:12]
    if publication is not None and publication.fingerprint:
        is_published = publication.fingerprint == dataset["fingerprint"]
        revision += ", as published" if is_published else ", not as published"
        if is_published and publication.version:
            revision += f" ({publication.version[:14]})"
    queries = len(table.run.neighbours[table.run.protocol.main_phase].query_labels)
    return [
        ("images", f"{dataset['num_images']:,} of {dataset['num_classes']} classes"),
        ("queries", f"{queries:,}"),
        ("data revision", revision),
        ("rows", f"{len(table.rows)}, {counted(len(table.study.group.runs), 'run')}"),
    ]


class RowView:
    """What the template asks of a row."""

    def __init__(self, row: BoardRow, table: BoardTable):
        self.row, self.table = row, table
        self.href = evidence_path(table, row)
        self.cost = row.line.cpu_seconds
        experiment = row.experiment
        parts = (row.name, row.line.short, row.kind, experiment.loss.name, *row.by)
        self.search = " ".join((*parts, experiment.model.backbone.name)).lower()
        self.logits = logits_of(row, table)

    def range_of(self, metric: str) -> tuple[int, int] | None:
        """The range of ranks; None where it has none."""
        return self.table.rankings[metric].ranges.get(self.row.name)

    def why_not(self, metric: str) -> str:
        """Why it has no rank."""
        return self.table.rankings[metric].not_comparable[self.row.name]

    def bar(self, metric: str) -> tuple[float, float]:
        """Where its range lies among all ranks, left and width in percent."""
        best, worst = self.table.rankings[metric].ranges[self.row.name]
        count = len(self.table.rankings[metric].ranges)
        return 100 * (best - 1) / count, 100 * (worst - best + 1) / count

    def place(self, metric: str) -> int:
        """Where it stands when the table is sorted by a metric."""
        return self.table.in_order(metric).index(self.row)

    def cell(self, metric: str) -> tuple[str, str]:
        """The estimate, and its interval or an empty text."""
        value = self.row.values.get(metric)
        if not isinstance(value, Interval):
            return self.row.line.no_drop_because or "-", ""
        estimate, _, interval = interval_cell(
            value, is_signed=self.table.metric(metric).signed
        ).partition(" ")
        return estimate, interval

    def size(self, metric: str) -> str:
        """What a column is sorted by; empty where there is nothing."""
        value = self.row.values.get(metric)
        return repr(value.estimate) if isinstance(value, Interval) else ""


def logits_of(row: BoardRow, table: BoardTable) -> str:
    """What the logits alone reach, without an interval; empty where there are none."""
    shown = {metric.name for metric in table.metrics}
    for column, value in zip(table.study.group.columns, row.line.values, strict=True):
        if column.key.startswith("logits") and column.key not in shown and value is not None:
            size = value.estimate if isinstance(value, Interval) else value
            return number(size, is_signed=False)
    return ""


def probability(value: float | None) -> str:
    """`0.87`; a dash where there is nothing to compare with."""
    return "-" if value is None else f"{value:.2f}"


# The evidence of a row


def evidence_path(table: BoardTable, row: BoardRow) -> str:
    """Of its page, from the index."""
    return f"rows/{table.slug}/{row.slug}.html"


def evidence_page(table: BoardTable, row: BoardRow, files: Mapping[Path, str]) -> str:
    """Everything that a row rests on; `files` says where the copy of each submission lies."""
    against = {}
    for metric in table.metrics:
        if metric.name in table.rankings:
            against[metric.name] = [
                AgainstView(contrast, table, row, metric.name)
                for contrast in table.rankings[metric.name].of(row.name)
            ]
            against[metric.name].sort(key=lambda view: -view.contrast.difference.estimate)
    runs = [RunView(run, files[run.folder]) for run in row.line.runs]
    template = environment().get_template("row.html.jinja")
    return template.render(
        row=RowView(row, table),
        table=TableView(table),
        against={name: views for name, views in against.items() if views},
        runs=runs,
        classes=classes_of(row),
        phases=list(row.line.runs[0].neighbours),
        costs=[(cost.head, cost_cell(cost.key, value)) for cost, value in costs_of(row)],
        configuration=json.dumps(runs[0].description["configuration"], indent=1),
        differing=differing_settings(row),
    )


def differing_settings(row: BoardRow) -> list[str]:
    """In what the other seeds of a row differ from the first: the seed, and what a search for each
    seed chose."""
    first, *others = (decisive(as_table(run.experiment)) for run in row.line.runs)
    keys: dict[str, None] = {}
    for other in others:
        keys |= dict.fromkeys(differing(first, other))
    return list(keys)


def costs_of(row: BoardRow) -> list[tuple[Any, float]]:
    from dml_bench.runs.metrics import COST

    pairs = zip(COST, row.line.cost, strict=True)
    return [(cost, value) for cost, value in pairs if value is not None]


class AgainstView:
    """This row beside another."""

    def __init__(self, contrast: Contrast, table: BoardTable, row: BoardRow, metric: str):
        self.contrast = contrast
        self.other = next(other for other in table.rows if other.name == contrast.second)
        self.cell = interval_cell(contrast.difference, is_signed=True)
        self.probability = improvement(row, self.other, table.metric(metric))
        sign = contrast.sign
        if table.metric(metric).lower_is_better:
            sign = -sign
        self.verdict = {1: "better", -1: "worse", 0: "no detectable difference"}[sign]
        self.tone = {1: "good", -1: "bad", 0: "soft"}[sign]


class RunView:
    """One submission."""

    def __init__(self, run: Run, href: str):
        assert isinstance(run, RecordedRun)
        self.run, self.href = run, href
        self.description = run.description
        self.session = run.description["session"]
        self.packages = self.session.get("packages", {})
        self.sessions = describe_sessions(self.session)


def describe_sessions(session: Mapping[str, Any]) -> str:
    """`, in 3 sessions with another device, code`; empty of a run that one process made."""
    count = session.get("sessions", 1)
    if count < 2:
        return ""
    keys = dict.fromkeys(chain.from_iterable(session.get("earlier", ())))
    return f", in {count} sessions" + (f" with another {', '.join(keys)}" if keys else "")


def classes_of(row: BoardRow) -> list[tuple[str, list[float], int]]:
    """Name, P@1 by phase over all seeds, and number of queries, the hardest class first."""
    runs = row.line.runs
    names = runs[0].class_names
    shares = []
    for phase in runs[0].neighbours:
        right, queries = np.zeros(max(names) + 1), np.zeros(max(names) + 1)
        for run in runs:
            neighbours = run.neighbours[phase]
            correct = neighbours.labels[:, 0] == neighbours.query_labels
            right += np.bincount(neighbours.query_labels, correct, len(right))
            queries += np.bincount(neighbours.query_labels, minlength=len(right))
        shares.append(right / np.maximum(queries, 1))
    rows = []
    for label, name in names.items():
        of_phases = [float(share[label]) for share in shares]
        rows.append((name, of_phases, round(queries[label] / len(runs))))
    return sorted(rows, key=lambda entry: entry[1][0])
