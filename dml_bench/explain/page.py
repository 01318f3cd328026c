"""What was explained as one page: of each image the answers of all phases, its ten nearest images,
its maps and their scores; at the end what such maps are worth."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from dml_bench.evaluation.metrics import vote
from dml_bench.evaluation.search import search
from dml_bench.explain.images import ExplainedImage, RunImages
from dml_bench.explain.methods import methods
from dml_bench.explain.models import Model
from dml_bench.explain.neighbour_panels import CLOSEST, QueryNeighbours, query_neighbours
from dml_bench.explain.score_table import ScoreRow, cell
from dml_bench.explain.scoring import CHANCE, SCORES, MapScores
from dml_bench.explain.tiles import SIDE, PanelRow
from dml_bench.report import html
from dml_bench.report.document import (
    Block,
    Card,
    Cell,
    Column,
    Details,
    Document,
    Facts,
    Heading,
    Images,
    Items,
    Picture,
    Row,
    Table,
    Text,
)

__all__ = ["ExplainedPage", "write_page"]

OF_IMAGE = ("insertion", "deletion", "pointing", "energy")
"""The scores that each image has of its own."""
EMPTY_NOTE = (
    "A map can be empty for a right answer too. Grad-CAM weighs each channel by its mean gradient"
    " over the image, and keeps what raises the score. Where much of the image lowers it, nothing"
    " is left. Plain gradients show such an image."
)


@dataclass(frozen=True, kw_only=True)
class ExplainedPage:
    """What a page is made of."""

    run_images: RunImages
    models: Sequence[Model]
    names: Sequence[str]
    """The methods, in the order of the maps."""
    images: Sequence[ExplainedImage]
    rows: Sequence[Sequence[PanelRow]]
    """By image and model, the tiles: the image, its maps, and the closest gallery image."""
    about: Sequence[str]
    """By image, what its maps are about."""
    counterpart: str
    """What the last tile is."""
    scores: MapScores | None
    """Of the maps of these images; None where nothing is scored."""
    overall: Sequence[ScoreRow]
    """The scores of maps spread over the classes."""


def write_page(path: Path, page: ExplainedPage) -> None:
    """Write the page as one file that needs no network."""
    html.write(path, compose(page))


def compose(page: ExplainedPage) -> Document:
    """The page as a document."""
    run = page.run_images.run
    blocks: list[Block] = [
        Facts(
            (
                ("Run", f"`{run.experiment.name}` on {run.dataset_name}, seed {run.seed}"),
                ("Maps", "; ".join(dict.fromkeys(page.about))),
            )
        ),
        Text(EMPTY_NOTE, "soft"),
    ]
    for number in range(len(page.images)):
        blocks += image_blocks(page, number)
    if page.overall:
        blocks.append(Details("What such maps are worth", tuple(overall_tables(page.overall))))
    return Document(f"Where {run.experiment.name} looks", tuple(blocks))


def image_blocks(page: ExplainedPage, number: int) -> Iterator[Block]:
    """All of one image."""
    image, names = page.images[number], page.run_images.class_names
    name = names.get(image.label, "a photo whose class is not known")
    yield Heading(f"{number + 1}. {name}", 3, f"image-{number + 1}")
    yield Text(f"`{image.path or image.file.name}`: {page.about[number]}", "soft")
    for model, row in zip(page.models, page.rows[number], strict=True):
        neighbours = neighbours_of(page.run_images, model, image)
        yield Heading(answer(model, image, neighbours, names), 4)
        slug = f"{number + 1:03d}-{model.name}"
        yield Images(("image", *page.names, "counterpart"), (Card(maps_of(page, row, slug)),))
        heads = tuple(f"{rank}. nearest" for rank in range(1, len(neighbours.neighbours) + 1))
        pictures = neighbour_pictures(page.run_images, neighbours, slug)
        yield Images(heads, (Card(pictures, text=votes(names, neighbours)),))
    if page.scores is not None:
        yield score_table(page, number)


def answer(
    model: Model, image: ExplainedImage, neighbours: QueryNeighbours, names: Mapping[int, str]
) -> str:
    """`Trained on all classes: right, similarity 0.934`"""
    run = model.run
    trained = run.protocol.describe_phase(model.name, list(run.neighbours))
    trained = trained[0].upper() + trained[1:]
    if neighbours.unseen:
        trained += ", this class among them"
    predicted = names[neighbours.neighbours[0].label]
    outcome = "the nearest image is of" if image.label < 0 else "wrong, it answers"
    if neighbours.right:
        outcome = "right, it answers"
    return f"{trained}: {outcome} {predicted}, similarity {neighbours.similarities[0]:.3f}"


def votes(names: Mapping[int, str], neighbours: QueryNeighbours) -> str:
    """How the nearest images vote."""
    return (
        f"{neighbours.votes} of the {len(neighbours.neighbours)} nearest images are of"
        f" {names[neighbours.elected]}."
    )


def neighbours_of(run_images: RunImages, model: Model, image: ExplainedImage) -> QueryNeighbours:
    """The nearest gallery images: of a query those that the run found, of any other image those
    that are found now, itself left out."""
    if image.index in model.query_rows:
        return query_neighbours(run_images, image, model.name)
    others = model.gallery_images != image.index
    embedding = model.embed(run_images.pixels(image)[None])
    label = np.array([image.label])
    searched = search(model.gallery[others], embedding, model.labels[others], label, CLOSEST)
    elected, share = vote(searched, searched.k)
    rows = model.gallery_images[others][searched.indices[0]]
    return QueryNeighbours(
        phase=model.name,
        image=image,
        unseen=bool(np.isin(image.label, model.run.held_out.get(model.name, []))),
        neighbours=tuple(run_images.image(int(row)) for row in rows),
        similarities=tuple(searched.similarities[0].tolist()),
        elected=int(elected[0]),
        votes=round(float(share[0]) * searched.k),
    )


def maps_of(page: ExplainedPage, row: PanelRow, slug: str) -> tuple[Picture, ...]:
    """The image, its maps, and what it is compared with."""
    names = ["image", *page.names, "counterpart"]
    titles = ["image", *(methods[name].facts["title"] for name in page.names)]
    titles.append(page.counterpart)
    pictures = []
    for name, title, tile in zip(names, titles, row.tiles, strict=True):
        remark = "" if name == "image" else tile.caption.replace("\n", " ")
        file = f"{slug}-{name}.jpg"
        pictures.append(Picture(file, title, jpeg(tile.picture), title, remark))
    return tuple(pictures)


def neighbour_pictures(
    run_images: RunImages, neighbours: QueryNeighbours, slug: str
) -> tuple[Picture, ...]:
    """The nearest gallery images, with similarity and outcome."""
    pictures = []
    pairs = zip(neighbours.neighbours, neighbours.similarities, strict=True)
    for rank, (image, similarity) in enumerate(pairs, start=1):
        remark = f"{similarity:.3f}"
        if neighbours.image.label >= 0:
            remark += ", right" if image.label == neighbours.image.label else ", wrong"
        name = run_images.class_names[image.label]
        copy = jpeg(run_images.pixels(image))
        pictures.append(Picture(f"{slug}-{rank:02d}.jpg", image.path, copy, name, remark))
    return tuple(pictures)


def jpeg(pixels: np.ndarray) -> bytes:
    """(size, size, 3) uint8 as a JPEG of the size of a tile."""
    picture = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return file.getvalue()


def score_table(page: ExplainedPage, number: int) -> Table:
    """The scores of one image's maps, by each model and by random weights."""
    assert page.scores is not None
    models = [*(model.name for model in page.models), "random"]
    keys = []
    for score, model in product(OF_IMAGE, models):
        if any((score, name, model) in page.scores.values for name in page.names):
            keys.append((score, model))
    columns = [Column("map", numeric=False)]
    columns += [Column(f"{score}, {model}") for score, model in keys]
    rows = []
    for name in (*page.names, CHANCE):
        cells = [Cell("noise" if name == CHANCE else methods[name].facts["title"])]
        for score, model in keys:
            values = page.scores.values.get((score, name, model))
            value = np.nan if values is None else float(values[number])
            cells.append(Cell("-") if np.isnan(value) else Cell(f"{value:.3f}", value))
        rows.append(Row(tuple(cells)))
    return Table("Scores of these maps", tuple(columns), tuple(rows))


def overall_tables(rows: Sequence[ScoreRow]) -> Iterator[Block]:
    """A table for each score, over all classes."""
    queries = max(row.queries for row in rows)
    yield Items(
        (
            f"Of {queries} queries, spread over the classes. Intervals are 95%, over classes and"
            " queries of this one run.",
            "`random` is the same network with random weights, `chance` a map of noise.",
        ),
        "soft",
    )
    for score, meaning in SCORES.items():
        of_score = [row for row in rows if row.score == score and row.classes == "all"]
        if not of_score:
            continue
        models = list(dict.fromkeys(row.model for row in of_score))
        cells = {(row.method, row.model): Cell(cell(row), row.mean.estimate) for row in of_score}
        lines = []
        for name in dict.fromkeys(row.method for row in of_score):
            values = [cells.get((name, model), Cell("")) for model in models]
            lines.append(Row((Cell(name), *values)))
        yield Heading(score.capitalize(), 4)
        yield Text(f"{meaning[0].upper()}{meaning[1:]}.", "soft")
        yield Table(score, (Column("method", numeric=False), *map(Column, models)), tuple(lines))
