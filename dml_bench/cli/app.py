"""The command line: thin verbs over the library. Heavy imports stay inside the verbs, so that
--help is instant."""

import os
import sys
from contextlib import nullcontext
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dml_bench import __version__
from dml_bench.cli import catalogue
from dml_bench.config import experiments
from dml_bench.system import distributed, failures
from dml_bench.system.files import json_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from rich.console import Console

    from dml_bench.data.images import Unreadable
    from dml_bench.suite.executor import ExecutorSetup
    from dml_bench.suite.run import Suite
    from dml_bench.system.terminal import SuiteProgress, TerminalCallback

__all__ = ["app", "main"]

app = typer.Typer(
    help=(
        "Deep metric learning benchmark: what an embedding and a nearest-neighbour look-up can do,"
        " and what they lose on unseen classes."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to import than all the rest of --help
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Get, check and draw data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
wandb_app = typer.Typer(
    help="Show a finished run's pictures in Weights & Biases, and send what was logged offline.",
    no_args_is_help=True,
)
app.add_typer(wandb_app, name="wandb")


Kind = StrEnum("Kind", {kind: kind for kind in (*catalogue.KINDS, "all")})  # type: ignore[misc]


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


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"dml-bench {__version__}")
        raise typer.Exit
    if distributed.torchrun_rank().size > 1 and context.invoked_subcommand != "run":
        raise ValueError(
            "torchrun starts several processes, which only `run` can use; start dml-bench"
            f" {context.invoked_subcommand} without it"
        )


@app.command()
def run(
    name: Name,
    demo: Demo = False,
    data_dir: DataDir = None,
    dataset: DatasetName = "",
    set_: Set = [],  # noqa: B006 - typer copies it
    seeds: Seeds = "",
    holdouts: Holdouts = "",
    folds: Folds = 0,
    device: Device = "auto",
    out: Out = Path("runs"),
    cache_dir: CacheDir = DEFAULT_CACHE,
    wandb: Wandb = WandbMode.offline,
    force: Annotated[
        bool, typer.Option("--force", help="Start anew, replacing what the run folder holds.")
    ] = False,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Train and evaluate both phases of an experiment. Run it again to go on after an interruption.

    \b
    Example: dml-bench run EPSHN_cosine_resnet18_sgd_aug --data-dir CUB_200_2011 --seeds 42,43
    """
    overrides = overrides_of(demo, dataset, skip_unreadable, holdouts, set_) + (
        [f"train.folds={folds}"] if folds else []
    )
    each_seed = [[f"seed={seed}"] for seed in split_seeds(seeds)] or [[]]
    resolved = [
        experiments.resolve(name, profile="demo" if demo else "", overrides=[*overrides, *seed])
        for seed in each_seed
    ]
    from dml_bench.runs.execute import execute as run_experiment
    from dml_bench.runs.request import RunRequest
    from dml_bench.system.terminal import show_outcome

    for experiment in resolved:
        try:
            with terminal_watch() as callback:
                request = RunRequest(
                    experiment=experiment,
                    data_dir=data_dir,
                    out=out,
                    cache_dir=cache_dir,
                    device=device,
                    wandb=wandb.value,
                    force=force,
                    callback=callback,
                )
                outcome = run_experiment(request)
        except KeyboardInterrupt:
            typer.echo(
                "stopped; finished epochs are kept: the same command goes on from there", err=True
            )
            raise typer.Exit(130) from None
        if outcome.already_finished:
            typer.echo("this run is finished already; --force redoes it")
        show_outcome(callback.console, outcome.folder, outcome.summary)


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


@app.command()
def suite(  # noqa: PLR0913, PLR0917 - its parameters are its options
    names: Names = [],  # noqa: B006
    table: Annotated[
        str, typer.Option(help="Which table of experiments.", show_default="study")
    ] = "",
    only: Only = [],  # noqa: B006
    demo: Demo = False,
    data_dir: DataDir = None,
    dataset: DatasetName = "",
    set_: Set = [],  # noqa: B006
    seeds: Seeds = "",
    holdouts: Holdouts = "",
    jobs: Annotated[
        int,
        typer.Option(
            help="Runs at a time; by default one per device, or 2 on a CPU.",
            show_default=False,
            min=0,
        ),
    ] = 0,
    device: Device = "auto",
    devices: Annotated[
        str,
        typer.Option(help="Devices that the runs share, e.g. cuda:0,cuda:1.", show_default=False),
    ] = "",
    out: Out = Path("runs"),
    report: TableFolder = None,
    cache_dir: CacheDir = DEFAULT_CACHE,
    wandb: Wandb = WandbMode.offline,
    skip_unreadable: SkipUnreadable = False,
    ray: Ray = "",
    gpus_per_run: Annotated[
        float, typer.Option(help="With --ray: the part of a GPU that each run takes.")
    ] = 1.0,
    print_jobs: PrintJobs = False,
) -> None:
    """Run a table of experiments, each in a process of its own, and set them side by side. Finished
    runs are kept; the same command goes on where an earlier one stopped. Exit code 1 if a run
    failed.

    \b
    Example: dml-bench suite --demo --only 'EPSHN*' --seeds 42,43,44 --report reports/demo
    """
    if print_jobs and (
        given := [
            name
            for name, value in (("--ray", ray), ("--jobs", jobs), ("--devices", devices))
            if value
        ]
    ):
        raise ValueError(f"--print-jobs runs nothing: leave out {' and '.join(given)}")
    overrides = overrides_of(demo, dataset, skip_unreadable, holdouts, set_)
    from dml_bench.suite.plan import chosen_rows

    name, title, rows = chosen_rows(
        names,
        table,
        only,
        profile="demo" if demo else "",
        overrides=overrides,
        seeds=split_seeds(seeds),
    )
    from dml_bench.suite.run import Suite, commands
    from dml_bench.system.terminal import SuiteProgress

    asked = Suite(
        name=name,
        title=title,
        rows=rows,
        profile="demo" if demo else "",
        overrides=tuple(overrides),
        data_dir=data_dir,
        out=out,
        cache_dir=cache_dir,
        report=report,
        wandb=wandb.value,
        command=("dml-bench", *sys.argv[1:]),
    )
    if print_jobs:
        for line in commands(asked, device, SuiteProgress(terminal(stderr=True))):
            typer.echo(line)
        return
    display = SuiteProgress(terminal())
    carry_out(asked, engine_of(ray, jobs, device, devices, gpus_per_run, display), display)


def carry_out(
    asked: "Suite", engine: "AbstractContextManager[ExecutorSetup]", display: "SuiteProgress"
) -> None:
    """Run a suite; exit with 130 after Ctrl-C and with 1 if a run failed."""
    from dml_bench.suite.run import run_suite

    try:
        ended = run_suite(asked, engine, display)
    except KeyboardInterrupt:
        typer.echo(
            "stopped; finished runs and epochs are kept: the same command goes on from there",
            err=True,
        )
        raise typer.Exit(130) from None
    if any(run.status == "failed" for run in ended):
        raise typer.Exit(1)


def engine_of(
    ray: str, jobs: int, device: str, devices: str, gpus_per_run: float, display: "SuiteProgress"
) -> "AbstractContextManager[ExecutorSetup]":
    """What carries out the runs of a suite. Raises ValueError for options that don't go
    together."""
    from dml_bench.suite.executor import ExecutorSetup
    from dml_bench.suite.local import Processes, slots_of

    if not ray:
        if gpus_per_run != 1:
            raise ValueError(
                "--gpus-per-run is for --ray: here, --jobs says how many runs share the --devices"
            )
        return nullcontext(ExecutorSetup(slots_of(jobs, device, devices), Processes))
    if devices:
        raise ValueError(
            f"--devices {devices}: Ray gives out the GPUs; leave it out, or see --gpus-per-run"
        )
    from dml_bench.suite.ray import on_ray

    return on_ray(ray, jobs, device, gpus_per_run, display.say)


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


@app.command()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN RUN...",
            help="Run folders, or folders with the runs of one experiment, one per seed.",
            show_default=False,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every class.")] = False,
) -> None:
    """Say which experiment is better, by how much and how sure that is, overall and class by class.

    \b Example: dml-bench compare runs/ArcFace_cosine_resnet18_sgd_aug/demo
    runs/EPSHN_cosine_resnet18_sgd_aug/demo
    """
    if len(runs) < 2:
        raise ValueError("compare needs two runs or more: dml-bench compare RUN RUN")
    from dataclasses import asdict

    from dml_bench.analysis.compare import compare as compare_sides
    from dml_bench.analysis.compare import read_sides
    from dml_bench.system.terminal import show_comparison

    found = compare_sides(read_sides(runs))
    if as_json:
        typer.echo(json_text([asdict(comparison) for comparison in found]))
        return
    for comparison in found:
        show_comparison(terminal(), comparison)


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.", show_default=False)],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with the options of each entry.")
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table of docs/components.md.")
    ] = False,
) -> None:
    """List what can be named in an experiment, with summaries and sources.

    \b
    Example: dml-bench list losses
    """
    chosen = catalogue.KINDS if kind.value == "all" else (kind.value,)
    found = {kind: catalogue.entries(kind) for kind in chosen}
    if as_json:
        typer.echo(json_text(found if kind.value == "all" else found[kind.value]))
    elif as_markdown:
        typer.echo(catalogue.as_page(found), nl=False)
    else:
        for name, entries in found.items():
            terminal().print(catalogue.as_rich(name, entries))


@app.command()
def show(
    name: Name,
    demo: Demo = False,
    set_: Set = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of TOML.")] = False,
) -> None:
    """Print an experiment as it will run, with every value; the output is itself a file that `run`
    takes.

    \b
    Example: dml-bench show EPSHN_cosine_resnet18_sgd_aug > my.toml
    """
    import tomli_w

    from dml_bench.config import as_table

    table = as_table(experiments.resolve(name, profile="demo" if demo else "", overrides=set_))
    typer.echo(json_text(table) if as_json else tomli_w.dumps(table), nl=as_json)


@app.command("lr-find")
def lr_find(
    name: Name,
    out: Annotated[
        Path,
        typer.Option(
            help="Picture to write, .png or .svg; the numbers go into a .csv beside it.",
            show_default=False,
        ),
    ],
    demo: Demo = False,
    data_dir: DataDir = None,
    dataset: DatasetName = "",
    set_: Set = [],  # noqa: B006
    low: Annotated[float, typer.Option(help="The first learning rate.")] = 1e-6,
    high: Annotated[
        float, typer.Option(help="The last one, if the loss does not explode before.")
    ] = 10.0,
    steps: Annotated[int, typer.Option(help="How many rates, one a batch.")] = 100,
    device: Device = "auto",
    cache_dir: CacheDir = DEFAULT_CACHE,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Train at ever higher learning rates until the loss explodes, draw its curve and suggest a
    rate. No run folder is made and no test image looked at.

    \b
    Example: dml-bench lr-find crossentropy_resnet18_sgd_aug --demo --out lr.png
    """
    if out.suffix.lower() not in (".png", ".svg"):
        raise ValueError(
            f"--out {out}: a picture's name is wanted, e.g. --out {out.stem or 'lr'}.png"
        )
    overrides = overrides_of(demo, dataset, skip_unreadable, "", set_)
    experiment = experiments.resolve(name, profile="demo" if demo else "", overrides=overrides)
    from dml_bench.plots.figures import learning_rates, standalone
    from dml_bench.system.files import write_atomically, write_csv
    from dml_bench.training.lr_finder import smoothed, sweep

    with terminal_watch() as callback:
        found = sweep(
            experiment,
            data_dir=data_dir,
            cache_dir=cache_dir,
            device=device,
            low=low,
            high=high,
            steps=steps,
            callback=callback,
        )
    drawn = learning_rates(found)
    picture = drawn.png if out.suffix.lower() == ".png" else standalone(drawn.svg).encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda file: file.write(picture))
    rows = zip(
        found.rates.tolist(), found.losses.tolist(), smoothed(found.losses).tolist(), strict=True
    )
    write_csv(out.with_suffix(".csv"), ("learning_rate", "loss", "smoothed_loss"), rows)
    typer.echo(f"{out}: {found.suggestion()}")


@app.command("show-batch")
def show_batch(
    name: Name,
    out: Annotated[Path, typer.Option(help="Picture to write, .png or .jpg.", show_default=False)],
    demo: Demo = False,
    data_dir: DataDir = None,
    dataset: DatasetName = "",
    set_: Set = [],  # noqa: B006
    epoch: Annotated[int, typer.Option(help="Epoch whose batches are drawn.", min=1)] = 1,
    batches: Annotated[int, typer.Option(help="How many batches.", min=1)] = 1,
    images: Annotated[int, typer.Option(help="How many images of each batch.", min=1)] = 32,
    cache_dir: CacheDir = DEFAULT_CACHE,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Draw training batches as the network would be fed with them: augmented, resized and mixed,
    with labels and their weights.

    \b Example: dml-bench show-batch EPSHN_cosine_resnet18_sgd_aug --demo --set augment.rotate=30
    --out sheet.png
    """
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(
            f"--out {out}: a picture's name is wanted, e.g. --out {out.stem or 'sheet'}.png"
        )
    overrides = overrides_of(demo, dataset, skip_unreadable, "", set_)
    experiment = experiments.resolve(name, profile="demo" if demo else "", overrides=overrides)
    from dml_bench.system.files import write_atomically
    from dml_bench.training.preview import preview

    with terminal_watch() as callback:
        sheet = preview(
            experiment,
            data_dir=data_dir,
            cache_dir=cache_dir,
            epoch=epoch,
            batches=batches,
            images=images,
            callback=callback,
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(
        out, lambda file: sheet.save(file, "PNG" if out.suffix.lower() == ".png" else "JPEG")
    )
    typer.echo(f"{out}: {sheet.width} x {sheet.height} pixels")


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="[RUNS]...", help="Run folders, or folders that hold some.", show_default="runs"
        ),
    ] = [],  # noqa: B006
    out: Annotated[
        Path, typer.Option(help="Folder to write index.html, report.md, figures and tables in.")
    ] = Path("reports/report"),
    data_dir: ImagesDir = None,
) -> None:
    """Answer the study's four questions from finished runs, on one page that needs no network, with
    figures and tables.

    \b
    Example: dml-bench report runs --out reports/demo
    """
    from dml_bench.report.compose import report as write_report

    write_report(
        runs or [Path("runs")],
        out,
        ("dml-bench", *sys.argv[1:]),
        say=lambda text: typer.echo(text, err=True),
        data_dir=data_dir,
    )


@data_app.command("fetch")
def data_fetch(
    dataset: Annotated[str, typer.Argument(help="cub", show_default=False)],
    data_dir: Annotated[
        Path, typer.Option(help="Folder to make CUB_200_2011 in.", show_default=False)
    ],
    archive: Annotated[
        Path | None, typer.Option(help="A .tgz that was downloaded by hand.", show_default=False)
    ] = None,
) -> None:
    """Download, check and unpack a data set; goes on where an earlier download stopped.

    \b
    Example: dml-bench data fetch cub --data-dir /data
    """
    if dataset != "cub":
        raise ValueError(f"{dataset!r} can't be fetched; only cub can")
    from dml_bench.data.fetch import fetch_cub

    with terminal_watch() as callback:
        typer.echo(fetch_cub(data_dir, archive=archive, progress=callback.progress))


@data_app.command("check")
def data_check(
    dataset: Annotated[str, typer.Argument(help="cub, folder, csv, demo, ...", show_default=False)],
    data_dir: DataDir = None,
    cache_dir: CacheDir = DEFAULT_CACHE,
    set_: Set = [],  # noqa: B006
    seed: Annotated[
        int, typer.Option(help="Seed of the split in which copies are looked for.")
    ] = 42,
) -> None:
    """Count images and classes, decode every image, and look for copies, also saved again, between
    train and test. Reports all that it finds. Exit code 1 on problems.

    \b
    Example: dml-bench data check cub --data-dir /data/CUB_200_2011
    """
    from dml_bench.data.check import check, render, sides
    from dml_bench.data.datasets import open_dataset

    config = experiments.resolve(
        "EPSHN_cosine_resnet18_sgd_aug", overrides=[f"data.dataset={dataset}", *set_]
    ).data
    with terminal_watch() as callback:
        images = open_dataset(config.dataset, data_dir, cache_dir, callback.progress, tolerant=True)
        split, refused = sides(images, config, seed)
        report = check(images, split=split, refused=refused, progress=callback.progress)
    terminal().print(render(report))
    if report.problems:
        raise typer.Exit(1)


@data_app.command("statistics")
def data_statistics(
    name: Name,
    out: Annotated[
        Path | None, typer.Option(help="File to write them in, .json.", show_default=False)
    ] = None,
    demo: Demo = False,
    data_dir: DataDir = None,
    dataset: DatasetName = "",
    set_: Set = [],  # noqa: B006
    cache_dir: CacheDir = DEFAULT_CACHE,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Compute the channel means and deviations of the images that each phase of an experiment
    trains on, for images.mean and images.std.

    \b
    Example: dml-bench data statistics EPSHN_cosine_resnet18_sgd_aug --demo --out statistics.json
    """
    if out is not None and out.suffix.lower() != ".json":
        raise ValueError(f"--out {out}: the name of a .json file is wanted")
    overrides = overrides_of(demo, dataset, skip_unreadable, "", set_)
    experiment = experiments.resolve(name, profile="demo" if demo else "", overrides=overrides)
    from dml_bench.system.files import write_json
    from dml_bench.training.channel_statistics import advice, channel_statistics

    with terminal_watch() as callback:
        found = channel_statistics(
            experiment, data_dir=data_dir, cache_dir=cache_dir, callback=callback
        )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, found)
    typer.echo(advice(found))


@data_app.command("draw")
def data_draw(
    out: Annotated[
        Path, typer.Option(help="Folder to make, in CUB-200-2011's layout.", show_default=False)
    ],
    classes: Annotated[int, typer.Option(help="Number of species.")] = 40,
    per_class: Annotated[int, typer.Option(help="Images of each species.")] = 24,
    size: Annotated[int, typer.Option(help="Side of an image in pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Other seeds draw other species and other images.")] = 7,
    cub_shape: Annotated[
        bool,
        typer.Option(
            "--cub-shape", help="The classes and image counts of CUB-200-2011: 200 and 11,788."
        ),
    ] = False,
) -> None:
    """Write drawn birds with bounding boxes and part boxes.

    \b
    Example: dml-bench data draw --out birds --classes 10 --per-class 20
    """
    from dml_bench.data.synthetic import cub_counts, write

    if out.exists():
        raise ValueError(f"{out} exists already; name a folder that does not")
    counts = list(cub_counts().values()) if cub_shape else [per_class] * classes
    names = list(cub_counts()) if cub_shape else None
    done = 0
    with terminal_watch() as callback:

        def tell(images: int) -> None:
            nonlocal done
            done += images
            callback.progress(f"drawing {sum(counts):,} birds", done, sum(counts))

        typer.echo(
            write(out, counts=counts, size=size, seed=seed, class_names=names, progress=tell)
        )


def terminal(stderr: bool = False) -> "Console":
    """The terminal, or 120 columns where the output is no terminal."""
    from rich.console import Console

    # What is shown holds names that people gave: [XL] is no style, and :bag: no picture.
    return Console(
        width=None if sys.stdout.isatty() else 120, stderr=stderr, markup=False, emoji=False
    )


def terminal_watch() -> "TerminalCallback":
    from dml_bench.system.terminal import TerminalCallback

    return TerminalCallback(terminal())


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


@app.command()
def enrol(
    run: RunFolderPath,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Photos: one folder per class, new or known. Photos of known classes join them.",
            metavar="DIR",
        ),
    ] = None,
    remove: Annotated[
        list[str], typer.Option(help="Remove a class; repeatable.", metavar="CLASS")
    ] = [],  # noqa: B006
    rename: Annotated[
        list[str], typer.Option(help="Rename a class; repeatable.", metavar="OLD=NEW")
    ] = [],  # noqa: B006
    phase: PhaseName = "",
    gallery: GalleryDir = None,
    device: Device = "auto",
) -> None:
    """Add classes to a run's gallery without training, or remove or rename some. The run's own
    result stays as it is. Exit code 1 if an image can't be read; the others are enrolled.

    \b
    Example: dml-bench enrol runs/EPSHN_cosine_resnet18_sgd_aug --images my_birds
    """
    if not (images or remove or rename):
        raise ValueError("nothing to do: give --images DIR, --remove CLASS or --rename OLD=NEW")
    from dml_bench.gallery.embedder import GalleryEmbedder
    from dml_bench.gallery.enrol import Changes, change, photos_by_class, renamings
    from dml_bench.gallery.format import enrolment_words
    from dml_bench.gallery.store import open_gallery_file

    photos = photos_by_class(images, say_aside) if images else ()
    place = open_gallery_file(run, phase, gallery)
    renamed = renamings(rename, place.read(new=True).class_names) if rename else ()
    changes = Changes(remove=tuple(remove), rename=renamed, photos=photos)
    with terminal_watch() as callback:
        done = change(
            place,
            changes,
            lambda: GalleryEmbedder(place.run, place.phase, device),
            lambda *at: callback.progress("embedding", *at),
        )
    typer.echo(f"{enrolment_words(place.run, done)} ({place.path})")
    name_unreadable(done.unreadable)


