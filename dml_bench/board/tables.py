"""The tables of the board: one for each protocol, data revision, split kind and rule of hold-outs,
with the ranges of ranks of its rows."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from dml_bench.analysis.short_names import is_classifier, is_linear_probe, is_untrained
from dml_bench.analysis.study import Study
from dml_bench.analysis.table import TableRow
from dml_bench.board.named_settings import unlike_its_name
from dml_bench.board.ranking import Ranking, Scored, rank
from dml_bench.board.verify import Verified
from dml_bench.evaluation.aggregates import probability_of_improvement
from dml_bench.evaluation.statistics import Interval, estimate
from dml_bench.protocols.metric import Metric
from dml_bench.report.tables import OWN_RULE
from dml_bench.runs.metrics import metrics_of
from dml_bench.runs.pairing import held_out_by, pairing_key, stand_ins
from dml_bench.runs.run import RecordedRun, Run
from dml_bench.system.files import short_name

__all__ = ["KINDS", "BoardRow", "BoardTable", "table_of"]

LONGEST_SLUG = 150
"""Bytes of the name of a table's folder without its digest."""
KINDS = ("metric learning", "classifier", "linear probe", "no training")


@dataclass(frozen=True, slots=True)
class BoardRow:
    """One experiment of a table."""

    line: TableRow
    kind: str
    by: tuple[str, ...]
    """Who handed its runs in."""
    flags: tuple[str, ...]
    """What a person has to look at."""
    slug: str
    """The name of its page."""
    values: Mapping[str, Interval | None]
    """By metric, with the interval of the table."""
    seeds: Mapping[str, np.ndarray]
    """By metric, the mean of each seed."""
    rivals: Mapping[str, float | None]
    """By ranked metric, how likely a run of it is better than one of the classifier on the same
    backbone."""

    @property
    def name(self) -> str:
        """Its full name."""
        return self.line.name

    @property
    def experiment(self) -> Any:
        """The configuration of its first seed."""
        return self.line.runs[0].experiment

    @property
    def techniques(self) -> list[str]:
        """What a plain row has not, which the name that a person chose need not say."""
        experiment = self.experiment
        data, tta = experiment.data, experiment.evaluate.tta
        is_frozen = experiment.model.trainable == "head" and not self.line.no_drop_because
        notes = {
            f"ensemble of {experiment.train.folds} folds": experiment.train.folds,
            f"test-time augmentation {tta}": tta != "none",
            f"{100 * data.label_noise:.0f}% wrong training labels": data.label_noise,
            f"{data.per_class} training images a class": data.per_class,
            "frozen backbone": is_frozen,
            "tuned": experiment.tuned,
        }
        return [note for note, applies in notes.items() if applies]


@dataclass(frozen=True, slots=True)
class BoardTable:
    """Rows that may be compared."""

    study: Study
    slug: str
    metrics: tuple[Metric, ...]
    """Those with intervals that it shows; the ranked ones first."""
    rankings: Mapping[str, Ranking]
    """By ranked metric."""
    rows: tuple[BoardRow, ...]

    @property
    def main_metric(self) -> str:
        """What the page ranks by at first: the last of the ranked metrics that is no difference."""
        return [m.name for m in self.metrics if m.name in self.rankings and not m.signed][-1]

    @property
    def run(self) -> Run:
        """Any run of it."""
        return self.rows[0].line.runs[0]

    def in_order(self, metric: str) -> list[BoardRow]:
        """The ranked rows, best first, then those that can't be compared."""
        ranking = self.rankings[metric]
        lower = self.metric(metric).lower_is_better

        def place(row: BoardRow) -> tuple[bool, float]:
            value = row.values.get(metric)
            size = value.estimate if isinstance(value, Interval) else float("-inf")
            return row.name not in ranking.ranges, size if lower else -size

        return sorted(self.rows, key=place)

    def metric(self, name: str) -> Metric:
        """A shown metric by its name."""
        return next(metric for metric in self.metrics if metric.name == name)


def table_of(study: Study, verified: Mapping[str, Verified]) -> BoardTable:
    """The table of a study; `verified` is what was said of each submission, by its path."""
    group = study.group
    shown: dict[str, Metric] = {}
    for line in group.lines:
        for metric in metrics_of(line.runs[0].experiment).values():
            if metric.column and not metric.place and metric.compared:
                shown.setdefault(metric.name, metric)
    metrics = sorted(shown.values(), key=lambda metric: (not metric.ranked, metric.signed))
    scores = TableScores(group.lines)
    rankings = {
        metric.name: rank(
            scores.of(metric),
            average=metric.average,
            within=metric.of_differences,
            prior=group.priors.of_differences(metric.name),
            lower_is_better=metric.lower_is_better,
        )
        for metric in metrics
        if metric.ranked
    }
    rows = [row_of(line, study, metrics, verified) for line in group.lines]
    rows = [replace(row, rivals=rivals_of(row, rows, metrics, rankings)) for row in rows]
    return BoardTable(study, slug_of(study), tuple(metrics), rankings, tuple(rows))


