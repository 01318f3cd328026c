"""The table of images whose embeddings any program computed, as `dml-bench evaluate` reads them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dml_bench.analysis.embeddings import Queries, queries_of
from dml_bench.browse.families import coarse_classes_of
from dml_bench.browse.images import (
    GALLERY,
    QUERY,
    VOTERS,
    BrowseSource,
    BrowseTable,
    phase_columns,
)
from dml_bench.data.embeddings import read_embeddings, read_labels
from dml_bench.evaluation.metrics import precision_at_1
from dml_bench.evaluation.search import Neighbours, search
from dml_bench.runs.arrays import embeddings_digest

__all__ = ["EmbeddedImages", "read_embedded_images"]

ONLY, ALL, LIMITED = "embeddings", "all", "limited"
"""The phase of one file, and those of two."""


@dataclass(frozen=True, slots=True)
class EmbeddedImages:
    """Files of embeddings that were read."""

    queries: Queries
    vectors: dict[str, np.ndarray]
    """By phase, (images, dim) unit vectors in the order of the data set."""
    files: dict[str, Path]
    """By phase, the file."""

    @property
    def unseen(self) -> tuple[int, ...]:
        """The ids of classes that a person calls new; drawn ones mean nothing on a map."""
        return self.queries.unseen if self.queries.chosen_unseen else ()

    def table(self, images: Path, maps: Path) -> BrowseTable:
        """All that these embeddings say of the images in a folder. `maps` is a folder in which maps
        are kept."""
        queries, dataset = self.queries, self.queries.dataset
        order = np.concatenate([queries.gallery, queries.query])
        labels = dataset.labels[order]
        neighbours, phases = {}, {}
        for phase, vectors in self.vectors.items():
            gallery, query = vectors[queries.gallery], vectors[queries.query]
            neighbours[phase] = search(
                gallery, query, queries.gallery_labels, queries.query_labels, VOTERS
            )
            phases[phase] = phase_columns(neighbours[phase], gallery, query)
        class_names = dict(enumerate(dataset.class_names))
        parts = [GALLERY] * len(queries.gallery) + [QUERY] * len(queries.query)
        return BrowseTable(
            source=self.source(class_names, neighbours, maps),
            paths=tuple(str(images / dataset.paths[image]) for image in order),
            digests=("",) * len(order),
            labels=labels,
            class_names=class_names,
            part=np.array(parts, object),
            unseen=np.isin(labels, self.unseen),
            drop=class_drops(neighbours, labels),
            phases=phases,
        )

    def source(
        self, class_names: dict[int, str], neighbours: dict[str, Neighbours], maps: Path
    ) -> BrowseSource:
        """What the table is of. It is kept by content, so that the same embeddings have the same
        map wherever their file lies."""
        titles = {
            ONLY: "",
            ALL: ", trained on all classes",
            LIMITED: ", without the unseen classes",
        }
        names = " and ".join(file.name for file in self.files.values())
        map_files = {
            phase: maps / f"{embeddings_digest(self.in_order(phase))[:16]}.safetensors"
            for phase in self.vectors
        }
        return BrowseSource(
            title=f"{names} of {self.queries.dataset.name}",
            neighbours=neighbours,
            phase_titles={phase: file.name + titles[phase] for phase, file in self.files.items()},
            main_phase=next(iter(self.vectors)),
            held_out={LIMITED: np.array(self.unseen)} if LIMITED in self.vectors else {},
            gallery_name="gallery",
            map_files=map_files,
            threshold=lambda phase: -1.0,  # it promises nothing without validation images
            coarse_classes=coarse_classes_of(class_names, {}),
        )

    def in_order(self, phase: str) -> np.ndarray:
        """(images, dim) of the gallery, then of the queries."""
        vectors = self.vectors[phase]
        return np.concatenate([vectors[self.queries.gallery], vectors[self.queries.query]])


def read_embedded_images(
    embeddings: Path, without: Path | None, labels: Path, unseen: str, seed: int
) -> EmbeddedImages:
    """Embeddings of one model, or of a pair of which the second did not train on the classes
    `unseen`. Raises ValueError as `dml-bench evaluate` does."""
    table = read_labels(labels)
    queries = queries_of(table, unseen, seed)
    files = {ONLY: embeddings} if without is None else {ALL: embeddings, LIMITED: without}
    vectors = {phase: read_embeddings(file, table) for phase, file in files.items()}
    return EmbeddedImages(queries, vectors, files)


def class_drops(neighbours: dict[str, Neighbours], labels: np.ndarray) -> np.ndarray:
    """(images) P@1 of the image's class by the model of all classes minus that by the other; nan
    where there is no other."""
    drops = np.full(len(labels), np.nan)
    if LIMITED not in neighbours:
        return drops
    lost = precision_at_1(neighbours[ALL]) - precision_at_1(neighbours[LIMITED])
    of_queries = neighbours[ALL].query_labels
    for label in np.unique(of_queries):
        drops[labels == label] = lost[of_queries == label].mean()
    return drops
