"""Verbs of the scoreboard: submit, verify, leaderboard."""

import sys
from pathlib import Path
from typing import Annotated

import typer

import dml_bench as db
from dml_bench.cli import options

__all__ = ["app"]
app = typer.Typer()


@app.command()
def submit(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Run folders; of a record, the JSON is written anew.",
            show_default=False,
        ),
    ],
    by: Annotated[str, typer.Option(help="Name that answers for it.", show_default=False)] = "",
    results: options.Results = Path("results"),
    revision: Annotated[
        str,
        typer.Option(help="Name for images that are not the published ones.", show_default=False),
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Write over a record of others or of another run.")
    ] = False,
) -> None:
    """Write a finished run as a file of the scoreboard. It is checked first, and refused where it
    does not add up.

    \b
    Example: dml-bench submit runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42 --by NAME
    """
    for run in runs:
        with options.beside_result() as callback:
            path = db.submit_run(
                run, results, by=by, revision=revision, replace=replace, callback=callback
            )
        typer.echo(str(path))


@app.command()
def verify(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="[FILE]...", help="Submissions, or folders of them.", show_default="results"
        ),
    ] = [],
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "--data-dir",
            help="Folder of their images: labels, split and hold-outs are checked too.",
            show_default=False,
        ),
    ] = None,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Train again, and compare the answers.")
    ] = False,
    device: options.Device = "auto",
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
) -> None:
    """Recompute submissions from their answers to each query. Whatever does not add up is refused
    by name, with exit code 1. Nothing that a submission names is imported.

    \b
    Example: dml-bench verify results
    """
    with options.beside_result() as callback:
        verification = db.verify_submissions(
            files or [Path("results")],
            data_dir=data_dir,
            draw=rerun,
            rerun=rerun,
            device=device,
            cache_dir=cache_dir,
            callback=callback,
        )
    verification.show(options.terminal())
    if not verification.is_sound:
        raise typer.Exit(1)


@app.command()
def leaderboard(
    results: Annotated[
        Path, typer.Argument(help="Folder of the submissions.", show_default="results")
    ] = Path("results"),
    out: Annotated[Path, typer.Option(help="Folder for the site.")] = Path("site"),
) -> None:
    """Rank submissions on pages that need no network.

    Each is verified first. There is a table for each protocol, revision of the data and kind of
    split. Ranks are ranges from differences query by query, and each row opens its evidence.

    \b
    Example: dml-bench leaderboard results --out site
    """
    with options.beside_result() as callback:
        db.write_leaderboard(results, out, command=("dml-bench", *sys.argv[1:]), callback=callback)
