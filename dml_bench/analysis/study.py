"""A study: the experiments of one protocol, data set and profile, and every number that sentences
and figures need of them."""

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from dml_bench.analysis.ablation import Ablation, ablations
from dml_bench.analysis.decisions import Decisions
from dml_bench.analysis.short_names import is_classifier, is_linear_probe, is_untrained
from dml_bench.analysis.table import Group, TableRow
from dml_bench.analysis.verdicts import FEWEST_SEEDS
from dml_bench.config.tables import read_table
from dml_bench.evaluation.metrics import precision_at_1
from dml_bench.evaluation.statistics import Interval, Scores, SeedPrior, estimate, interval
from dml_bench.protocols import protocol_named
from dml_bench.protocols.holdout_metrics import costs_of_holdouts
from dml_bench.protocols.metric import scores_of_phase
from dml_bench.runs.metrics import Metric, metrics_of
from dml_bench.runs.pairing import runs_in_common, stand_ins
from dml_bench.runs.run import Run

__all__ = ["QUANTITIES", "Best", "Study", "certain_sign", "held_out", "paired_runs"]


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
    with_them = scores_of_phase(precision_at_1, run.protocol.main_phase, run)
    without = scores_of_phase(precision_at_1, phase, run)
    return with_them.minus(without).of_classes(held_out(run)[phase])


QUANTITIES = {
    "cost": "cost_of_being_unseen",
    "known": "precision_at_1_macro",
    "logits": "logits_accuracy",
    "seen_limited": "precision_at_1_macro_seen_limited",
    "unseen_limited": "precision_at_1_macro_unseen_limited",
    "unseen_all": "precision_at_1_macro_unseen",
    "drop_unseen": "precision_drop_unseen_classes",
    "drop_seen": "precision_drop_seen_classes",
    "seen_to_unseen": "precision_drop_seen_to_unseen_classes",
    "seen_to_seen": "precision_drop_seen_to_seen_classes",
    "drop_all": "precision_drop_all_classes",
}
"""Metrics by a short name. A study averages all of them over classes."""


def metric_for(line: TableRow, quantity: str) -> Metric | None:
    """None where the runs of this line don't have it."""
    return metrics_of(line.runs[0].experiment).get(QUANTITIES[quantity])


@dataclass(frozen=True, slots=True)
class Best:
    """The best method by one quantity."""

    line: TableRow
    value: Interval
    """Of this method alone; it does not know that the method was picked."""
    picked_from: int
    """How many methods had the quantity."""


