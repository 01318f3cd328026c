"""What several verbs take and say in the same way: options, the terminal, notes beside a result."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from dml_bench.system.terminal import TerminalCallback
__all__ = [
    "DEFAULT_CACHE",
    "CacheDir",
    "DataDir",
    "DatasetName",
    "Demo",
    "Device",
    "Folds",
    "GalleryDir",
    "Holdouts",
    "ImagesDir",
    "IndexName",
    "Name",
    "Names",
    "Only",
    "Out",
    "PhaseName",
    "PrintJobs",
    "Ray",
    "RunFolderPath",
    "Seeds",
    "Set",
    "SkipUnreadable",
    "TableFolder",
    "Wandb",
    "WandbMode",
    "in_home",
    "overrides_of",
    "say_aside",
    "split_seeds",
    "terminal",
    "terminal_callback",
]


class WandbMode(StrEnum):
    offline = "offline"
    online = "online"
    disabled = "disabled"


DEFAULT_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "dml-bench"


def in_home(folder: Path) -> Path:
    """A folder whose ~ is the home folder. Raises ValueError where there is none."""
    try:
        return folder.expanduser()
    except RuntimeError:
        raise ValueError(
            f"{folder}: there is no home folder here: set HOME, or name a folder with"
            " --cache-dir DIR"
        ) from None


Name = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT", help="A named experiment, or the path of a .toml or .json file."
    ),
]


Set = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="Change one value, e.g. optimizer.lr=0.01 or unseen=last:5; repeatable.",
        metavar="KEY=VALUE",
    ),
]


Demo = Annotated[
    bool,
    typer.Option(
        "--demo", help="Apply the demo profile: drawn birds, 64 px, a few minutes on a CPU."
    ),
]


CacheDir = Annotated[
    Path,
    typer.Option(
        envvar="DML_BENCH_CACHE",
        callback=in_home,
        help="Where decoded images, drawn birds and pretrained backbones are kept.",
    ),
]


DataDir = Annotated[Path | None, typer.Option(help="Where the data set lies.")]


ImagesDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Where the run's images lie now, if they were moved.", show_default=False
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
            "Train this many models per phase, each without a part of the training images; they"
            " answer together."
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
        help="Seeds, joined by commas; each is a run of its own.",
        metavar="N,N,...",
        show_default=False,
    ),
]


Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


Out = Annotated[Path, typer.Option(help="Where run folders are made.")]


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
    ),
]


Only = Annotated[
    list[str],
    typer.Option(
        "--only", help="Only rows whose name matches, e.g. 'EPSHN*'; repeatable.", metavar="GLOB"
    ),
]


TableFolder = Annotated[
    Path | None,
    typer.Option(
        help="Where the table is written; by default a folder in --out.", show_default=False
    ),
]


Ray = Annotated[
    str,
    typer.Option(
        help=(
            "Run on Ray: the cluster that this machine belongs to (auto), the one at HOST:PORT, or"
            " one started here (local)."
        ),
        metavar="auto|HOST:PORT|local",
        show_default=False,
    ),
]


PrintJobs = Annotated[
    bool,
    typer.Option(
        "--print-jobs",
        help="Run nothing; print a command for each run that is not finished, for SLURM or xargs.",
    ),
]


RunFolderPath = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="Folder of a finished run, or of an experiment that was run once."
    ),
]


PhaseName = Annotated[
    str,
    typer.Option("--phase", help="Whose model and gallery: all, limited, ...", show_default="all"),
]


GalleryDir = Annotated[
    Path | None,
    typer.Option("--gallery", help="Folder of a changed gallery other than RUN/gallery."),
]


IndexName = Annotated[
    str,
    typer.Option(
        help=(
            "flat (exact), hnsw, ivf, ivfpq or sq8, which may miss some and say how many; e.g."
            " ivf:nprobe=16. By default all images are compared."
        ),
        metavar="NAME[:KEY=VALUE,...]",
        show_default=False,
    ),
]


def overrides_of(
    demo: bool, dataset: str, skip_unreadable: bool, holdouts: str, set_: list[str]
) -> list[str]:
    """The options that change values of an experiment, as --set has them."""
    if demo and dataset:
        raise ValueError(f"--demo brings its own data set; drop it, or drop --dataset {dataset}")
    chosen = [f"data.dataset={dataset}"] if dataset else []
    chosen += ["data.skip_unreadable=true"] if skip_unreadable else []
    chosen += [f"unseen={holdouts}"] if holdouts else []
    return [*chosen, *set_]


def split_seeds(text: str) -> list[int]:
    if not text:
        return []
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise ValueError(
            f"--seeds {text}: write whole numbers joined by commas, e.g. --seeds 42,43,44"
        )
    return [int(part) for part in parts]


def terminal(stderr: bool = False) -> "Console":
    """The terminal, or 120 columns where the output is no terminal."""
    from rich.console import Console

    # What is shown holds names that people gave: [XL] is no style, and :bag: no picture.
    return Console(
        width=None if sys.stdout.isatty() else 120, stderr=stderr, markup=False, emoji=False
    )


def terminal_callback() -> "TerminalCallback":
    from dml_bench.system.terminal import TerminalCallback

    return TerminalCallback(terminal())


def say_aside(text: str) -> None:
    """A line that is no part of the result, which may be JSON."""
    typer.echo(text, err=True)