def row_of(
    line: TableRow, study: Study, metrics: Sequence[Metric], verified: Mapping[str, Verified]
) -> BoardRow:
    keys = [column.key for column in study.group.columns]
    values: dict[str, Interval | None] = {}
    seeds: dict[str, np.ndarray] = {}
    for metric in metrics:
        value = line.values[keys.index(metric.name)] if metric.name in keys else None
        values[metric.name] = value if isinstance(value, Interval) else None
        if metric.name in metrics_of(line.runs[0].experiment):
            of_seeds = [estimate([metric.scores(run)], average=metric.average) for run in line.runs]
            seeds[metric.name] = np.array(of_seeds)
    by: list[str] = []
    flags = [OWN_RULE] if line.runs[0].experiment.mixes_pairs else []
    if unlike := unlike_its_name(line.runs[0].experiment):
        flags.append(unlike)
    for run in line.runs:
        assert isinstance(run, RecordedRun)
        by.append(str(run.description.get("submitted_by", "")))
        findings = verified[str(run.folder)].of("review") if str(run.folder) in verified else []
        flags += [f"seed {run.seed}: {finding.text}" for finding in findings]
    return BoardRow(
        line=line,
        kind=kind_of(line),
        by=tuple(dict.fromkeys(filter(None, by))),
        flags=tuple(flags),
        slug=line.name,  # which is a folder of records, so it can be a file
        values=values,
        seeds=seeds,
        rivals={},
    )


def kind_of(line: TableRow) -> str:
    experiment = line.runs[0].experiment
    if is_linear_probe(experiment):
        return "linear probe"
    if is_untrained(experiment):
        return "no training"
    return "classifier" if is_classifier(experiment) else "metric learning"


def rivals_of(
    row: BoardRow,
    rows: Sequence[BoardRow],
    metrics: Sequence[Metric],
    rankings: Mapping[str, Ranking],
) -> dict[str, float | None]:
    """Against the first classifier on the same backbone with which a metric's ranking compares it;
    nothing where there is none."""
    backbone = row.experiment.model.backbone.name
    rivals: dict[str, float | None] = {}
    for metric in metrics:
        if not metric.ranked:
            continue
        rivals[metric.name] = None
        compared = {contrast.second for contrast in rankings[metric.name].of(row.name)}
        for other in rows:
            same_backbone = other.experiment.model.backbone.name == backbone
            if other.kind == "classifier" and same_backbone and other.name in compared:
                rivals[metric.name] = improvement(row, other, metric)
                break
    return rivals


def improvement(row: BoardRow, other: BoardRow, metric: Metric) -> float:
    """How likely a run of the first is better than one of the second."""
    pair = [row.seeds[metric.name]], [other.seeds[metric.name]]
    return probability_of_improvement(*(reversed(pair) if metric.lower_is_better else pair))


def slug_of(study: Study) -> str:
    """For names of files. It ends with a digest of what it leaves out: signs, as of a pattern, and
    what is too long."""
    key = f"{study.group.title_with_split}, {study.distinction}, {study.fingerprint}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    name = re.sub(r"[^\w.]+", "-", f"{study.group.slug}-{study.distinction}").strip("-")
    return f"{short_name(name, LONGEST_SLUG)}-{digest}"


class TableScores:
    """What the rows of a table scored, by what two of them have to share to be compared."""

    def __init__(self, lines: Sequence[TableRow]):
        self.lines = lines

    @cached_property
    def runs(self) -> dict[str, list[Run]]:
        """By row. Features that are not trained are the same with each seed: a row without training
        answers for every seed that asks the same queries."""
        trained = [run for line in self.lines if not line.no_drop_because for run in line.runs]
        runs = {}
        for line in self.lines:
            runs[line.name] = list(line.runs)
            if line.no_drop_because:
                runs[line.name] += stand_ins(line.runs, trained)
        return runs

    def of(self, metric: Metric) -> dict[str, Scored]:
        """By row, those that have the metric."""
        scored = {}
        for line in self.lines:
            lacking = "untested under its profile" if line.untested else ""
            if metric.name not in metrics_of(line.runs[0].experiment):
                lacking = lacking or line.no_drop_because or "not measured"
            if lacking:
                scored[line.name] = Scored({}, lacking=lacking)
                continue
            by_key = {}
            for run in self.runs[line.name]:
                held_out = held_out_by(run) if metric.depends_on_holdouts else ()
                by_key[pairing_key(run), held_out] = metric.scores(run)
            scored[line.name] = Scored(by_key, is_fixed=bool(line.no_drop_because))
        return scored
