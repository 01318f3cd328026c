"""A gallery in memory as it answers at one moment: its vectors, its threshold and what that is
worth. A change makes another, whose threshold is chosen anew a moment later."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from dml_bench.evaluation.search import Neighbours, nearest
from dml_bench.evaluation.thresholds import PrecisionCurve
from dml_bench.gallery.calibration import calibration_set
from dml_bench.gallery.format import describe_promise
from dml_bench.gallery.predict import (
    AppliedThreshold,
    NoPromise,
    Prediction,
    predictions_of,
    threshold_on,
)
from dml_bench.gallery.store import Gallery, GalleryFile, GalleryImage
from dml_bench.serve.growing import SearchInPlace

__all__ = ["Calibration", "ServedGallery", "WantedThreshold", "calibrated", "image_id"]

FEWEST_SIMILAR = 20
"""Calibration images of which the share of right answers is an answer's confidence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedThreshold:
    """Whom a person wants to be unknown, as `predict` takes it."""

    threshold: float | None = None
    precision: float | None = None
    unknown_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold, chosen for a gallery as it was at one moment."""

    gallery: Gallery
    applied: AppliedThreshold
    """The threshold; nan where a precision was asked for and can't be promised with this gallery,
    so that every photo is unknown."""
    lack: str
    """Why that precision can't be promised; empty where it can."""
    curve: PrecisionCurve
    """Precision on the calibration images, by their similarity."""


@dataclass(frozen=True)
class ServedGallery:
    """A gallery with all that an answer needs."""

    gallery: Gallery
    calibration: Calibration
    """The last one, which may be of the gallery before some changes."""

    @property
    def applied(self) -> AppliedThreshold:
        """The threshold that answers."""
        return self.calibration.applied

    @property
    def is_calibrated(self) -> bool:
        """Whether the threshold was chosen for this gallery, and not for one before."""
        return self.calibration.gallery is self.gallery

    def changed(self, gallery: Gallery) -> "ServedGallery":
        """Another gallery with the threshold as it is."""
        return replace(self, gallery=gallery)

    def recalibrated(self, calibration: Calibration) -> "ServedGallery":
        """The same gallery with another threshold."""
        return replace(self, calibration=calibration)

    def predict(self, embeddings: np.ndarray, ks: Sequence[int]) -> list[Prediction]:
        """The classes of images, (images, dim) unit vectors, each by so many closest images."""
        similarities, rows = nearest(
            SearchInPlace(self.gallery.embeddings), embeddings, max(ks), len(self.gallery.entries)
        )
        predictions: list[Prediction] = []
        for row, k in enumerate(ks):
            neighbours = Neighbours(
                rows[row : row + 1, :k],
                similarities[row : row + 1, :k],
                self.gallery.labels,
                np.array([-1]),
            )
            photo = (Path("photo"),)
            predictions += predictions_of(self.gallery, photo, neighbours, self.applied.value)
        return predictions

    @property
    def threshold(self) -> float | None:
        """The threshold; None where every photo is answered, or none is."""
        value = self.applied.value
        return value if math.isfinite(value) else None

    @property
    def rule(self) -> str:
        """Which photos are unknown, and what that is worth, in a sentence or two."""
        if self.calibration.lack:
            return f"every photo is unknown, because {self.calibration.lack}{self.not_yet}"
        images, chosen = self.applied.calibration_set, self.applied.chosen
        if chosen is not None and images is not None:
            return f"{describe_promise(chosen, images)}{self.not_yet}"
        if self.threshold is None:
            return "every photo is answered, because no --precision was asked for"
        return (
            f"photos below a similarity of {self.threshold:g} are unknown: this threshold was set"
            " by hand and promises nothing"
        )

    @property
    def not_yet(self) -> str:
        """A clause where the threshold is that of the gallery before its last changes."""
        if self.is_calibrated:
            return ""
        then, now = len(self.calibration.gallery.entries), len(self.gallery.entries)
        return (
            f"; this was chosen when the gallery had {then:,} images, which are {now:,} now, and"
            " is chosen anew within seconds"
        )

    def confidence(self, similarity: float) -> float | None:
        """Of the calibration images that are at least as similar, the share that is answered right;
        None where they are fewer than `FEWEST_SIMILAR`."""
        curve = self.calibration.curve
        precision, coverage = curve.at(similarity)
        return precision if coverage * curve.total > FEWEST_SIMILAR - 0.5 else None

    @cached_property
    def images(self) -> dict[str, GalleryImage]:
        """The images by their ids."""
        return {image_id(entry): entry for entry in self.gallery.entries}


def image_id(entry: GalleryImage) -> str:
    """What a client calls an image of the gallery: it needn't know where files lie."""
    return hashlib.sha256(entry.path.encode("utf-8", "surrogateescape")).hexdigest()[:20]


def calibrated(gallery_file: GalleryFile, gallery: Gallery, wanted: WantedThreshold) -> Calibration:
    """The threshold that is chosen for a gallery as it is now. A precision that can't be promised
    makes every photo unknown."""
    vectors = SearchInPlace(gallery.embeddings)

    def search(
        searched: Gallery, query: np.ndarray, query_labels: np.ndarray, k: int
    ) -> Neighbours:
        similarities, rows = nearest(vectors, query, k, len(searched.entries))
        return Neighbours(rows, similarities, searched.labels, query_labels)

    images = calibration_set(gallery_file.run, gallery_file.phase, gallery, search)
    applied, lack = AppliedThreshold(value=math.nan, calibration_set=images), ""
    if wanted.threshold is not None:
        applied = AppliedThreshold(value=wanted.threshold)
    else:
        try:
            applied = threshold_on(
                images, precision=wanted.precision, unknown_share=wanted.unknown_share
            )
        except NoPromise as problem:
            lack = str(problem)
    return Calibration(gallery, applied, lack, images.curve(wanted.unknown_share))
