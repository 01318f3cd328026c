"""What several verbs take and say in the same way: options, the terminal, notes beside a result."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dml_bench.cli.completion import complete_experiment, complete_override
from dml_bench.config.variants import refuse_twice, setting_of
from dml_bench.system.cache_folder import DEFAULT_CACHE, cache_folder
from dml_bench.system.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from dml_bench.report.printed import PrintedRecord
    from dml_bench.runs.run import Run
    from dml_bench.system.terminal import TerminalCallback

__all__ = [
    "DEFAULT_CACHE",
    "AllowPlugin",
    "Browsed",
    "CacheDir",
    "DataDir",
    "DatasetName",
    "Demo",
    "Device",
    "ExplainFolder",
    "ExplainedTarget",
    "Folds",
    "GalleryDir",
    "Holdouts",
    "ImagesDir",
    "IndexName",
    "Labels",
    "Layer",
    "Method",
    "Mistakes",
    "Name",
    "Names",
    "OfClass",
    "OfImages",
    "Only",
    "Other",
    "Out",
    "PhaseName",
    "Precision",
    "PrintJobs",
    "Ray",
    "Results",
    "RunFolderPath",
    "Runs",
    "Scored",
    "Seeds",
    "Set",
    "SkipUnreadable",
    "Sweep",
    "TableFolder",
    "TargetOfMaps",
    "Threshold",
    "UnknownShare",
    "Unseen",
    "Wandb",
    "WandbMode",
    "Without",
    "beside_result",
    "each_seed",
    "overrides_of",
    "refuse_beside_print_jobs",
    "say_aside",
    "show",
    "show_run",
    "split_seeds",
    "stopped_by_ctrl_c",
    "terminal",
    "terminal_callback",
]


class WandbMode(StrEnum):
    """Where W&B's log of a run goes."""

    offline = "offline"
    online = "online"
    disabled = "disabled"


class ExplainedTarget(StrEnum):
    """What the maps of `explain` are about."""

    own = "class"
    predicted = "predicted"
    nearest = "nearest"
    logit = "logit"


Name = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="A named experiment, or the path of a .toml or .json file.",
        autocompletion=complete_experiment,
    ),
]


Set = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="Change one value, e.g. optimizer.lr=0.01 or unseen=last:5; repeatable.",
        metavar="KEY=VALUE",
        autocompletion=complete_override,
    ),
]


Sweep = Annotated[
    list[str],
    typer.Option(
        "--sweep",
        help="Run each row with each of these values; several are combined; repeatable.",
        metavar="KEY=VALUE,...",
    ),
]


Demo = Annotated[
    bool,
    typer.Option(
        "--demo", help="Use the demo profile: small images of drawn birds, a few minutes on a CPU."
    ),
]


CacheDir = Annotated[
    Path,
    typer.Option(
        envvar="DML_BENCH_CACHE",
        callback=cache_folder,
        help="Folder of decoded images, drawn birds and pretrained backbones.",
    ),
]


DataDir = Annotated[Path | None, typer.Option(help="Folder of the data set.")]


ImagesDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Folder of the run's images, if they were moved.", show_default=False
    ),
]


Holdouts = Annotated[
    str,
    typer.Option(
        help=(
            "Classes held out of the second phase: last:20, random:20, or 'random:20 x 5' for five"
            " rotated hold-outs."
        ),
        metavar="RULE",
        show_default=False,
    ),
]


Folds = Annotated[
    int,
    typer.Option(
        help=(
            "Number of models per phase, each trained without a part of the training images. They"
            " predict as an ensemble."
        ),
        show_default=False,
    ),
]


DatasetName = Annotated[
    str,
    typer.Option(
        "--dataset", help="Replace the data set: cub, folder, csv, demo, ...", show_default=False
    ),
]


Seeds = Annotated[
    str,
    typer.Option(
        help="Seeds, joined by commas; each seed is one run.",
        metavar="N,N,...",
        show_default=False,
    ),
]


Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


Out = Annotated[Path, typer.Option(help="Folder in which run folders are made.")]


Wandb = Annotated[
    WandbMode,
    typer.Option(help="Weights & Biases mirror; offline needs no account and no network."),
]


SkipUnreadable = Annotated[
    bool,
    typer.Option(
        "--skip-unreadable", help="Leave out images that can't be decoded, and record which."
    ),
]


Names = Annotated[
    list[str],
    typer.Argument(
        metavar="[EXPERIMENT]...",
        help="Experiments or .toml files, in place of a table.",
        show_default=False,
        autocompletion=complete_experiment,
    ),
]


Only = Annotated[
    list[str],
    typer.Option(
        "--only",
        help="Only rows whose name matches, e.g. 'EPSHN*'; repeatable.",
        metavar="GLOB",
        autocompletion=complete_experiment,
    ),
]


