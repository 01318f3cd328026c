"""Public functions over finished runs: read them, compare them, report on them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dml_bench.api.arguments import (
    PathLike,
    WandbMode,
    callback_or_log,
    count_of,
    folder_and_images,
    optional_path,
    path_of,
    run_of,
    seed_of,
    texts_of,
    unseen_of,
)
from dml_bench.report.printed import PrintedDocument, PrintedRecord
from dml_bench.system.callbacks import Callback

if TYPE_CHECKING:
    import pandas
    from rich.console import Console

    from dml_bench.analysis.compare import Comparison
    from dml_bench.analysis.embeddings import EmbeddingsResult
    from dml_bench.runs.run import Run

__all__ = [
    "Comparisons",
    "EmbeddingsReport",
    "ScatterReport",
    "compare",
    "evaluate",
    "load_run",
    "load_runs",
    "log_to_wandb",
    "measure_scatter",
    "record_runs",
    "sync_to_wandb",
    "write_report",
]


def load_run(folder: PathLike, *, data_dir: PathLike | None = None) -> "Run":
    """The finished run in a folder, or the only one below an experiment's folder.

    `data_dir` is where its images lie now, if they were moved. Every file is checked against the
    digests that the run recorded.

    Raises ValueError where there is no run, several, or one that has not ended or was changed.
    Source: docs/protocols_and_statistics.md says what a run folder holds.

    >>> run = db.load_run("runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42")
    >>> run.seed, run.experiment.name
    (42, 'EPSHN_cosine_resnet18_sgd_aug')
    >>> -1 <= run.metrics["precision_drop_unseen_classes"] <= 1
    True
    """
    return run_of(folder, data_dir)


def load_runs(folder: PathLike, *, callback: Callback | None = None) -> "pandas.DataFrame":
    """A table of the finished runs below a folder: one row a run, ordered by folder.

    Columns are `experiment`, `dataset`, `split`, `seed`, `folder`, each value of the configuration
    under its dotted key (`train.epochs`, `loss`, `loss.temperature`), and each metric under its
    name (`cost_of_being_unseen`), with the bounds of its interval where it has one
    (`cost_of_being_unseen_low`). A cell is missing where a run has no such value. Of runs that are
    not finished or can't be read, `callback` is warned.

    Raises ValueError where there is no finished run.
    Source: experiment.json and summary.json of each run folder.

    >>> runs = db.load_runs("runs").sort_values("cost_of_being_unseen")
    >>> sorted(runs["seed"])
    [42, 43]
    >>> set(runs["train.epochs"])
    {3}
    """
    import pandas

    from dml_bench.runs.run import read_folder, run_folders

    heard = callback_or_log(callback)
    rows = []
    folders = run_folders(path_of(folder))
    for number, path in enumerate(folders, start=1):
        try:
            rows.append(row_of(read_folder(path)))
        except ValueError as problem:
            heard.warn(str(problem))
        heard.progress("reading runs", number, len(folders))
    if not rows:
        raise ValueError(f"{folder} holds no finished run: name a folder of run folders")
    return pandas.DataFrame(rows)


def row_of(run: "Run") -> dict[str, Any]:
    """What `load_runs` says of one run."""
    from dml_bench.config import as_table

    table = as_table(run.experiment)
    name = table.pop("name")
    return {
        "experiment": name,
        "dataset": run.summary["dataset"]["name"],
        "split": run.experiment.data.described_split,
        "seed": table.pop("seed"),
        "folder": str(run.folder),
        **settings(table),
        **run.metrics,
        **run.protocol.remarks(run.summary),
    }


def settings(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys; a component stands under its own key, its options below it."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if key == "expects":
            continue
        if not isinstance(value, dict):
            flat[prefix + key] = value
            continue
        options = dict(value)
        if "name" in options:
            flat[prefix + key] = options.pop("name")
        flat |= settings(options, f"{prefix}{key}.")
    return flat


@dataclass(frozen=True, repr=False)
class Comparisons(PrintedRecord):
    """Each pair of the compared experiments, in order. Printed, it is the tables that
    `dml-bench compare` shows.

    >>> runs = "runs/EPSHN_cosine_resnet18_sgd_aug/cub"
    >>> comparisons = db.compare(f"{runs}/seed-42", f"{runs}/seed-42")
    >>> len(comparisons), {row.difference.estimate for row in comparisons[0].overall}
    (1, {0.0})
    """

    pairs: "tuple[Comparison, ...]"

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> "Iterator[Comparison]":
        return iter(self.pairs)

    def __getitem__(self, place: int) -> "Comparison":
        return self.pairs[place]

    def show(self, console: "Console") -> None:
        """Print the tables on a terminal."""
        from dml_bench.system.terminal import show_comparison

        for pair in self.pairs:
            show_comparison(console, pair)

    def as_json(self) -> str:
        """The same as JSON, with every class."""
        from dml_bench.system.files import json_text

        return json_text([asdict(pair) for pair in self.pairs])


def compare(
    first: "Run | str | Path",
    second: "Run | str | Path",
    *others: "Run | str | Path",
    callback: Callback | None = None,
) -> Comparisons:
    """How much several experiments differ, and how sure that is.

    Each is a run, a run folder, or a folder with the runs of one experiment, one per seed. Every
    difference is paired query by query, and has a 95% interval. From three common seeds on it also
    has a q-value over all differences; with fewer, it is about these networks only. Values are
    proportions from 0 to 1.

    Of experiments from which nothing can be concluded under their profile, `callback` is warned.

    Raises ValueError where two did not answer the same queries.
    Source: Benjamini and Hochberg, "Controlling the false discovery rate" (1995).

    >>> runs = "runs/EPSHN_cosine_resnet18_sgd_aug/cub"
    >>> comparisons = db.compare(f"{runs}/seed-42", f"{runs}/seed-42")
    >>> comparisons[0].equal
    True
    >>> "the two are equal on every query" in str(comparisons)
    True
    """
    from dml_bench.analysis.compare import compare as compare_sides
    from dml_bench.analysis.compare import read_sides
    from dml_bench.config.experiments import why_untested
    from dml_bench.report.tables import OWN_RULE

    folders = [folder_and_images(run, None)[0] for run in (first, second, *others)]
    heard = callback_or_log(callback)
    sides = read_sides(folders, heard.progress)
    for side in sides:
        experiment = side.runs[0].experiment
        if because := why_untested(experiment):
            heard.warn(
                f"nothing can be concluded from {side.name} under the profile"
                f" {experiment.profile}: {because}"
            )
        if experiment.mixes_pairs:
            heard.note(f"{side.name}: {OWN_RULE}")
    return Comparisons(tuple(compare_sides(sides, heard.progress)))


@dataclass(frozen=True, repr=False)
class EmbeddingsReport(PrintedDocument, PrintedRecord):
    """What embeddings are worth. Printed, it is what `dml-bench evaluate` shows.

    >>> import numpy, pathlib
    >>> numpy.savez("embeddings.npz", embeddings=numpy.eye(24) + 1)
    >>> lines = ["path,class", *(f"{row:02}.jpg,{row % 4}" for row in range(24))]
    >>> _ = pathlib.Path("labels.csv").write_text("\\n".join(lines))
    >>> report = db.evaluate("embeddings.npz", labels="labels.csv")
    >>> sorted(report.results["embeddings.npz"].as_table())
    ['accuracy', 'drops', 'enrolment', 'hubness', 'scatter', 'unknown_classes']
    """

    results: "dict[str, EmbeddingsResult]"
    """By the name of their file; of two files of one name, one has its folder too."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values: proportions from 0 to 1, with the bounds of their intervals."""
        return {name: result.as_table() for name, result in self.results.items()}


