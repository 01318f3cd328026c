"""What runs and searches cost, estimated from the records of others."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dml_bench.config import Experiment
from dml_bench.config.tables import PlannedRow
from dml_bench.data.datasets import Dataset
from dml_bench.data.split import split_of
from dml_bench.protocols import phases_of, protocol_named
from dml_bench.runs import record_format
from dml_bench.runs.layout import records_below
from dml_bench.suite.plan import Job
from dml_bench.suite.tuned import MissingSearch
from dml_bench.system.counted import counted

__all__ = ["core_hours", "measured_runs", "search_lines", "seconds_of"]


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """What a recorded run took."""

    name: str
    dataset: str
    num_images: int
    seconds: float
    """Of one core, for one of its trainings; for all of a run that trains nothing."""


def search_lines(missing: Iterable[MissingSearch], measured: Sequence[MeasuredRun]) -> list[str]:
    """Each missing search with its cost and command, and the cost of all."""
    lines: list[str] = []
    trainings, every = 0.0, []
    for search in missing:
        number, name = len(search.experiments), search.experiments[0].data.dataset.name
        seconds = [seconds_of_search(search, name, measured)] * number
        cost = cost_of_searches(search.trainings * number, seconds)
        lines.append(
            f"to tune {name}: {counted(number, 'search')} of {search.space.trials} trials, at most"
            f" {cost}: {search.command}"
        )
        trainings += search.trainings * number
        every += seconds
    if lines:
        total = cost_of_searches(trainings, every)
        lines.append(f"all searches that --tuned waits for: at most {total}")
    return lines


def cost_of_searches(trainings: float, seconds: Sequence[float | None]) -> str:
    """`as long as 2.7 trainings, about 1.3 core-hours`; hours only where a record tells them."""
    text = f"as long as {trainings:.1f} trainings"
    if all(value is None for value in seconds):
        return text
    return f"{text}, about {core_hours(seconds, 'search')}"


def core_hours(seconds: Sequence[float | None], what: str) -> str:
    """The sum of those that are known, and how many are not."""
    known = [value for value in seconds if value is not None]
    hours = f"{sum(known) / 3600:.1f} core-hours"
    unknown = len(seconds) - len(known)
    return f"{hours} and {counted(unknown, what)} of unknown cost" if unknown else hours


def measured_runs(results: Path) -> list[MeasuredRun]:
    """What all records of runs on CPU say of their cost. One that can't be read, of whatever row,
    says nothing: `dml-bench verify` names it, and no suite waits for that."""
    runs = []
    for path in records_below(results):
        with suppress(KeyError, TypeError, ValueError):
            description = record_format.read_description(path)
            if description["session"].get("device") == "cpu":
                runs.append(measured_run(description))
    return runs


def measured_run(description: Mapping[str, Any]) -> MeasuredRun:
    """Of one record."""
    main_phase = protocol_named(description["protocol"]).main_phase
    trainings = len({main_phase, *description["held_out"]}) if description["trained"] else 1
    dataset = description["dataset"]
    return MeasuredRun(
        description["experiment"],
        dataset["name"],
        dataset["num_images"],
        core_seconds(description) / trainings,
    )


def core_seconds(description: Mapping[str, Any]) -> float:
    """What a recorded run took of one core. Other work on the machine stretches the time of a
    training and not its CPU time, which counts where it is known."""
    session, cost = description["session"], description["cost"]
    cores = session.get("threads", 1) * session.get("processes", 1)
    training: float | None = cost.get("train_cpu_seconds")
    if training is None:
        training = cost["train_seconds"] * cores
    beside: float = (cost["total_seconds"] - cost["train_seconds"]) * cores
    return training + beside


def seconds_of(
    job: Job, dataset: Dataset, rows: Sequence[PlannedRow], measured: Sequence[MeasuredRun]
) -> float | None:
    """Seconds of one core that a run of a table with these rows may take; None where nothing is
    known."""
    experiment = job.experiment
    alike = rows_alike(experiment, rows)
    seconds = estimate(experiment.name, dataset.name, len(dataset.labels), alike, measured)
    if seconds is None or experiment.no_drop_because:
        return seconds
    return seconds * len(phases_of(experiment, dataset, split_of(experiment, dataset)))


def seconds_of_search(
    search: MissingSearch, dataset: str, measured: Sequence[MeasuredRun]
) -> float | None:
    """Seconds of one core that the trials for a seed take at most; None where nothing is known."""
    experiment = search.experiments[0]
    sizes = [run.num_images for run in measured if run.dataset == dataset]
    seconds = estimate(experiment.name, dataset, max(sizes, default=None), search.rows, measured)
    return None if seconds is None else seconds * search.trainings


def rows_alike(experiment: Experiment, rows: Iterable[PlannedRow]) -> set[str]:
    """The rows that cost about as much as a run: those that train features, or those that don't."""
    without = bool(experiment.no_drop_because)
    return {row.name for row in rows if bool(row.seeds[0].no_drop_because) == without}


def estimate(
    name: str,
    dataset: str,
    num_images: int | None,
    rows: Collection[str],
    measured: Sequence[MeasuredRun],
) -> float | None:
    """Seconds that a training of a row may take on a data set: as of its other seeds, else as of
    these other `rows` on the same images, else by image as on other data sets; None where nothing
    is known."""
    here = [run for run in measured if run.dataset == dataset and run.name in rows]
    same = [run.seconds for run in here if run.name == name]
    beside = [run.seconds for run in here]
    elsewhere = []
    if num_images is not None:
        elsewhere = [run.seconds / run.num_images * num_images for run in named(name, measured)]
    for seconds in (same, beside, elsewhere):
        if seconds:
            return sum(seconds) / len(seconds)
    return None


def named(name: str, measured: Sequence[MeasuredRun]) -> list[MeasuredRun]:
    return [run for run in measured if run.name == name]