TableFolder = Annotated[
    Path | None,
    typer.Option(help="Folder for the table; by default a folder in --out.", show_default=False),
]


Results = Annotated[Path, typer.Option(help="Folder of the records of runs.")]


Runs = Annotated[
    list[Path],
    typer.Argument(
        metavar="[RUNS]...", help="Run folders, or folders of run folders.", show_default="runs"
    ),
]


Ray = Annotated[
    str,
    typer.Option(
        help=(
            "Run on a Ray cluster: that of this machine (auto), one at HOST:PORT, or one started"
            " here (local)."
        ),
        metavar="auto|HOST:PORT|local",
        show_default=False,
    ),
]


PrintJobs = Annotated[
    bool,
    typer.Option(
        "--print-jobs",
        help="Run nothing; print one command for each unfinished run, for SLURM or xargs.",
    ),
]


RunFolderPath = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="Folder of a finished run, or of an experiment with one run."
    ),
]


PhaseName = Annotated[
    str,
    typer.Option(
        "--phase",
        help="Phase whose model and gallery are used: all, limited, ...",
        show_default="all",
    ),
]


GalleryDir = Annotated[
    Path | None,
    typer.Option("--gallery", help="Folder of a changed gallery, if it is not RUN/gallery."),
]


Threshold = Annotated[
    float | None,
    typer.Option(
        help="Similarity of the closest image below which a photo is unknown.",
        min=-1,
        max=1,
        show_default=False,
    ),
]


Precision = Annotated[
    float | None,
    typer.Option(
        help="Precision to keep on new photos, with 95% confidence. Other photos are unknown.",
        show_default=False,
    ),
]


UnknownShare = Annotated[
    float,
    typer.Option(help="Share of photos of classes that are not enrolled, for --precision."),
]


IndexName = Annotated[
    str,
    typer.Option(
        help=(
            "FAISS index, e.g. ivf:nprobe=16: flat (exact), hnsw, ivf, ivfpq or sq8. Approximate"
            " indexes print what they miss. By default all images are compared. For predict also a"
            " vector store: lancedb:PATH, qdrant:PATH, parquet:PATH or pgvector:URI."
        ),
        metavar="NAME[:KEY=VALUE,...]",
        show_default=False,
    ),
]


OfImages = Annotated[
    list[Path],
    typer.Option(
        "--images", help="Explain this image, of the run or your own; repeatable.", metavar="FILE"
    ),
]


OfClass = Annotated[
    str,
    typer.Option(
        "--class", help="Explain the queries of a class.", metavar="NAME", show_default=False
    ),
]


Mistakes = Annotated[
    int,
    typer.Option(
        help=(
            "Explain this many mistaken queries. Those come first that only the phase without some"
            " classes gets wrong."
        ),
        min=0,
        show_default=False,
    ),
]


Other = Annotated[
    Path | None,
    typer.Option(
        help="Explain the similarity to this image, in place of --target.",
        metavar="FILE",
        show_default=False,
    ),
]


TargetOfMaps = Annotated[
    ExplainedTarget,
    typer.Option(
        help=(
            "Explain the similarity to the own class, the predicted class or the nearest image, or"
            " explain the logit."
        )
    ),
]


Method = Annotated[
    list[str],
    typer.Option(
        "--method",
        help="cam, gradcam, attention, rollout, vanilla, guided or guided_gradcam; repeatable.",
        metavar="NAME",
    ),
]


Layer = Annotated[
    str, typer.Option(help="Layer whose map Grad-CAM weighs, e.g. layer3.", show_default=False)
]


Scored = Annotated[
    int, typer.Option(help="Number of queries whose maps are scored; 0 for none.", min=0)
]


ExplainFolder = Annotated[
    Path,
    typer.Option(
        help="Folder for index.html, panels, scores.csv, scores.md and explain.json.",
        show_default=False,
    ),
]


Browsed = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="Folder of a finished run, or embeddings by any program with --labels."
    ),
]


Without = Annotated[
    Path | None,
    typer.Argument(
        help="Embeddings of a model that was not trained on the classes --unseen.",
        show_default=False,
    ),
]


Labels = Annotated[
    Path | None,
    typer.Option(
        help="CSV of embeddings: a name, its class, and perhaps its split (gallery or query).",
        show_default=False,
    ),
]


Unseen = Annotated[
    str,
    typer.Option(help="New classes of embeddings: last:N, random:N, or names.", show_default=False),
]


def allow(names: list[str]) -> list[str]:
    """Let the plug-ins that a run recorded be imported."""
    from dml_bench.registry.plugins import allow_plugin

    for name in names:
        allow_plugin(name)
    return names


