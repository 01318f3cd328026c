"""Why a query was predicted as it was: its closest gallery images, their classes and their vote, in
each phase."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from dml_bench.evaluation.metrics import vote
from dml_bench.explain.images import ExplainedImage, RunImages, choose_images, mistaken_queries
from dml_bench.explain.tiles import PanelRow, Tile, tile_sheet
from dml_bench.runs.run import open_run
from dml_bench.system.files import read_csv, short_name, write_atomically, write_csv

__all__ = ["QueryNeighbours", "neighbour_panel", "query_neighbours", "write_neighbour_panels"]

CLOSEST = 10
"""How many neighbours are shown and vote."""
COLUMNS = (
    "image",
    "class",
    "unseen",
    "phase",
    "rank",
    "neighbour",
    "neighbour class",
    "similarity",
    "right",
    "elected",
    "votes",
    "elected right",
)


@dataclass(frozen=True, slots=True)
class QueryNeighbours:
    """The closest gallery images of one query in one phase."""

    phase: str
    image: ExplainedImage
    unseen: bool
    """Whether the phase never trained on the query's class."""
    neighbours: tuple[ExplainedImage, ...]
    """The gallery images, the nearest first."""
    similarities: tuple[float, ...]
    elected: int
    """The class id that most neighbours have; the nearer one decides a tie."""
    votes: int
    """How many neighbours are of that class."""

    @property
    def right(self) -> bool:
        """Whether the nearest image is of the query's class."""
        return self.neighbours[0].label == self.image.label

    @property
    def elected_right(self) -> bool:
        """Whether the neighbours elect the query's class."""
        return self.elected == self.image.label


def write_neighbour_panels(
    run: Path,
    out: Path,
    *,
    data_dir: Path | None = None,
    images: Sequence[Path] = (),
    class_name: str = "",
    mistakes: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write a panel for each chosen query and evidence.csv, into a new folder or one that this has
    written. All mistaken queries are taken unless others are chosen. Raises ValueError where an
    image is no query, or the folder holds something else."""
    table = out / "evidence.csv"
    if out.exists() and not is_ours(out, table):
        raise ValueError(f"{out} holds something else: name a new folder with --out")
    run_images = RunImages(open_run(run, data_dir))
    queries = choose_images(run_images, images=images, class_name=class_name, mistakes=mistakes)
    queries = queries or mistaken_queries(run_images, len(run_images.queries))
    require_queries(run_images, queries)
    out.mkdir(parents=True, exist_ok=True)
    remove_earlier(out, table)
    # An empty table marks the folder as ours, and promises no panel before all are written.
    write_csv(table, COLUMNS, [])
    rows, written = [], []
    for number, query in enumerate(queries, start=1):
        by_phase = [
            query_neighbours(run_images, query, phase) for phase in run_images.run.neighbours
        ]
        path = panel_file(out, number, query.path)
        picture = neighbour_panel(run_images, query, by_phase)
        write_atomically(path, partial(picture.save, format="PNG"))
        written.append(path)
        for neighbours in by_phase:
            rows += csv_rows(run_images, neighbours)
        progress(number, len(queries))
    write_csv(table, COLUMNS, rows)
    return written


def is_ours(folder: Path, table: Path) -> bool:
    """Whether a folder is empty, or has been written here."""
    return folder.is_dir() and (table.exists() or not any(folder.iterdir()))


def panel_file(out: Path, number: int, path: str) -> Path:
    """Where the panel of a query is written, by the path of its image."""
    return out / f"{number:03d}-{short_name(Path(path).stem)}.png"


def remove_earlier(out: Path, table: Path) -> None:
    """Remove the panels that a table lists, which are perhaps of other queries."""
    if table.exists():
        queries = dict.fromkeys(row.get("image", "") for row in read_csv(table))
        for number, path in enumerate(queries, start=1):
            panel_file(out, number, path).unlink(missing_ok=True)


def require_queries(run_images: RunImages, images: Sequence[ExplainedImage]) -> None:
    """Raises ValueError for an image that is no query."""
    for image in images:
        if image.index not in run_images.queries:
            raise ValueError(
                f"{image.file} is no query of {run_images.run.folder}: `dml-bench predict` takes"
                " new photos"
            )


def query_neighbours(run_images: RunImages, image: ExplainedImage, phase: str) -> QueryNeighbours:
    """The closest gallery images of a query. Raises ValueError for an image that is none."""
    require_queries(run_images, [image])
    neighbours = run_images.run.neighbours[phase]
    rows = np.flatnonzero(run_images.queries == image.index)
    k = min(CLOSEST, neighbours.k)
    elected, share = vote(neighbours.of(rows), k)
    gallery = run_images.gallery(phase)
    unseen = run_images.run.held_out.get(phase, np.array([], int))
    return QueryNeighbours(
        phase=phase,
        image=image,
        unseen=bool(np.isin(image.label, unseen)),
        neighbours=tuple(run_images.image(gallery[row]) for row in neighbours.indices[rows[0], :k]),
        similarities=tuple(neighbours.similarities[rows[0], :k].tolist()),
        elected=int(elected[0]),
        votes=round(float(share[0]) * k),
    )


def neighbour_panel(
    run_images: RunImages, image: ExplainedImage, by_phase: Sequence[QueryNeighbours]
) -> Image.Image:
    """The query and its closest images, a row for each phase."""
    names = run_images.class_names
    rows = []
    for result in by_phase:
        trained = "never trained on" if result.unseen else "trained on"
        tiles = [Tile(run_images.pixels(image), f"{names[image.label]}\n{trained}")]
        for neighbour, similarity in zip(result.neighbours, result.similarities, strict=True):
            caption = f"{names[neighbour.label]}\n{similarity:.3f}"
            good = neighbour.label == image.label
            tiles.append(Tile(run_images.pixels(neighbour), caption, good))
        nearest = "right" if result.right else "wrong"
        elected = "right" if result.elected_right else "wrong"
        label = (
            f"{result.phase}: nearest {nearest}, vote {elected}; {result.votes} of"
            f" {len(result.neighbours)} elect {names[result.elected]}"
        )
        rows.append(PanelRow(label, tuple(tiles)))
    columns = ["query", "closest", *(f"{place}." for place in range(2, len(rows[0].tiles)))]
    run = run_images.run
    return tile_sheet(f"{run.experiment.name}, seed {run.seed}: {image.path}", columns, rows)


def csv_rows(run_images: RunImages, result: QueryNeighbours) -> list[list[object]]:
    """A row of evidence.csv for each neighbour."""
    names = run_images.class_names
    query = [result.image.path, names[result.image.label], result.unseen, result.phase]
    outcome = [names[result.elected], result.votes, result.elected_right]
    rows = []
    for rank, (image, similarity) in enumerate(
        zip(result.neighbours, result.similarities, strict=True), start=1
    ):
        right = image.label == result.image.label
        neighbour = [rank, image.path, names[image.label], round(similarity, 6), right]
        rows.append([*query, *neighbour, *outcome])
    return rows