def evaluate(
    embeddings: PathLike,
    without: PathLike | None = None,
    *,
    labels: PathLike,
    unseen: str = "",
    seed: int = 42,
    callback: Callback | None = None,
    command: Sequence[str] = (),
) -> EmbeddingsReport:
    """What embeddings are worth that any program computed. PyTorch is not needed.

    `embeddings` is an .npz (array `embeddings`, and `paths` with the name of each row) or a
    .parquet; `labels` a .csv with the class of each name, and perhaps a column `split` that says
    which are gallery and which query. Without it a fifth of each class, drawn from `seed`, are
    queries. `without` are embeddings of a model that was not trained on the classes `unseen`, and
    `embeddings` then those of one that was. `unseen` is as in an experiment: `last:20`,
    `random:20:SEED`, or names with commas between; of one model it names the classes that are
    taken for new ones, and may be left out.

    Raises ValueError where a file can't be read, lacks images, or has unusable vectors.
    Source: docs/protocols_and_statistics.md.

    >>> import numpy, pathlib
    >>> numpy.savez("mine.npz", embeddings=numpy.eye(24) + 1)
    >>> lines = ["path,class", *(f"{row:02}.jpg,{row % 4}" for row in range(24))]
    >>> _ = pathlib.Path("labels.csv").write_text("\\n".join(lines))
    >>> "nearest class mean" in str(db.evaluate("mine.npz", labels="labels.csv"))
    True
    """
    from dml_bench.analysis.embeddings import describe_unused, evaluate_embeddings, queries_of
    from dml_bench.data.embeddings import read_embeddings, read_labels
    from dml_bench.evaluation.collapse import describe_vectors
    from dml_bench.report.compose import made_by
    from dml_bench.report.embeddings import compose_embeddings

    rule = unseen_of(unseen)
    if without is not None and not rule:
        raise ValueError(
            "two files of embeddings need the classes that the second model was not trained on:"
            " --unseen last:20, or their names with commas between"
        )
    heard = callback_or_log(callback)
    progress = heard.progress
    table = read_labels(path_of(labels))
    for note in table.dataset.notes:
        heard.note(note)
    queries = queries_of(table, rule, seed_of(seed))
    for note in describe_unused(queries):
        heard.note(note)
    first = read_embeddings(path_of(embeddings), table)
    if without is None:
        names = [path_of(embeddings).name]
    else:
        names = names_of_two(path_of(embeddings), path_of(without))
    results = {names[0]: evaluate_embeddings(queries, first, progress=progress)}
    if without is not None:
        second = read_embeddings(path_of(without), table)
        results[names[1]] = evaluate_embeddings(queries, second, first, progress)
    for name, result in results.items():
        for line in describe_vectors(name, result.doubts, "compute them again"):
            heard.warn(line)
    maker = tuple(command) or ("dml_bench.evaluate", str(embeddings))
    document = compose_embeddings(queries, results, made_by(maker))
    return EmbeddingsReport(document=document, results=results)


