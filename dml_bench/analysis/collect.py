"""From paths to finished runs, and from those to studies: runs that may stand in one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from dml_bench.analysis.decisions import DecidedRow, decide
from dml_bench.analysis.short_names import short_names
from dml_bench.analysis.study import Study
from dml_bench.analysis.table import grouped
from dml_bench.config import Expectation, Experiment, as_table, experiments
from dml_bench.config.tables import PlannedRow, read_table, table_names
from dml_bench.config.variants import base_name
from dml_bench.data.datasets import Progress
from dml_bench.data.split import is_rotated
from dml_bench.protocols import protocol_of
from dml_bench.runs.folder import decisive, differing_in_a_row
from dml_bench.runs.metrics import metrics_of
from dml_bench.runs.run import NotFinished, Run, how_far, read_experiment, read_folder, run_folders
from dml_bench.runs.schema import DatasetFacts

__all__ = ["Collection", "collect", "studies_of"]


class Key(NamedTuple):
    """What runs of one study have in common."""

    protocol: str
    dataset: str
    profile: str
    fingerprint: str
    """Of the data set."""
    unseen: str
    """The rule that holds classes out; empty where none are."""
    split: str
    """How images are divided: `data.split`, with its rule for groups or times."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A run that was begun and has not ended."""

    experiment: Experiment
    key: Key
    reason: str


@dataclass(slots=True)
class Collection:
    """What was found, a line on each thing that can't be used, and what else to know of it."""

    runs: list[Run] = field(default_factory=list)
    unfinished: list[Unfinished] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def collect(
    paths: Sequence[Path],
    data_dir: Path | None = None,
    progress: Progress = lambda message, done, total: None,
) -> Collection:
    """Read the run folders `paths`, and all that lie below them; `data_dir` is where their images
    lie now, if they were moved.

    Raises ValueError where none of them holds a finished run.
    """
    collection = Collection()
    folders: dict[Path, Path] = {}
    for path in paths:
        below = run_folders(path)
        if not below:
            problem = "holds no run" if path.is_dir() else "is not a folder"
            collection.problems.append(f"{path} {problem}")
        folders |= {folder.resolve(): folder for folder in below}
    for number, folder in enumerate(folders.values(), start=1):
        add(collection, folder, data_dir)
        progress("reading runs", number, len(folders))
    if not collection.runs:
        problems = "; ".join(collection.problems) or "no folder was named"
        raise ValueError(
            f"there is nothing to report on: {problems}. `dml-bench run EXPERIMENT --demo` makes a"
            " run"
        )
    return collection


def add(collection: Collection, path: Path, data_dir: Path | None) -> None:
    """Read one folder. What can't be used is said in one line, never raised."""
    try:
        run = replace(read_folder(path), data_dir=data_dir)
    except NotFinished as reason:
        collection.problems.append(str(reason))
        add_unfinished(collection, path)
        return
    except ValueError as reason:
        collection.problems.append(" ".join(str(reason).split()))
        return
    why = why_not_beside(run, collection.runs)
    if why:
        collection.problems.append(f"{path} is left out: {why}")
    else:
        collection.runs.append(run)


def add_unfinished(collection: Collection, path: Path) -> None:
    """A run that has not ended, for the table's remark on it."""
    try:
        experiment, folder = read_experiment(path)
        dataset = folder.environment.get("dataset")
        if dataset is not None:
            reason = f"not finished ({how_far(folder)})"
            collection.unfinished.append(
                Unfinished(experiment, key_of(experiment, dataset), reason)
            )
    except ValueError as reason:
        collection.problems.append(" ".join(str(reason).split()))


def why_not_beside(run: Run, others: Sequence[Run]) -> str:
    """Why `run` can't stand in one row with a run of the same name that came before it, or
    nothing."""
    for other in others:
        if other.experiment.name != run.experiment.name or key_of_run(other) != key_of_run(run):
            continue
        theirs, mine = decisive(as_table(other.experiment)), decisive(as_table(run.experiment))
        if changed := differing_in_a_row(theirs, mine):
            return (
                f"{other.folder} has an experiment of the same name with other settings"
                f" ({', '.join(changed[:3])})"
            )
        data = run.experiment.data
        # `per_class` thins by the seed: other training images, and the same queries.
        is_same_for_all_seeds = data.split == "given" and not data.per_class
        if is_same_for_all_seeds and other.split_fingerprint != run.split_fingerprint:
            return f"{other.folder} has the same experiment on other parts of the images"
        if other.seed == run.seed:
            return f"{other.folder} has the same experiment with the same seed"
        if not run.protocol.label_sets and other.class_names != run.class_names:
            return f"{other.folder} has the same experiment on queries of other classes"
    return ""


