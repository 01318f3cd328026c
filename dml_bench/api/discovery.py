"""Public functions that look for new classes among photos that a gallery doesn't know."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dml_bench.api.arguments import (
    PathLike,
    callback_or_log,
    optional_path,
    path_of,
    paths_of,
    run_of,
)
from dml_bench.report.printed import PrintedRecord
from dml_bench.system.callbacks import Callback

if TYPE_CHECKING:
    from rich.console import Console

    from dml_bench.data.images import Unreadable
    from dml_bench.gallery.discover import Discovery
    from dml_bench.gallery.discovery_measure import DiscoveryMeasure
    from dml_bench.runs.run import Run

__all__ = ["DiscoveredClasses", "MeasuredDiscovery", "discover", "measure_discovery"]


@dataclass(frozen=True, repr=False)
class DiscoveredClasses(PrintedRecord):
    """New classes that are proposed for photos, and the page on which a person decides.

    >>> classes = db.discover(
    ...     "runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42", "new_classes", "proposals",
    ...     threshold=2.0, by="linkage", link=-1.0, fewest=2, device="cpu",
    ... )
    >>> [len(proposal.photos) for proposal in classes.discovery.proposals], classes.page
    ([2], PosixPath('proposals/index.html'))
    """

    discovery: "Discovery"
    page: Path
    command: str
    """What enrols the accepted classes."""

    @property
    def unreadable(self) -> "tuple[Unreadable, ...]":
        """Files that could not be read as images, with the reason."""
        return self.discovery.unreadable

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `dml-bench discover --json` prints them."""
        from dml_bench.gallery.discovery_format import discovery_as_dict

        return {**discovery_as_dict(self.discovery), "page": str(self.page)}

    def show(self, console: "Console") -> None:
        """Print the proposals, what they rest on, and what to do next."""
        from dml_bench.gallery.discovery_format import notes, proposal_table

        if self.discovery.proposals:
            console.print(proposal_table(self.discovery))
        for note in notes(self.discovery):
            console.print(note, soft_wrap=True)
        console.print(f"decide on {self.page}, save decisions.csv, then:", soft_wrap=True)
        console.print(self.command, soft_wrap=True)


