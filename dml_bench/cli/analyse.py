"""Verbs over finished runs: compare, report, and what W&B shows of them."""

import sys
from pathlib import Path
from typing import Annotated

import typer

import dml_bench as db
from dml_bench.cli import options

__all__ = ["app"]
app = typer.Typer()
wandb_app = typer.Typer(
    help="Show finished runs in Weights & Biases.",
    no_args_is_help=True,
)
app.add_typer(wandb_app, name="wandb")


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
    """Say how much experiments differ, and how sure that is. This is said overall and for each
    class.

    \b
    Example: dml-bench compare runs/ArcFace_cosine_resnet18_sgd_aug runs/EPSHN_cosine_resnet18_sgd
    """
    if len(runs) < 2:
        raise ValueError("compare needs two runs or more: dml-bench compare RUN RUN")
    comparisons = db.compare(*runs)
    if as_json:
        typer.echo(comparisons.as_json())
    else:
        comparisons.show(options.terminal())


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="[RUNS]...", help="Run folders, or folders of run folders.", show_default="runs"
        ),
    ] = [],
    out: Annotated[
        Path, typer.Option(help="Folder to write index.html, report.md, figures and tables in.")
    ] = Path("reports/report"),
    data_dir: options.ImagesDir = None,
) -> None:
    """Write a report on finished runs, with figures and tables. The page answers the study's four
    questions and needs no network.

    \b
    Example: dml-bench report runs --out reports/demo
    """
    db.write_report(
        runs or [Path("runs")],
        out,
        data_dir=data_dir,
        callback=options.AsideCallback(),
        command=("dml-bench", *sys.argv[1:]),
    )


@app.command()
def record(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="[RUNS]...", help="Run folders, or folders of run folders.", show_default="runs"
        ),
    ] = [],
    results: options.Results = Path("results"),
) -> None:
    """Record finished runs in a few kilobytes each. Reports and comparisons read a record like a
    run folder, and a repository can keep it.

    \b
    Example: dml-bench record runs --results results
    """
    paths = db.record_runs(runs or [Path("runs")], results, callback=options.AsideCallback())
    typer.echo(f"{results}: {options.count(paths, 'record')}")


@wandb_app.command("log")
def wandb_log(
    run: options.RunFolderPath,
    mode: Annotated[
        options.WandbMode, typer.Option("--wandb", help="offline needs no account and no network.")
    ] = options.WandbMode.offline,
    evidence: Annotated[
        int, typer.Option(help="Number of mistaken queries shown with their closest images.", min=0)
    ] = 8,
    explained: Annotated[
        int,
        typer.Option(help="Number of mistaken queries shown with where the network looks.", min=0),
    ] = 4,
    data_dir: options.ImagesDir = None,
) -> None:
    """Add pictures and embeddings to a run's W&B mirror. These are figures, neighbour panels,
    explanation panels and a table of embeddings.

    \b
    Example: dml-bench wandb log runs/EPSHN_cosine_resnet18_sgd_aug
    """
    names = db.log_to_wandb(
        run,
        mode=mode.value,
        evidence=evidence,
        explained=explained,
        data_dir=data_dir,
        callback=options.AsideCallback(),
    )
    typer.echo(f"logged: {', '.join(names)}")


@wandb_app.command("sync")
def wandb_sync(run: options.RunFolderPath) -> None:
    """Send what a run logged offline to the W&B server.

    \b
    Example: dml-bench wandb sync runs/EPSHN_cosine_resnet18_sgd_aug
    """
    folders = db.sync_to_wandb(run)
    typer.echo(f"sent: {', '.join(folder.name for folder in folders)}")
