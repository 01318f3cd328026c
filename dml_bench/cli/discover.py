"""The verb that looks for new classes."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import dml_bench as db
from dml_bench.cli import options
from dml_bench.cli.gallery import exit_if_unreadable

__all__ = ["app"]
app = typer.Typer()


class ClusterBy(StrEnum):
    """How photos are clustered."""

    linkage = "linkage"
    graph = "graph"
    hdbscan = "hdbscan"


@app.command("discover")
def discover(
    run: options.RunFolderPath,
    images: Annotated[
        list[Path],
        typer.Option(
            help="Photos among which to look: a folder, a table or a photo; repeatable.",
            metavar="DIR",
            show_default=False,
        ),
    ] = [],
    out: Annotated[
        Path, typer.Option(help="Folder for the page and the table of proposals.")
    ] = Path("proposals"),
    precision: options.Precision = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Similarity of the closest image below which a photo is unknown; 1 takes all"
            " but copies.",
            min=-1,
            max=1,
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        ClusterBy | None,
        typer.Option(
            help="Average linkage, threshold graph or HDBSCAN. The first two link similar photos.",
            show_default="linkage, or hdbscan where no link can be chosen",
        ),
    ] = None,
    link: Annotated[
        float | None,
        typer.Option(
            help="Similarity from which on two photos are linked. By default it is chosen.",
            min=-1,
            max=1,
            show_default=False,
        ),
    ] = None,
    fewest: Annotated[int, typer.Option(help="Photos that a proposed class has at least.")] = 3,
    labelled: Annotated[
        bool,
        typer.Option(
            "--labelled", help="The folders of --images are classes: measure the agreement."
        ),
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Look for the run's own held-out classes among its test images."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    phase: options.PhaseName = "",
    gallery: options.GalleryDir = None,
    device: options.Device = "auto",
    allow_plugin: options.AllowPlugin = [],
) -> None:
    """Propose new classes for photos that a gallery does not know. Unknown photos are
    clustered. A page shows the clusters: name them, merge, drop and accept, and save decisions.csv.
    `enrol --images decisions.csv` then enrols what was accepted.

    \b
    Example: dml-bench discover runs/EPSHN_cosine_resnet18_sgd_aug --images photos --precision 0.9
    """
    if measure == bool(images):
        raise ValueError("discover needs --images DIR, or --measure alone: give one of them")
    if measure:
        with options.beside_result() as callback:
            measured = db.measure_discovery(
                run, threshold=threshold, precision=precision, phase=phase, callback=callback
            )
        options.show(measured, as_json)
        return
    with options.beside_result() as callback:
        result = db.discover(
            run,
            images,
            out,
            threshold=threshold,
            precision=precision,
            by=by.value if by else "",
            link=link,
            fewest=fewest,
            labelled=labelled,
            phase=phase,
            folder=gallery,
            device=device,
            callback=callback,
        )
    options.show(result, as_json)
    exit_if_unreadable(result.unreadable)
