"""What experiments claim of their results, beside what was measured of them.

A claim is tested on the quantity that its source measured, on the queries that both experiments
have in common. A claimed value, or a bound, is tested only on the data, the protocol and the
settings that it was claimed for. What becomes of a claim is said by `analysis.verdicts`; the level
of its interval by `analysis.decisions`, where all that is decided stands together.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dml_bench.analysis.priors import SeedPriors
from dml_bench.analysis.verdicts import (
    FEWEST_SEEDS,
    Verdict,
    has_room,
    verdict_on_bound,
    verdict_on_change,
    verdict_on_order,
    verdict_on_value,
)
from dml_bench.config import Expectation, Experiment, as_table
from dml_bench.config.experiments import why_untested
from dml_bench.config.variants import suffix_of
from dml_bench.evaluation.statistics import Interval, estimate, smallest_detectable
from dml_bench.runs.folder import decisive, differing
from dml_bench.runs.metrics import difference, measure, metric_of, metrics_of
from dml_bench.runs.pairing import Side, pair_runs
from dml_bench.runs.run import Run

__all__ = [
    "HEADLINE",
    "ClaimResult",
    "DecidedRow",
    "RunsOf",
    "describe_claim",
    "measure_claims",
    "of_variant",
]

HEADLINE = "cost_of_being_unseen"
"""The metric that stands beside each claim."""
PRECISION = "precision_at_1_macro"
"""The metric that says whether a model stands at the floor or at the ceiling."""
NO_SETTING = ("name", "seed")
"""Parts of what decides the numbers that may differ between a claim and its test."""
NO_INTERVAL = "no interval: a single class, or queries that are all alike"
NO_ROOM = "P@1 is near chance or near 1: no room to show it"
FEW_SEEDS = f"fewer than {FEWEST_SEEDS} seeds: these networks only"

NO_PRIORS = SeedPriors(())
"""Of runs that are in no table."""

RunsOf = Callable[[str], Sequence[Run]]
"""The finished runs of a named experiment, with the same data, profile and settings; none where
there are none."""


@dataclass(frozen=True, slots=True)
class DecidedRow:
    """An experiment whose claims are tested."""

    written: Experiment
    """As its file has it, without profile and overrides: what the claims are about."""
    runs: Sequence[Run]
    """Its finished runs, one for each seed."""
    priors: SeedPriors = NO_PRIORS
    """What its table says of seeds."""

    @property
    def name(self) -> str:
        return self.written.name


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimResult:
    """One expectation, what was measured of it, and its verdict."""

    experiment: str
    expectation: Expectation
    head: str
    """The metric's short name."""
    signed: bool
    """Whether what is claimed is a difference, and is shown with its sign."""
    statement: str
    """The claim as a sentence."""
    quantity: str
    """What is claimed to have a size, and beside which experiment."""
    differences: tuple[Interval, ...] = ()
    """What was measured: one interval, or one for each experiment that this one is claimed to lie
    above. Empty where nothing was."""
    seeds: int = 0
    """How many the intervals are over."""
    cost: Interval | None = None
    """The cost of being unseen beside it: the same difference of it, or its value, at the same
    level. None where it was not measured."""
    reason: str = ""
    """Why it was not tested, or is not testable."""
    verdict: Verdict = Verdict.not_tested
    """Not tested, until `decided` reads it from intervals of the level of all that is decided."""
    measured: Interval | None = None
    """The interval that the verdict is read from, at its level."""

    @property
    def is_decided(self) -> bool:
        """Whether it is one of the comparisons whose intervals hold together."""
        return bool(self.differences) and not self.reason

    @property
    def smallest_detectable(self) -> float:
        """The smallest true difference that such runs would find, at the level of the verdict; nan
        where there is no interval."""
        return math.nan if self.measured is None else smallest_detectable(self.measured)

    @property
    def excludes_claimed_change(self) -> bool:
        """Whether a change was claimed whose size lies outside what was measured."""
        change = self.expectation.change
        if not change or self.measured is None or math.isnan(self.measured.low):
            return False
        return not self.measured.low <= change <= self.measured.high

    @property
    def claimed(self) -> float:
        """The size: a value, a change, or a bound; 0 for an order."""
        sizes = (self.expectation.value, self.expectation.change, self.expectation.below)
        return next((size for size in sizes if size is not None), 0.0)

    def decided(self, level: float) -> "ClaimResult":
        """With the verdict that the intervals of this level give."""
        if not self.differences or self.reason not in ("", NO_ROOM):
            return self
        cost = None if self.cost is None else self.cost.at(level)
        differences = [difference.at(level) for difference in self.differences]
        verdict, measured = self._verdict_on(differences)
        return replace(self, verdict=verdict, measured=measured, cost=cost)

    def _verdict_on(self, differences: Sequence[Interval]) -> tuple[Verdict, Interval]:
        claim, measured = self.expectation, differences[0]
        if claim.above:
            return verdict_on_order(differences)
        testable = self.reason != NO_ROOM
        if claim.below is not None:
            return verdict_on_bound(claim.below, measured, testable=testable), measured
        if claim.value is not None and not self.signed:
            return verdict_on_value(claim.value, claim.margin, measured), measured
        verdict = verdict_on_change(self.claimed, claim.margin, measured, testable=testable)
        return verdict, measured


