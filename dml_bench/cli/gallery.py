"""Verbs over the gallery of a finished run: enrol, predict, export."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dml_bench.cli import options
from dml_bench.system.files import json_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dml_bench.data.images import Unreadable
__all__ = ["app"]
app = typer.Typer()


@app.command()
def enrol(
    run: options.RunFolderPath,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Photos: one folder per class, new or known. Photos of known classes join them.",
            metavar="DIR",
        ),
    ] = None,
    remove: Annotated[
        list[str], typer.Option(help="Remove a class; repeatable.", metavar="CLASS")
    ] = [],  # noqa: B006
    rename: Annotated[
        list[str], typer.Option(help="Rename a class; repeatable.", metavar="OLD=NEW")
    ] = [],  # noqa: B006
    phase: options.PhaseName = "",
    gallery: options.GalleryDir = None,
    device: options.Device = "auto",
) -> None:
    """Add classes to a run's gallery without training, or remove or rename some. The run's own
    result stays as it is. Exit code 1 if an image can't be read; the others are enrolled.

    \b
    Example: dml-bench enrol runs/EPSHN_cosine_resnet18_sgd_aug --images my_birds
    """
    if not (images or remove or rename):
        raise ValueError("nothing to do: give --images DIR, --remove CLASS or --rename OLD=NEW")
    from dml_bench.gallery.embedder import GalleryEmbedder
    from dml_bench.gallery.enrol import Changes, change, photos_by_class, renamings
    from dml_bench.gallery.format import enrolment_words
    from dml_bench.gallery.store import open_gallery_file

    photos = photos_by_class(images, options.say_aside) if images else ()
    place = open_gallery_file(run, phase, gallery)
    renamed = renamings(rename, place.read(new=True).class_names) if rename else ()
    changes = Changes(remove=tuple(remove), rename=renamed, photos=photos)
    with options.terminal_callback() as callback:
        done = change(
            place,
            changes,
            lambda: GalleryEmbedder(place.run, place.phase, device),
            lambda *at: callback.progress("embedding", *at),
        )
    typer.echo(f"{enrolment_words(place.run, done)} ({place.path})")
    name_unreadable(done.unreadable)


@app.command()
def predict(
    run: options.RunFolderPath,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Photos, or folders of them.", show_default=False),
    ],
    k: Annotated[
        int, typer.Option("--k", help="How many of the closest images vote and are named.", min=1)
    ] = 10,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Similarity of the closest image below which the answer is unknown.",
            min=-1,
            max=1,
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        float, typer.Option(help="Choose the threshold at which this part of the answers is right.")
    ] = 0.95,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON, with all k closest images and the time it took."),
    ] = False,
    index: options.IndexName = "",
    phase: options.PhaseName = "",
    gallery: options.GalleryDir = None,
    device: options.Device = "auto",
) -> None:
    """Look photos up in a run's gallery: class, vote, similarity, the closest images, or unknown.
    Exit code 1 if an image can't be read; the others are answered.

    \b
    Example: dml-bench predict runs/EPSHN_cosine_resnet18_sgd_aug photo.jpg --precision 0.9
    """
    from dml_bench.gallery.embedder import GalleryEmbedder
    from dml_bench.gallery.enrol import named_images
    from dml_bench.gallery.format import as_json as answers_as_json
    from dml_bench.gallery.format import as_table, notes
    from dml_bench.gallery.index_store import opened, search_all
    from dml_bench.gallery.indexes import parse
    from dml_bench.gallery.predict import predict, recall_queries, threshold_of
    from dml_bench.gallery.store import open_gallery_file

    files = named_images(images, options.say_aside)
    choice = parse(index) if index else None
    place = open_gallery_file(run, phase, gallery)
    entries = place.read()
    look = None
    if choice is not None:
        asked = partial(recall_queries, place.run, place.phase, entries)
        look = opened(place, entries, choice, asked, lambda text: typer.echo(text, err=True))
    search = look.search if look else search_all
    bar = threshold_of(place, entries, threshold, precision, search)
    answers = predict(
        entries,
        GalleryEmbedder(place.run, place.phase, device),
        files,
        k=k,
        threshold=bar.value,
        search=search,
    )
    if as_json:
        typer.echo(json_text(answers_as_json(answers, bar, look)))
    else:
        options.terminal().print(as_table(place.run, answers))
        for note in notes(place.run, entries, bar, look):
            typer.echo(note)
    name_unreadable(answers.unreadable)


def name_unreadable(problems: "Sequence[Unreadable]") -> None:
    """Each on a line of its own, and exit code 1 if there are any."""
    for problem in problems:
        typer.echo(f"unreadable: {problem}", err=True)
    if problems:
        raise typer.Exit(1)


@app.command("export")
def export_(
    run: options.RunFolderPath,
    out: Annotated[Path, typer.Option(help="Folder to make.", show_default=False)],
    index: options.IndexName = "flat",
    phase: options.PhaseName = "",
    gallery: options.GalleryDir = None,
    data_dir: options.ImagesDir = None,
) -> None:
    """Write a run's network (of torch.export, pixels to unit vectors), its preprocessing, gallery
    (FAISS index and table) and model card into a folder that needs none of this package. The
    network is checked to agree with the run.

    \b
    Example: dml-bench export runs/EPSHN_cosine_resnet18_sgd_aug --out bird_finder
    """
    if out.exists():
        raise ValueError(f"{out} exists already; name a folder that does not")
    from dml_bench.gallery.export import export
    from dml_bench.gallery.indexes import parse
    from dml_bench.gallery.store import open_gallery_file

    choice = parse(index)
    place = open_gallery_file(run, phase, gallery, data_dir)
    exported = export(place.run, place.phase, place.read(), out, choice)
    typer.echo(f"{out}: {exported.agreement.words()}; {exported.index}")
