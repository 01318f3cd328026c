"""Public functions that show a finished run: explanations, neighbours, maps, FiftyOne."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dml_bench.api.arguments import (
    PathLike,
    callback_or_log,
    count_of,
    folder_and_images,
    optional_path,
    path_of,
    paths_of,
    picture_file,
    run_of,
    seed_of,
    texts_of,
    unseen_of,
)
from dml_bench.system.cache_folder import cache_folder
from dml_bench.system.callbacks import Callback

if TYPE_CHECKING:
    from dml_bench.browse.browsable import Browsable
    from dml_bench.browse.decisions import DecidedTable
    from dml_bench.explain.session import ExplainResult
    from dml_bench.runs.run import Run

__all__ = [
    "DrawnMap",
    "EmbeddingFiles",
    "browse_run",
    "draw_map",
    "explain_run",
    "export_decisions",
    "forget_browsed",
    "write_evidence",
]

Target = Literal["class", "predicted", "nearest", "logit"]


def explain_run(
    run: "Run | str | Path",
    out: PathLike,
    *,
    images: Sequence[PathLike] = (),
    class_name: str = "",
    mistakes: int = 0,
    other: PathLike | None = None,
    target: Target = "class",
    methods: Sequence[str] = (),
    layer: str = "",
    scored: int = 40,
    device: str = "auto",
    data_dir: PathLike | None = None,
    callback: Callback | None = None,
    command: Sequence[str] = (),
) -> "ExplainResult":
    """Draw where a run's network looks, both phases side by side, and score such maps.

    `images`, `class_name` or a number of `mistakes` choose the queries, by default six; `other` is
    an image in whose place of `target` the maps are about. `methods` are cam, gradcam, attention,
    rollout, vanilla, guided and guided_gradcam, by default all that the network allows; `layer` is
    whose map Grad-CAM weighs; `scored` is how many queries' maps are scored (0: none). Writes
    index.html, panels/, scores.csv, scores.md and explain.json into `out`. The page joins for each
    image the answers, the ten nearest images, the maps and their scores. The result lists the
    panels.

    Raises ValueError where an image or class is unknown, the run has folds, or `out` holds
    something else.
    Source: Selvaraju et al., "Grad-CAM" (2017); docs/explore.md.

    >>> explained = db.explain_run(
    ...     "runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42",
    ...     "panels", mistakes=1, methods=["gradcam"], scored=0, device="cpu",
    ... )
    >>> len(explained.panels)
    1
    """
    from dml_bench.explain.session import ExplainRequest, explain

    folder, images_folder = folder_and_images(run, data_dir)
    request = ExplainRequest(
        run=folder,
        out=path_of(out),
        images=tuple(paths_of(images)),
        class_name=class_name,
        mistakes=count_of(mistakes, "mistakes"),
        other=optional_path(other),
        target=target,
        methods=tuple(texts_of(methods, "methods")),
        layer=layer,
        scored=count_of(scored, "scored"),
        device=device,
        data_dir=images_folder,
        command=tuple(command) or ("dml_bench.explain_run", str(folder)),
        progress=callback_or_log(callback).progress,
    )
    return explain(request)


def write_evidence(
    run: "Run | str | Path",
    out: PathLike,
    *,
    images: Sequence[PathLike] = (),
    class_name: str = "",
    mistakes: int = 0,
    data_dir: PathLike | None = None,
    callback: Callback | None = None,
) -> list[Path]:
    """Draw the closest gallery images of queries with classes and similarities, for each phase.

    `images`, `class_name` or a number of `mistakes` choose the queries, by default all that are
    mistaken. Writes a panel for each and evidence.csv into `out`, and returns the panels.

    Raises ValueError where an image was no query, or `out` holds something else.
    Source: neighbours.safetensors of the run folder.

    >>> run = "runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42"
    >>> len(db.write_evidence(run, "evidence", mistakes=2))
    2
    """
    from dml_bench.explain.neighbour_panels import write_neighbour_panels

    folder, images_folder = folder_and_images(run, data_dir)
    heard = callback_or_log(callback)
    return write_neighbour_panels(
        folder,
        path_of(out),
        data_dir=images_folder,
        images=paths_of(images),
        class_name=class_name,
        mistakes=count_of(mistakes, "mistakes"),
        progress=lambda *at: heard.progress("panels of neighbours", *at),
    )


@dataclass(frozen=True)
class DrawnMap:
    """A map that was drawn: its file, how many images are on it, and how many of these could not
    be read or were changed since the run.

    >>> drawn = db.draw_map("runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42", "map.png")
    >>> drawn.path, drawn.unreadable
    (PosixPath('map.png'), 0)
    """

    path: Path
    images: int
    unreadable: int


@dataclass(frozen=True, kw_only=True)
class EmbeddingFiles:
    """Embeddings that any program computed, as `evaluate` reads them, to be shown in place of a
    run.

    `labels` is a .csv with the class of each image. `without` are embeddings of a model that was
    not trained on the classes `unseen`, and `embeddings` then those of one that was. Without a
    column `split` in the table, the queries are drawn from `seed`.

    >>> import numpy, pathlib
    >>> numpy.savez("shown.npz", embeddings=numpy.random.default_rng(0).normal(size=(24, 8)))
    >>> lines = ["path,class", *(f"{row:02}.jpg,{row % 4}" for row in range(24))]
    >>> _ = pathlib.Path("shown.csv").write_text("\\n".join(lines))
    >>> db.draw_map(db.EmbeddingFiles(embeddings="shown.npz", labels="shown.csv"), "map.svg").images
    24
    """

    embeddings: PathLike
    labels: PathLike
    without: PathLike | None = None
    unseen: str = ""
    seed: int = 42


def browsable_of(
    run: "Run | EmbeddingFiles | str | Path",
    data_dir: PathLike | None,
    cache_dir: PathLike | None,
    gallery: PathLike | None = None,
) -> "Browsable":
    """What is shown. Raises ValueError where there is no such run, gallery, or table."""
    from dml_bench.browse.browsable import BrowsedEmbeddings, BrowsedRun

    if not isinstance(run, EmbeddingFiles):
        return BrowsedRun(run_of(run, data_dir), optional_path(gallery))
    from dml_bench.browse.embedding_images import read_embedded_images

    if gallery is not None:
        raise ValueError("embeddings have no enrolled images: leave --gallery out")
    unseen = unseen_of(run.unseen)
    if run.without is not None and not unseen:
        raise ValueError(
            "two files of embeddings need the classes that the second model was not trained on:"
            " --unseen last:20, or their names with commas between"
        )
    labels = path_of(run.labels)
    embedded = read_embedded_images(
        path_of(run.embeddings), optional_path(run.without), labels, unseen, seed_of(run.seed)
    )
    maps = cache_folder(cache_dir) / "maps"
    return BrowsedEmbeddings(embedded, labels, maps, optional_path(data_dir))


def draw_map(
    run: "Run | EmbeddingFiles | str | Path",
    out: PathLike,
    *,
    classes: Sequence[str] = (),
    gallery: PathLike | None = None,
    data_dir: PathLike | None = None,
    callback: Callback | None = None,
    cache_dir: PathLike | None = None,
) -> DrawnMap:
    """Draw embeddings of a gallery and of queries in the plane (UMAP), a map for each phase.

    `run` is a run, its folder, or files of embeddings. `out` is a picture, .png or .svg, or a page
    to point at images in, .html; `classes` are highlighted. Images that were enrolled are added;
    `gallery` is their folder, if it is not the run's own.

    Raises ValueError on another kind of file, an unknown class, or, for a page, where the images
    are not found.
    Source: McInnes et al., "UMAP" (2018).

    >>> run = "runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42"
    >>> db.draw_map(run, "map.svg").images
    64
    """
    picture = picture_file(out, (".html", ".png", ".svg"), "map")
    from dml_bench.browse.html_map import write_html_map
    from dml_bench.browse.images import chosen_classes
    from dml_bench.browse.map_figure import map_figure
    from dml_bench.browse.thumbnails import ThumbnailFolder
    from dml_bench.plots.canvas import standalone
    from dml_bench.system.files import write_atomically

    browsable, heard = browsable_of(run, data_dir, cache_dir, gallery), callback_or_log(callback)
    kind = picture.suffix.lower()
    if kind == ".html":
        browsable.require_images()
    images = browsable.table()
    highlighted = chosen_classes(images, texts_of(classes, "classes"))
    heard.progress("drawing maps", 0, 1)
    maps = images.maps()
    heard.progress("drawing maps", 1, 1)
    picture.parent.mkdir(parents=True, exist_ok=True)
    unreadable = 0
    if kind == ".html":
        copies = ThumbnailFolder.of(cache_folder(cache_dir), browsable.root)
        unreadable = write_html_map(
            picture,
            images,
            maps,
            highlighted,
            lambda *at: heard.progress("thumbnails", *at),
            copies,
        )
    else:
        drawn = map_figure(images, maps, highlighted)
        content = drawn.png if kind == ".png" else standalone(drawn.svg).encode()
        write_atomically(picture, lambda file: file.write(content))
    return DrawnMap(picture, len(images.paths), unreadable)


def browse_run(
    run: "Run | EmbeddingFiles | str | Path",
    *,
    port: int = 0,
    address: str = "127.0.0.1",
    opens_browser: bool = True,
    gallery: PathLike | None = None,
    data_dir: PathLike | None = None,
    callback: Callback | None = None,
    cache_dir: PathLike | None = None,
) -> None:
    """Open the images of a run, or of files of embeddings, in FiftyOne and wait for Ctrl-C.

    `port` 0 is 5151 or another free one; `address` 127.0.0.1 serves this machine only. `gallery` is
    the folder of enrolled images, if it is not the run's own.

    Raises ValueError where FiftyOne, a database, the images or the port are missing, and
    KeyboardInterrupt at Ctrl-C.
    Source: https://docs.voxel51.com; docs/explore.md.

    >>> db.browse_run("runs/nothing")
    Traceback (most recent call last):
    ValueError: runs/nothing does not exist: give the folder of a finished run
    """
    from dml_bench.browse.session import BrowseRequest, browse

    heard = callback_or_log(callback)
    browse(
        BrowseRequest(
            browsable=browsable_of(run, data_dir, cache_dir, gallery),
            cache_dir=cache_folder(cache_dir),
            port=port,
            address=address,
            opens_browser=opens_browser,
            say=heard.note,
            progress=heard.progress,
        )
    )


def export_decisions(
    run: "Run | EmbeddingFiles | str | Path",
    out: PathLike,
    *,
    gallery: PathLike | None = None,
    data_dir: PathLike | None = None,
    callback: Callback | None = None,
    cache_dir: PathLike | None = None,
) -> "DecidedTable":
    """Write the images of what was browsed as a table for the data set `csv`, with the decisions
    about labels that were kept as tags in FiftyOne.

    Raises ValueError where the run was never browsed, is open, or an image has two decisions.
    Source: docs/explore.md.

    >>> db.export_decisions("runs/nothing", "tags.csv")
    Traceback (most recent call last):
    ValueError: runs/nothing does not exist: give the folder of a finished run
    """
    from dml_bench.browse.session import export

    browsable = browsable_of(run, data_dir, cache_dir, gallery)
    progress = callback_or_log(callback).progress
    return export(browsable, path_of(out), cache_folder(cache_dir), progress)


def forget_browsed(
    run: "Run | EmbeddingFiles | str | Path",
    *,
    gallery: PathLike | None = None,
    cache_dir: PathLike | None = None,
) -> bool:
    """Remove what `browse_run` keeps of a run or of embeddings, and return whether there was
    anything. The run folder stays.

    Raises ValueError where the run can't be read or is being browsed.
    Source: docs/explore.md.

    >>> db.forget_browsed("runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42")
    False
    """
    from dml_bench.browse.session import forget

    return forget(browsable_of(run, None, cache_dir, gallery), cache_folder(cache_dir))