def of_variant(name: str, runs_of: RunsOf) -> RunsOf:
    """Where the runs are that the claims of experiment `name` are tested against: a variant is
    compared with the same variant of another experiment."""
    return lambda other: runs_of(f"{other}{suffix_of(name)}")


def measure_claims(row: DecidedRow, runs_of: RunsOf) -> list[ClaimResult]:
    """Measure what an experiment expects; the verdicts are not yet read.

    Raises ValueError where a metric is claimed that runs of this experiment don't have.
    """
    return [_measure_claim(row, claim, runs_of) for claim in row.written.expects]


def _measure_claim(row: DecidedRow, claim: Expectation, runs_of: RunsOf) -> ClaimResult:
    written, runs = row.written, row.runs
    metric = metric_of(written, claim.metric)
    result = ClaimResult(
        experiment=written.name,
        expectation=claim,
        head=metric.head,
        signed=metric.signed or claim.change is not None or bool(claim.above),
        statement=describe_claim(written, claim),
        quantity=metric.description + (f", beside {claim.versus}" if claim.versus else ""),
    )
    if not runs:
        return replace(result, reason=f"{written.name} has no finished run")
    if untested := describe_untested(runs):
        return replace(result, reason=untested)
    if claim.metric not in metrics_of(runs[0].experiment):
        return replace(result, reason="not measured under these settings")
    others = (claim.versus,) if claim.versus else claim.above
    if others:
        return _with_differences(result, row, [(name, runs_of(name)) for name in others])
    return _with_value(result, row)


def _with_value(result: ClaimResult, row: DecidedRow) -> ClaimResult:
    claim, written, runs = result.expectation, row.written, row.runs
    measured = measure(runs, claim.metric, row.priors.of(claim.metric))
    is_testable = not result.signed or has_room(0, precisions(runs), chance_of(runs[0]))
    reason = why_not_comparable(written, claim, runs[0].experiment)
    return replace(
        result,
        differences=(measured,),
        measured=measured,
        seeds=len(runs),
        cost=_cost(row),
        reason=reason or why_not_decided([measured], len(runs), is_testable),
    )


def _with_differences(
    result: ClaimResult, row: DecidedRow, others: Sequence[tuple[str, Sequence[Run]]]
) -> ClaimResult:
    """Of one other experiment, or of those of several that have runs."""
    mine = Side(result.experiment, tuple(row.runs))
    metric = result.expectation.metric
    prior = row.priors.of_differences(metric)
    compared: list[tuple[list[Run], list[Run]]] = []
    measured: list[Interval] = []
    reasons = []
    for name, their_runs in others:
        try:
            pairs = pair_runs(mine, side_of(name, their_runs, metric))
            first, second = [pair.first for pair in pairs], [pair.second for pair in pairs]
            measured.append(difference(first, second, metric, prior))
            compared.append((first, second))
        except ValueError as error:
            reasons.append(str(error))
    if not compared:
        return replace(result, reason=reasons[0])
    seeds = min(len(first) for first, _ in compared)
    is_testable = all(_has_room(result, first, second) for first, second in compared)
    return replace(
        result,
        differences=tuple(measured),
        measured=measured[0],
        seeds=seeds,
        cost=_cost_difference(row, *compared[0]) if len(others) == 1 else _cost(row),
        reason=why_not_decided(measured, seeds, is_testable),
    )


