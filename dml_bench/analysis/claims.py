"""Verdicts: what experiments expect of their results, held against what was measured.

A claimed value is tested only on the data, the protocol and the settings that it was claimed for:
it holds if it lies within the 95% interval of what was measured. A claimed change from another
experiment is tested on the same queries of both: it holds if the interval of the difference lies
wholly on the claimed side of zero, or, where no change is claimed, within two points of zero.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dml_bench.config import Expectation, Experiment, as_table
from dml_bench.config.variants import suffix_of
from dml_bench.evaluation.statistics import Interval
from dml_bench.runs.folder import decisive, differing
from dml_bench.runs.metrics import difference, measure, metric_of, metrics_of
from dml_bench.runs.pairing import Side, pair_runs
from dml_bench.runs.run import Run

__all__ = [
    "ClaimResult",
    "Verdict",
    "check_change",
    "check_claims",
    "check_value",
    "describe_claim",
    "of_variant",
]

NO_CHANGE = 0.02
"""A difference within this of zero is none."""

NO_SETTING = ("name", "seed")
"""Parts of what decides the numbers that may differ between a claim and its test."""

RunsOf = Callable[[str], Sequence[Run]]
"""The finished runs of a named experiment, with the same data, profile and settings; none where
there are none."""


class Verdict(StrEnum):
    """What became of a claim."""

    holds = "holds"
    does_not = "does not"
    within_noise = "within noise"
    not_tested = "not tested"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimResult:
    """One expectation and what became of it."""

    experiment: str
    expectation: Expectation
    head: str
    """The metric's short name."""
    signed: bool
    """Whether what is claimed is a difference, and is shown with its sign."""
    statement: str
    """The claim as a sentence."""
    verdict: Verdict
    measured: Interval | None = None
    reason: str = ""
    """Why it was not tested."""


def of_variant(name: str, runs_of: RunsOf) -> RunsOf:
    """Where the runs are that the claims of experiment `name` are tested against: a variant is
    compared with the same variant of another experiment."""
    return lambda other: runs_of(f"{other}{suffix_of(name)}")


def check_claims(written: Experiment, runs: Sequence[Run], runs_of: RunsOf) -> list[ClaimResult]:
    """Test everything that an experiment expects.

    Args: written: the experiment as its file has it, without profile and overrides: what the claims
    are about. runs: its finished runs, one per seed.

    Raises ValueError where a metric is claimed that runs of this experiment don't have.
    """
    return [_check_claim(written, expectation, runs, runs_of) for expectation in written.expects]


Outcome = tuple[Verdict, Interval | None, str]
"""Verdict, what was measured, and why it was not tested."""


def _check_claim(
    written: Experiment, expectation: Expectation, runs: Sequence[Run], runs_of: RunsOf
) -> ClaimResult:
    statement = describe_claim(written, expectation)
    outcome: Outcome
    if not runs:
        outcome = Verdict.not_tested, None, f"{written.name} has no finished run"
    elif expectation.metric not in metrics_of(runs[0].experiment):
        outcome = Verdict.not_tested, None, "not measured under these settings"
    elif expectation.value is not None:
        outcome = _hold_value(written, expectation, runs)
    else:
        outcome = _hold_change(expectation, runs, runs_of(expectation.versus))
    verdict, measured, reason = outcome
    if verdict is Verdict.not_tested and not reason:
        reason = "no interval: a single class, or queries that are all alike"
    metric = metric_of(written, expectation.metric)
    return ClaimResult(
        experiment=written.name,
        expectation=expectation,
        head=metric.head,
        signed=metric.signed or expectation.change is not None,
        statement=statement,
        verdict=verdict,
        measured=measured,
        reason=reason,
    )


def _hold_value(written: Experiment, expectation: Expectation, runs: Sequence[Run]) -> Outcome:
    assert expectation.value is not None
    measured = measure(runs, expectation.metric)
    if reason := why_not_comparable(written, expectation, runs[0].experiment):
        return Verdict.not_tested, measured, reason
    return check_value(expectation.value, measured), measured, ""


def _hold_change(expectation: Expectation, runs: Sequence[Run], others: Sequence[Run]) -> Outcome:
    assert expectation.change is not None
    name = expectation.versus
    if not others:
        return Verdict.not_tested, None, f"{name} has no finished run"
    if expectation.metric not in metrics_of(others[0].experiment):
        return Verdict.not_tested, None, f"{name} has no {expectation.metric}"
    mine, theirs = Side(runs[0].experiment.name, tuple(runs)), Side(name, tuple(others))
    try:
        pairs = pair_runs(mine, theirs)
        first, second = [pair.first for pair in pairs], [pair.second for pair in pairs]
        measured = difference(first, second, expectation.metric)
    except ValueError as error:
        return Verdict.not_tested, None, str(error)
    return check_change(expectation.change, measured), measured, ""


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


def check_value(claimed: float, measured: Interval) -> Verdict:
    """`holds` if the claimed value lies within the interval, else `does not`."""
    if math.isnan(measured.low):
        return Verdict.not_tested
    return Verdict.holds if measured.low <= claimed <= measured.high else Verdict.does_not


def check_change(claimed: float, measured: Interval) -> Verdict:
    """`holds` or `does not` where the interval leaves no doubt, else `within noise`."""
    low, high = measured.low, measured.high
    if math.isnan(low):
        return Verdict.not_tested
    if claimed == 0:
        if max(abs(low), abs(high)) <= NO_CHANGE:
            return Verdict.holds
        return Verdict.does_not if high < -NO_CHANGE or low > NO_CHANGE else Verdict.within_noise
    if claimed < 0:
        low, high = -high, -low
    if low > 0:
        return Verdict.holds
    return Verdict.does_not if high < 0 else Verdict.within_noise


def describe_claim(written: Experiment, expectation: Expectation) -> str:
    """The claim as a sentence. Raises ValueError where runs of this experiment don't have the
    metric."""
    metric = metric_of(written, expectation.metric).description
    if expectation.value is not None:
        return f"{metric} is {expectation.value:.3f}"
    assert expectation.change is not None
    if expectation.change == 0:
        return f"{metric} is that of {expectation.versus}"
    direction = "above" if expectation.change > 0 else "below"
    return f"{metric} is {abs(expectation.change):.3f} {direction} that of {expectation.versus}"
