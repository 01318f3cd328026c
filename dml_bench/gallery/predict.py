"""Classes of photos, predicted by a search in a gallery: the class of the closest image, or of the
closest class mean, the vote of the others, and, where a precision is to be kept, whether the photo
is of a known class."""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dml_bench.data.images import Unreadable, box_of
from dml_bench.data.label_sets import JOINT
from dml_bench.evaluation.metrics import vote
from dml_bench.evaluation.search import Neighbours
from dml_bench.evaluation.thresholds import NO_OUTCOMES, GuaranteedThreshold, SearchOutcomes
from dml_bench.gallery.calibration import CalibrationSet, calibration_set
from dml_bench.gallery.classifier import PhotoClassifier
from dml_bench.gallery.embedder import Embedded, GalleryEmbedder
from dml_bench.gallery.index_store import Search, exact_search
from dml_bench.gallery.store import Gallery, GalleryFile, GalleryImage
from dml_bench.runs.run import Run

__all__ = [
    "USUAL_SHARES",
    "AppliedThreshold",
    "NoPromise",
    "Prediction",
    "Predictions",
    "check_unknown_options",
    "cuts_to_boxes",
    "describe_lack",
    "outcomes_of_others",
    "predict",
    "predictions_of",
    "threshold_of",
    "threshold_on",
    "with_labels",
]

USUAL_GOAL = 0.95
"""The precision whose threshold is described where a person names none."""
BY_HAND = ", or set --threshold by hand, which promises nothing"
USUAL_SHARES = (0.0, 0.2)
"""The shares of photos of classes that are not enrolled, for which a promise is described."""
LARGEST_FRACTION = 0.5
"""The largest `data.valid_fraction` that is proposed."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The class of one photo."""

    path: Path
    class_name: str
    """The class of the closest image, or of the closest class mean. A single photo enrols a class,
    which no vote would elect. Or the likeliest class, by a classifier."""
    similarity: float
    """The similarity of that image or mean, -1 to 1; by a classifier, of the closest image."""
    known: bool
    """Whether the similarity reaches the threshold; true where there is none."""
    vote_class: str
    """The class that most of the k closest images have."""
    vote_share: float
    """The share of their votes for that class, 0 to 1."""
    closest: tuple[tuple[GalleryImage, float], ...]
    """(k) images and their similarities, closest first."""
    probability: float | None = None
    """Of the class among those that the classifier was trained on; None where the gallery
    answers."""
    labels: tuple[tuple[str, float], ...] = ()
    """Where an image has several labels: those of the k closest images, each with the share of
    these images that have it, the largest first."""

    @property
    def closest_class(self) -> str:
        """What the gallery answers, by photo or by mean."""
        if self.probability is None:
            return self.class_name
        return self.closest[0][0].class_name

    @property
    def as_close(self) -> tuple[str, ...]:
        """Other classes that have an image exactly as close as the closest. The order of the
        gallery has decided between them."""
        names = {
            image.class_name for image, nearness in self.closest if nearness == self.similarity
        }
        return tuple(sorted(names - {self.closest_class}))

    @property
    def all_as_close(self) -> bool:
        """Whether all of several closest images are exactly as close, so that there may be more."""
        return len(self.closest) > 1 and self.closest[-1][1] == self.similarity


@dataclass(frozen=True, slots=True)
class Predictions:
    """The classes of several photos."""

    predictions: tuple[Prediction, ...]
    unreadable: tuple[Unreadable, ...]
    embed_milliseconds: float
    """The time to read, decode and embed an image; the first batch warms up."""
    search_milliseconds: float
    """The time to search for an image."""


