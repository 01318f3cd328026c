"""Verbs over data sets: data fetch, card, check, statistics and draw."""

from pathlib import Path
from typing import Annotated

import typer

import dml_bench as db
from dml_bench.cli import options
from dml_bench.system.files import json_text

__all__ = ["app"]
app = typer.Typer()
data_app = typer.Typer(help="Get, check and draw data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command("fetch")
def data_fetch(
    dataset: Annotated[str, typer.Argument(help="cub, grocery, omniglot, ...", show_default=False)],
    data_dir: Annotated[
        Path, typer.Option(help="Folder to make the data set's own in.", show_default=False)
    ],
    archive: Annotated[
        list[Path],
        typer.Option(help="A file that was downloaded by hand; repeatable.", show_default=False),
    ] = [],
) -> None:
    """Download, check and unpack a published data set. The same command continues an interrupted
    download. Licence and citation are shown first.

    \b
    Example: dml-bench data fetch grocery --data-dir /data
    """
    from dml_bench.data.card import terms

    for line in terms(dataset):
        typer.echo(line, err=True)
    with options.terminal_callback() as callback:
        typer.echo(db.fetch_data(dataset, data_dir, archive=archive, callback=callback))


@data_app.command("card")
def data_card(
    dataset: Annotated[str, typer.Argument(help="cub, grocery, omniglot, ...", show_default=False)],
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder in which to look for it.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a data set is. The card has its size, classes, parts, licence, citation, origin and
    digest. With --data-dir it says whether the data set is there and complete.

    \b
    Example: dml-bench data card grocery --data-dir /data
    """
    card = db.data_card(dataset, data_dir)
    if as_json:
        typer.echo(json_text(card.as_dict()))
    else:
        card.show(options.terminal())


@data_app.command("check")
def data_check(
    dataset: Annotated[str, typer.Argument(help="cub, folder, csv, demo, ...", show_default=False)],
    data_dir: options.DataDir = None,
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
    set_: options.Set = [],
    seed: Annotated[
        int, typer.Option(help="Seed of the split in which copies are looked for.")
    ] = 42,
    embeddings: Annotated[
        str,
        typer.Option(
            help="A backbone, e.g. efficientnet_lite0, or a run on these images, best of frozen_*:"
            " sessions are estimated from its embeddings.",
            metavar="BACKBONE|RUN",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Check images before training. This counts images and classes, decodes every image, and looks
    for copies between train and test. Copies are found even if they were saved again. Exit code
    1 on problems.

    \b
    Example: dml-bench data check cub --data-dir /data/CUB_200_2011
    """
    from dml_bench.data.check import render

    with options.terminal_callback() as callback:
        report = db.check_data(
            dataset,
            data_dir,
            overrides=set_,
            seed=seed,
            embeddings=embeddings or None,
            cache_dir=cache_dir,
            callback=callback,
        )
    options.terminal().print(render(report))
    if report.problems:
        raise typer.Exit(1)


@data_app.command("statistics")
def data_statistics(
    name: options.Name,
    out: Annotated[
        Path | None, typer.Option(help="File to write them in, .json.", show_default=False)
    ] = None,
    demo: options.Demo = False,
    data_dir: options.DataDir = None,
    dataset: options.DatasetName = "",
    set_: options.Set = [],
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
    skip_unreadable: options.SkipUnreadable = False,
) -> None:
    """Compute means and deviations of the colour channels. They are of the images that each phase
    of an experiment trains on, for images.mean and images.std.

    \b
    Example: dml-bench data statistics EPSHN_cosine_resnet18_sgd_aug --demo --out statistics.json
    """
    with options.terminal_callback() as callback:
        statistics = db.channel_statistics(
            name,
            demo=demo,
            data_dir=data_dir,
            overrides=options.overrides_of(demo, dataset, skip_unreadable, "", set_),
            out=out,
            cache_dir=cache_dir,
            callback=callback,
        )
    from dml_bench.training.channel_statistics import advice

    typer.echo(advice(statistics))


@data_app.command("draw")
def data_draw(
    out: Annotated[
        Path, typer.Option(help="Folder to make, in CUB-200-2011's layout.", show_default=False)
    ],
    classes: Annotated[int, typer.Option(help="Number of species.")] = 40,
    per_class: Annotated[int, typer.Option(help="Images of each species.")] = 24,
    size: Annotated[int, typer.Option(help="Side of an image in pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Another seed draws other species and images.")] = 7,
    cub_shape: Annotated[
        bool,
        typer.Option(
            "--cub-shape", help="The classes and image counts of CUB-200-2011: 200 and 11,788."
        ),
    ] = False,
) -> None:
    """Draw birds with bounding boxes and part boxes.

    \b
    Example: dml-bench data draw --out birds --classes 10 --per-class 20
    """
    with options.terminal_callback() as callback:
        folder = db.draw_birds(
            out,
            classes=classes,
            per_class=per_class,
            size=size,
            seed=seed,
            cub_shape=cub_shape,
            callback=callback,
        )
        typer.echo(folder)
