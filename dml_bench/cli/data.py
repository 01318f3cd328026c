"""Verbs over data sets: data fetch, check, statistics and draw."""

from pathlib import Path
from typing import Annotated

import typer

from dml_bench.cli import options
from dml_bench.config import experiments

__all__ = ["app"]
app = typer.Typer()
data_app = typer.Typer(help="Get, check and draw data sets.", no_args_is_help=True)

app.add_typer(data_app, name="data")


@data_app.command("fetch")
def data_fetch(
    dataset: Annotated[str, typer.Argument(help="cub", show_default=False)],
    data_dir: Annotated[
        Path, typer.Option(help="Folder to make CUB_200_2011 in.", show_default=False)
    ],
    archive: Annotated[
        Path | None, typer.Option(help="A .tgz that was downloaded by hand.", show_default=False)
    ] = None,
) -> None:
    """Download, check and unpack a data set; goes on where an earlier download stopped.

    \b
    Example: dml-bench data fetch cub --data-dir /data
    """
    if dataset != "cub":
        raise ValueError(f"{dataset!r} can't be fetched; only cub can")
    from dml_bench.data.fetch import fetch_cub

    with options.terminal_callback() as callback:
        typer.echo(fetch_cub(data_dir, archive=archive, progress=callback.progress))


@data_app.command("check")
def data_check(
    dataset: Annotated[str, typer.Argument(help="cub, folder, csv, demo, ...", show_default=False)],
    data_dir: options.DataDir = None,
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
    set_: options.Set = [],  # noqa: B006
    seed: Annotated[
        int, typer.Option(help="Seed of the split in which copies are looked for.")
    ] = 42,
) -> None:
    """Count images and classes, decode every image, and look for copies, also saved again, between
    train and test. Reports all that it finds. Exit code 1 on problems.

    \b
    Example: dml-bench data check cub --data-dir /data/CUB_200_2011
    """
    from dml_bench.data.check import check, render, sides
    from dml_bench.data.datasets import open_dataset

    config = experiments.resolve(
        "EPSHN_cosine_resnet18_sgd_aug", overrides=[f"data.dataset={dataset}", *set_]
    ).data
    with options.terminal_callback() as callback:
        images = open_dataset(config.dataset, data_dir, cache_dir, callback.progress, tolerant=True)
        split, refused = sides(images, config, seed)
        report = check(images, split=split, refused=refused, progress=callback.progress)
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
    set_: options.Set = [],  # noqa: B006
    cache_dir: options.CacheDir = options.DEFAULT_CACHE,
    skip_unreadable: options.SkipUnreadable = False,
) -> None:
    """Compute the channel means and deviations of the images that each phase of an experiment
    trains on, for images.mean and images.std.

    \b
    Example: dml-bench data statistics EPSHN_cosine_resnet18_sgd_aug --demo --out statistics.json
    """
    if out is not None and out.suffix.lower() != ".json":
        raise ValueError(f"--out {out}: the name of a .json file is wanted")
    overrides = options.overrides_of(demo, dataset, skip_unreadable, "", set_)
    experiment = experiments.resolve(name, profile="demo" if demo else "", overrides=overrides)
    from dml_bench.system.files import write_json
    from dml_bench.training.channel_statistics import advice, channel_statistics

    with options.terminal_callback() as callback:
        found = channel_statistics(
            experiment, data_dir=data_dir, cache_dir=cache_dir, callback=callback
        )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, found)
    typer.echo(advice(found))


@data_app.command("draw")
def data_draw(
    out: Annotated[
        Path, typer.Option(help="Folder to make, in CUB-200-2011's layout.", show_default=False)
    ],
    classes: Annotated[int, typer.Option(help="Number of species.")] = 40,
    per_class: Annotated[int, typer.Option(help="Images of each species.")] = 24,
    size: Annotated[int, typer.Option(help="Side of an image in pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Other seeds draw other species and other images.")] = 7,
    cub_shape: Annotated[
        bool,
        typer.Option(
            "--cub-shape", help="The classes and image counts of CUB-200-2011: 200 and 11,788."
        ),
    ] = False,
) -> None:
    """Write drawn birds with bounding boxes and part boxes.

    \b
    Example: dml-bench data draw --out birds --classes 10 --per-class 20
    """
    from dml_bench.data.synthetic import cub_counts, write

    if out.exists():
        raise ValueError(f"{out} exists already; name a folder that does not")
    counts = list(cub_counts().values()) if cub_shape else [per_class] * classes
    names = list(cub_counts()) if cub_shape else None
    done = 0
    with options.terminal_callback() as callback:

        def tell(images: int) -> None:
            nonlocal done
            done += images
            callback.progress(f"drawing {sum(counts):,} birds", done, sum(counts))

        typer.echo(
            write(out, counts=counts, size=size, seed=seed, class_names=names, progress=tell)
        )