def key_of(experiment: Experiment, dataset: DatasetFacts) -> Key:
    unseen = experiment.unseen if protocol_of(experiment).takes_unseen else ""
    return Key(
        protocol=experiment.protocol,
        dataset=dataset["name"],
        profile=experiment.profile,
        fingerprint=dataset["fingerprint"],
        unseen=unseen,
        split=experiment.data.described_split,
    )


def key_of_run(run: Run) -> Key:
    return key_of(run.experiment, run.summary["dataset"])


def studies_of(collection: Collection) -> list[Study]:
    """One study for each protocol, data set, profile, split and way of holding classes out; they
    never share a table. Rotated hold-outs come first, since they compare the same classes."""
    keys = list(dict.fromkeys(key_of_run(run) for run in collection.runs))
    keys.sort(key=lambda key: not is_rotated(key.unseen))
    begun = [run.experiment for run in collection.runs]
    begun += [started.experiment for started in collection.unfinished]
    names = short_names(begun)
    studies = [study_of(key, distinction_of(key, keys), collection, names) for key in keys]
    if len(studies) > 1:
        titles = "; ".join(study.title for study in studies)
        collection.remarks.append(
            f"these runs cannot all be compared; the report has one part for each of {titles}"
        )
    return studies


def distinction_of(key: Key, keys: Sequence[Key]) -> str:
    """What distinguishes a study from the others of the same protocol, data set and profile;
    nothing where it is the only one."""
    alike = [other for other in keys if other[:3] == key[:3]]
    parts = []
    if len({other.split for other in alike}) > 1:
        parts.append(f"split {key.split}")
    if len({other.unseen for other in alike}) > 1:
        parts.append(f"unseen {key.unseen}")
    if len({other.fingerprint for other in alike}) > 1:
        parts.append(f"images {key.fingerprint[:6]}")
    return ", ".join(parts)


def study_of(key: Key, distinction: str, collection: Collection, names: Mapping[str, str]) -> Study:
    """The runs of one key in one table, with what is decided about them; `names` are short ones."""
    runs, unfinished = {}, {}
    for run in collection.runs:
        if key_of_run(run) == key:
            runs[run.experiment.name, run.seed] = run
    for started in collection.unfinished:
        experiment = started.experiment
        if started.key == key and (experiment.name, experiment.seed) not in runs:
            unfinished[experiment.name, experiment.seed] = started
    rows = rows_of(runs, unfinished)
    failures = {name_and_seed: started.reason for name_and_seed, started in unfinished.items()}
    [group] = grouped(rows, runs, failures, names, key.dataset)
    of_row = {line.name: line.runs for line in group.lines}
    decided = [DecidedRow(row.written, of_row[row.name], group.priors) for row in rows]
    decisions = decide(decided, lambda name: of_row.get(name, ()))
    not_measured = []
    for row in rows:
        not_measured += [
            f"{row.name}, a claim on {claim.metric}: its runs have none"
            for claim in unmeasured(row.seeds[0], row.written)
        ]
    return Study(
        group,
        decisions,
        key.fingerprint,
        distinction,
        absent=absent(set(of_row)),
        missing=not_measured,
    )


def rows_of(
    runs: dict[tuple[str, int], Run], unfinished: dict[tuple[str, int], Unfinished]
) -> list[PlannedRow]:
    """One row for each experiment with its seeds, in the order of the tables."""
    experiments_by_name: dict[str, dict[int, Experiment]] = {}
    for (name, seed), started in unfinished.items():
        experiments_by_name.setdefault(name, {})[seed] = started.experiment
    for (name, seed), run in runs.items():
        experiments_by_name.setdefault(name, {})[seed] = run.experiment
    rows = []
    for name in in_table_order(set(experiments_by_name)):
        by_seed = experiments_by_name[name]
        seeds = tuple(by_seed[seed] for seed in sorted(by_seed))
        rows.append(PlannedRow(written(seeds[0]), seeds))
    return rows


def written(experiment: Experiment) -> Experiment:
    """The experiment as its file has it, for its claims; itself where it has no file, without
    claims on what its runs don't measure."""
    base = base_name(experiment.name)
    if base in experiments.names():
        return replace(experiments.resolve(base), name=experiment.name)
    if base != experiment.name:  # its settings are not those that its file's claims are about
        return replace(experiment, expects=())
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
    """The study's rows first, then those of other tables, then all others by name."""
    order: dict[str, None] = {}
    for table in sorted(table_names(), key=lambda name: name != "study"):
        order |= dict.fromkeys(read_table(table).rows)
    return [name for name in order if name in names] + sorted(names - set(order))


def absent(names: set[str]) -> tuple[str, ...]:
    """The rows of the study that are not here, if some of them are."""
    rows = read_table("study").rows
    return tuple(name for name in rows if name not in names) if names & set(rows) else ()
