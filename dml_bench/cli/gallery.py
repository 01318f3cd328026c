"""Verbs over the gallery of a finished run: enrol, predict, export."""

import io
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import dml_bench as db
from dml_bench.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dml_bench.data.images import Unreadable
    from dml_bench.gallery.batch import BatchAnswers

__all__ = ["app"]
app = typer.Typer()
gallery_app = typer.Typer(help="Bring a gallery to another model.", no_args_is_help=True)
app.add_typer(gallery_app, name="gallery")


class AnswerBy(StrEnum):
    """What names the class of a photo."""

    photo = "photo"
    mean = "mean"
    classifier = "classifier"


class ExportTo(StrEnum):
    """What an export becomes."""

    torch = "torch"
    torchscript = "torchscript"
    onnx = "onnx"
    hf = "hf"
    lancedb = "lancedb"
    qdrant = "qdrant"
    pgvector = "pgvector"
    parquet = "parquet"


@app.command()
def enrol(
    run: options.RunFolderPath,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Photos: one folder per class, or a table. A known class gets more photos.",
            metavar="DIR",
        ),
    ] = None,
    remove: Annotated[
        list[str], typer.Option(help="Remove a class; repeatable.", metavar="CLASS")
    ] = [],
    rename: Annotated[
        list[str], typer.Option(help="Rename a class; repeatable.", metavar="OLD=NEW")
    ] = [],
    phase: options.PhaseName = "",
    gallery: options.GalleryDir = None,
    device: options.Device = "auto",
    allow_plugin: options.AllowPlugin = [],
) -> None:
    """Add classes to a run's gallery without training. Options also remove and rename classes. The
    run's own result stays as it is. Exit code 1 if an image can't be read; all others are
    added.

    \b
    Example: dml-bench enrol runs/EPSHN_cosine_resnet18_sgd_aug --images my_birds
    """
    if not (images or remove or rename):
        raise ValueError("nothing to do: give --images DIR, --remove CLASS or --rename OLD=NEW")
    from dml_bench.gallery.format import describe_enrolment

    with options.beside_result() as callback:
        opened = db.Gallery(run, phase=phase, folder=gallery, device=device, callback=callback)
        enrolment = opened.change(photos=images, remove=remove, rename=rename)
    typer.echo(f"{describe_enrolment(opened.run, enrolment)} ({opened.file.path})")
    exit_if_unreadable(enrolment.unreadable)


@app.command()
def predict(
    run: options.RunFolderPath,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            help="Photos, folders of them, or tables; - reads paths from standard input.",
            show_default=False,
        ),
    ],
    k: Annotated[
        int, typer.Option("--k", help="Number of closest images that vote and are listed.", min=1)
    ] = 10,
    by: Annotated[
        AnswerBy,
        typer.Option(
            help="Answer by the closest photo, by the closest class mean, or by the run's own"
            " classifier, which knows no enrolled class."
        ),
    ] = AnswerBy.photo,
    threshold: options.Threshold = None,
    precision: options.Precision = None,
    unknown_share: options.UnknownShare = 0.0,
    other: Annotated[
        Path | None,
        typer.Option(
            help="Photos of none of the classes: counts how many of them are answered.",
            metavar="DIR",
        ),
    ] = None,
    box: Annotated[
        list[str],
        typer.Option(
            help="A part of the photo to look up, in pixels; repeatable.", metavar="X0,Y0,X1,Y1"
        ),
    ] = [],
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON, with all k closest images and the time it took."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the answers to FILE.csv, .json or .parquet. After a stop, the same command"
            " goes on.",
            metavar="FILE",
        ),
    ] = None,
    watch_seconds: Annotated[
        float,
        typer.Option(
            "--watch",
            help="With --out: look every so many seconds for new photos in a folder.",
            min=0,
            show_default=False,
            metavar="SECONDS",
        ),
    ] = 0.0,
    max_unknown: Annotated[
        float | None,
        typer.Option(
            help="Exit code 3 if more than this share of the photos is unknown.",
            min=0,
            max=1,
            show_default=False,
            metavar="SHARE",
        ),
    ] = None,
    index: options.IndexName = "",
    phase: options.PhaseName = "",
    gallery: options.GalleryDir = None,
    device: options.Device = "auto",
    allow_plugin: options.AllowPlugin = [],
) -> None:
    """Look photos up in a run's gallery. Each gets a class, a vote, a similarity and its closest
    images. With --precision or --threshold, photos that are not similar enough are unknown. Exit
    code 1 if an image can't be read; all others are looked up.

    \b
    Example: dml-bench predict runs/EPSHN_cosine_resnet18_sgd_aug photo.jpg --precision 0.9
             dml-bench predict runs/EPSHN_cosine_resnet18_sgd_aug photos --out answers.csv
    """
    lookup: dict[str, Any] = {
        "k": k,
        "by": by.value,
        "threshold": threshold,
        "precision": precision,
        "unknown_share": unknown_share,
        "index": index,
    }
    require_one_output(out, watch_seconds, {"--json": as_json, "--box": box, "--other": other})
    photos, boxes = read_paths(images), [parse_box(text) for text in box]
    kept = "finished answers" if out else ""
    answers: db.PhotoPredictions | BatchAnswers
    with options.stopped_by_ctrl_c(kept), options.beside_result() as callback:
        opened = db.Gallery(run, phase=phase, folder=gallery, device=device, callback=callback)
        if out:
            answers = opened.predict_to(photos, out, watch_seconds=watch_seconds, **lookup)
        else:
            answers = opened.predict(photos, other=other, boxes=boxes, **lookup)
    show_answers(answers, as_json)
    raise typer.Exit(answers.exit_code(max_unknown))


