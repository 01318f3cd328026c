"""What each change does: an experiment beside the one that its file extends, on the classes it
knows and on those it never saw.

The two differences of P@1 are of the model that was trained without the unseen classes; the third
is of the cost of being unseen. Each is paired query by query over the common seeds. A change that
was made to several experiments, a technique under several losses, is also averaged over these,
query by query. All of it is exploratory: plain intervals, q-values over all differences, and no
verdicts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dml_bench.analysis.compare import Difference, difference_of, with_q_values
from dml_bench.analysis.priors import SeedPriors
from dml_bench.config import experiments
from dml_bench.config.variants import base_name, settings_in_short, suffix_of
from dml_bench.evaluation.statistics import Scores
from dml_bench.runs.metrics import metric_of
from dml_bench.runs.pairing import NotPaired, PairingKey, RunPair, Side, pair_runs, pairing_key
from dml_bench.runs.run import Run

__all__ = ["METRICS", "Ablation", "ablations"]

METRICS = (
    "precision_at_1_macro_seen_limited",
    "precision_at_1_macro_unseen_limited",
    "cost_of_being_unseen",
)
"""P@1 on the classes that were trained on, on those that were not, and the cost of being unseen."""


@dataclass(frozen=True, slots=True)
class Change:
    """An experiment beside the one that it extends, on the seeds that both have."""

    experiment: str
    extended: str
    pairs: tuple[RunPair, ...]
    """The first of each is of the experiment."""

    @property
    def name(self) -> str:
        own = changed(base_name(self.experiment), base_name(self.extended))
        return ", ".join([own, *settings_in_short(self.experiment)])

    @property
    def queries(self) -> set[PairingKey]:
        """The seeds, and which images were looked up with each."""
        return {pairing_key(pair.first) for pair in self.pairs}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablation:
    """What a change does, with the model that was trained without the unseen classes."""

    name: str
    """The experiment; of a mean over several, what was changed in each."""
    experiments: tuple[str, ...]
    """With the change."""
    to: tuple[str, ...]
    """The experiments that were extended."""
    seeds: tuple[int, ...]
    seen: Difference
    unseen: Difference
    cost: Difference

    @property
    def without(self) -> str:
        """The experiment that was extended, or `mean of` several."""
        if len(self.to) == 1:
            return self.to[0]
        return f"mean of {', '.join(self.to)}"

    def name_in_short(self, names: Mapping[str, str]) -> str:
        """The experiment by its short name; of a mean, what a short name has beyond that of the
        extended experiment, else `name`. `names` are the short ones."""
        if len(self.experiments) == 1:
            return names[self.name]
        for experiment, extended in zip(self.experiments, self.to, strict=True):
            if names[experiment].startswith(names[extended]):
                return names[experiment].removeprefix(names[extended]).strip(" ,")
        return self.name


def ablations(
    runs: Mapping[str, Sequence[Run]], priors: SeedPriors | None = None
) -> tuple[Ablation, ...]:
    """One for each experiment whose parent has finished runs too, with the same seeds and queries,
    in the order that is given; then the means. `priors` are those of the experiments' table."""
    changes = list(changes_in(runs))
    alike: dict[str, list[Change]] = {}
    for change in changes:
        alike.setdefault(change.name, []).append(change)
    groups = [[change] for change in changes]
    for group in alike.values():
        same_queries = all(change.queries == group[0].queries for change in group)
        if len(group) > 1 and same_queries:
            groups.append(group)
    priors = priors or SeedPriors(())
    return compared_together([ablation_of(group, priors) for group in groups])


def compared_together(measured: Sequence[Ablation]) -> tuple[Ablation, ...]:
    """The same with q-values over all differences."""
    parts = [(ablation.seen, ablation.unseen, ablation.cost) for ablation in measured]
    results = []
    for ablation, (seen, unseen, cost) in zip(measured, with_q_values(parts), strict=True):
        results.append(replace(ablation, seen=seen, unseen=unseen, cost=cost))
    return tuple(results)


def changes_in(runs: Mapping[str, Sequence[Run]]) -> Iterator[Change]:
    for name, mine in runs.items():
        without = experiments.parent(base_name(name))
        without = without and f"{without}{suffix_of(name)}"
        theirs = runs.get(without, ()) if without is not None else ()
        if without is None or not mine or not theirs:
            continue
        both = (*mine, *theirs)
        if not all(run.protocol.has_drop for run in both):
            continue
        if any(run.experiment.no_drop_because for run in both):
            continue
        try:
            pairs = pair_runs(Side(name, tuple(mine)), Side(without, tuple(theirs)))
        except NotPaired:
            continue
        yield Change(name, without, pairs)


def ablation_of(changes: Sequence[Change], priors: SeedPriors) -> Ablation:
    """Of one change, or the mean of several with the same seeds and queries."""

    def difference(name: str) -> Difference:
        metric = metric_of(changes[0].pairs[0].first.experiment, name)
        with_change: list[Scores] = []
        without: list[Scores] = []
        for pairs in zip(*(change.pairs for change in changes), strict=True):
            with_change.append(Scores.mean([metric.scores(pair.first) for pair in pairs]))
            without.append(Scores.mean([metric.scores(pair.second) for pair in pairs]))
        prior = priors.of_differences(name)
        return difference_of(name, metric, with_change, without, prior)

    seen, unseen, cost = map(difference, METRICS)
    first = changes[0]
    return Ablation(
        name=first.experiment if len(changes) == 1 else first.name,
        experiments=tuple(change.experiment for change in changes),
        to=tuple(change.extended for change in changes),
        seeds=tuple(pair.first.seed for pair in first.pairs),
        seen=seen,
        unseen=unseen,
        cost=cost,
    )


def changed(name: str, without: str) -> str:
    """`A+mixup` beside `A` is +mixup; names that share less keep what the other lacks, or stay
    whole."""
    if name.startswith(f"{without}+"):
        return name.removeprefix(without)
    own = [
        part
        for part in name.replace("+", "_+").split("_")
        if part not in without.replace("+", "_+").split("_")
    ]
    return "_".join(own) or name