@app.command()
def predict(
    run: RunFolderPath,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Photos, or folders of them.", show_default=False),
    ],
    k: Annotated[
        int, typer.Option("--k", help="How many of the closest images vote and are named.", min=1)
    ] = 10,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Similarity of the closest image below which the answer is unknown.",
            min=-1,
            max=1,
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        float, typer.Option(help="Choose the threshold at which this part of the answers is right.")
    ] = 0.95,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON, with all k closest images and the time it took."),
    ] = False,
    index: IndexName = "",
    phase: PhaseName = "",
    gallery: GalleryDir = None,
    device: Device = "auto",
) -> None:
    """Look photos up in a run's gallery: class, vote, similarity, the closest images, or unknown.
    Exit code 1 if an image can't be read; the others are answered.

    \b
    Example: dml-bench predict runs/EPSHN_cosine_resnet18_sgd_aug photo.jpg --precision 0.9
    """
    from dml_bench.gallery.embedder import GalleryEmbedder
    from dml_bench.gallery.enrol import named_images
    from dml_bench.gallery.format import as_json as answers_as_json
    from dml_bench.gallery.format import as_table, notes
    from dml_bench.gallery.index_store import opened, search_all
    from dml_bench.gallery.indexes import parse
    from dml_bench.gallery.predict import predict, recall_queries, threshold_of
    from dml_bench.gallery.store import open_gallery_file

    files = named_images(images, say_aside)
    choice = parse(index) if index else None
    place = open_gallery_file(run, phase, gallery)
    entries = place.read()
    look = None
    if choice is not None:
        asked = partial(recall_queries, place.run, place.phase, entries)
        look = opened(place, entries, choice, asked, lambda text: typer.echo(text, err=True))
    search = look.search if look else search_all
    bar = threshold_of(place, entries, threshold, precision, search)
    answers = predict(
        entries,
        GalleryEmbedder(place.run, place.phase, device),
        files,
        k=k,
        threshold=bar.value,
        search=search,
    )
    if as_json:
        typer.echo(json_text(answers_as_json(answers, bar, look)))
    else:
        terminal().print(as_table(place.run, answers))
        for note in notes(place.run, entries, bar, look):
            typer.echo(note)
    name_unreadable(answers.unreadable)