@app.command("export")
def export(
    run: options.RunFolderPath,
    out: Annotated[
        str,
        typer.Option(
            help="Folder to make; for parquet a file; for pgvector"
            " postgresql://USER@HOST/DATABASE#TABLE.",
            show_default=False,
        ),
    ],
    to: Annotated[
        ExportTo,
        typer.Option(
            help="Format of the network, or a vector store for the gallery. PyTorch has deprecated"
            " TorchScript: torchscript is another name of torch, its torch.export."
        ),
    ] = ExportTo.torch,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="With --to onnx: also a network of 8 bits, and what it loses in points."
        ),
    ] = False,
    index: options.IndexName = "flat",
    phase: options.PhaseName = "",
    gallery: options.GalleryDir = None,
    data_dir: options.ImagesDir = None,
    allow_plugin: options.AllowPlugin = [],
) -> None:
    """Export a run's network and gallery for use elsewhere. The folder needs none of this package.
    It holds the network (pixels to unit vectors), preprocessing, a FAISS index, a table and a model
    card. The exported network is checked against the run. Vector stores get the gallery's vectors
    with class, source and thresholds, and predict --index lancedb:PATH looks up there.

    \b
    Example: dml-bench export runs/EPSHN_cosine_resnet18_sgd_aug --to onnx --out bird_finder
    """
    with options.beside_result() as callback:
        opened = db.Gallery(run, phase=phase, folder=gallery, data_dir=data_dir, callback=callback)
        exported = opened.export(out, to=to.value, index=index, int8=int8)
    typer.echo(exported.describe())


@gallery_app.command("upgrade")
def upgrade(
    run: options.RunFolderPath,
    new_run: Annotated[
        Path, typer.Option("--run", help="Finished run whose model is to answer.", metavar="NEW")
    ],
    photos: Annotated[
        list[Path],
        typer.Option(
            help="Photos, or folders of them, whose answers are compared; repeatable. By default"
            " the test images of both runs.",
            metavar="IMAGE",
        ),
    ] = [],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the new gallery, if it is not NEW/gallery.", metavar="DIR"),
    ] = None,
    phase: options.PhaseName = "",
    gallery: options.GalleryDir = None,
    data_dir: options.ImagesDir = None,
    device: options.Device = "auto",
    allow_plugin: options.AllowPlugin = [],
) -> None:
    """Embed a gallery again with the model of another run. All its images are read from their
    files. Answers that change are listed. The old gallery stays as it is. Exit code 1 if one of
    --photos can't be read; all others are compared.

    \b
    Example: dml-bench gallery upgrade runs/OLD --run runs/NEW
    """
    with options.beside_result() as callback:
        opened = db.Gallery(
            run, phase=phase, folder=gallery, data_dir=data_dir, device=device, callback=callback
        )
        upgraded = opened.upgrade(new_run, photos=photos, folder=out)
    for line in upgraded.describe():
        typer.echo(line)
    exit_if_unreadable(upgraded.unreadable)


def require_one_output(out: Path | None, watch_seconds: float, others: dict[str, Any]) -> None:
    """Raises ValueError where options say another output than a file, or no file."""
    if watch_seconds and out is None:
        raise ValueError("--watch writes to a file: give --out answers.csv")
    for name, value in others.items():
        if value and out is not None:
            raise ValueError(f"{name} does not go with --out: leave one of them out")


def show_answers(answers: "db.PhotoPredictions | BatchAnswers", as_json: bool) -> None:
    """Print answers, or say what is in their file."""
    if isinstance(answers, db.PhotoPredictions):
        options.show(answers, as_json)
        name_unreadable(answers.unreadable)
    else:
        typer.echo(answers.describe())


def read_paths(images: list[Path]) -> list[Path]:
    """The same with the paths on standard input in place of -, one on each line, or with a zero
    byte between them as `find -print0` prints them."""
    paths = []
    for image in images:
        if str(image) != "-":
            paths.append(image)
            continue
        if isinstance(sys.stdin, io.TextIOWrapper):  # names of files needn't be text
            sys.stdin.reconfigure(errors="surrogateescape")
        text = sys.stdin.read()
        names = text.split("\0" if "\0" in text else "\n")
        paths += [Path(name) for name in names if name]
    if not paths:
        raise ValueError("standard input has no path: give the paths of photos, one on each line")
    return paths


def parse_box(text: str) -> tuple[float, ...]:
    """Raises ValueError where the text isn't four numbers."""
    try:
        numbers = tuple(float(number) for number in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise ValueError(f"--box must be four numbers, x0,y0,x1,y1, got {text!r}: correct it")
    return numbers


def name_unreadable(problems: "Sequence[Unreadable]") -> None:
    """One on each line."""
    for problem in problems:
        options.say_aside(f"unreadable: {problem}")


def exit_if_unreadable(problems: "Sequence[Unreadable]") -> None:
    """The same, and exit code 1 if there are any."""
    name_unreadable(problems)
    if problems:
        raise typer.Exit(1)