@dataclass
class Study:
    """Experiments that may be compared, with what is decided about them."""

    group: Group
    decisions: Decisions
    """The claims of its experiments and the family of their table, with their verdicts."""
    fingerprint: str
    """Of the data set."""
    distinction: str = ""
    """What distinguishes it from other studies of the same protocol, data set and profile."""
    absent: tuple[str, ...] = ()
    """Rows of the original study that have no run here."""
    missing: list[str] = field(default_factory=list)
    """What could not be shown, and why."""
    _intervals: dict[tuple[object, ...], Interval | None] = field(default_factory=dict, repr=False)
    """Every interval by what it is of."""

    def __post_init__(self) -> None:
        """Take over what the table has measured already."""
        quantities = {metric: quantity for quantity, metric in QUANTITIES.items()}
        for line in self.group.lines:
            for column, value in zip(self.group.columns, line.values, strict=True):
                if column.key in quantities and isinstance(value, Interval):
                    self._intervals[line.name, quantities[column.key]] = value

    @property
    def title(self) -> str:
        """`Precision drop on cub, profile demo`"""
        title = self.group.title[:1].upper() + self.group.title[1:]
        return f"{title}, {self.distinction}" if self.distinction else title

    @cached_property
    def slug(self) -> str:
        """The same for names of files."""
        slug = f"{self.group.slug}-{self.fingerprint[:6]}"
        if not self.distinction:
            return slug
        return f"{slug}-{hashlib.sha256(self.distinction.encode()).hexdigest()[:4]}"

    @property
    def has_drop(self) -> bool:
        """Whether a second model was trained without the unseen classes."""
        return protocol_named(self.group.protocol).has_drop

    @property
    def has_label_sets(self) -> bool:
        """Whether images have several labels, all of which are trained on."""
        return protocol_named(self.group.protocol).label_sets

    @cached_property
    def names(self) -> dict[str, str]:
        """Short names of the experiments by the full ones."""
        return {line.name: line.short for line in self.group.lines}

    @cached_property
    def finished(self) -> tuple[TableRow, ...]:
        """The experiments with at least one finished run."""
        return tuple(line for line in self.group.lines if line.runs)

    @cached_property
    def first(self) -> Run:
        """Some run, for what all have in common."""
        return self.finished[0].runs[0]

    @cached_property
    def changes(self) -> tuple[Ablation, ...]:
        """Each experiment beside the one that it extends, where that is here too."""
        if not self.has_drop:
            return ()
        return ablations({line.name: line.runs for line in self.tested}, self.group.priors)

    @cached_property
    def tested(self) -> tuple[TableRow, ...]:
        """Those from which something is concluded; all where the profile leaves none."""
        tested = tuple(line for line in self.finished if not line.untested)
        return tested or self.finished

    @property
    def is_original(self) -> bool:
        """Whether it repeats the original study: at least half of that study's experiments."""
        rows = read_table("study").rows
        present = sum(line.name in rows for line in self.finished)
        return 2 * present >= len(rows)

    @cached_property
    def trained(self) -> tuple[TableRow, ...]:
        """The tested experiments whose features are trained, so that phases may differ."""
        return tuple(line for line in self.tested if not line.no_drop_because)

    @cached_property
    def rivals(self) -> tuple[TableRow, ...]:
        """Softmax classifiers: their loss has logits and does not work on unit vectors. Linear
        probes where there are no others."""
        rivals = [line for line in self.trained if is_classifier(line.runs[0].experiment)]
        return tuple(rivals) or self.linear_probes

    @cached_property
    def linear_probes(self) -> tuple[TableRow, ...]:
        """Classifiers of features that stay as they are."""
        return tuple(line for line in self.tested if is_linear_probe(line.runs[0].experiment))

    @property
    def no_training(self) -> TableRow | None:
        """Of the experiments that train nothing, the one with the highest P@1."""
        lines = [line for line in self.tested if is_untrained(line.runs[0].experiment)]
        return max(lines, key=self.accuracy, default=None)

    @property
    def rival(self) -> TableRow | None:
        """The softmax classifier with the highest P@1."""
        return max(self.rivals, key=self.accuracy, default=None)

    @cached_property
    def methods(self) -> tuple[TableRow, ...]:
        """Metric learning: all others with three seeds, as fewer enter no rank. All of them where
        none has three; what trains nothing only where there is nothing else."""
        methods = tuple(line for line in self.trained if line not in self.rivals)
        if not methods and not self.rivals:
            methods = self.tested
        ranked = tuple(line for line in methods if len(line.runs) >= FEWEST_SEEDS)
        return ranked or methods

    @cached_property
    def best(self) -> TableRow | None:
        """The method with the highest P@1."""
        best = self.best_by("known")
        return None if best is None else best.line

    def best_by(self, quantity: str) -> Best | None:
        """The method that is best by one of QUANTITIES; None where no method has it."""
        measured = []
        for line in self.methods:
            value = self.measure(line, quantity)
            if value is not None and not math.isnan(value.estimate):
                measured.append((line, value))
        if not measured:
            return None
        metric = metric_for(measured[0][0], quantity)
        assert metric is not None
        sign = -1 if metric.lower_is_better else 1
        line, value = max(measured, key=lambda pair: sign * pair[1].estimate)
        return Best(line, value, len(measured))

    @cached_property
    def best_unseen(self) -> TableRow | None:
        """The method with the highest P@1 on the classes that it never trained on."""
        best = self.best_by("unseen_limited" if self.has_drop else "known")
        return None if best is None else best.line

    @cached_property
    def baseline(self) -> TableRow | None:
        """The experiment that the claims of the others are most often about, if it is here."""
        named = [result.expectation.versus for result in self.decisions.claims]
        return max(
            (line for line in self.methods if line.name in named),
            key=lambda line: named.count(line.name),
            default=None,
        )

    @cached_property
    def diagnosed(self) -> tuple[TableRow, ...]:
        """The experiments that get diagnostics: the best on all and on unseen classes, the
        baseline, the classifier, and what trains nothing."""
        chosen = (self.best, self.best_unseen, self.baseline, self.rival, self.no_training)
        return tuple({line.name: line for line in chosen if line is not None}.values())

    def accuracy(self, line: TableRow) -> float:
        """P@1; nan where it was not measured."""
        measured = self.measure(line, "known")
        return measured.estimate if measured else math.nan

    def right_by_logits(self, line: TableRow) -> float:
        """Accuracy of the classifier's own answers; nan where it was not measured."""
        measured = self.measure(line, "logits")
        return measured.estimate if measured else math.nan

    def answers_by_logits(self, line: TableRow) -> bool:
        """Whether its own answers are those of a classifier's logits, which some protocols don't
        ask. They know no unseen class, so of these its features are asked."""
        has_logits = line in self.rivals or line in self.linear_probes
        return has_logits and metric_for(line, "logits") is not None

    def right(self, line: TableRow) -> Interval | None:
        """How many test images its own answers are right for, trained on all classes: a
        classifier's by its logits, all others' by the nearest image."""
        return self.measure(line, "logits" if self.answers_by_logits(line) else "known")

    def measure(self, line: TableRow, quantity: str) -> Interval | None:
        """One of QUANTITIES over the seeds; None where the runs of this line don't have it."""
        key = (line.name, quantity)
        if key not in self._intervals:
            prior = self.group.priors.of(QUANTITIES[quantity])
            self._intervals[key] = measured_interval(line, quantity, prior)
        return self._intervals[key]

    @property
    def holdouts(self) -> tuple[str, ...]:
        """The phases that held classes out, the same in all runs."""
        return tuple(held_out(self.first))

    def holdout_drops(self, line: TableRow) -> np.ndarray:
        """(holdout, seed) the drop on the unseen classes of each hold-out."""
        drops = np.empty((len(self.holdouts), len(line.runs)))
        for row, phase in enumerate(self.holdouts):
            drops[row] = [estimate([drop_of_holdout(run, phase)]) for run in line.runs]
        return drops

    def holdout_costs(self, line: TableRow) -> np.ndarray:
        """(holdout, seed) the cost of being unseen of the classes of each of several hold-outs; nan
        where no other limited model trained on them."""
        costs = np.full((len(self.holdouts), len(line.runs)), np.nan)
        for column, run in enumerate(line.runs):
            of_run = costs_of_holdouts(run)
            costs[:, column] = [of_run.get(phase, np.nan) for phase in self.holdouts]
        return costs

    def pooled(self, quantity: str) -> Interval | None:
        """The mean over all metric-learning experiments, which has less noise than any of them;
        over the seeds that all have on the same splits, None where there are none."""
        metric = metric_for(self.methods[0], quantity)
        if metric is None:
            return None
        shared = runs_in_common(*(line.runs for line in self.methods))
        pools = [Scores.mean(list(map(metric.scores, runs))) for runs in shared]
        return interval(pools, within=metric.within) if pools else None

    def beside_rival(self, line: TableRow, quantity: str) -> Interval | None:
        """A quantity of a method minus the classifier's: on known classes its logits', else its
        features'. It is exploratory, and its interval doesn't know that a best was picked."""
        assert self.rival is not None
        of_rival = "logits" if quantity == "known" else quantity
        return self.difference(line, quantity, self.rival, of_rival)

    def difference(
        self,
        line: TableRow,
        quantity: str,
        other: TableRow,
        of_other: str = "",
    ) -> Interval | None:
        """`quantity` of a line minus that of another, on the same queries with the same seeds; None
        where there is nothing in common."""
        of_other = of_other or quantity
        key = (line.name, quantity, other.name, of_other)
        if key not in self._intervals:
            self._intervals[key] = difference_interval(
                (line, quantity),
                (other, of_other),
                self.group.priors.of_differences(QUANTITIES[quantity]),
            )
        return self._intervals[key]


