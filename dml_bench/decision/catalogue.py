"""A catalogue of studio photos as the gallery of the final photos: it has no part in the choice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dml_bench.decision.final import FinalPhotos
from dml_bench.evaluation.catalogue import (
    KS,
    CatalogueImages,
    catalogue_curve,
    right_by_catalogue,
)
from dml_bench.evaluation.statistics import PROPORTION, Interval, Scores, interval
from dml_bench.protocols.holdout_metrics import ALL
from dml_bench.runs.run import Run
from dml_bench.training.training_state import unit

__all__ = ["CatalogueGallery", "catalogue_gallery"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogueGallery:
    """P@1 on the final photos by studio photos alone, by the chosen row's network."""

    num_photos: int
    num_classes: int
    """The classes that have a studio photo. Final photos of others are answered wrongly."""
    known: Interval
    known_centred: Interval
    """The same, with the means of studio and of training photos taken away."""
    new: Interval
    """On classes that the model was not trained on."""
    new_centred: Interval
    photos: tuple[int, ...]
    """Field photos of each class beside the studio photos, centred; the first is 0."""
    precision: tuple[float, ...]
    """P@1 on new classes with so many."""

    def as_table(self) -> dict[str, Any]:
        """For JSON: proportions from 0 to 1."""
        return {
            "photos": self.num_photos,
            "classes": self.num_classes,
            "known": self.known.as_table(),
            "known_centred": self.known_centred.as_table(),
            "new": self.new.as_table(),
            "new_centred": self.new_centred.as_table(),
            "field_photos": list(self.photos),
            "precision_of_new": list(self.precision),
        }


def catalogue_gallery(final: FinalPhotos, studio: FinalPhotos, run: Run) -> CatalogueGallery | None:
    """What the studio photos say of the final photos, in each phase of a run; None where no final
    photo is of a class that some phase did not train on."""
    images = images_of(final, studio, run, ALL)
    most = int(np.bincount(images.field_labels).max())
    ks = tuple(k for k in KS if k <= most)
    new, new_centred, curves, sizes = [], [], [], []
    for phase, held_out in run.held_out.items():
        of_phase = images_of(final, studio, run, phase)
        chosen = np.isin(of_phase.query_labels, held_out)
        if not chosen.any():  # none of their final photos can be read
            continue
        # The mean of the field is of classes that the model was trained on.
        centred = of_phase.centred(~np.isin(of_phase.field_labels, held_out))
        new.append(scores_of(of_phase, chosen))
        new_centred.append(scores_of(centred, chosen))
        curve = catalogue_curve(centred, chosen, ks=ks, seed=run.seed)
        curves.append(curve.beside_catalogue.mean(1))
        sizes.append(len(held_out))
    if not sizes:
        return None
    everything = np.ones(len(images.query_labels), bool)
    return CatalogueGallery(
        num_photos=len(images.catalogue_labels),
        num_classes=len(np.unique(images.catalogue_labels)),
        known=interval([scores_of(images, everything)], within=PROPORTION),
        known_centred=interval([scores_of(images.centred(), everything)], within=PROPORTION),
        new=interval([concatenated(new)], within=PROPORTION),
        new_centred=interval([concatenated(new_centred)], within=PROPORTION),
        photos=ks,
        precision=tuple(np.average(curves, axis=0, weights=sizes).tolist()),
    )


def images_of(final: FinalPhotos, studio: FinalPhotos, run: Run, phase: str) -> CatalogueImages:
    """The studio photos, the run's own gallery, and the final photos, by the network of a phase."""
    studio_outputs, studio_labels = studio.outputs(run, phase)
    outputs, labels = final.outputs(run, phase)
    return CatalogueImages(
        catalogue=unit(studio_outputs),
        catalogue_labels=studio_labels,
        field=run.embeddings(phase).gallery,
        field_labels=run.neighbours[phase].gallery_labels,
        query=unit(outputs),
        query_labels=labels,
    )


def scores_of(images: CatalogueImages, chosen: np.ndarray) -> Scores:
    right = right_by_catalogue(images)[chosen].astype(float)
    return Scores(right, images.query_labels[chosen])


def concatenated(parts: Sequence[Scores]) -> Scores:
    values = np.concatenate([part.values for part in parts])
    return Scores(values, np.concatenate([part.labels for part in parts]))
