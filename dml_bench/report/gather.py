"""From paths to finished runs, and from those to sections: runs that may stand in one table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dml_bench import experiments
from dml_bench.config import Experiment, as_table
from dml_bench.expectations import judge
from dml_bench.measured import FinishedRun, NotFinished, described, progress, read_folder, run_folders
from dml_bench.report.section import Section
from dml_bench.results import differing
from dml_bench.suite.rows import Row, read_table, table_names
from dml_bench.suite.table import grouped

__all__ = ["Gathered", "gather", "sections_of"]

Key = tuple[str, str, str, str]
"""Protocol, data set, profile, and the data set's fingerprint."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    experiment: Experiment
    key: Key
    reason: str


@dataclass(slots=True)
class Gathered:
    """What was found, and a line on each thing that can't be used."""

    runs: list[FinishedRun] = field(default_factory=list)
    unfinished: list[Unfinished] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def gather(paths: Sequence[Path]) -> Gathered:
    """Read the run folders `paths`, and all that lie below them. Raises ValueError where none of them holds a finished run."""
    found = Gathered()
    folders: dict[Path, Path] = {}
    for path in paths:
        below = run_folders(path)
        if not below:
            found.problems.append(f"{path} {'holds no run' if path.is_dir() else 'is not a folder'}")
        folders |= {folder.resolve(): folder for folder in below}
    for folder in folders.values():
        add(found, folder)
    if not found.runs:
        told = "; ".join(found.problems) or "no folder was named"
        raise ValueError(f"there is nothing to report on: {told}. `dml-bench run EXPERIMENT --demo` makes a run")
    return found


def add(found: Gathered, path: Path) -> None:
    """Read one folder into `found`. What can't be used is said in one line, never raised."""
    try:
        run = read_folder(path)
    except NotFinished as reason:
        found.problems.append(str(reason))
        experiment, folder = described(path)
        if (dataset := folder.environment.get("dataset")) is not None:
            key = (experiment.protocol, dataset["name"], experiment.profile, dataset["fingerprint"])
            found.unfinished.append(Unfinished(experiment, key, f"not finished ({progress(folder)})"))
    except ValueError as reason:
        found.problems.append(" ".join(str(reason).split()))
    else:
        if why := why_not_beside(run, found.runs):
            found.problems.append(f"{path} is left out: {why}")
        else:
            found.runs.append(run)


def why_not_beside(run: FinishedRun, others: Sequence[FinishedRun]) -> str:
    """Why `run` can't stand in one row with a run of the same name that came before it, or nothing."""
    for other in others:
        if other.experiment.name != run.experiment.name or key_of(other) != key_of(run):
            continue
        if other.seed == run.seed:
            return f"{other.folder} has the same experiment with the same seed"
        changed = [key for key in differing(as_table(other.experiment), as_table(run.experiment)) if key != "seed"]
        if changed:
            return f"{other.folder} has an experiment of the same name with other settings ({', '.join(changed[:3])})"
    return ""


def key_of(run: FinishedRun) -> Key:
    dataset = run.summary["dataset"]
    return run.experiment.protocol, dataset["name"], run.experiment.profile, dataset["fingerprint"]


def sections_of(found: Gathered) -> list[Section]:
    """One section for each protocol, data set and profile; they never share a table."""
    keys = list(dict.fromkeys(key_of(run) for run in found.runs))
    sections = [section_of(key, found) for key in keys]
    if len(sections) > 1:
        titles = "; ".join(section.title for section in sections)
        found.problems.append(f"these runs can't all be compared: there is one section for each of {titles}")
    return sections


def section_of(key: Key, found: Gathered) -> Section:
    runs = {(run.experiment.name, run.seed): run for run in found.runs if key_of(run) == key}
    unfinished = {(u.experiment.name, u.experiment.seed): u for u in found.unfinished if u.key == key}
    everything = {**{name: u.experiment for name, u in unfinished.items()}, **{name: run.experiment for name, run in runs.items()}}
    rows = []
    for name in in_table_order({name for name, _ in everything}):
        seeds = tuple(everything[each] for each in sorted(everything) if each[0] == name)
        rows.append(Row(written(seeds[0]), seeds))
    [group] = grouped(rows, runs, {each: u.reason for each, u in unfinished.items() if each not in runs})
    of_row = {line.name: line.runs for line in group.lines}
    verdicts = [tested for row in rows for tested in judge(row.written, of_row[row.name], lambda name: of_row.get(name, ()))]
    return Section(group, tuple(verdicts), fingerprint=key[3], absent=absent(set(of_row)))


def written(experiment: Experiment) -> Experiment:
    """The experiment as its file has it, for its claims; itself where it has no file."""
    return experiments.resolve(experiment.name) if experiment.name in experiments.names() else experiment


def in_table_order(names: set[str]) -> list[str]:
    order = [row for table in sorted(table_names(), key=lambda name: name != "study") for row in read_table(table).rows]
    return [*(name for name in dict.fromkeys(order) if name in names), *sorted(names - set(order))]


def absent(names: set[str]) -> tuple[str, ...]:
    """The rows of the study that are not here, if some of them are."""
    rows = read_table("study").rows
    return tuple(name for name in rows if name not in names) if names & set(rows) else ()


def epochs_of(run: FinishedRun) -> list[dict[str, float | int | str]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
