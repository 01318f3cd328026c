"""What each change does: an experiment beside the one that its file extends, on the classes it knows and on those it never saw.

All three differences are of the model that was trained without the unseen classes, except the precision drop, which is between the two
models; each is paired query by query over the common seeds, and the p-values of all of them are corrected together (Holm 1979).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dml_bench import experiments
from dml_bench.comparison import Difference, Side, holm, in_common, one_difference
from dml_bench.measured import FinishedRun

__all__ = ["METRICS", "Effect", "effects"]

METRICS = ("precision_at_1_macro_seen_limited", "precision_at_1_macro_unseen_limited", "precision_drop_unseen_classes")
"""P@1 on the classes that were trained on, on those that were not, and the precision drop of the latter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    name: str
    without: str
    """The experiment that it extends."""
    changed: str
    """What distinguishes the two names."""
    seeds: tuple[int, ...]
    seen: Difference
    unseen: Difference
    drop: Difference

    @property
    def verdict(self) -> str:
        """On which classes P@1 changed beyond doubt at 5%, after the correction."""
        gains = [difference.better for difference in (self.seen, self.unseen)]
        words = {0: "helps", 1: "hurts", -1: ""}
        told = [f"{words[gain]} {which}" for gain, which in zip(gains, ("known", "unseen"), strict=True) if gain != -1]
        return f"{words[gains[0]]} both" if gains[0] == gains[1] != -1 else " and ".join(told) or "can't be told"


def effects(runs: Mapping[str, Sequence[FinishedRun]]) -> tuple[Effect, ...]:
    """One for each experiment whose parent has finished runs too, with the same seeds and queries; in the order that is given."""
    found = [effect for name in runs if (effect := effect_of(name, runs)) is not None]
    tests = [difference.p for effect in found for difference in (effect.seen, effect.unseen, effect.drop)]
    corrected = iter(holm(np.array(tests, float)).tolist())
    return tuple(
        replace(effect, **{part: replace(getattr(effect, part), p_holm=next(corrected)) for part in ("seen", "unseen", "drop")})
        for effect in found
    )


def effect_of(name: str, runs: Mapping[str, Sequence[FinishedRun]]) -> Effect | None:
    without = experiments.parent(name)
    if without is None or not runs.get(name) or not runs.get(without):
        return None
    if any(run.experiment.protocol != "precision_drop" for run in (*runs[name], *runs[without])):
        return None
    try:
        mine, theirs = in_common(Side(name, tuple(runs[name])), Side(without, tuple(runs[without])))
    except ValueError:
        return None
    seen, unseen, drop = (one_difference(mine, theirs, metric) for metric in METRICS)
    seeds = tuple(run.seed for run in mine.runs)
    return Effect(name=name, without=without, changed=changed(name, without), seeds=seeds, seen=seen, unseen=unseen, drop=drop)


def changed(name: str, without: str) -> str:
    """`A+mixup` beside `A` is +mixup; names that share less keep what the other lacks, or stay whole."""
    if name.startswith(f"{without}+"):
        return name.removeprefix(without)
    own = [part for part in name.replace("+", "_+").split("_") if part not in without.replace("+", "_+").split("_")]
    return "_".join(own) or name
