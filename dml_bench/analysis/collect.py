"""From paths to finished runs, and from those to sections: runs that may stand in one table."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from dml_bench.analysis.claims import check_claims
from dml_bench.analysis.study import Study
from dml_bench.analysis.table import grouped
from dml_bench.config import Expectation, Experiment, as_table, experiments
from dml_bench.config.tables import PlannedRow, read_table, table_names
from dml_bench.protocols import protocol_of
from dml_bench.runs.folder import decisive, differing
from dml_bench.runs.metrics import metrics_of
from dml_bench.runs.run import NotFinished, Run, progress, read_experiment, read_folder, run_folders

__all__ = ["Collection", "collect", "studies_of"]


class Key(NamedTuple):
    """What runs of one section have in common."""

    protocol: str
    dataset: str
    profile: str
    fingerprint: str
    """Of the data set."""
    unseen: str
    """The rule that holds classes out; empty where none are."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    experiment: Experiment
    key: Key
    reason: str


@dataclass(slots=True)
class Collection:
    """What was found, and a line on each thing that can't be used."""

    runs: list[Run] = field(default_factory=list)
    unfinished: list[Unfinished] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def collect(paths: Sequence[Path], data_dir: Path | None = None) -> Collection:
    """Read the run folders `paths`, and all that lie below them; `data_dir` is where their images
    lie now, if they were moved.

    Raises ValueError where none of them holds a finished run.
    """
    found = Collection()
    folders: dict[Path, Path] = {}
    for path in paths:
        below = run_folders(path)
        if not below:
            found.problems.append(
                f"{path} {'holds no run' if path.is_dir() else 'is not a folder'}"
            )
        folders |= {folder.resolve(): folder for folder in below}
    for folder in folders.values():
        add(found, folder, data_dir)
    if not found.runs:
        told = "; ".join(found.problems) or "no folder was named"
        raise ValueError(
            f"there is nothing to report on: {told}. `dml-bench run EXPERIMENT --demo` makes a run"
        )
    return found


def add(found: Collection, path: Path, data_dir: Path | None) -> None:
    """Read one folder into `found`. What can't be used is said in one line, never raised."""
    try:
        try:
            run = replace(read_folder(path), data_dir=data_dir)
        except NotFinished as reason:
            found.problems.append(str(reason))
            add_unfinished(found, path)
            return
    except ValueError as reason:
        found.problems.append(" ".join(str(reason).split()))
        return
    if why := why_not_beside(run, found.runs):
        found.problems.append(f"{path} is left out: {why}")
    else:
        found.runs.append(run)


def add_unfinished(found: Collection, path: Path) -> None:
    experiment, folder = read_experiment(path)
    if (dataset := folder.environment.get("dataset")) is not None:
        found.unfinished.append(
            Unfinished(
                experiment, key_of(experiment, dataset), f"not finished ({progress(folder)})"
            )
        )


def why_not_beside(run: Run, others: Sequence[Run]) -> str:
    """Why `run` can't stand in one row with a run of the same name that came before it, or
    nothing."""
    for other in others:
        if other.experiment.name != run.experiment.name or key_of_run(other) != key_of_run(run):
            continue
        theirs, mine = (decisive(as_table(each.experiment)) for each in (other, run))
        if changed := [key for key in differing(theirs, mine) if key != "seed"]:
            return (
                f"{other.folder} has an experiment of the same name with other settings"
                f" ({', '.join(changed[:3])})"
            )
        if (
            run.experiment.data.split == "given"
            and other.split_fingerprint != run.split_fingerprint
        ):
            return f"{other.folder} has the same experiment on other parts of the images"
        if other.seed == run.seed:
            return f"{other.folder} has the same experiment with the same seed"
    return ""


def key_of(experiment: Experiment, dataset: dict[str, Any]) -> Key:
    unseen = experiment.unseen if protocol_of(experiment).takes_unseen else ""
    return Key(
        experiment.protocol, dataset["name"], experiment.profile, dataset["fingerprint"], unseen
    )


def key_of_run(run: Run) -> Key:
    return key_of(run.experiment, run.summary["dataset"])


def studies_of(found: Collection) -> list[Study]:
    """One section for each protocol, data set, profile and way of holding classes out; they never
    share a table."""
    keys = list(dict.fromkeys(key_of_run(run) for run in found.runs))
    sections = [study_of(key, told_apart(key, keys), found) for key in keys]
    if len(sections) > 1:
        titles = "; ".join(section.title for section in sections)
        found.problems.append(
            f"these runs can't all be compared: there is one section for each of {titles}"
        )
    return sections


def told_apart(key: Key, keys: Sequence[Key]) -> str:
    """What tells a section from the others of the same protocol, data set and profile; nothing
    where it is the only one."""
    like = [other for other in keys if other[:3] == key[:3]]
    images = (
        f"images {key.fingerprint[:6]}" if len({other.fingerprint for other in like}) > 1 else ""
    )
    unseen = f"unseen {key.unseen}" if len({other.unseen for other in like}) > 1 else ""
    return ", ".join(filter(None, (unseen, images)))


def study_of(key: Key, apart: str, found: Collection) -> Study:
    runs = {(run.experiment.name, run.seed): run for run in found.runs if key_of_run(run) == key}
    unfinished = {
        (u.experiment.name, u.experiment.seed): u for u in found.unfinished if u.key == key
    }
    everything = {
        **{name: u.experiment for name, u in unfinished.items()},
        **{name: run.experiment for name, run in runs.items()},
    }
    rows = []
    for name in in_table_order({name for name, _ in everything}):
        seeds = tuple(everything[each] for each in sorted(everything) if each[0] == name)
        rows.append(PlannedRow(written(seeds[0]), seeds))
    [group] = grouped(
        rows, runs, {each: u.reason for each, u in unfinished.items() if each not in runs}
    )
    of_row = {line.name: line.runs for line in group.lines}
    verdicts = [
        tested
        for row in rows
        for tested in check_claims(row.written, of_row[row.name], lambda name: of_row.get(name, ()))
    ]
    untold = [
        f"{row.name}, a claim on {claim.metric}: its runs have none"
        for row in rows
        for claim in unmeasured(row.seeds[0], row.written)
    ]
    return Study(
        group, tuple(verdicts), key.fingerprint, apart, absent=absent(set(of_row)), missing=untold
    )


def written(experiment: Experiment) -> Experiment:
    """The experiment as its file has it, for its claims; itself where it has no file, without
    claims on what its runs don't measure."""
    if experiment.name in experiments.names():
        return experiments.resolve(experiment.name)
    measured = metrics_of(experiment)
    return replace(
        experiment, expects=tuple(claim for claim in experiment.expects if claim.metric in measured)
    )


def unmeasured(run: Experiment, written: Experiment) -> list[Expectation]:
    """Claims of an experiment as it ran that `written` leaves out."""
    return [
        claim
        for claim in run.expects
        if claim not in written.expects and claim.metric not in metrics_of(run)
    ]


def in_table_order(names: set[str]) -> list[str]:
    order = [
        row
        for table in sorted(table_names(), key=lambda name: name != "study")
        for row in read_table(table).rows
    ]
    return [*(name for name in dict.fromkeys(order) if name in names), *sorted(names - set(order))]


def absent(names: set[str]) -> tuple[str, ...]:
    """The rows of the study that are not here, if some of them are."""
    rows = read_table("study").rows
    return tuple(name for name in rows if name not in names) if names & set(rows) else ()