AllowPlugin = Annotated[
    list[str],
    typer.Option(
        "--allow-plugin",
        help=(
            "Import this plug-in of a run from another machine, whose code you have read;"
            " repeatable."
        ),
        metavar="NAME[=FILE]",
        callback=allow,
    ),
]


def overrides_of(
    demo: bool,
    dataset: str,
    skip_unreadable: bool,
    holdouts: str,
    set_: list[str],
    *,
    folds: int = 0,
) -> list[str]:
    """The options that change values of an experiment, as --set has them; --folds is the last.
    Raises ValueError where --set sets one of these values too."""
    if demo and dataset:
        raise ValueError(f"--demo brings its own data set; drop it, or drop --dataset {dataset}")
    first = {
        "--dataset": f"data.dataset={dataset}" if dataset else "",
        "--skip-unreadable": "data.skip_unreadable=true" if skip_unreadable else "",
        "--holdouts": f"unseen={holdouts}" if holdouts else "",
    }
    last = {"--folds": f"train.folds={folds}" if folds else ""}
    for option, override in (first | last).items():
        if override:
            refuse_twice(set_, setting_of(override), option)
    return [*filter(None, first.values()), *set_, *filter(None, last.values())]


def split_seeds(text: str) -> list[int]:
    """The seeds of `42,43`. Raises ValueError where the text is none."""
    if not text:
        return []
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise ValueError(
            f"--seeds {text}: write whole numbers joined by commas, e.g. --seeds 42,43,44"
        )
    return [int(part) for part in parts]


def each_seed(overrides: list[str], text: str) -> list[list[str]]:
    """The overrides once for each seed; without seeds, with the experiment's own. Raises ValueError
    where --set names a seed too."""
    seeds = split_seeds(text)
    if seeds:
        refuse_twice(overrides, "seed", "--seeds")
    return [[*overrides, f"seed={seed}"] for seed in seeds] or [overrides]


def refuse_beside_print_jobs(print_jobs: bool, ray: str, jobs: int, devices: str) -> None:
    """Raises ValueError where --print-jobs comes with options that say how to run."""
    values = {"--ray": ray, "--jobs": jobs, "--devices": devices}
    useless = [name for name, value in values.items() if value]
    if print_jobs and useless:
        raise ValueError(f"--print-jobs runs nothing: leave out {' and '.join(useless)}")


def refuse_over_data(
    table: str,
    *,
    experiments: list[str],
    only: list[str],
    demo: bool,
    overrides: list[str],
    sweeps: list[str],
) -> None:
    """Raises ValueError where a table over several data sets comes with options for one."""
    of_one = {
        "names": experiments,
        "--only": only,
        "--demo": demo,
        "--set": overrides,
        "--sweep": sweeps,
    }
    useless = [name for name, value in of_one.items() if value]
    if useless:
        raise ValueError(
            f"--table {table} brings its own data sets, rows and settings: leave out"
            f" {' and '.join(useless)} (--set is also --dataset and --holdouts)"
        )


def terminal(stderr: bool = False) -> "Console":
    """The terminal, or 120 columns where the output is no terminal."""
    from dml_bench.system.terminal import Terminal

    stream = sys.stderr if stderr else sys.stdout
    return Terminal(width=None if stream.isatty() else 120, stderr=stderr)


def terminal_callback(warned: set[str] | None = None) -> "TerminalCallback":
    """Shows progress on the terminal. Callbacks that share `warned` give each warning once."""
    from dml_bench.system.terminal import TerminalCallback

    return TerminalCallback(terminal(), warned=warned)


def beside_result() -> "TerminalCallback":
    """Shows progress, notes and warnings on stderr: they are no part of the result, which may be
    JSON."""
    from dml_bench.system.terminal import TerminalCallback

    return TerminalCallback(terminal(stderr=True), say_aside)


def show(result: "PrintedRecord", as_json: bool) -> None:
    """Print a result on the terminal, or as JSON."""
    if as_json:
        typer.echo(result.as_json())
    else:
        result.show(terminal())


def show_run(console: "Console", run: "Run") -> None:
    """What ends a run: the tables of its protocol, training and cost."""
    from dml_bench.system.terminal import show_outcome

    tables = run.protocol.outcome({**run.summary, **run.metrics})
    show_outcome(console, run.folder, run.summary, tables)


def say_aside(text: str) -> None:
    """A line that is no part of the result, which may be JSON."""
    typer.echo(printable(text), err=True)


@contextmanager
def stopped_by_ctrl_c(kept: str = "") -> Iterator[None]:
    """Ends a command at Ctrl-C with exit code 130 and a line that says what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        consequence = f"; {kept} are kept: the same command goes on from there" if kept else ""
        typer.echo(f"stopped{consequence}", err=True)
        raise typer.Exit(130) from None