def names_of_two(first: Path, second: Path) -> list[str]:
    """The names of two files; where these are the same, with their folders. Raises ValueError where
    it is one file."""
    if first.name != second.name:
        return [first.name, second.name]
    if first.resolve() == second.resolve():
        raise ValueError(f"both models are {second}: name the file of another one as the second")
    if str(second) != first.name:
        return [first.name, str(second)]
    return [str(first), second.name]


@dataclass(frozen=True, repr=False)
class ScatterReport(PrintedDocument):
    """How far test images scatter against training images. Printed, it is what `dml-bench scatter`
    shows.

    >>> scatter = db.measure_scatter("runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42")
    >>> sorted(scatter.classes["phase"].unique())
    ['all', 'limited']
    """

    @property
    def means(self) -> "pandas.DataFrame":
        """One number a row: `experiment`, `classes`, `model`, `measure`, `value`, and the bounds
        of its 95% interval over classes and seeds, `low` and `high`."""
        return self._table("scatter")

    @property
    def classes(self) -> "pandas.DataFrame":
        """A row for each class, phase and seed, with a column for each measure."""
        return self._table("scatter_classes")

    def _table(self, name: str) -> "pandas.DataFrame":
        import pandas

        tables = []
        for data in self.document.data:
            if data.name == name or data.name.startswith(f"{name}-"):
                table = pandas.DataFrame(data.rows, columns=list(data.heads))
                tables.append(table.replace("", math.nan))
        return pandas.concat(tables, ignore_index=True)


def measure_scatter(
    runs: "Run | str | Path | Sequence[Run | str | Path]" = "runs",
    *,
    callback: Callback | None = None,
    command: Sequence[str] = (),
) -> ScatterReport:
    """How far test images scatter against training images, by phase and class.

    Distances within a class, from its test to its training images and between their means, and the
    margin to the nearest other class; of classes that were trained on and of those that were not.
    `runs` are runs, run folders, or folders that hold some; it takes their stored embeddings.

    Raises ValueError where no run has embeddings of two phases.
    Source: docs/protocols_and_statistics.md.

    >>> scatter = db.measure_scatter("runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42")
    >>> means = scatter.means.set_index(["model", "classes", "measure"])["value"]
    >>> bool(0 <= means["limited", "unseen", "test_to_train"] <= 2)
    True
    """
    from dml_bench.analysis.collect import collect, studies_of
    from dml_bench.report.compose import made_by
    from dml_bench.report.scatter import compose_scatter

    several = [runs] if isinstance(runs, str | Path) or not isinstance(runs, Sequence) else runs
    folders = [folder_and_images(run, None)[0] for run in several]
    maker = tuple(command) or ("dml_bench.measure_scatter", *map(str, folders))
    collection = collect(folders, progress=callback_or_log(callback).progress)
    return ScatterReport(compose_scatter(studies_of(collection), made_by(maker)))