def why_not_decided(differences: Sequence[Interval], seeds: int, is_testable: bool) -> str:
    """Why there is no verdict on what was measured, or nothing."""
    if any(math.isnan(difference.low) for difference in differences):
        return NO_INTERVAL
    if seeds < FEWEST_SEEDS:
        return FEW_SEEDS
    return "" if is_testable else NO_ROOM


def side_of(name: str, runs: Sequence[Run], metric: str) -> Side:
    """Raises ValueError where there is nothing to compare with."""
    if not runs:
        raise ValueError(f"{name} has no finished run")
    if untested := describe_untested(runs):
        raise ValueError(f"{name} is {untested}")
    if metric not in metrics_of(runs[0].experiment):
        raise ValueError(f"{name} has no {metric}")
    return Side(name, tuple(runs))


def describe_untested(runs: Sequence[Run]) -> str:
    """`untested under profile demo: too few epochs`; empty where its profile says nothing."""
    experiment = runs[0].experiment
    because = why_untested(experiment)
    return f"untested under profile {experiment.profile}: {because}" if because else ""


def _has_room(result: ClaimResult, first: Sequence[Run], second: Sequence[Run]) -> bool:
    """A difference of two drops needs room in both models; one of two accuracies, in the model that
    it is a difference from."""
    claimed = result.expectation.change
    if claimed is None:
        return True
    chance = chance_of(second[0])
    if metric_of(second[0].experiment, result.expectation.metric).signed:
        return has_room(0, precisions(first) + precisions(second), chance)
    return has_room(claimed, precisions(second), chance)


def precisions(runs: Sequence[Run]) -> list[float]:
    """P@1 of the experiment; nothing where its protocol doesn't measure it."""
    metric = metrics_of(runs[0].experiment).get(PRECISION)
    return [] if metric is None else [estimate([metric.scores(run) for run in runs])]


def chance_of(run: Run) -> float:
    """P@1 of a model that guesses."""
    return 1 / len(run.class_names)


def _cost(row: DecidedRow) -> Interval | None:
    if HEADLINE not in metrics_of(row.runs[0].experiment):
        return None
    return measure(row.runs, HEADLINE, row.priors.of(HEADLINE))


def _cost_difference(
    row: DecidedRow, first: Sequence[Run], second: Sequence[Run]
) -> Interval | None:
    """None where one of the two has none, or where they held out other classes."""
    if any(HEADLINE not in metrics_of(run.experiment) for run in (first[0], second[0])):
        return None
    try:
        return difference(first, second, HEADLINE, row.priors.of_differences(HEADLINE))
    except ValueError:
        return None


def why_not_comparable(written: Experiment, expectation: Expectation, run: Experiment) -> str:
    """Why an absolute number says nothing about this run, or nothing."""
    if run.data.dataset != written.data.dataset:
        return "other data"
    if expectation.note:
        return f"other protocol ({expectation.note})"
    if changed := [
        key
        for key in differing(decisive(as_table(written)), decisive(as_table(run)))
        if key not in NO_SETTING
    ]:
        return f"other settings ({', '.join(changed[:3])}{', ...' if len(changed) > 3 else ''})"
    return ""


def describe_claim(written: Experiment, claim: Expectation) -> str:
    """The claim as a sentence. Raises ValueError where runs of this experiment don't have the
    metric."""
    metric = metric_of(written, claim.metric)
    unit = " points" if metric.signed else "%"
    subject = metric.description
    if claim.value is not None:
        return f"{subject} is {100 * claim.value:.1f}{unit}"
    if claim.below is not None:
        return f"{subject} is below {100 * claim.below:.1f}{unit}"
    if claim.above:
        return f"{subject} is above that of {len(claim.above)} other experiments"
    assert claim.change is not None
    if claim.change == 0:
        return f"{subject} is that of {claim.versus}"
    direction = "above" if claim.change > 0 else "below"
    return f"{subject} is {100 * abs(claim.change):.1f} points {direction} that of {claim.versus}"
