"""Verbs that open a finished run to the eye: explain, evidence, browse, umap."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import dml_bench as db
from dml_bench.cli import options
from dml_bench.system.counted import counted

__all__ = ["app"]
app = typer.Typer()


@app.command("explain")
def explain(
    run: options.RunFolderPath,
    out: options.ExplainFolder,
    images: options.OfImages = [],
    class_name: options.OfClass = "",
    mistakes: options.Mistakes = 0,
    other: options.Other = None,
    target: options.TargetOfMaps = options.ExplainedTarget.own,
    methods: options.Method = [],
    layer: options.Layer = "",
    scored: options.Scored = 40,
    data_dir: options.ImagesDir = None,
    device: options.Device = "auto",
    allow_plugin: options.AllowPlugin = [],
) -> None:
    """Draw where a run's network looks, for both phases. A page joins each query with its answers,
    its ten nearest images, its maps and their scores. The scores say whether a map lies on the bird
    and whether the prediction depends on it. They also say whether random weights would give the
    same map.

    \b
    Example: dml-bench explain runs/EPSHN_cosine_resnet18_sgd_aug --mistakes 8 --out mistakes
    """
    with options.terminal_callback() as callback:
        made = db.explain_run(
            run,
            out,
            images=images,
            class_name=class_name,
            mistakes=mistakes,
            other=other,
            target=target.value,
            methods=methods,
            layer=layer,
            scored=scored,
            device=device,
            data_dir=data_dir,
            command=("dml-bench", *sys.argv[1:]),
            callback=callback,
        )
    typer.echo(f"{made.page}: {counted(len(made.panels), 'image')}")
    if made.rows:
        typer.echo(f"scores in {out / 'scores.md'}")


@app.command("evidence")
def evidence(
    run: options.RunFolderPath,
    out: Annotated[
        Path,
        typer.Option(help="Folder for a panel per query and evidence.csv.", show_default=False),
    ],
    images: Annotated[
        list[Path],
        typer.Option("--images", help="Show this query of the run; repeatable.", metavar="FILE"),
    ] = [],
    class_name: Annotated[
        str,
        typer.Option(
            "--class", help="Show the queries of a class.", metavar="NAME", show_default=False
        ),
    ] = "",
    mistakes: Annotated[
        int, typer.Option(help="Show only this many mistaken queries.", min=0, show_default=False)
    ] = 0,
    data_dir: options.ImagesDir = None,
) -> None:
    """Show the closest images of queries, for each phase. Each panel has their classes,
    similarities and vote. By default all mistaken queries are shown.

    \b
    Example: dml-bench evidence runs/EPSHN_cosine_resnet18_sgd_aug --mistakes 20 --out evidence
    """
    with options.beside_result() as callback:
        panels = db.write_evidence(
            run,
            out,
            data_dir=data_dir,
            images=images,
            class_name=class_name,
            mistakes=mistakes,
            callback=callback,
        )
    typer.echo(f"{counted(len(panels), 'panel')} and evidence.csv in {out}")


def browsed(
    run: Path, without: Path | None, labels: Path | None, unseen: str
) -> Path | db.EmbeddingFiles:
    """A run, or embeddings where there is a table of labels."""
    if labels is not None:
        return db.EmbeddingFiles(embeddings=run, without=without, labels=labels, unseen=unseen)
    if without is not None or unseen or run.suffix.lower() in (".npz", ".parquet"):
        raise ValueError(f"{run}: embeddings need a table of their classes: add --labels FILE.csv")
    return run


@app.command("browse")
def browse(
    run: options.Browsed,
    without: options.Without = None,
    *,
    labels: options.Labels = None,
    unseen: options.Unseen = "",
    gallery: options.GalleryDir = None,
    port: Annotated[
        int,
        typer.Option(
            help="Port of the app; by default 5151 or another free port.",
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
    data_dir: options.ImagesDir = None,
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Write the run's images with the decisions that you kept as tags, for"
            " data.dataset=csv, and open nothing.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Remove the run's dataset and database, and open nothing."),
    ] = False,
) -> None:
    """Open the images of a run or of embeddings in FiftyOne. The app shows predictions and votes of
    both phases, maps of the embeddings and mistakes, and searches by similarity. Ctrl-C ends it.

    \b
    Example: dml-bench browse runs/EPSHN_cosine_resnet18_sgd_aug --no-open --port 5151
    Example: dml-bench browse embeddings.npz --labels labels.csv --data-dir photos
    """
    shown = browsed(run, without, labels, unseen)
    if forget:
        removed = db.forget_browsed(shown, gallery=gallery, cache_dir=cache_dir)
        typer.echo("forgotten" if removed else "there was nothing to forget")
        return
    place: dict[str, Any] = {"gallery": gallery, "cache_dir": cache_dir, "data_dir": data_dir}
    if export:
        with options.beside_result() as callback:
            decided = db.export_decisions(shown, export, callback=callback, **place)
        typer.echo(f"{export}: {decided.describe()}")
        return
    with options.stopped_by_ctrl_c(), options.terminal_callback() as callback:
        db.browse_run(
            shown,
            port=port,
            address=address,
            opens_browser=not no_open,
            callback=callback,
            **place,
        )


@app.command("umap")
def umap(
    run: options.Browsed,
    without: options.Without = None,
    *,
    out: Annotated[
        Path,
        typer.Option(
            help="File to write: a picture, .png or .svg, or an interactive page, .html.",
            show_default=False,
        ),
    ],
    class_name: Annotated[
        list[str], typer.Option("--class", help="Highlight a class; repeatable.", metavar="NAME")
    ] = [],
    labels: options.Labels = None,
    unseen: options.Unseen = "",
    gallery: options.GalleryDir = None,
    data_dir: options.ImagesDir = None,
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
) -> None:
    """Draw a map of embeddings for each phase. The embeddings are those of a run, or any program
    computed them. It shows gallery, queries and enrolled images in the plane.

    \b
    Example: dml-bench umap runs/EPSHN_cosine_resnet18_sgd_aug --out map.html
    Example: dml-bench umap embeddings.npz --labels labels.csv --data-dir photos --out map.html
    """
    shown = browsed(run, without, labels, unseen)
    with options.terminal_callback() as callback:
        drawn = db.draw_map(
            shown,
            out,
            classes=class_name,
            gallery=gallery,
            data_dir=data_dir,
            cache_dir=cache_dir,
            callback=callback,
        )
    note = f", {drawn.unreadable} of them unreadable or changed since" if drawn.unreadable else ""
    typer.echo(f"{out}: {drawn.images:,} images{note}")
