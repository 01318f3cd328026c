"""A section of the report: experiments of one protocol, data set and profile, and every number that
sentences and figures need of them."""

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from dml_bench.analysis.ablation import Ablation, ablations
from dml_bench.analysis.claims import ClaimResult
from dml_bench.analysis.table import Group, TableRow
from dml_bench.evaluation.metrics import precision_at_1
from dml_bench.evaluation.statistics import Interval, Scores, estimate, interval
from dml_bench.protocols import protocol_named
from dml_bench.registry import losses
from dml_bench.runs.metrics import Metric, metrics_of
from dml_bench.runs.pairing import runs_in_common
from dml_bench.runs.run import Run

__all__ = ["Study", "certain_sign", "held_out"]

LEVEL = 0.95


def certain_sign(value: Interval | None) -> int:
    """1 or -1 where the interval lies wholly above or below zero, else 0."""
    if value is None or math.isnan(value.low):
        return 0
    return int(value.low > 0) - int(value.high < 0)


def held_out(run: Run) -> dict[str, np.ndarray]:
    """By the phase that did not train on them: the class ids of the unseen classes. Empty where no
    other model trained on them."""
    if not run.protocol.has_drop:
        return {}
    return {phase: classes for phase, classes in run.held_out.items() if phase in run.neighbours}


def drop_of_holdout(run: Run, phase: str) -> Scores:
    """The drop on the classes that one phase held out."""
    trained, without = (
        Scores(precision_at_1(found), found.query_labels)
        for found in (run.neighbours["all"], run.neighbours[phase])
    )
    return trained.minus(without).of_classes(held_out(run)[phase])


QUANTITIES = {
    "known": "precision_at_1_macro",
    "logits": "logits_accuracy",
    "unseen_limited": "precision_at_1_macro_unseen_limited",
    "unseen_all": "precision_at_1_macro_unseen",
    "drop_unseen": "precision_drop_unseen_classes",
    "drop_seen": "precision_drop_seen_classes",
    "drop_all": "precision_drop_all_classes",
}
"""Metrics by a short name. A study averages all of them over classes."""


def metric_for(line: TableRow, quantity: str) -> Metric | None:
    """None where the runs of this line don't have it."""
    return metrics_of(line.runs[0].experiment).get(QUANTITIES[quantity])