class NoPromise(ValueError):
    """A precision that was asked for and can't be promised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AppliedThreshold:
    """The similarity from which on a photo is answered, and how it was chosen."""

    value: float
    """The threshold; -inf where every photo is answered."""
    chosen: GuaranteedThreshold | None = None
    """How it was chosen; None where a person set it, or every photo is answered."""
    promises: tuple[GuaranteedThreshold, ...] = ()
    """For each share of photos of classes that are not enrolled, the threshold that keeps the
    precision; empty where a person set the threshold."""
    calibration_set: CalibrationSet | None = None
    """The images on which these were chosen; None where a person set the threshold."""
    other: SearchOutcomes | None = None
    """Photos that a person says are of no class in the gallery."""


def check_unknown_options(
    threshold: float | None, precision: float | None, unknown_share: float
) -> None:
    """Raises ValueError where two options choose who is unknown, or one has no effect."""
    if threshold is not None and math.isnan(threshold):
        raise ValueError("threshold must be a similarity, got nan: give a number, e.g. 0.9")
    if threshold is not None and precision is not None:
        raise ValueError("threshold and precision both choose who is unknown: give one of them")
    if precision is None and unknown_share:
        raise ValueError("unknown_share needs a precision to keep: give --precision, e.g. 0.95")


def threshold_of(
    gallery_file: GalleryFile,
    gallery: Gallery,
    *,
    threshold: float | None = None,
    precision: float | None = None,
    unknown_share: float = 0.0,
    search: Search = exact_search,
) -> AppliedThreshold:
    """The threshold that a person has set, or the one that keeps a precision; none where neither is
    asked for. Raises NoPromise where the precision can't be promised."""
    if threshold is not None:
        return AppliedThreshold(value=threshold)
    images = calibration_set(gallery_file.run, gallery_file.phase, gallery, search)
    return threshold_on(images, precision=precision, unknown_share=unknown_share)


def threshold_on(
    images: CalibrationSet, *, precision: float | None = None, unknown_share: float = 0.0
) -> AppliedThreshold:
    """The threshold that keeps a precision, chosen on calibration images; none where no precision
    is asked for. Raises NoPromise where it can't be promised."""
    goal = USUAL_GOAL if precision is None else precision
    shares = sorted({*USUAL_SHARES, unknown_share})
    promises = tuple(images.promise(goal, share) for share in shares)
    if precision is None:
        return AppliedThreshold(value=-math.inf, promises=promises, calibration_set=images)
    chosen = promises[shares.index(unknown_share)]
    if not chosen.promised:
        raise NoPromise(describe_lack(chosen, images))
    return AppliedThreshold(
        value=chosen.value, chosen=chosen, promises=promises, calibration_set=images
    )


def describe_lack(promise: GuaranteedThreshold, images: CalibrationSet) -> str:
    """Why a precision can't be promised, and what to do."""
    goal = f"a precision of {promise.goal:.0%}"
    if promise.unknown_share:
        goal += f" with {promise.unknown_share:.0%} photos of classes that are not enrolled"
    text = f"{goal} can't be promised: {describe_available(promise, images)}"
    if promise.unknown_share and not promise.unknown:
        phase = f"use --phase {images.held_out_phase}, or " if images.held_out_phase else ""
        return f"{text}: {phase}enrol classes that the run does not have"
    if promise.known_groups == 1:
        return (
            f"{text}, and one group says nothing about others: {advice_for_more(promise, images)}"
        )
    if promise.known_needed is None:
        cause = describe_why_more_would_not_help(promise)
        return f"{text}, {cause}{BY_HAND}"
    needed = f"about {promise.known_needed:,}{groups_needed(promise)} are needed"
    if promise.unknown_share:
        needed = f"about {promise.known_needed:,} and {promise.unknown_needed:,} are needed"
    return f"{text}, and {needed}: {advice_for_more(promise, images)}"


def describe_available(promise: GuaranteedThreshold, images: CalibrationSet) -> str:
    """How many images there are to choose a threshold on."""
    kind = "validation images" if images.source == "validation" else "enrolled images"
    available = f"there are {promise.known:,} {kind}"
    if promise.known_groups is not None:
        noun = "group" if promise.known_groups == 1 else "groups"
        available += f" of {promise.known_groups:,} {noun}"
    if not promise.known:
        available = (
            f"there are no {'enrolled' if images.validates_by_class else 'validation'} images"
        )
        if images.has_groups:
            available += " with a recorded group"
    if promise.unknown_share:
        available += f" and {promise.unknown:,} images of classes that were never trained on"
    return available


def describe_why_more_would_not_help(promise: GuaranteedThreshold) -> str:
    """Where more images of the same kind would bring no promise."""
    if math.isnan(promise.bound):
        return "of too few classes or groups to try a threshold on: enrol more of them"
    return (
        f"and the most similar are wrong too often (lower bound {promise.bound:.1%}): give a lower"
        " --precision"
    )


def groups_needed(promise: GuaranteedThreshold) -> str:
    """How many groups of the same size the images that are needed would have."""
    if not promise.known_groups or not promise.known_needed:
        return ""
    return f" of {math.ceil(promise.known_needed / promise.known * promise.known_groups):,} groups"


