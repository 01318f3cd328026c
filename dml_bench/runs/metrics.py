"""What finished runs measured: any metric by its name, per query, so that it can be averaged,
compared and given an interval; and what they took.

What a metric is stands in its protocol (`protocols.metric.Metric`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from dml_bench.config import Experiment
from dml_bench.evaluation.statistics import Interval, SeedPrior, interval
from dml_bench.protocols import protocol_of
from dml_bench.protocols.metric import Metric
from dml_bench.registry import UnknownName, near_miss
from dml_bench.runs.run import Run
from dml_bench.runs.schema import PhaseCost

__all__ = [
    "COST",
    "CPU_TIME",
    "UNTRAINED",
    "CostColumn",
    "Metric",
    "cpu_seconds",
    "difference",
    "measure",
    "metric_of",
    "metrics_of",
]

UNTRAINED = 1.0
"""Seconds: what trains for less trains next to nothing."""


def metrics_of(experiment: Experiment) -> dict[str, Metric]:
    """By name, what can be measured of a finished run of this experiment with an interval."""
    return protocol_of(experiment).metrics(experiment)


def metric_of(experiment: Experiment, name: str) -> Metric:
    """Raises UnknownName, naming those that runs of this experiment have."""
    known = metrics_of(experiment)
    if name not in known:
        raise UnknownName(
            f"{experiment.name} has no metric {name!r}{near_miss(name, list(known))}; there are:"
            f" {', '.join(known)}"
        )
    return known[name]


def measure(runs: Sequence[Run], name: str, prior: SeedPrior | None = None) -> Interval:
    """A metric of one experiment over its seeds; `prior` is what its table says of seeds."""
    metric = metric_of(runs[0].experiment, name)
    return interval(
        [metric.scores(run) for run in runs],
        average=metric.average,
        within=metric.within,
        prior=prior,
    )


def difference(
    runs: Sequence[Run], others: Sequence[Run], name: str, prior: SeedPrior | None = None
) -> Interval:
    """A metric of one experiment minus that of another, query by query. Both in the same order of
    seeds, on the same splits. `prior` is what their table says of the seeds of differences.

    Raises ValueError where their queries differ.
    """
    first, second = (metric_of(some[0].experiment, name) for some in (runs, others))
    pairs = zip(runs, others, strict=True)
    return interval(
        [first.scores(a).minus(second.scores(b)) for a, b in pairs],
        average=first.average,
        within=first.of_differences,
        prior=prior,
    )


@dataclass(frozen=True, slots=True)
class CostColumn:
    """What a run took."""

    head: str
    key: str
    """The name in CSV files."""
    of: Callable[[list[PhaseCost]], float | None]
    """Reads it from the parts of the summary's cost, one for each phase."""
    worst: bool = False
    """The most of all seeds, instead of the mean."""
    compares_rows: bool = False
    """It is there to compare rows by, so it is of runs on one processor alone."""


def images_per_second(parts: list[PhaseCost]) -> float | None:
    """None where nothing was trained in epochs."""
    if not all("train_images_per_second" in part for part in parts):
        return None
    seconds: float = sum(part["train_seconds"] for part in parts)
    images: float = sum(part["train_images_per_second"] * part["train_seconds"] for part in parts)
    return images / seconds


def clock_seconds(parts: list[PhaseCost]) -> float:
    """Of training, of what started it, and of the models that labelled its images."""
    seconds = 0.0
    for part in parts:
        seconds += part["train_seconds"]
        seconds += part.get("start_seconds", 0.0) + part.get("labelling_seconds", 0.0)
    return seconds


def cpu_seconds(parts: list[PhaseCost]) -> float | None:
    """The same in CPU time, which other work on the machine does not lengthen. None where a part of
    it was not counted; 0 if there was next to nothing to count."""
    uncounted = 0.0 if clock_seconds(parts) < UNTRAINED else None
    seconds = 0.0
    for part in cast(list[dict[str, float]], parts):
        for name in ("train", "start", "labelling"):
            counted = part.get(f"{name}_cpu_seconds")
            if counted is None and (name == "train" or part.get(f"{name}_seconds")):
                return uncounted
            seconds += counted or 0.0
    return seconds


def most(key: str) -> Callable[[list[PhaseCost]], float | None]:
    def most_of_phases(parts: list[PhaseCost]) -> float | None:
        values = [dict(part)[key] for part in parts if key in part]
        return max(cast(list[float], values), default=None)

    return most_of_phases


COST = (
    CostColumn("clock time", "train_seconds", clock_seconds),
    CostColumn("CPU time", "train_cpu_seconds", cpu_seconds, compares_rows=True),
    CostColumn("images/s", "train_images_per_second", images_per_second),
    CostColumn("memory", "peak_memory_bytes", most("peak_memory_bytes"), worst=True),
    CostColumn("GPU memory", "peak_gpu_memory_bytes", most("peak_gpu_memory_bytes"), worst=True),
)
CPU_TIME = next(place for place, column in enumerate(COST) if column.compares_rows)
"""Where COST has the time by which rows are compared."""
