"""Verbs over a gallery that others use: serve, monitor."""

from pathlib import Path
from typing import Annotated

import typer

import dml_bench as db
from dml_bench.cli import options

__all__ = ["app"]
app = typer.Typer()


@app.command()
def serve(
    run: options.RunFolderPath,
    port: Annotated[int, typer.Option(help="Port to bind; 0 is any free one.", min=0)] = 8000,
    address: Annotated[
        str, typer.Option(help="Address to bind; 127.0.0.1 serves this machine only.")
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with a secret that clients have to send. Other addresses need it.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[
        int, typer.Option("--k", help="Number of closest images that vote.", min=1, max=100)
    ] = 10,
    threshold: options.Threshold = None,
    precision: options.Precision = None,
    unknown_share: options.UnknownShare = 0.0,
    max_megabytes: Annotated[float, typer.Option(help="Size of a request.", min=0.1)] = 32.0,
    phase: options.PhaseName = "",
    gallery: options.GalleryDir = None,
    data_dir: options.ImagesDir = None,
    device: options.Device = "auto",
    allow_plugin: options.AllowPlugin = [],
) -> None:
    """Serve a run's gallery over HTTP, with a web page. Drop photos there to see their class, or
    photos of a new class to add it. Answers and changes are safe for many clients at once. Ctrl-C
    ends it.

    \b
    Example: dml-bench serve runs/EPSHN_cosine_resnet18_sgd_aug --precision 0.9
    """
    with options.stopped_by_ctrl_c(), options.terminal_callback() as callback:
        opened = db.Gallery(
            run, phase=phase, folder=gallery, data_dir=data_dir, device=device, callback=callback
        )
        opened.serve(
            port=port,
            address=address,
            token_file=token_file,
            k=k,
            threshold=threshold,
            precision=precision,
            unknown_share=unknown_share,
            max_megabytes=max_megabytes,
        )


@app.command()
def monitor(
    run: options.RunFolderPath,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with all windows.")] = False,
    phase: options.PhaseName = "",
    gallery: options.GalleryDir = None,
    allow_plugin: options.AllowPlugin = [],
) -> None:
    """Check whether a served gallery's promise still applies. The similarities of the photos that
    were answered are held against those of the calibration images. Exit code 1 if the photos are of
    another kind.

    \b
    Example: dml-bench monitor runs/EPSHN_cosine_resnet18_sgd_aug
    """
    monitored = db.Gallery(run, phase=phase, folder=gallery).monitor()
    options.show(monitored, as_json)
    if monitored.drifted:
        raise typer.Exit(1)