@dataclass
class Study:
    group: Group
    verdicts: tuple[ClaimResult, ...]
    fingerprint: str
    """Of the data set."""
    apart: str = ""
    """What tells it from other sections of the same protocol, data set and profile."""
    absent: tuple[str, ...] = ()
    """Rows of the study that have no run here."""
    missing: list[str] = field(default_factory=list)
    """What could not be shown, and why."""
    _known: dict[tuple[object, ...], Interval | None] = field(default_factory=dict, repr=False)
    """Every interval by what it is of."""

    def __post_init__(self) -> None:
        """Take over what the table has measured already."""
        same = {"precision_at_1_macro": "known", "precision_drop_unseen_classes": "drop_unseen"}
        for line in self.group.lines:
            for column, value in zip(self.group.columns, line.values, strict=True):
                if column.key in same and isinstance(value, Interval):
                    self._known[line.name, same[column.key], LEVEL] = value

    @property
    def title(self) -> str:
        return (
            self.group.title[:1].upper()
            + self.group.title[1:]
            + (f", {self.apart}" if self.apart else "")
        )

    @cached_property
    def slug(self) -> str:
        digest = f"-{hashlib.sha256(self.apart.encode()).hexdigest()[:4]}" if self.apart else ""
        return f"{self.group.slug}-{self.fingerprint[:6]}{digest}"

    @property
    def has_drop(self) -> bool:
        return protocol_named(self.group.protocol).has_drop

    @cached_property
    def finished(self) -> tuple[TableRow, ...]:
        return tuple(line for line in self.group.lines if line.runs)

    @cached_property
    def first(self) -> Run:
        return self.finished[0].runs[0]

    @cached_property
    def effects(self) -> tuple[Ablation, ...]:
        """What each experiment changes beside the one that it extends, where that is here too."""
        return ablations({line.name: line.runs for line in self.finished}) if self.has_drop else ()

    @cached_property
    def rivals(self) -> tuple[TableRow, ...]:
        """Softmax classifiers: their loss has logits and does not work on unit vectors."""
        facts = {line.name: losses.of(line.runs[0].experiment.loss).facts for line in self.finished}
        return tuple(
            line
            for line in self.finished
            if facts[line.name]["classifies"] and not facts[line.name]["unit_vectors"]
        )

    @property
    def rival(self) -> TableRow | None:
        return max(self.rivals, key=self.accuracy, default=None)

    @cached_property
    def methods(self) -> tuple[TableRow, ...]:
        """Metric learning: all others."""
        return tuple(line for line in self.finished if line not in self.rivals)

    @cached_property
    def best(self) -> TableRow | None:
        return max(self.methods, key=self.accuracy, default=None)

    @cached_property
    def worst(self) -> TableRow | None:
        return min(self.methods, key=self.accuracy, default=None)

    @cached_property
    def baseline(self) -> TableRow | None:
        """The experiment that the claims of the others are most often about, if it is here."""
        named = [judged.expectation.versus for judged in self.verdicts]
        return max(
            (line for line in self.methods if line.name in named),
            key=lambda line: named.count(line.name),
            default=None,
        )

    @cached_property
    def chosen(self) -> tuple[TableRow, ...]:
        """Those that are looked at more closely: best, baseline, and the classifier."""
        lines = [line for line in (self.best, self.baseline, self.rival) if line is not None]
        return tuple({line.name: line for line in lines}.values())

    def accuracy(self, line: TableRow) -> float:
        measured = self.measure(line, "known")
        return measured.estimate if measured else float("nan")

    def measure(self, line: TableRow, quantity: str, level: float = LEVEL) -> Interval | None:
        """None where the runs of this line don't have it."""
        key = (line.name, quantity, level)
        if key not in self._known:
            metric = metric_for(line, quantity)
            self._known[key] = None
            if metric is not None:
                scores = [metric.scores(run) for run in line.runs]
                self._known[key] = interval(scores, within=metric.within, level=level)
        return self._known[key]

    @property
    def holdouts(self) -> tuple[str, ...]:
        """The phases that held classes out, the same in all runs."""
        return tuple(held_out(self.first))

    def holdout_drops(self, line: TableRow) -> np.ndarray:
        """(holdout, seed) the drop on the unseen classes of each hold-out."""
        return np.array(
            [
                [estimate([drop_of_holdout(run, phase)]) for run in line.runs]
                for phase in self.holdouts
            ]
        )

    def pooled(self, quantity: str) -> Interval | None:
        """The mean over all metric-learning experiments, which has less noise than any of them;
        over the seeds that all have on the same splits, None where there are none."""
        metric = metric_for(self.methods[0], quantity)
        assert metric is not None
        shared = runs_in_common(*(line.runs for line in self.methods))
        pools = [pool(list(map(metric.scores, runs))) for runs in shared]
        return interval(pools, within=metric.within) if pools else None

    def best_against(
        self, quantity: str, other: TableRow, of_other: str = ""
    ) -> tuple[Interval | None, int | None]:
        """The best minus another, and the sign of that: 0 where it can't be told even though the
        best was picked from among many, which its own interval does not know of; None where there
        is nothing in common."""
        assert self.best is not None
        plain = self.difference(self.best, quantity, other, of_other)
        if not certain_sign(plain):
            return plain, None if plain is None else 0
        return plain, certain_sign(
            self.difference(self.best, quantity, other, of_other, comparisons=len(self.methods))
        )

    def loses(self, line: TableRow, comparisons: int) -> int:
        """The sign of a line's drop on the unseen classes, by an interval widened for so many
        comparisons; a wider one tells no more."""
        return certain_sign(self.measure(line, "drop_unseen")) and certain_sign(
            self.measure(line, "drop_unseen", 1 - (1 - LEVEL) / comparisons)
        )

    def difference(
        self,
        line: TableRow,
        quantity: str,
        other: TableRow,
        of_other: str = "",
        comparisons: int = 1,
    ) -> Interval | None:
        """`quantity` of a line minus that of another, on the same queries with the same seeds, with
        an interval widened so that all of `comparisons` hold together (Bonferroni); None where
        there is nothing in common."""
        key = (line.name, quantity, other.name, of_other, comparisons)
        if key not in self._known:
            self._known[key] = self._difference(
                line, quantity, other, of_other or quantity, 1 - (1 - LEVEL) / comparisons
            )
        return self._known[key]

    def _difference(
        self, line: TableRow, quantity: str, other: TableRow, of_other: str, level: float
    ) -> Interval | None:
        first, second = metric_for(line, quantity), metric_for(other, of_other)
        if first is None or second is None:
            return None
        pairs = runs_in_common(line.runs, other.runs)
        scores = [first.scores(mine).minus(second.scores(theirs)) for mine, theirs in pairs]
        return interval(scores, within=first.of_differences, level=level) if scores else None


def pool(parts: list[Scores]) -> Scores:
    """The mean of several on the same queries."""
    return Scores(np.mean([part.values for part in parts], axis=0), parts[0].labels)