def write_report(
    runs: "Run | str | Path | Sequence[Run | str | Path]" = "runs",
    out: PathLike = "reports/report",
    *,
    data_dir: PathLike | None = None,
    table: str = "",
    figures: Sequence[str] = ("*",),
    callback: Callback | None = None,
    command: Sequence[str] = (),
) -> Path:
    """Answer the study's four questions from finished runs, on a page that needs no network.

    `runs` are runs, run folders, or folders that hold some. Writes index.html, report.md, figures
    and tables into `out`, and returns the page. `figures` are patterns of the names of the wanted
    ones, by default all; `command` is what the page names as its maker.
    With a `table` over several data sets (`reality`), `runs` is one folder of records, and the page
    compares the methods of the table over its data sets.

    Raises ValueError where there is no finished run, no record of the table, or a page or table in
    `out` that no report wrote.
    Source: docs/study.md.

    >>> db.write_report("runs", "my_report")
    PosixPath('my_report/index.html')
    """
    from dml_bench.report.compose import report

    several = [runs] if isinstance(runs, str | Path) or not isinstance(runs, Sequence) else runs
    folders = [folder_and_images(run, None)[0] for run in several]
    made_by = tuple(command) or ("dml_bench.write_report", *map(str, folders))
    heard = callback_or_log(callback)
    if table:
        from dml_bench.board.over_data_sets_page import report_over_data_sets

        wanted = texts_of(figures, "figures")
        report_over_data_sets(table, folders, path_of(out), made_by, heard.note, figures=wanted)
    else:
        report(
            folders,
            path_of(out),
            made_by,
            say=heard.note,
            data_dir=optional_path(data_dir),
            progress=heard.progress,
            figures=texts_of(figures, "figures"),
        )
    return path_of(out) / "index.html"


def record_runs(
    runs: "Run | str | Path | Sequence[Run | str | Path]" = "runs",
    results: PathLike = "results",
    *,
    callback: Callback | None = None,
) -> list[Path]:
    """Record finished runs, and return the paths of their records.

    `runs` are runs, run folders, or folders that hold some; `results` is the folder of the records.
    A record has 15 to 40 kilobytes and holds configuration, origin, summary, epochs, and the
    answer to each query. `load_run`, `load_runs`, `compare` and `write_report` read it like a run
    folder. Of runs that are not finished or can't be read, and of all but the first of those that
    would have the same record, `callback` is warned.

    Raises ValueError where there is no finished run, or a record there is of other images.
    Source: docs/scale.md.

    >>> paths = db.record_runs("runs/EPSHN_cosine_resnet18_sgd_aug", "my_results")
    >>> run = db.load_run("runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42")
    >>> db.load_run(paths[0]).metrics == run.metrics
    True
    """
    from dml_bench.analysis.recording import record_run
    from dml_bench.runs.record import record_path
    from dml_bench.runs.run import read_folder, run_folders

    several = [runs] if isinstance(runs, str | Path) or not isinstance(runs, Sequence) else runs
    heard = callback_or_log(callback)
    folders: dict[Path, Path] = {}
    for run in several:
        below = run_folders(folder_and_images(run, None)[0])
        folders |= {folder.resolve(): folder for folder in below}
    of_records: dict[Path, Path] = {}
    for number, folder in enumerate(folders.values(), start=1):
        try:
            finished = read_folder(folder)
        except ValueError as problem:
            heard.warn(str(problem))
        else:
            path = record_path(path_of(results), finished.experiment, finished.dataset_name)
            if finished.is_complete and path in of_records:
                heard.warn(
                    f"{folder} is left out: {of_records[path]} has the same record, {path}; record"
                    " them apart with --results DIR"
                )
            elif finished.is_complete:
                of_records[record_run(path_of(results), finished)] = folder
        heard.progress("recording runs", number, len(folders))
    if not of_records:
        names = " and ".join(str(run) for run in several)
        raise ValueError(f"{names} holds no finished run: name a folder of run folders")
    return list(of_records)


def log_to_wandb(
    run: "Run | str | Path",
    *,
    mode: WandbMode = "offline",
    evidence: int = 8,
    explained: int = 4,
    data_dir: PathLike | None = None,
    callback: Callback | None = None,
) -> list[str]:
    """Add figures, neighbour panels, explanation panels and embeddings to a run's W&B mirror, and
    return their names.

    `mode` is offline (no account, no network) or online; `evidence` and `explained` count mistaken
    queries that are shown. The run folder stays the record.

    Raises ValueError where the run or its images can't be read, or no login is known.
    Source: https://docs.wandb.ai

    >>> db.log_to_wandb("runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42", mode="disabled")[-1]
    'limited_embeddings'
    """
    from dml_bench.tracking.artifacts import show

    folder, images = folder_and_images(run, data_dir)
    heard = callback_or_log(callback)
    return show(
        folder,
        mode,
        data_dir=images,
        evidence=count_of(evidence, "evidence"),
        explained=count_of(explained, "explained"),
        warn=heard.warn,
        progress=heard.progress,
    )


def sync_to_wandb(run: "Run | str | Path") -> list[Path]:
    """Send what a run logged offline to the W&B server, and return the folders that were sent.

    Raises ValueError where nothing was logged, no login is known, or the server can't be reached.
    Source: https://docs.wandb.ai

    >>> db.sync_to_wandb("runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-43")
    Traceback (most recent call last):
    NotSent: ...
    """
    from dml_bench.tracking.wandb_mirror import sync

    return sync(run_of(run).folder)