def say_aside(text: str) -> None:
    """A line that is no part of the result, which may be JSON."""
    typer.echo(text, err=True)


def name_unreadable(problems: "Sequence[Unreadable]") -> None:
    """Each on a line of its own, and exit code 1 if there are any."""
    for problem in problems:
        typer.echo(f"unreadable: {problem}", err=True)
    if problems:
        raise typer.Exit(1)


@app.command("export")
def export_(
    run: RunFolderPath,
    out: Annotated[Path, typer.Option(help="Folder to make.", show_default=False)],
    index: IndexName = "flat",
    phase: PhaseName = "",
    gallery: GalleryDir = None,
    data_dir: ImagesDir = None,
) -> None:
    """Write a run's network (of torch.export, pixels to unit vectors), its preprocessing, gallery
    (FAISS index and table) and model card into a folder that needs none of this package. The
    network is checked to agree with the run.

    \b
    Example: dml-bench export runs/EPSHN_cosine_resnet18_sgd_aug --out bird_finder
    """
    if out.exists():
        raise ValueError(f"{out} exists already; name a folder that does not")
    from dml_bench.gallery.export import export
    from dml_bench.gallery.indexes import parse
    from dml_bench.gallery.store import open_gallery_file

    choice = parse(index)
    place = open_gallery_file(run, phase, gallery, data_dir)
    exported = export(place.run, place.phase, place.read(), out, choice)
    typer.echo(f"{out}: {exported.agreement.words()}; {exported.index}")


