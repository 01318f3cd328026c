"""Verbs that train: run, suite, tune, lr-find, and show-batch, which draws what training would
see."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import dml_bench as db
from dml_bench.cli import options
from dml_bench.config.tables import read_table

if TYPE_CHECKING:
    from dml_bench.suite.over_data_sets import SuitesOverData
    from dml_bench.suite.run import Suite

__all__ = ["app"]
app = typer.Typer()


@app.command()
def run(
    name: options.Name,
    demo: options.Demo = False,
    data_dir: options.DataDir = None,
    dataset: options.DatasetName = "",
    set_: options.Set = [],
    seeds: options.Seeds = "",
    holdouts: options.Holdouts = "",
    folds: options.Folds = 0,
    device: options.Device = "auto",
    out: options.Out = Path("runs"),
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
    wandb: options.Wandb = options.WandbMode.offline,
    force: Annotated[
        bool, typer.Option("--force", help="Discard what the run folder holds, and start anew.")
    ] = False,
    phases_at_once: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Phases that train beside each other on a CPU; 1 needs least memory, 0 lets the"
            " program choose.",
        ),
    ] = 0,
    skip_unreadable: options.SkipUnreadable = False,
    allow_plugin: options.AllowPlugin = [],
) -> None:
    """Train and evaluate both phases of an experiment. The same command continues a run that was
    interrupted.

    \b
    Example: dml-bench run EPSHN_cosine_resnet18_sgd_aug --data-dir CUB_200_2011 --seeds 42,43
    """
    overrides = options.overrides_of(demo, dataset, skip_unreadable, holdouts, set_, folds=folds)
    each_run = options.each_seed(overrides, seeds)
    for settings in each_run:
        db.resolve(name, settings, demo=demo)  # what is wrong is said before anything is trained
    warned: set[str] = set()
    for settings in each_run:
        with (
            options.stopped_by_ctrl_c("finished epochs"),
            options.terminal_callback(warned=warned) as callback,
        ):
            finished = db.run(
                name,
                demo=demo,
                overrides=settings,
                data_dir=data_dir,
                out=out,
                cache_dir=cache_dir,
                device=device,
                wandb=wandb.value,
                force=force,
                phases_at_once=phases_at_once,
                callback=callback,
            )
        options.show_run(callback.console, finished)


@app.command()
def suite(
    names: options.Names = [],
    table: Annotated[
        str, typer.Option(help="Which table of experiments.", show_default="study")
    ] = "",
    only: options.Only = [],
    demo: options.Demo = False,
    data_dir: options.DataDir = None,
    dataset: options.DatasetName = "",
    set_: options.Set = [],
    sweep: options.Sweep = [],
    tuned: Annotated[
        bool,
        typer.Option(
            "--tuned",
            help="Run each row also with the settings of its search (see tune).",
        ),
    ] = False,
    seeds: options.Seeds = "",
    holdouts: options.Holdouts = "",
    jobs: Annotated[
        int,
        typer.Option(
            help="Runs at a time; by default one per device, or 2 on a CPU.",
            show_default=False,
            min=0,
        ),
    ] = 0,
    device: options.Device = "auto",
    devices: Annotated[
        str,
        typer.Option(help="Devices that the runs share, e.g. cuda:0,cuda:1.", show_default=False),
    ] = "",
    out: options.Out = Path("runs"),
    report: options.TableFolder = None,
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
    wandb: options.Wandb = options.WandbMode.offline,
    skip_unreadable: options.SkipUnreadable = False,
    ray: options.Ray = "",
    gpus_per_run: Annotated[
        float, typer.Option(help="With --ray: the fraction of a GPU that each run takes.")
    ] = 1.0,
    print_jobs: options.PrintJobs = False,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Record each run in --results, and count runs that are recorded there.",
        ),
    ] = False,
    results: options.Results = Path("results"),
    allow_plugin: options.AllowPlugin = [],
) -> None:
    """Run a table of experiments and compare them. Each run is a process of its own. Finished runs
    are kept, and the same command continues. Exit code 1 if a run failed.

    \b
    Example: dml-bench suite --demo --only 'EPSHN*' --seeds 42,43,44 --report reports/demo
    """
    options.refuse_beside_print_jobs(print_jobs, ray, jobs, devices)
    rows: dict[str, Any] = {
        "experiments": names,
        "only": only,
        "demo": demo,
        "overrides": options.overrides_of(demo, dataset, skip_unreadable, holdouts, set_),
        "sweeps": sweep,
    }
    common: dict[str, Any] = {
        "seeds": seeds,
        "tuned": tuned,
        "data_dir": data_dir,
        "out": out,
        "report": report,
        "cache_dir": cache_dir,
        "wandb": wandb.value,
    }
    planned = planned_suite(table, rows, common, results, record)
    if print_jobs:
        typer.echo("".join(f"{line}\n" for line in db.suite_commands(planned, device)), nl=False)
        return
    with options.stopped_by_ctrl_c("finished runs and epochs"):
        outcomes = db.run_suite(
            planned,
            jobs=jobs,
            device=device,
            devices=devices,
            ray=ray,
            gpus_per_run=gpus_per_run,
            console=options.terminal(),
        )
    raise typer.Exit(int(any(result.status == "failed" for result in outcomes)))


def planned_suite(
    table: str, rows: dict[str, Any], common: dict[str, Any], results: Path, record: bool
) -> "Suite | SuitesOverData":
    """The runs of a table or of experiments, or of a table over several data sets."""
    common["seeds"] = options.split_seeds(common["seeds"])
    common["command"] = ("dml-bench", *sys.argv[1:])
    if table and read_table(table).data:
        options.refuse_over_data(table, **rows)
        return db.plan_suites(table, results=results, **common)
    try:
        return db.plan_suite(table=table, results=results if record else None, **rows, **common)
    except ValueError as error:
        if common["tuned"]:
            say_missing_searches(error, results)
        raise


def say_missing_searches(error: ValueError, results: Path) -> None:
    """Name all searches that a tuned suite waits for, with their cost, where that ends it."""
    from dml_bench.suite.cost import measured_runs, search_lines
    from dml_bench.suite.tuned import NoSearch

    if isinstance(error, NoSearch):
        for line in search_lines(error.missing, measured_runs(results)):
            options.say_aside(line)


@app.command()
def tune(
    name: options.Name,
    trials: Annotated[
        int | None,
        typer.Option(
            help="Number of trials, the same for each loss; by default the space's.",
            show_default=False,
            min=2,
        ),
    ] = None,
    space: Annotated[
        str,
        typer.Option(
            help="What is searched: heads, networks, recipes, or a .toml file of the same form.",
            show_default=False,
        ),
    ] = "",
    demo: options.Demo = False,
    data_dir: options.DataDir = None,
    dataset: options.DatasetName = "",
    set_: options.Set = [],
    seeds: options.Seeds = "",
    holdouts: options.Holdouts = "",
    device: options.Device = "auto",
    out: options.Out = Path("runs"),
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
    skip_unreadable: options.SkipUnreadable = False,
) -> None:
    """Search for settings on classes that no trial trains on. No test image and no class that is
    held out is seen. The same command continues a search, and suite --tuned runs the result.

    \b
    Example: dml-bench tune ArcFace_cosine_head --data-dir GroceryStoreDataset --trials 30
    """
    overrides = options.overrides_of(demo, dataset, skip_unreadable, holdouts, set_)
    for settings in options.each_seed(overrides, seeds):
        with (
            options.stopped_by_ctrl_c("finished trials"),
            options.terminal_callback() as callback,
        ):
            search = db.tune(
                name,
                trials=trials,
                space=space,
                demo=demo,
                data_dir=data_dir,
                overrides=settings,
                out=out,
                device=device,
                cache_dir=cache_dir,
                callback=callback,
            )
        typer.echo(search.describe())


@app.command("lr-find")
def lr_find(
    name: options.Name,
    out: Annotated[
        Path,
        typer.Option(
            help="Picture to write, .png or .svg; the numbers go into a .csv beside it.",
            show_default=False,
        ),
    ],
    demo: options.Demo = False,
    data_dir: options.DataDir = None,
    dataset: options.DatasetName = "",
    set_: options.Set = [],
    low: Annotated[float, typer.Option(help="Lowest learning rate.")] = 1e-6,
    high: Annotated[
        float, typer.Option(help="Highest learning rate, if the loss does not explode before.")
    ] = 10.0,
    steps: Annotated[int, typer.Option(help="Number of rates; each trains one batch.")] = 100,
    device: options.Device = "auto",
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
    skip_unreadable: options.SkipUnreadable = False,
) -> None:
    """Raise the learning rate until the loss explodes. This draws the curve and suggests a rate.
    It makes no run folder and looks at no test image.

    \b
    Example: dml-bench lr-find crossentropy_resnet18_sgd_aug --demo --out lr.png
    """
    with options.terminal_callback() as callback:
        sweep = db.find_learning_rate(
            name,
            demo=demo,
            data_dir=data_dir,
            overrides=options.overrides_of(demo, dataset, skip_unreadable, "", set_),
            out=out,
            low=low,
            high=high,
            steps=steps,
            device=device,
            cache_dir=cache_dir,
            callback=callback,
        )
    typer.echo(f"{out}: {sweep.suggestion()}")


@app.command("show-batch")
def show_batch(
    name: options.Name,
    out: Annotated[Path, typer.Option(help="Picture to write, .png or .jpg.", show_default=False)],
    demo: options.Demo = False,
    data_dir: options.DataDir = None,
    dataset: options.DatasetName = "",
    set_: options.Set = [],
    epoch: Annotated[int, typer.Option(help="Epoch whose batches are drawn.", min=1)] = 1,
    batches: Annotated[int, typer.Option(help="Number of batches.", min=1)] = 1,
    images: Annotated[int, typer.Option(help="Number of images of each batch.", min=1)] = 32,
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
    skip_unreadable: options.SkipUnreadable = False,
) -> None:
    """Draw training batches as the network sees them. Images are augmented, resized and mixed, and
    shown with labels and label weights.

    \b
    Example: dml-bench show-batch EPSHN_cosine_resnet18_sgd_aug --demo --out sheet.png
    """
    with options.terminal_callback() as callback:
        sheet = db.draw_batches(
            name,
            demo=demo,
            data_dir=data_dir,
            overrides=options.overrides_of(demo, dataset, skip_unreadable, "", set_),
            out=out,
            epoch=epoch,
            batches=batches,
            images=images,
            cache_dir=cache_dir,
            callback=callback,
        )
    typer.echo(f"{out}: {sheet.width} x {sheet.height} pixels")