def advice_for_more(promise: GuaranteedThreshold, images: CalibrationSet) -> str:
    """How a run gets as many images as a promise needs."""
    if images.validates_by_class:
        return f"enrol more photos{BY_HAND}"
    fraction = math.ceil(100 * (promise.known_needed or 0) / max(images.num_carved, 1)) / 100
    more = f"train with --set data.valid_fraction={fraction:g}"
    if fraction > LARGEST_FRACTION:
        more = "train with more photos and --set data.valid_fraction=0.2"
    if images.source == "enrolled":
        more = f"enrol more photos, or {more}"
    return f"{more}{BY_HAND}"


def predict(
    gallery: Gallery,
    embedded: Embedded,
    *,
    k: int,
    threshold: float,
    search: Search = exact_search,
    answer_by: Search | PhotoClassifier | None = None,
) -> Predictions:
    """Predict the classes of image files, in the order of those that can be read. `answer_by` is
    the search, or the classifier, that names the class, where it isn't the search for the closest
    images."""
    import faiss  # noqa: F401 - otherwise the first search would be timed with the import

    start = time.perf_counter()
    neighbours = search(gallery, embedded.embeddings, np.full(len(embedded.paths), -1), k)
    answers = neighbours
    classified: tuple[list[str], np.ndarray] | None = None
    if isinstance(answer_by, PhotoClassifier):
        classified = answer_by.classify(embedded.outputs)
    elif answer_by is not None:
        answers = answer_by(gallery, embedded.embeddings, neighbours.query_labels, 1)
    seconds = time.perf_counter() - start
    predictions = predictions_of(gallery, embedded.paths, neighbours, threshold, answers)
    if classified is not None:
        predictions = tuple(
            replace(prediction, class_name=name, probability=float(probability))
            for prediction, name, probability in zip(predictions, *classified, strict=True)
        )
    return Predictions(
        predictions,
        embedded.unreadable,
        embedded.milliseconds,
        1000 * seconds / max(len(predictions), 1),
    )


def predictions_of(
    gallery: Gallery,
    paths: Sequence[Path],
    neighbours: Neighbours,
    threshold: float,
    answers: Neighbours | None = None,
) -> tuple[Prediction, ...]:
    """The classes of images, by their neighbours in the gallery. `answers` are what names the
    class, where that is not the closest image."""
    named_by = neighbours if answers is None else answers
    elected, share = vote(neighbours, neighbours.k)
    predictions = []
    for row, path in enumerate(paths):
        entries = [gallery.entries[index] for index in neighbours.indices[row]]
        similarities = neighbours.similarities[row].tolist()
        similarity = float(named_by.similarities[row, 0])
        predictions.append(
            Prediction(
                path=path,
                class_name=gallery.class_names[named_by.labels[row, 0]],
                similarity=similarity,
                known=similarity >= threshold,
                vote_class=gallery.class_names[elected[row]],
                vote_share=float(share[row]),
                closest=tuple(zip(entries, similarities, strict=True)),
            )
        )
    return tuple(predictions)


def with_labels(prediction: Prediction) -> Prediction:
    """The prediction of a photo that has several labels."""
    counts: Counter[str] = Counter()
    for image, _ in prediction.closest:
        counts.update(image.class_name.split(JOINT))
    shares = ((label, count / len(prediction.closest)) for label, count in counts.items())
    return replace(prediction, labels=tuple(sorted(shares, key=lambda one: (-one[1], one[0]))))


def outcomes_of_others(
    gallery: Gallery,
    network: GalleryEmbedder,
    photos: Sequence[Path],
    search: Search,
    progress: Callable[[int], None] = lambda done: None,
) -> SearchOutcomes:
    """The closest image to each of some photos that are of no class in the gallery."""
    embedded = network.embed(photos, progress)
    count = len(embedded.paths)
    if not count:
        return NO_OUTCOMES
    neighbours = search(gallery, embedded.embeddings, np.full(count, -1), 1)
    return SearchOutcomes(neighbours.similarities[:, 0], np.zeros(count, bool))


def cuts_to_boxes(run: Run) -> bool:
    """Whether the run saw its images cut to boxes, which new photos don't have by themselves."""
    if run.experiment.data.dataset.options.get("crop_to_box", False):
        return True
    return any(box_of(image.path) is not None for image in run.split)