class ExplainedTarget(StrEnum):
    own = "class"
    predicted = "predicted"
    nearest = "nearest"
    logit = "logit"


@app.command("explain")
def explain_(
    run: RunFolderPath,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for panels, scores.csv, scores.md and explain.json.", show_default=False
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Option(
            "--images",
            help="Explain this image, of the run or your own; repeatable.",
            metavar="FILE",
        ),
    ] = [],  # noqa: B006
    class_name: Annotated[
        str,
        typer.Option(
            "--class", help="Explain the queries of a class.", metavar="NAME", show_default=False
        ),
    ] = "",
    mistakes: Annotated[
        int,
        typer.Option(
            help=(
                "Explain mistaken queries, those first that only the phase without some classes"
                " gets wrong."
            ),
            min=0,
            show_default=False,
        ),
    ] = 0,
    other: Annotated[
        Path | None,
        typer.Option(
            help="Explain what is like this image, in place of --target.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        ExplainedTarget,
        typer.Option(
            help=(
                "Explain what speaks for the own class, for the predicted one, for the nearest"
                " image, or raises the logit."
            )
        ),
    ] = ExplainedTarget.own,
    method: Annotated[
        list[str],
        typer.Option(
            "--method",
            help="cam, gradcam, attention, rollout, vanilla, guided or guided_gradcam; repeatable.",
            metavar="NAME",
        ),
    ] = [],  # noqa: B006
    layer: Annotated[
        str, typer.Option(help="Whose map Grad-CAM weighs, e.g. layer3.", show_default=False)
    ] = "",
    scored: Annotated[
        int, typer.Option(help="How many queries' maps are scored; 0 for none.", min=0)
    ] = 40,
    data_dir: ImagesDir = None,
    device: Device = "auto",
) -> None:
    """Draw where a run's network looks, both phases side by side, and score such maps: on the bird
    or beside it, carrying the answer or not, against the same network with random weights.

    \b
    Example: dml-bench explain runs/EPSHN_cosine_resnet18_sgd_aug --mistakes 8 --out mistakes
    """
    from dml_bench.explain.session import ExplainRequest, explain

    with terminal_watch() as callback:
        request = ExplainRequest(
            run=run,
            out=out,
            images=tuple(images),
            class_name=class_name,
            mistakes=mistakes,
            other=other,
            target=target.value,
            chosen=tuple(method),
            layer=layer,
            scored=scored,
            device=device,
            data_dir=data_dir,
            command=("dml-bench", *sys.argv[1:]),
            progress=callback.progress,
        )
        done = explain(request)
    typer.echo(
        f"{len(done.panels)} {'panel' if len(done.panels) == 1 else 'panels'} in {out / 'panels'}"
    )
    if done.lines:
        typer.echo(f"scores in {out / 'scores.md'}")


