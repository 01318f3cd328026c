"""Verbs over finished runs: compare, report, scatter, and what W&B shows of them."""

import sys
from pathlib import Path
from typing import Annotated

import typer

import dml_bench as db
from dml_bench.cli import options
from dml_bench.system.counted import counted

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
    with options.beside_result() as callback:
        compared = db.compare(*runs, callback=callback)
    options.show(compared, as_json)


@app.command()
def evaluate(
    embeddings: Annotated[
        Path,
        typer.Argument(help="Embeddings as .npz or .parquet, by any program.", show_default=False),
    ],
    without: Annotated[
        Path | None,
        typer.Argument(
            help="Those of a model that was not trained on the classes --unseen.",
            show_default=False,
        ),
    ] = None,
    *,
    labels: Annotated[
        Path, typer.Option(help="CSV: a name, its class, and perhaps its split (gallery or query).")
    ],
    unseen: Annotated[
        str, typer.Option(help="New classes: last:N, random:N, or names.", show_default="a fifth")
    ] = "",
    seed: Annotated[int, typer.Option(help="What is drawn is drawn from this.")] = 42,
    out: Annotated[
        Path | None, typer.Option(help="Also write index.html, report.md and tables here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what embeddings of any program are worth.

    P@1, votes, class means, new and unknown classes. With two files, also what it costs not to
    train on a class.

    \b
    Example: dml-bench evaluate embeddings.npz --labels labels.csv
    """
    with options.beside_result() as callback:
        made = db.evaluate(
            embeddings,
            without,
            labels=labels,
            unseen=unseen,
            seed=seed,
            callback=callback,
            command=("dml-bench", *sys.argv[1:]),
        )
    options.show(made, as_json)
    if out is not None:
        typer.echo(str(made.write(out)), err=as_json)


@app.command()
def decide(
    photos: Annotated[
        Path,
        typer.Argument(
            help="A folder with one folder for each class, or with a table.", show_default=False
        ),
    ],
    minutes: Annotated[float, typer.Option(help="It ends in this time.")] = 30,
    group: Annotated[
        str,
        typer.Option(
            help="Which photos were taken together: a column of the table, parent, regex:PATTERN,"
            " exif:day, exif:hour, exif:camera, numbers, runs or series. Without it, this is"
            " estimated.",
            show_default=False,
        ),
    ] = "",
    catalogue: Annotated[
        Path | None,
        typer.Option(
            help="Studio photos, one folder per class or a table: tried as a gallery.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for the page and the runs; the same command goes on there.")
    ] = Path("decision"),
    set_: options.Set = [],
    device: options.Device = "auto",
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether a gallery or a classifier suits your photos.

    Also what it would reach on known and on new classes, and what it costs. A final fifth of the
    photos is opened after the choice.

    \b
    Example: dml-bench decide photos --minutes 30
    """
    with (
        options.stopped_by_ctrl_c("finished rows and epochs"),
        options.beside_result() as callback,
    ):
        made = db.decide(
            photos,
            minutes=minutes,
            out=out,
            group=group,
            catalogue=catalogue,
            overrides=set_,
            device=device,
            cache_dir=cache_dir,
            callback=callback,
            command=("dml-bench", *sys.argv[1:]),
        )
    options.show(made, as_json)
    if not as_json:
        typer.echo(str(out / "index.html"))


@app.command()
def report(
    runs: options.Runs = [],
    out: Annotated[
        Path, typer.Option(help="Folder to write index.html, report.md, figures and tables in.")
    ] = Path("reports/report"),
    data_dir: options.ImagesDir = None,
    figures: Annotated[
        str, typer.Option(help="Names of the wanted figures: patterns, with commas between.")
    ] = "*",
    table: Annotated[
        str,
        typer.Option(
            help="Compare methods over the data sets of this table, from a folder of records.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Write a report on finished runs, with figures and tables. The page answers the study's four
    questions and needs no network.

    \b
    Example: dml-bench report runs --out reports/demo
    """
    with options.beside_result() as callback:
        db.write_report(
            runs or [Path("results" if table else "runs")],
            out,
            table=table,
            figures=figures.split(","),
            data_dir=data_dir,
            callback=callback,
            command=("dml-bench", *sys.argv[1:]),
        )


@app.command()
def scatter(
    runs: options.Runs = [],
    out: Annotated[
        Path | None, typer.Option(help="Also write index.html, report.md and tables here.")
    ] = None,
) -> None:
    """Say how far test images scatter against training images.

    It measures distances within a class, and the margin to the nearest other class. Each phase has
    them for classes that it trained on and for others.

    \b
    Example: dml-bench scatter runs --out reports/scatter
    """
    with options.beside_result() as callback:
        made = db.measure_scatter(
            runs or [Path("runs")], callback=callback, command=("dml-bench", *sys.argv[1:])
        )
    made.show(options.terminal())
    if out is not None:
        typer.echo(str(made.write(out)))


@app.command()
def record(
    runs: options.Runs = [],
    results: options.Results = Path("results"),
) -> None:
    """Record finished runs in 15 to 40 kilobytes each. Reports and comparisons read a record like a
    run folder, and a repository can keep it.

    \b
    Example: dml-bench record runs --results results
    """
    with options.beside_result() as callback:
        paths = db.record_runs(runs or [Path("runs")], results, callback=callback)
    typer.echo(f"{results}: {counted(len(paths), 'record')}")


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
    with options.beside_result() as callback:
        names = db.log_to_wandb(
            run,
            mode=mode.value,
            evidence=evidence,
            explained=explained,
            data_dir=data_dir,
            callback=callback,
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
