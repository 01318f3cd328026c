"""Why a query was answered as it was: its closest gallery images, their classes and their vote, for
each phase."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dml_bench.evaluation.metrics import vote
from dml_bench.explain.images import ExplainedImage, RunImages, chosen, mistaken
from dml_bench.explain.panels import PanelRow, Tile, panel
from dml_bench.gallery.store import open_run
from dml_bench.system.files import short_name, write_atomically, write_csv

__all__ = ["QueryNeighbours", "answered", "evidence", "panel_of"]

CLOSEST = 10
"""Neighbours that are shown, and vote."""
HEADS = (
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
    subject: ExplainedImage
    unseen: bool
    """Whether the phase never trained on the query's class."""
    neighbours: tuple[ExplainedImage, ...]
    """Nearest first."""
    similarities: tuple[float, ...]
    elected: int
    """Class id that the neighbours elect by majority, ties to the nearer."""
    votes: int
    """How many of them are of that class."""

    @property
    def right(self) -> bool:
        return self.neighbours[0].label == self.subject.label

    @property
    def elected_right(self) -> bool:
        return self.elected == self.subject.label


def evidence(
    run: Path,
    out: Path,
    *,
    data_dir: Path | None = None,
    images: Sequence[Path] = (),
    class_name: str = "",
    mistakes: int = 0,
) -> list[Path]:
    """A panel for each query chosen and evidence.csv, in a new folder or one that this has written.
    All mistaken queries, unless others are chosen. Raises ValueError where an image was not asked,
    or the folder holds something else."""
    if out.exists() and (
        not out.is_dir() or (any(out.iterdir()) and not (out / "evidence.csv").exists())
    ):
        raise ValueError(f"{out} holds something else: name a new folder with --out")
    material = RunImages(open_run(run, data_dir))
    subjects = chosen(
        material, images=images, class_name=class_name, mistakes=mistakes
    ) or mistaken(material, len(material.queries))
    out.mkdir(parents=True, exist_ok=True)
    write_csv(
        out / "evidence.csv", HEADS, []
    )  # says whose folder this is, and nothing of panels until all are there
    rows, written = [], []
    for number, subject in enumerate(subjects, start=1):
        found = [answered(material, subject, phase) for phase in material.run.neighbours]
        name = f"{number:03d}-{short_name(Path(subject.path).stem)}.png"
        picture = panel_of(material, subject, found)
        write_atomically(out / name, lambda file, picture=picture: picture.save(file, "PNG"))  # type: ignore[misc]
        written.append(out / name)
        rows += [row for each in found for row in rows_of(material, each)]
    write_csv(out / "evidence.csv", HEADS, rows)
    return written


def answered(material: RunImages, subject: ExplainedImage, phase: str) -> QueryNeighbours:
    """Raises ValueError for an image that the run never looked up."""
    found = material.run.neighbours[phase]
    places = np.flatnonzero(material.queries == subject.image)
    if not len(places):
        raise ValueError(
            f"{subject.file} is no query of {material.run.folder}: `dml-bench predict` asks for new"
            " photos"
        )
    k = min(CLOSEST, found.k)
    elected, share = vote(found.of(places), k)
    gallery = material.gallery(phase)
    unseen = material.run.held_out.get(phase, np.array([], int))
    return QueryNeighbours(
        phase=phase,
        subject=subject,
        unseen=bool(np.isin(subject.label, unseen)),
        neighbours=tuple(material.subject(gallery[row]) for row in found.indices[places[0], :k]),
        similarities=tuple(found.similarities[places[0], :k].tolist()),
        elected=int(elected[0]),
        votes=round(float(share[0]) * k),
    )


def panel_of(
    material: RunImages, subject: ExplainedImage, found: Sequence[QueryNeighbours]
) -> Image.Image:
    """The query and its closest images, a row for each phase."""
    names = material.run.class_names
    rows = []
    for each in found:
        query = Tile(
            material.pixels(subject),
            f"{names[subject.label]}\n{'never trained on' if each.unseen else 'trained on'}",
        )
        tiles = [
            Tile(
                material.pixels(neighbour),
                f"{names[neighbour.label]}\n{similarity:.3f}",
                neighbour.label == subject.label,
            )
            for neighbour, similarity in zip(each.neighbours, each.similarities, strict=True)
        ]
        verdict = (
            f"nearest {'right' if each.right else 'wrong'}, vote"
            f" {'right' if each.elected_right else 'wrong'}"
        )
        label = f"{each.phase}: {verdict}; {each.votes} of {len(tiles)} elect {names[each.elected]}"
        rows.append(PanelRow(label, (query, *tiles)))
    columns = ["query", "closest", *(f"{place}." for place in range(2, len(rows[0].tiles)))]
    run = material.run
    return panel(f"{run.experiment.name}, seed {run.seed}: {subject.path}", columns, rows)


def rows_of(material: RunImages, each: QueryNeighbours) -> list[list[object]]:
    names = material.run.class_names
    about = [each.subject.path, names[each.subject.label], each.unseen, each.phase]
    outcome = [names[each.elected], each.votes, each.elected_right]
    return [
        [
            *about,
            rank,
            neighbour.path,
            names[neighbour.label],
            round(similarity, 6),
            neighbour.label == each.subject.label,
            *outcome,
        ]
        for rank, (neighbour, similarity) in enumerate(
            zip(each.neighbours, each.similarities, strict=True), start=1
        )
    ]
