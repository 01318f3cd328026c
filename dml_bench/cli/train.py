"""Verbs that train: run, suite, lr-find, and show-batch, which draws what training would see."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dml_bench.cli import options
from dml_bench.config import experiments

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dml_bench.suite.executor import ExecutorSetup
    from dml_bench.suite.run import Suite
    from dml_bench.system.terminal import SuiteProgress
__all__ = ["app"]
app = typer.Typer()


@app.command()
def run(
    name: options.Name,
    demo: options.Demo = False,
    data_dir: options.DataDir = None,
    dataset: options.DatasetName = "",
    set_: options.Set = [],  # noqa: B006 - typer copies it
    seeds: options.Seeds = "",
    holdouts: options.Holdouts = "",
    folds: options.Folds = 0,
    device: options.Device = "auto",
    out: options.Out = Path("runs"),
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
    wandb: options.Wandb = options.WandbMode.offline,
    force: Annotated[
        bool, typer.Option("--force", help="Start anew, replacing what the run folder holds.")
    ] = False,
    skip_unreadable: options.SkipUnreadable = False,
) -> None:
    """Train and evaluate both phases of an experiment. Run it again to go on after an interruption.

    \b
    Example: dml-bench run EPSHN_cosine_resnet18_sgd_aug --data-dir CUB_200_2011 --seeds 42,43
    """
    overrides = options.overrides_of(demo, dataset, skip_unreadable, holdouts, set_) + (
        [f"train.folds={folds}"] if folds else []
    )
    each_seed = [[f"seed={seed}"] for seed in options.split_seeds(seeds)] or [[]]
    resolved = [
        experiments.resolve(name, profile="demo" if demo else "", overrides=[*overrides, *seed])
        for seed in each_seed
    ]
    from dml_bench.protocols import protocol_of
    from dml_bench.runs.execute import execute as run_experiment
    from dml_bench.runs.request import RunRequest
    from dml_bench.system.terminal import show_outcome

    for experiment in resolved:
        try:
            with options.terminal_callback() as callback:
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
        tables = protocol_of(experiment).outcome(outcome.summary)
        show_outcome(callback.console, outcome.folder, outcome.summary, tables)


@app.command()
def suite(  # noqa: PLR0913, PLR0917 - its parameters are its options
    names: options.Names = [],  # noqa: B006
    table: Annotated[
        str, typer.Option(help="Which table of experiments.", show_default="study")
    ] = "",
    only: options.Only = [],  # noqa: B006
    demo: options.Demo = False,
    data_dir: options.DataDir = None,
    dataset: options.DatasetName = "",
    set_: options.Set = [],  # noqa: B006
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
        float, typer.Option(help="With --ray: the part of a GPU that each run takes.")
    ] = 1.0,
    print_jobs: options.PrintJobs = False,
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
    overrides = options.overrides_of(demo, dataset, skip_unreadable, holdouts, set_)
    from dml_bench.suite.plan import chosen_rows

    name, title, rows = chosen_rows(
        names,
        table,
        only,
        profile="demo" if demo else "",
        overrides=overrides,
        seeds=options.split_seeds(seeds),
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
        for line in commands(asked, device, SuiteProgress(options.terminal(stderr=True))):
            typer.echo(line)
        return
    display = SuiteProgress(options.terminal())
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
    from dml_bench.suite.local import LocalExecutor, slots_of

    if not ray:
        if gpus_per_run != 1:
            raise ValueError(
                "--gpus-per-run is for --ray: here, --jobs says how many runs share the --devices"
            )
        return nullcontext(ExecutorSetup(slots_of(jobs, device, devices), LocalExecutor))
    if devices:
        raise ValueError(
            f"--devices {devices}: Ray gives out the GPUs; leave it out, or see --gpus-per-run"
        )
    from dml_bench.suite.ray import on_ray

    return on_ray(ray, jobs, device, gpus_per_run, display.say)


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
    set_: options.Set = [],  # noqa: B006
    low: Annotated[float, typer.Option(help="The first learning rate.")] = 1e-6,
    high: Annotated[
        float, typer.Option(help="The last one, if the loss does not explode before.")
    ] = 10.0,
    steps: Annotated[int, typer.Option(help="How many rates, one a batch.")] = 100,
    device: options.Device = "auto",
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
    skip_unreadable: options.SkipUnreadable = False,
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
    overrides = options.overrides_of(demo, dataset, skip_unreadable, "", set_)
    experiment = experiments.resolve(name, profile="demo" if demo else "", overrides=overrides)
    from dml_bench.plots.canvas import standalone
    from dml_bench.plots.learning_rates import learning_rates
    from dml_bench.system.files import write_atomically, write_csv
    from dml_bench.training.lr_finder import smoothed, sweep

    with options.terminal_callback() as callback:
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
    name: options.Name,
    out: Annotated[Path, typer.Option(help="Picture to write, .png or .jpg.", show_default=False)],
    demo: options.Demo = False,
    data_dir: options.DataDir = None,
    dataset: options.DatasetName = "",
    set_: options.Set = [],  # noqa: B006
    epoch: Annotated[int, typer.Option(help="Epoch whose batches are drawn.", min=1)] = 1,
    batches: Annotated[int, typer.Option(help="How many batches.", min=1)] = 1,
    images: Annotated[int, typer.Option(help="How many images of each batch.", min=1)] = 32,
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
    skip_unreadable: options.SkipUnreadable = False,
) -> None:
    """Draw training batches as the network would be fed with them: augmented, resized and mixed,
    with labels and their weights.

    \b
    Example: dml-bench show-batch EPSHN_cosine_resnet18_sgd_aug --demo --out sheet.png
    """
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(
            f"--out {out}: a picture's name is wanted, e.g. --out {out.stem or 'sheet'}.png"
        )
    overrides = options.overrides_of(demo, dataset, skip_unreadable, "", set_)
    experiment = experiments.resolve(name, profile="demo" if demo else "", overrides=overrides)
    from dml_bench.system.files import write_atomically
    from dml_bench.training.preview import preview

    with options.terminal_callback() as callback:
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
