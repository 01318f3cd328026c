"""Verbs that open a finished run to the eye: explain, evidence, browse, umap."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dml_bench.cli import options

__all__ = ["app"]
app = typer.Typer()


class ExplainedTarget(StrEnum):
    own = "class"
    predicted = "predicted"
    nearest = "nearest"
    logit = "logit"


@app.command("explain")
def explain_(
    run: options.RunFolderPath,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for panels, scores.csv, scores.md and explain.json.", show_default=False
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Option(
            "--images",
            help="Explain this image, of the run or your own; repeatable.",
            metavar="FILE",
        ),
    ] = [],  # noqa: B006
    class_name: Annotated[
        str,
        typer.Option(
            "--class", help="Explain the queries of a class.", metavar="NAME", show_default=False
        ),
    ] = "",
    mistakes: Annotated[
        int,
        typer.Option(
            help=(
                "Explain mistaken queries, those first that only the phase without some classes"
                " gets wrong."
            ),
            min=0,
            show_default=False,
        ),
    ] = 0,
    other: Annotated[
        Path | None,
        typer.Option(
            help="Explain what is like this image, in place of --target.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        ExplainedTarget,
        typer.Option(
            help=(
                "Explain what speaks for the own class, for the predicted one, for the nearest"
                " image, or raises the logit."
            )
        ),
    ] = ExplainedTarget.own,
    method: Annotated[
        list[str],
        typer.Option(
            "--method",
            help="cam, gradcam, attention, rollout, vanilla, guided or guided_gradcam; repeatable.",
            metavar="NAME",
        ),
    ] = [],  # noqa: B006
    layer: Annotated[
        str, typer.Option(help="Whose map Grad-CAM weighs, e.g. layer3.", show_default=False)
    ] = "",
    scored: Annotated[
        int, typer.Option(help="How many queries' maps are scored; 0 for none.", min=0)
    ] = 40,
    data_dir: options.ImagesDir = None,
    device: options.Device = "auto",
) -> None:
    """Draw where a run's network looks, both phases side by side, and score such maps: on the bird
    or beside it, carrying the answer or not, against the same network with random weights.

    \b
    Example: dml-bench explain runs/EPSHN_cosine_resnet18_sgd_aug --mistakes 8 --out mistakes
    """
    from dml_bench.explain.session import ExplainRequest, explain

    with options.terminal_callback() as callback:
        request = ExplainRequest(
            run=run,
            out=out,
            images=tuple(images),
            class_name=class_name,
            mistakes=mistakes,
            other=other,
            target=target.value,
            chosen=tuple(method),
            layer=layer,
            scored=scored,
            device=device,
            data_dir=data_dir,
            command=("dml-bench", *sys.argv[1:]),
            progress=callback.progress,
        )
        done = explain(request)
    typer.echo(
        f"{len(done.panels)} {'panel' if len(done.panels) == 1 else 'panels'} in {out / 'panels'}"
    )
    if done.lines:
        typer.echo(f"scores in {out / 'scores.md'}")


@app.command("evidence")
def evidence_(
    run: options.RunFolderPath,
    out: Annotated[
        Path,
        typer.Option(help="Folder for a panel per query and evidence.csv.", show_default=False),
    ],
    images: Annotated[
        list[Path],
        typer.Option("--images", help="Show this query of the run; repeatable.", metavar="FILE"),
    ] = [],  # noqa: B006
    class_name: Annotated[
        str,
        typer.Option(
            "--class", help="Show the queries of a class.", metavar="NAME", show_default=False
        ),
    ] = "",
    mistakes: Annotated[
        int, typer.Option(help="Show only so many mistaken queries.", min=0, show_default=False)
    ] = 0,
    data_dir: options.ImagesDir = None,
) -> None:
    """Show why queries were answered as they were: the closest images with classes and
    similarities, and their vote, by each phase. All mistaken queries, unless others are chosen.

    \b
    Example: dml-bench evidence runs/EPSHN_cosine_resnet18_sgd_aug --mistakes 20 --out evidence
    """
    from dml_bench.explain.neighbour_panels import evidence

    written = evidence(
        run, out, data_dir=data_dir, images=images, class_name=class_name, mistakes=mistakes
    )
    typer.echo(
        f"{len(written)} {'panel' if len(written) == 1 else 'panels'} and evidence.csv in {out}"
    )


@app.command("browse")
def browse_(
    run: options.RunFolderPath,
    port: Annotated[
        int,
        typer.Option(
            help="Where the app listens; by default 5151 or another free one.",
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
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Remove the run's dataset and database, and open nothing."),
    ] = False,
) -> None:
    """Open a run's images in FiftyOne: predictions and votes of both phases, maps of the
    embeddings, mistakes, search by similarity. Ctrl-C ends it.

    \b
    Example: dml-bench browse runs/EPSHN_cosine_resnet18_sgd_aug --no-open --port 5151
    """
    from dml_bench.browse import session

    if forget:
        typer.echo("forgotten" if session.forget(run, cache_dir) else "there was nothing to forget")
        return
    try:
        with options.terminal_callback() as callback:
            session.browse(
                session.BrowseRequest(
                    run=run,
                    cache_dir=cache_dir,
                    data_dir=data_dir,
                    port=port,
                    address=address,
                    opens_browser=not no_open,
                    say=typer.echo,
                    progress=callback.progress,
                )
            )
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        raise typer.Exit(130) from None


@app.command("umap")
def umap_(
    run: options.RunFolderPath,
    out: Annotated[
        Path,
        typer.Option(
            help=(
                "A picture, .png or .svg, or a page to point at images in, .html; needs no network."
            ),
            show_default=False,
        ),
    ],
    class_name: Annotated[
        list[str], typer.Option("--class", help="Highlight a class; repeatable.", metavar="NAME")
    ] = [],  # noqa: B006
    data_dir: options.ImagesDir = None,
) -> None:
    """Draw the embeddings of a run's gallery and queries in the plane, a map for each phase.

    \b
    Example: dml-bench umap runs/EPSHN_cosine_resnet18_sgd_aug --out map.html
    """
    kind = out.suffix.lower()
    if kind not in (".png", ".svg", ".html"):
        raise ValueError(
            f"--out {out}: name a picture or a page, e.g. --out {out.stem or 'map'}.html, .png or"
            " .svg"
        )
    from dml_bench.browse.html_map import write_page
    from dml_bench.browse.images import chosen_classes, read_browse_table
    from dml_bench.browse.map_figure import map_figure
    from dml_bench.gallery.store import open_run
    from dml_bench.plots.canvas import standalone
    from dml_bench.system.files import write_atomically

    opened = open_run(run, data_dir)
    if kind == ".html":
        opened.images.require()
    images = read_browse_table(opened)
    chosen, unreadable = chosen_classes(images, class_name), 0
    with options.terminal_callback() as callback:
        callback.progress("drawing maps", 0, 1)
        maps = images.maps()
        callback.progress("drawing maps", 1, 1)
        out.parent.mkdir(parents=True, exist_ok=True)
        if kind == ".html":
            unreadable = write_page(
                out, images, maps, chosen, lambda *at: callback.progress("thumbnails", *at)
            )
        else:
            drawn = map_figure(images, maps, chosen)
            picture = drawn.png if kind == ".png" else standalone(drawn.svg).encode()
            write_atomically(out, lambda file: file.write(picture))
    typer.echo(
        f"{out}: {len(images.paths):,}"
        f" images{f', {unreadable} of them unreadable or changed since' if unreadable else ''}"
    )
