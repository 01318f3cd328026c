"""A gallery opened once for many look-ups: network, search and threshold, in the run's own gallery
or in a vector store."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Literal, Protocol, TypedDict, get_args

from dml_bench.data.datasets import Progress
from dml_bench.gallery.calibration import current_names, recall_queries
from dml_bench.gallery.classifier import PhotoClassifier, open_classifier
from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.gallery.index_store import OpenIndex, Search, exact_search, open_or_build
from dml_bench.gallery.indexes import parse
from dml_bench.gallery.mean_search import mean_search
from dml_bench.gallery.predict import (
    AppliedThreshold,
    Predictions,
    check_unknown_options,
    outcomes_of_others,
    predict,
    threshold_of,
    with_labels,
)
from dml_bench.gallery.store import Gallery, GalleryFile
from dml_bench.gallery.vector_stores import (
    OpenStore,
    named_store,
    open_store,
    predict_in_store,
    store_threshold,
)

__all__ = ["LookUp", "LookupOptions", "LookupSettings", "PhotoLookup", "open_lookup"]

AnswerBy = Literal["photo", "mean", "classifier"]


class LookupSettings(TypedDict, total=False):
    """The arguments of `LookupOptions`, as functions hand them on."""

    k: int
    by: AnswerBy
    threshold: float | None
    precision: float | None
    unknown_share: float
    index: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LookupOptions:
    """How photos are looked up."""

    k: int = 10
    """The number of closest images that vote and are listed."""
    by: AnswerBy = "photo"
    """What names the class."""
    threshold: float | None = None
    """The similarity below which a photo is unknown, where a person sets it."""
    precision: float | None = None
    """The precision to keep, where one is asked for."""
    unknown_share: float = 0.0
    """The share of photos of classes that are not enrolled."""
    index: str = ""
    """A FAISS index or a vector store; empty where all images are compared."""

    def __post_init__(self) -> None:
        if not isinstance(self.k, Integral) or self.k < 1:
            raise ValueError(
                f"k must be a whole number of at least 1, got {self.k!r}: that many images vote"
            )
        for name in ("threshold", "precision", "unknown_share"):
            value = getattr(self, name)
            if not isinstance(value, Real | None):
                raise ValueError(f"{name} must be a number, got {value!r}: give one, e.g. 0.9")
        if self.by not in get_args(AnswerBy):
            raise ValueError(f"by must be photo, mean or classifier, got {self.by}: correct it")
        if (self.threshold, self.precision) != (None, None):
            self.require_similarities()
        check_unknown_options(self.threshold, self.precision, self.unknown_share)
        if self.by != "photo" and self.index:
            raise ValueError(
                f"an index finds photos, got by {self.by} and {self.index}: leave one of them out"
            )

    def require_similarities(self) -> None:
        """Raises ValueError where the answers don't go by similarity."""
        if self.by == "classifier":
            raise ValueError(
                "--precision, --threshold and --other go by similarity, which a classifier has not:"
                " leave them out, or use --by photo or --by mean"
            )


class LookUp(Protocol):
    """What looks image files up."""

    def __call__(
        self, images: Sequence[Path], progress: Callable[[int], None] = ...
    ) -> tuple[Gallery, Predictions]:
        """The predictions, and the gallery in which they were looked up; of a store, the images
        that were near them. `progress` is called with the number of files that are done."""


@dataclass(frozen=True, slots=True)
class PhotoLookup:
    """What is opened once. `predict` may be called as often as there are photos."""

    network: GalleryEmbedder
    gallery: Gallery | None
    """None where a store has the images."""
    threshold: AppliedThreshold
    open_index: OpenIndex | OpenStore | None
    classifier: PhotoClassifier | None
    search: Search
    """The search that decides whether a photo is known."""
    predict: LookUp

    def with_others(
        self, photos: Sequence[Path], progress: Callable[[int], None] = lambda done: None
    ) -> "PhotoLookup":
        """The same with the outcomes of photos that are of no class in the gallery."""
        gallery = Gallery((), self.network.no_embeddings) if self.gallery is None else self.gallery
        outcomes = outcomes_of_others(gallery, self.network, photos, self.search, progress)
        return replace(self, threshold=replace(self.threshold, other=outcomes))


def open_lookup(
    gallery_file: GalleryFile,
    options: LookupOptions,
    device: str = "auto",
    say: Callable[[str], None] = lambda text: None,
    progress: Progress = lambda message, done, total: None,
) -> PhotoLookup:
    """Open a gallery; `say` is called where an index is built, and `progress` with its steps.
    Raises ValueError where the gallery, the index or the store can't be opened, NoPromise where a
    precision can't be promised."""
    store = named_store(options.index)
    if store is None:
        lookup = open_gallery(gallery_file, options, device, say, progress)
    else:
        opened = open_store(gallery_file, store)
        applied = store_threshold(
            opened, options.threshold, options.precision, options.unknown_share
        )
        network = GalleryEmbedder(gallery_file.run, gallery_file.phase, device)
        look_up = partial(predict_in_store, opened, network, k=options.k, threshold=applied.value)
        lookup = PhotoLookup(network, None, applied, opened, None, opened.search, look_up)
    if not gallery_file.run.protocol.label_sets:
        return lookup

    def labelled(
        images: Sequence[Path], progress: Callable[[int], None] = lambda done: None
    ) -> tuple[Gallery, Predictions]:
        gallery, answers = lookup.predict(images, progress)
        several = tuple(map(with_labels, answers.predictions))
        return gallery, replace(answers, predictions=several)

    return replace(lookup, predict=labelled)


def open_gallery(
    gallery_file: GalleryFile,
    options: LookupOptions,
    device: str,
    say: Callable[[str], None],
    progress: Progress,
) -> PhotoLookup:
    """As `open_lookup`, in the run's own or changed gallery."""
    run, phase = gallery_file.run, gallery_file.phase
    classifier = open_classifier(run, phase) if options.by == "classifier" else None
    spec = parse(options.index) if options.index else None
    gallery = gallery_file.read()
    if classifier is not None:
        images = run.embeddings(phase).gallery_images
        classifier = classifier.renamed(current_names(run, gallery, images))
    open_index = None
    if spec is not None:
        queries = partial(recall_queries, run, phase, gallery)
        open_index = open_or_build(gallery_file, gallery, spec, queries, say, progress)
    find = open_index.search if open_index else exact_search
    search = mean_search if options.by == "mean" else find
    applied = AppliedThreshold(value=-math.inf)
    if classifier is None:
        applied = threshold_of(
            gallery_file,
            gallery,
            threshold=options.threshold,
            precision=options.precision,
            unknown_share=options.unknown_share,
            search=search,
        )
    network = GalleryEmbedder(run, phase, device)

    def look_up(
        images: Sequence[Path], progress: Callable[[int], None] = lambda done: None
    ) -> tuple[Gallery, Predictions]:
        predictions = predict(
            gallery,
            network.embed(images, progress),
            k=options.k,
            threshold=applied.value,
            search=find,
            answer_by=mean_search if options.by == "mean" else classifier,
        )
        return gallery, predictions

    return PhotoLookup(network, gallery, applied, open_index, classifier, search, look_up)
