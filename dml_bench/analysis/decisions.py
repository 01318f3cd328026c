"""All that is decided about a table: the claims of its experiments, and the comparisons that its
file declares as its family. Their intervals hold together, and every verdict is read from one of
them. Whatever else is compared is exploratory: it has a plain interval and a q-value, and no
verdict.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dml_bench.analysis.claims import (
    ClaimResult,
    DecidedRow,
    RunsOf,
    measure_claims,
    of_variant,
)
from dml_bench.analysis.compare import held_out
from dml_bench.analysis.verdicts import FEWEST_SEEDS, describe_undetected
from dml_bench.config.experiments import why_untested
from dml_bench.config.tables import Family, table_of
from dml_bench.config.variants import tuned_name
from dml_bench.evaluation.statistics import Interval
from dml_bench.runs.metrics import difference, metrics_of
from dml_bench.runs.pairing import runs_in_common

__all__ = ["Contrast", "DecidedRow", "Decisions", "Survival", "decide"]

ERROR = 0.05
"""The chance that any interval of all that is decided misses its true value, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrast:
    """A row of the table beside another experiment: a member of the family."""

    experiment: str
    versus: str
    metric: str
    head: str
    """The metric's short name."""
    lower_is_better: bool
    seeds: int
    difference: Interval
    """Of the experiment minus the other, at the level of all that is decided."""

    @property
    def direction(self) -> str:
        """`higher` or `lower`; empty where no difference is detectable."""
        if self.difference.low > 0:
            return "higher"
        return "lower" if self.difference.high < 0 else ""

    @property
    def verdict(self) -> str:
        """`higher`, `lower`, or that no difference is detectable and which would have been."""
        return self.direction or describe_undetected(self.difference)


@dataclass(frozen=True, slots=True)
class Survival:
    """A member of the family with the settings of its file, and with those of a search."""

    written: Contrast
    tuned: Contrast

    @property
    def verdict(self) -> str:
        """Whether a difference is still there when both sides are tuned."""
        before, after = self.written.direction, self.tuned.direction
        if not before:
            return f"{after} only when tuned" if after else "not detectable either way"
        if not after:
            return "not detectable when tuned"
        return "survives" if before == after else "reversed when tuned"


@dataclass(frozen=True, slots=True)
class Decisions:
    """The verdicts of one page."""

    claims: tuple[ClaimResult, ...] = ()
    """Those that could not be tested, and why, are among them."""
    contrasts: tuple[Contrast, ...] = ()

    @property
    def survivals(self) -> tuple["Survival", ...]:
        """The comparisons of the family that there are with and without a search."""
        by_name = {contrast.experiment: contrast for contrast in self.contrasts}
        both = []
        for name, contrast in by_name.items():
            tuned = by_name.get(tuned_name(name))
            if tuned is not None and tuned.metric == contrast.metric:
                both.append(Survival(contrast, tuned))
        return tuple(both)

    @property
    def number(self) -> int:
        """How many intervals hold together."""
        return count_decided(self.claims) + len(self.contrasts)

    @property
    def level(self) -> float:
        """Of each of these intervals."""
        return simultaneous(self.number)

    @property
    def standard(self) -> str:
        """The sentence that a page says once: what its verdicts rest on."""
        if not self.number:
            return "Nothing here has a verdict: all comparisons are exploratory."
        return (
            "Verdicts are read from intervals that hold together at 95% for all"
            f" {self.number} comparisons (Bonferroni); everything else is exploratory."
        )


def decide(rows: Sequence[DecidedRow], runs_of: RunsOf) -> Decisions:
    """Test the claims of all rows and the family of the table that they belong to. `runs_of` gives
    the finished runs of any experiment by name, also of one that is no row.

    A table's family has no variant of an experiment but the tuned one, and no row with fewer than
    three seeds in common with the one it is compared with. Raises ValueError where a metric is
    claimed that runs of an experiment don't have.
    """
    claims: list[ClaimResult] = []
    for row in rows:
        claims += measure_claims(row, of_variant(row.name, runs_of))
    by_name = {row.name: row for row in rows if row.runs}
    table = table_of(by_name)
    contrasts: list[Contrast] = []
    if table is not None and table.family is not None:
        names = [form for name in table.rows for form in (name, tuned_name(name))]
        for name in names:
            if name in by_name:
                contrasts += contrasts_of(by_name[name], table.family, runs_of)
    level = simultaneous(count_decided(claims) + len(contrasts))
    return Decisions(
        tuple(claim.decided(level) for claim in claims),
        tuple(
            replace(contrast, difference=contrast.difference.at(level)) for contrast in contrasts
        ),
    )


def contrasts_of(row: DecidedRow, family: Family, runs_of: RunsOf) -> Iterator[Contrast]:
    """One, or none where there is nothing to compare with: no runs, other classes held out, or one
    of the two is untested under its profile."""
    runs = row.runs
    versus = family.other(row.name)
    others = runs_of(versus) if versus is not None else ()
    if versus is None or not others:
        return
    if any(why_untested(side[0].experiment) for side in (runs, others)):
        return
    if any(family.metric not in metrics_of(run.experiment) for run in (*runs, *others)):
        return
    pairs = runs_in_common(runs, others)
    first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if len(pairs) < FEWEST_SEEDS or list(map(held_out, first)) != list(map(held_out, second)):
        return
    measured = difference(first, second, family.metric, row.priors.of_differences(family.metric))
    if math.isnan(measured.low):
        return
    metric = metrics_of(runs[0].experiment)[family.metric]
    yield Contrast(
        experiment=row.name,
        versus=versus,
        metric=metric.name,
        head=metric.head,
        lower_is_better=metric.lower_is_better,
        seeds=len(pairs),
        difference=measured,
    )


def count_decided(claims: Sequence[ClaimResult]) -> int:
    return sum(claim.is_decided for claim in claims)


def simultaneous(number: int) -> float:
    """The level of each of so many intervals that hold together (Bonferroni)."""
    return 1 - ERROR / max(number, 1)