@app.command("evidence")
def evidence_(
    run: RunFolderPath,
    out: Annotated[
        Path,
        typer.Option(help="Folder for a panel per query and evidence.csv.", show_default=False),
    ],
    images: Annotated[
        list[Path],
        typer.Option("--images", help="Show this query of the run; repeatable.", metavar="FILE"),
    ] = [],  # noqa: B006
    class_name: Annotated[
        str,
        typer.Option(
            "--class", help="Show the queries of a class.", metavar="NAME", show_default=False
        ),
    ] = "",
    mistakes: Annotated[
        int, typer.Option(help="Show only so many mistaken queries.", min=0, show_default=False)
    ] = 0,
    data_dir: ImagesDir = None,
) -> None:
    """Show why queries were answered as they were: the closest images with classes and
    similarities, and their vote, by each phase. All mistaken queries, unless others are chosen.

    \b
    Example: dml-bench evidence runs/EPSHN_cosine_resnet18_sgd_aug --mistakes 20 --out evidence
    """
    from dml_bench.explain.neighbour_panels import evidence

    written = evidence(
        run, out, data_dir=data_dir, images=images, class_name=class_name, mistakes=mistakes
    )
    typer.echo(
        f"{len(written)} {'panel' if len(written) == 1 else 'panels'} and evidence.csv in {out}"
    )


