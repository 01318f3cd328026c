"""Which runs may be compared query by query: those with the same seed that looked up the same
images.

A seed draws the split, so runs of two experiments with the same seed normally have the same
queries. They have not where the experiments divide the images by other rules.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dml_bench.runs.run import Run

__all__ = [
    "NotPaired",
    "PairingKey",
    "RunPair",
    "Side",
    "held_out_by",
    "pair_runs",
    "pairing_key",
    "runs_in_common",
    "stand_ins",
]

PairingKey = tuple[int, str, str]
"""The seed of a run, the digest of its queries, and one of their classes."""
HeldOut = tuple[tuple[str, tuple[int, ...]], ...]
"""By phase, class ids."""


@dataclass(frozen=True, slots=True)
class Side:
    """One experiment: its finished runs, one for each seed."""

    name: str
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class RunPair:
    """Two runs with the same seed and the same queries."""

    first: Run
    second: Run


class NotPaired(ValueError):
    """Two experiments have no runs that can be compared query by query."""


def pairing_key(run: Run) -> PairingKey:
    """Runs of different experiments are compared query by query where this is the same. A record of
    others may say that it is of the same queries, and have them in other classes."""
    labels = run.neighbours[run.protocol.main_phase].query_labels
    return run.seed, run.queries_digest, hashlib.sha256(labels.tobytes()).hexdigest()


def runs_in_common(*experiments: Sequence[Run]) -> list[tuple[Run, ...]]:
    """The runs of several experiments, one for each seed, that can be compared query by query.

    There is one tuple for each seed with which all experiments have the same queries, in the order
    of the first experiment. Each tuple has one run of each experiment.
    """
    by_key = [runs_by_key(runs) for runs in experiments]
    shared = set(by_key[0]).intersection(*by_key[1:])
    keys = [key for key in by_key[0] if key in shared]
    columns = [list(map(runs.__getitem__, keys)) for runs in by_key]
    return list(zip(*columns, strict=True))


def runs_by_key(runs: Sequence[Run]) -> dict[PairingKey, Run]:
    return {pairing_key(run): run for run in runs}


def held_out_by(run: Run) -> HeldOut:
    """The ids of the classes that each phase held out."""
    return tuple((phase, tuple(classes.tolist())) for phase, classes in run.held_out.items())


def stand_ins(fixed: Sequence[Run], trained: Sequence[Run]) -> list[Run]:
    """The runs without training as those of other seeds that ask the same queries, with the classes
    held out there: features that are not trained are the same with each seed."""
    by_queries = {pairing_key(run)[1:]: run for run in fixed}
    own = {(pairing_key(run), held_out_by(run)) for run in fixed}
    runs = []
    for other in trained:
        key = (pairing_key(other), held_out_by(other))
        base = by_queries.get(pairing_key(other)[1:])
        if base is None or key in own or set(base.neighbours) != set(other.neighbours):
            continue
        own.add(key)
        as_other = replace(base, experiment=replace(base.experiment, seed=other.seed))
        as_other.__dict__["neighbours"] = base.neighbours
        as_other.__dict__["held_out"] = other.held_out
        runs.append(as_other)
    return runs


def pair_runs(first: Side, second: Side) -> tuple[RunPair, ...]:
    """The runs of two experiments, one pair for each seed that both have, in the first's order.

    Raises NotPaired where they follow different protocols, ran on different images, have no seed in
    common, or where a seed that both have divided the images in two ways.
    """
    problem = why_not_paired(first, second)
    if problem:
        raise NotPaired(f"{first.name} and {second.name} can't be compared: {problem}")
    return tuple(RunPair(*runs) for runs in runs_in_common(first.runs, second.runs))


def why_not_paired(first: Side, second: Side) -> str:
    """The reason in words; empty where there is none."""
    one, other = first.runs[0], second.runs[0]
    if one.experiment.protocol != other.experiment.protocol:
        return f"their protocols are {one.experiment.protocol} and {other.experiment.protocol}"
    if one.dataset_fingerprint != other.dataset_fingerprint:
        images = [
            f"{run.dataset_name} with fingerprint {run.dataset_fingerprint[:6]}"
            for run in (one, other)
        ]
        return f"they ran on other images, {' and '.join(images)}"
    kinds = [run.experiment.data.described_split for run in (one, other)]
    if kinds[0] != kinds[1]:
        return (
            f"their splits are {' and '.join(kinds)}, which ask other images: run both with the"
            " same data.split"
        )
    seeds = {run.seed for run in first.runs} & {run.seed for run in second.runs}
    if not seeds:
        return "they have no seed in common"
    if len(runs_in_common(first.runs, second.runs)) < len(seeds):
        return "the same seed divided their images differently"
    return ""
