"""The catalogue of finished runs as the gallery of their test images: P@1 of studio photos alone,
around the means of the domains, and with field photos beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dml_bench.analysis.study import held_out
from dml_bench.evaluation.catalogue import (
    KS,
    CatalogueImages,
    catalogue_curve,
    right_by_catalogue,
)
from dml_bench.evaluation.statistics import PROPORTION, Interval, Scores, interval
from dml_bench.runs.run import Run

__all__ = ["CatalogueRow", "catalogue_images", "catalogue_rows", "has_catalogue"]

ALL, LIMITED = "all", "limited"


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """P@1 of one model on one group of classes, over the seeds of an experiment."""

    model: str
    """`all`, or `limited`: never trained on these classes."""
    classes: str
    """`all` or `unseen`, by the limited models."""
    field: Interval
    """Of the run's own gallery, all training photos."""
    catalogue: Interval
    """Of studio photos alone."""
    centred: Interval
    """Of studio photos alone, each domain around its mean."""
    beside: dict[int, float]
    """By the field photos of each class that are enrolled beside the studio photos."""
    beside_centred: dict[int, float]
    """The same, each domain around its mean."""
    field_only: dict[int, float]
    """The same field photos without studio photos; from 1 on."""


@dataclass(frozen=True, slots=True)
class PhaseAnswers:
    """One seed's queries of a group of classes."""

    field: Scores
    catalogue: Scores
    centred: Scores
    curves: np.ndarray
    """(3, ks) beside, beside centred, field only."""


def has_catalogue(run: Run) -> bool:
    """Whether a run kept embeddings of studio photos."""
    phase = run.protocol.main_phase
    if not run.is_complete or not run.has_embeddings(phase):
        return False
    return "catalogue" in run.embeddings(phase).parts


def catalogue_images(run: Run, phase: str) -> CatalogueImages:
    """The embeddings of a phase, with the classes by their ids in the run."""
    stored, neighbours = run.embeddings(phase), run.neighbours[phase]
    ids = run.class_ids
    names = [run.split[image].class_name for image in stored.images("catalogue")]
    labels = np.array([ids.get(name, -1) for name in names], np.int64)
    return CatalogueImages(
        catalogue=stored.vectors("catalogue"),
        catalogue_labels=labels,
        field=stored.gallery,
        field_labels=neighbours.gallery_labels,
        query=stored.query,
        query_labels=neighbours.query_labels,
    )


def catalogue_rows(runs: Sequence[Run]) -> list[CatalogueRow]:
    """The rows of one experiment, whose runs all have a catalogue."""
    main_phase = runs[0].protocol.main_phase
    unseen = [held_out(run) for run in runs]
    everything = [[(main_phase, None)] for _ in runs]
    rows = [row_of(runs, ALL, "all", everything)]
    if all(unseen):
        limited = [list(of_run.items()) for of_run in unseen]
        of_all = [[(main_phase, np.concatenate(list(of_run.values())))] for of_run in unseen]
        rows.append(row_of(runs, ALL, "unseen", of_all))
        rows.append(row_of(runs, LIMITED, "unseen", limited))
    return rows


Parts = Sequence[tuple[str, np.ndarray | None]]
"""Phases of a run, and the classes whose queries each is asked: all where there is None."""


def row_of(
    runs: Sequence[Run], model: str, classes: str, parts_of_runs: Sequence[Parts]
) -> CatalogueRow:
    """One row over several seeds."""
    seeds: list[PhaseAnswers] = []
    for run, parts in zip(runs, parts_of_runs, strict=True):
        seeds.append(joined([answers_of(run, phase, ids) for phase, ids in parts]))
    curves = np.mean([seed.curves for seed in seeds], axis=0)
    beside, beside_centred, field_only = map(by_number, curves)
    del field_only[0]
    return CatalogueRow(
        model,
        classes,
        field=interval([seed.field for seed in seeds], within=PROPORTION),
        catalogue=interval([seed.catalogue for seed in seeds], within=PROPORTION),
        centred=interval([seed.centred for seed in seeds], within=PROPORTION),
        beside=beside,
        beside_centred=beside_centred,
        field_only=field_only,
    )


def by_number(curve: np.ndarray) -> dict[int, float]:
    """(ks) as a dictionary."""
    return dict(zip(KS, curve.tolist(), strict=True))


def answers_of(run: Run, phase: str, class_ids: np.ndarray | None) -> PhaseAnswers:
    """What one model answers to the queries of some classes. The mean of field photos is of classes
    that the model was trained on."""
    images = catalogue_images(run, phase)
    chosen = np.ones(len(images.query_labels), bool)
    if class_ids is not None:
        chosen = np.isin(images.query_labels, class_ids)
    centred = images.centred(~np.isin(images.field_labels, held_out(run).get(phase, ())))
    labels = images.query_labels[chosen]
    by_field = run.neighbours[phase].labels[:, 0] == images.query_labels
    raw_curve = catalogue_curve(images, chosen, seed=run.seed)
    centred_curve = catalogue_curve(centred, chosen, seed=run.seed)
    lines = (raw_curve.beside_catalogue, centred_curve.beside_catalogue, raw_curve.field_only)
    return PhaseAnswers(
        field=Scores(by_field[chosen].astype(float), labels),
        catalogue=Scores(right_by_catalogue(images)[chosen].astype(float), labels),
        centred=Scores(right_by_catalogue(centred)[chosen].astype(float), labels),
        curves=np.stack([line.mean(1) for line in lines]),
    )


def joined(parts: Sequence[PhaseAnswers]) -> PhaseAnswers:
    """Several hold-outs of one seed, which have different classes."""
    if len(parts) == 1:
        return parts[0]
    sizes = [len(np.unique(part.field.labels)) for part in parts]

    def concatenated(scores: Sequence[Scores]) -> Scores:
        values = np.concatenate([part.values for part in scores])
        return Scores(values, np.concatenate([part.labels for part in scores]))

    return PhaseAnswers(
        field=concatenated([part.field for part in parts]),
        catalogue=concatenated([part.catalogue for part in parts]),
        centred=concatenated([part.centred for part in parts]),
        curves=np.average([part.curves for part in parts], axis=0, weights=sizes),
    )