@wandb_app.command("log")
def wandb_log(
    run: RunFolderPath,
    mode: Annotated[
        WandbMode, typer.Option("--wandb", help="offline needs no account and no network.")
    ] = WandbMode.offline,
    evidence: Annotated[
        int, typer.Option(help="Mistaken queries that are shown with their closest images.", min=0)
    ] = 8,
    explained: Annotated[
        int,
        typer.Option(help="Mistaken queries that are shown with where the network looks.", min=0),
    ] = 4,
    data_dir: ImagesDir = None,
) -> None:
    """Add figures, evidence, explanation panels and a table of embeddings to a finished run's W&B
    mirror.

    \b
    Example: dml-bench wandb log runs/EPSHN_cosine_resnet18_sgd_aug
    """
    from dml_bench.tracking.artifacts import show

    names = show(
        run,
        mode.value,
        data_dir=data_dir,
        evidence=evidence,
        explained=explained,
        warn=lambda text: typer.echo(f"warning: {text}", err=True),
    )
    typer.echo(f"logged: {', '.join(names)}")


@wandb_app.command("sync")
def wandb_sync(run: RunFolderPath) -> None:
    """Send what a run logged offline to the W&B server.

    \b
    Example: dml-bench wandb sync runs/EPSHN_cosine_resnet18_sgd_aug
    """
    from dml_bench.gallery.store import open_run
    from dml_bench.tracking.wandb_mirror import sync

    typer.echo(f"sent: {', '.join(folder.name for folder in sync(open_run(run).folder))}")