def paired_runs(first: TableRow, second: TableRow) -> list[tuple[Run, ...]]:
    """The runs of two experiments on the same queries, one pair for each seed that both have. What
    trains no features answers for every seed that asks the same queries."""
    sides = []
    for line, other in ((first, second), (second, first)):
        is_fixed = bool(line.no_drop_because)
        sides.append([*line.runs, *(stand_ins(line.runs, other.runs) if is_fixed else ())])
    return runs_in_common(*sides)


def measured_interval(line: TableRow, quantity: str, prior: SeedPrior | None) -> Interval | None:
    """Over the seeds; None where the runs of this line don't have it."""
    metric = metric_for(line, quantity)
    if metric is None:
        return None
    scores = [metric.scores(run) for run in line.runs]
    return interval(scores, within=metric.within, prior=prior)


def difference_interval(
    first: tuple[TableRow, str],
    second: tuple[TableRow, str],
    prior: SeedPrior | None,
) -> Interval | None:
    """Of two experiments, each with its quantity; None where they have no queries in common, or one
    of them does not have its quantity."""
    metric, other_metric = metric_for(*first), metric_for(*second)
    if metric is None or other_metric is None:
        return None
    scores = []
    for run, other_run in paired_runs(first[0], second[0]):
        scores.append(metric.scores(run).minus(other_metric.scores(other_run)))
    if not scores:
        return None
    return interval(scores, within=metric.of_differences, prior=prior)