@dataclass(frozen=True, repr=False)
class MeasuredDiscovery(PrintedRecord):
    """How well a phase's held-out classes would be discovered. Printed, it is a table.

    >>> measured = db.measure_discovery(
    ...     "runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42", phase="limited"
    ... )
    >>> len(measured.measure.held_out)
    2
    """

    measure: "DiscoveryMeasure"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `dml-bench discover --measure --json` prints them."""
        from dml_bench.gallery.discovery_format import measure_as_dict

        return measure_as_dict(self.measure)

    def show(self, console: "Console") -> None:
        """Print a table of the ways to cluster."""
        from dml_bench.gallery.discovery_format import describe_measure, measure_tables

        for table in measure_tables(self.measure):
            console.print(table)
        for note in describe_measure(self.measure):
            console.print(note, soft_wrap=True)


def discover(
    run: "Run | str | Path",
    images: PathLike | Sequence[PathLike],
    out: PathLike = "proposals",
    *,
    threshold: float | None = None,
    precision: float | None = None,
    by: Literal["", "linkage", "graph", "hdbscan"] = "",
    link: float | None = None,
    fewest: int = 3,
    labelled: bool = False,
    phase: str = "",
    folder: PathLike | None = None,
    device: str = "auto",
    callback: Callback | None = None,
) -> DiscoveredClasses:
    """Cluster the photos that a run's gallery doesn't know, and propose each cluster as a class.

    Unknown is a photo whose closest image has a similarity (cosine, -1 to 1) below the `threshold`,
    or below the one that keeps a `precision` on new photos; a threshold of 1 takes all but copies.
    `by` is average linkage, the threshold graph or HDBSCAN; the first two link photos from the
    similarity `link` on, which is otherwise chosen on images that were not trained on. A cluster
    has at least `fewest` photos. With `labelled`, `images` is a folder of class folders or a table
    with classes, and the agreement of clusters and classes is measured.

    Writes index.html and proposals.csv into `out`. On the page a person names, merges, drops and
    accepts; `Gallery.enrol` reads the table that it saves. Nothing is enrolled here.

    Raises ValueError where neither or both of threshold and precision are there, the precision
    can't be promised, a link is needed and can't be chosen, or `out` holds something else.
    Source: docs/discover.md.

    >>> db.discover("runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42", "new_classes")
    Traceback (most recent call last):
    ValueError: discover clusters unknown photos: give --precision, e.g. 0.9, or --threshold
    """
    if threshold is None and precision is None:
        raise ValueError(
            "discover clusters unknown photos: give --precision, e.g. 0.9, or --threshold"
        )
    from dml_bench.browse.proposals import require_free, write_proposals
    from dml_bench.gallery.discover import choose_clusterer, discover
    from dml_bench.gallery.embedder import GalleryEmbedder
    from dml_bench.gallery.enrol import named_images
    from dml_bench.gallery.predict import check_unknown_options, threshold_of
    from dml_bench.gallery.store import GalleryFile, chosen_phase

    check_unknown_options(threshold, precision, 0.0)
    opened, heard = run_of(run), callback_or_log(callback)
    file = GalleryFile(opened, chosen_phase(opened, phase), optional_path(folder))
    require_free(path_of(out))
    paths = paths_of(images)
    labels = labelled_photos(paths, heard.note) if labelled else None
    files = named_images(paths, heard.note) if labels is None else list(labels)
    gallery = file.read()
    clusterer = choose_clusterer(opened, file.phase, gallery, method=by, link=link, fewest=fewest)
    discovery = discover(
        gallery,
        GalleryEmbedder(opened, file.phase, device),
        files,
        threshold=threshold_of(file, gallery, threshold=threshold, precision=precision),
        clusterer=clusterer,
        labels=labels,
        progress=lambda *at: heard.progress("embedding", *at),
    )
    command = enrol_command(opened, phase, folder)
    page = write_proposals(
        path_of(out),
        opened,
        discovery,
        gallery.class_names,
        command,
        lambda *at: heard.progress("thumbnails", *at),
    )
    return DiscoveredClasses(discovery, page, command)


def labelled_photos(paths: Sequence[Path], say: Callable[[str], None]) -> dict[Path, str]:
    """The class of each photo of a folder of class folders, or of a table. Raises ValueError where
    there are several."""
    from dml_bench.gallery.enrol import photos_by_class

    if len(paths) != 1:
        raise ValueError(f"labelled photos are in one folder or table, got {len(paths)}: give one")
    return dict(photos_by_class(paths[0], say))


def measure_discovery(
    run: "Run | str | Path",
    *,
    threshold: float | None = None,
    precision: float | None = None,
    phase: str = "",
    callback: Callback | None = None,
) -> MeasuredDiscovery:
    """How well the held-out classes of a run's phase would be discovered among its test images.

    By default the phase is the first that has held-out classes. They are taken out of the gallery;
    nothing of them chooses anything. Ways to cluster are compared by ARI and AMI with 95% intervals
    over classes: on the held-out images alone, and, with a `threshold` or a `precision`, on all
    test images that the threshold rejects.

    Raises ValueError where the phase has no held-out classes, or the precision can't be promised.
    Source: Hubert & Arabie, "Comparing partitions" (1985); docs/discover.md.

    >>> run = "runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42"
    >>> list(db.measure_discovery(run).measure.alone.agreements)
    ['hdbscan', 'ward_estimated', 'ward_known']
    """
    from dml_bench.gallery.discovery_measure import measure_discovery
    from dml_bench.gallery.predict import check_unknown_options
    from dml_bench.gallery.store import GalleryFile, chosen_phase

    check_unknown_options(threshold, precision, 0.0)
    opened = run_of(run)
    named = phase or next(iter(opened.protocol.held_out(opened.summary)), "")
    file = GalleryFile(opened, chosen_phase(opened, named))
    measure = measure_discovery(
        file,
        threshold=threshold,
        precision=precision,
        progress=callback_or_log(callback).progress,
    )
    return MeasuredDiscovery(measure)


def enrol_command(run: "Run", phase: str, folder: PathLike | None) -> str:
    """The command that applies the decisions of a page."""
    command = ["dml-bench", "enrol", str(run.folder), "--images", "decisions.csv"]
    if phase:
        command += ["--phase", phase]
    if folder is not None:
        command += ["--gallery", str(folder)]
    return shlex.join(command)