@app.command("browse")
def browse_(
    run: RunFolderPath,
    port: Annotated[
        int,
        typer.Option(
            help="Where the app listens; by default 5151 or another free one.",
            show_default=False,
            min=0,
        ),
    ] = 0,
    address: Annotated[
        str, typer.Option(help="Bind address; 127.0.0.1 serves this machine only.")
    ] = "127.0.0.1",
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Open no browser, e.g. in an ssh session.")
    ] = False,
    data_dir: ImagesDir = None,
    cache_dir: CacheDir = DEFAULT_CACHE,
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Remove the run's dataset and database, and open nothing."),
    ] = False,
) -> None:
    """Open a run's images in FiftyOne: predictions and votes of both phases, maps of the
    embeddings, mistakes, search by similarity. Ctrl-C ends it.

    \b
    Example: dml-bench browse runs/EPSHN_cosine_resnet18_sgd_aug --no-open --port 5151
    """
    from dml_bench.browse import session

    if forget:
        typer.echo("forgotten" if session.forget(run, cache_dir) else "there was nothing to forget")
        return
    try:
        with terminal_watch() as callback:
            session.browse(
                session.BrowseRequest(
                    run=run,
                    cache_dir=cache_dir,
                    data_dir=data_dir,
                    port=port,
                    address=address,
                    opens_browser=not no_open,
                    say=typer.echo,
                    progress=callback.progress,
                )
            )
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        raise typer.Exit(130) from None


