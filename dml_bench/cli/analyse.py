"""Verbs over finished runs: compare, report, and what W&B shows of them."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from dml_bench.cli import options
from dml_bench.system.files import json_text

__all__ = ["app"]
app = typer.Typer()
wandb_app = typer.Typer(
    help="Show a finished run's pictures in Weights & Biases, and send what was logged offline.",
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
    """Say which experiment is better, by how much and how sure that is, overall and class by class.

    \b
    Example: dml-bench compare runs/ArcFace_cosine_resnet18_sgd_aug runs/EPSHN_cosine_resnet18_sgd
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
        show_comparison(options.terminal(), comparison)


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
    data_dir: options.ImagesDir = None,
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


@wandb_app.command("log")
def wandb_log(
    run: options.RunFolderPath,
    mode: Annotated[
        options.WandbMode, typer.Option("--wandb", help="offline needs no account and no network.")
    ] = options.WandbMode.offline,
    evidence: Annotated[
        int, typer.Option(help="Mistaken queries that are shown with their closest images.", min=0)
    ] = 8,
    explained: Annotated[
        int,
        typer.Option(help="Mistaken queries that are shown with where the network looks.", min=0),
    ] = 4,
    data_dir: options.ImagesDir = None,
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
def wandb_sync(run: options.RunFolderPath) -> None:
    """Send what a run logged offline to the W&B server.

    \b
    Example: dml-bench wandb sync runs/EPSHN_cosine_resnet18_sgd_aug
    """
    from dml_bench.gallery.store import open_run
    from dml_bench.tracking.wandb_mirror import sync

    typer.echo(f"sent: {', '.join(folder.name for folder in sync(open_run(run).folder))}")
