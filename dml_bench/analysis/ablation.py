"""What each change does: an experiment beside the one that its file extends, on the classes it
knows and on those it never saw.

All three differences are of the model that was trained without the unseen classes, except the
precision drop, which is between the two models; each is paired query by query over the common
seeds. A change that was made to several experiments, a technique under several losses, is also
averaged over these, query by query. The p-values of all differences are corrected together (Holm
1979).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dml_bench.analysis.compare import Difference, Side, difference_of, holm, in_common
from dml_bench.config import experiments
from dml_bench.evaluation.statistics import Scores
from dml_bench.runs.metrics import metric_of
from dml_bench.runs.run import Run

__all__ = ["METRICS", "Ablation", "ablations"]

METRICS = (
    "precision_at_1_macro_seen_limited",
    "precision_at_1_macro_unseen_limited",
    "precision_drop_unseen_classes",
)
"""P@1 on the classes that were trained on, on those that were not, and the precision drop of the
latter."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An experiment and the one that it extends, with the seeds that both have."""

    mine: Side
    theirs: Side

    @property
    def name(self) -> str:
        return changed(self.mine.name, self.theirs.name)

    @property
    def asked(self) -> dict[int, str]:
        """By seed, which images were asked."""
        return {run.seed: run.queries_digest for run in self.mine.runs}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablation:
    name: str
    """The experiment; of a mean over several, what was changed in each."""
    to: tuple[str, ...]
    """The experiments that were extended."""
    changed: str
    """What distinguishes the two names."""
    seeds: tuple[int, ...]
    seen: Difference
    unseen: Difference
    drop: Difference

    @property
    def without(self) -> str:
        return self.to[0] if len(self.to) == 1 else f"mean of {', '.join(map(in_short, self.to))}"

    @property
    def without_in_short(self) -> str:
        return in_short(self.to[0]) if len(self.to) == 1 else f"mean of {len(self.to)}"

    @property
    def verdict(self) -> str:
        """On which classes P@1 changed beyond doubt at 5%, after the correction."""
        gains = [difference.better for difference in (self.seen, self.unseen)]
        words = {0: "helps", 1: "hurts", -1: ""}
        told = [
            f"{words[gain]} {which}"
            for gain, which in zip(gains, ("known", "unseen"), strict=True)
            if gain != -1
        ]
        return (
            f"{words[gains[0]]} both"
            if gains[0] == gains[1] != -1
            else " and ".join(told) or "can't be told"
        )


def ablations(runs: Mapping[str, Sequence[Run]]) -> tuple[Ablation, ...]:
    """One for each experiment whose parent has finished runs too, with the same seeds and queries,
    in the order that is given; then the means."""
    changes = list(pairs_in(runs))
    alike: dict[str, list[Pair]] = {}
    for change in changes:
        alike.setdefault(change.name, []).append(change)
    several = [
        group
        for group in alike.values()
        if len(group) > 1 and all(change.asked == group[0].asked for change in group)
    ]
    found = [ablation_of(group) for group in ([[change] for change in changes] + several)]
    tests = [
        difference.p for effect in found for difference in (effect.seen, effect.unseen, effect.drop)
    ]
    corrected = iter(holm(np.array(tests, float)).tolist())
    return tuple(
        replace(
            effect,
            **{
                part: replace(getattr(effect, part), p_holm=next(corrected))
                for part in ("seen", "unseen", "drop")
            },
        )
        for effect in found
    )


def pairs_in(runs: Mapping[str, Sequence[Run]]) -> Iterator[Pair]:
    for name, mine in runs.items():
        without = experiments.parent(name)
        theirs = runs.get(without, ()) if without is not None else ()
        if without is None or not mine or not theirs:
            continue
        if not all(run.protocol.has_drop for run in (*mine, *theirs)):
            continue
        try:
            yield Pair(*in_common(Side(name, tuple(mine)), Side(without, tuple(theirs))))
        except ValueError:
            continue


def ablation_of(changes: Sequence[Pair]) -> Ablation:
    """Of one change, or the mean of several with the same seeds and queries."""

    def difference(name: str) -> Difference:
        metric = metric_of(changes[0].mine.runs[0].experiment, name)

        def scores(sides: Sequence[Side]) -> list[Scores]:
            return [
                Scores.mean([metric.scores(run) for run in of_seed])
                for of_seed in zip(*(side.runs for side in sides), strict=True)
            ]

        return difference_of(
            name,
            metric,
            scores([change.mine for change in changes]),
            scores([change.theirs for change in changes]),
        )

    seen, unseen, drop = map(difference, METRICS)
    first = changes[0]
    return Ablation(
        name=first.mine.name if len(changes) == 1 else first.name,
        to=tuple(change.theirs.name for change in changes),
        changed=first.name,
        seeds=tuple(run.seed for run in first.mine.runs),
        seen=seen,
        unseen=unseen,
        drop=drop,
    )


def in_short(name: str) -> str:
    """The loss and what was added to the experiment: crossentropy_resnet18_sgd_aug+labelnoise is
    crossentropy+labelnoise."""
    first, *added = name.split("+")
    return "+".join([first.partition("_")[0], *added])


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