@app.command("umap")
def umap_(
    run: RunFolderPath,
    out: Annotated[
        Path,
        typer.Option(
            help=(
                "A picture, .png or .svg, or a page to point at images in, .html; needs no network."
            ),
            show_default=False,
        ),
    ],
    class_name: Annotated[
        list[str], typer.Option("--class", help="Highlight a class; repeatable.", metavar="NAME")
    ] = [],  # noqa: B006
    data_dir: ImagesDir = None,
) -> None:
    """Draw the embeddings of a run's gallery and queries in the plane, a map for each phase.

    \b
    Example: dml-bench umap runs/EPSHN_cosine_resnet18_sgd_aug --out map.html
    """
    kind = out.suffix.lower()
    if kind not in (".png", ".svg", ".html"):
        raise ValueError(
            f"--out {out}: name a picture or a page, e.g. --out {out.stem or 'map'}.html, .png or"
            " .svg"
        )
    from dml_bench.browse.html_map import write_page
    from dml_bench.browse.images import chosen_classes, read_browse_table
    from dml_bench.gallery.store import open_run
    from dml_bench.plots.figures import embedding_maps, standalone
    from dml_bench.system.files import write_atomically

    opened = open_run(run, data_dir)
    if kind == ".html":
        opened.images.require()
    images = read_browse_table(opened)
    chosen, unreadable = chosen_classes(images, class_name), 0
    with terminal_watch() as callback:
        callback.progress("drawing maps", 0, 1)
        maps = images.maps()
        callback.progress("drawing maps", 1, 1)
        out.parent.mkdir(parents=True, exist_ok=True)
        if kind == ".html":
            unreadable = write_page(
                out, images, maps, chosen, lambda *at: callback.progress("thumbnails", *at)
            )
        else:
            drawn = embedding_maps(images, maps, chosen)
            picture = drawn.png if kind == ".png" else standalone(drawn.svg).encode()
            write_atomically(out, lambda file: file.write(picture))
    typer.echo(
        f"{out}: {len(images.paths):,}"
        f" images{f', {unreadable} of them unreadable or changed since' if unreadable else ''}"
    )


@app.command("bench")
def bench_(
    names: Annotated[
        list[str],
        typer.Argument(metavar="[NAME]...", help="Which benchmarks; all where none is named."),
    ] = [],  # noqa: B006
    show_list: Annotated[
        bool, typer.Option("--list", help="Say what there is, and run nothing.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes: shows that they work, not how fast it is.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the tables.")] = Path("reports/speed"),
) -> None:
    """Time this program against named baselines on this machine, in a clone of its repository, and
    hold the goals against the results.

    \b
    Example: dml-bench bench epoch evaluation
    """
    from dml_bench import bench

    benchmarks = bench.chosen(names)
    if show_list:
        width = max(len(benchmark.name) for benchmark in benchmarks)
        typer.echo(
            "\n".join(f"{benchmark.name:<{width}}  {benchmark.summary}" for benchmark in benchmarks)
        )
        return
    try:
        failed = bench.run(benchmarks, out, quick, typer.echo)
    except KeyboardInterrupt:
        typer.echo("stopped; the benchmarks that ended have written their tables", err=True)
        raise typer.Exit(130) from None
    if failed:
        raise ValueError(f"these benchmarks failed (see above): {', '.join(failed)}")


@app.command()
def doctor(cache_dir: CacheDir = DEFAULT_CACHE, data_dir: DataDir = None) -> None:
    """Show versions, device, and which weights, data, database and disk can be reached.

    \b
    Example: dml-bench doctor --data-dir CUB_200_2011
    """
    from dml_bench.cli.doctor import examine

    terminal().print(examine(cache_dir, data_dir))


def main() -> None:
    """Entry point: what people can mend is one line and exit code 2."""
    with distributed.main_process_output():
        failures.carry_out(app)
