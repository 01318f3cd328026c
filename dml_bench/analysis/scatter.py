"""How far test images scatter against training images in each phase of finished runs: over all
seeds, for classes that the limited models trained on and for those that they did not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from dml_bench.analysis.study import held_out
from dml_bench.evaluation.scatter import GROUPS, MEASURES, bounds_of, scatter
from dml_bench.evaluation.statistics import Interval, Scores, interval
from dml_bench.runs.run import Run

__all__ = [
    "DIFFERENCE",
    "RunScatter",
    "ScatterRow",
    "can_scatter",
    "class_rows",
    "scatter_in",
    "scatter_rows",
]

ALL, LIMITED, DIFFERENCE = "all", "limited", "limited - all"

PhaseScatter = dict[str, Scores]
"""By measure, one value for each image."""


@dataclass(frozen=True, slots=True)
class RunScatter:
    """What is measured once of a run, for its means and its classes."""

    run: Run
    phases: dict[str, PhaseScatter]
    """By name: the main phase, then each in which classes are held out."""


@dataclass(frozen=True, slots=True)
class ScatterRow:
    """The scatter of one experiment over its seeds."""

    model: str
    """`all`, `limited`, or `limited - all`: the difference on the same images."""
    classes: str
    """`seen` or `unseen`, by the limited models."""
    values: dict[str, Interval]
    """By measure, the mean over classes and seeds; without those that no image has."""


def can_scatter(run: Run) -> bool:
    """Whether a run has two phases that embedded the same test and training images, and kept the
    embeddings."""
    phases = [run.protocol.main_phase, *held_out(run)]
    return len(phases) > 1 and run.is_complete and all(map(run.has_embeddings, phases))


def scatter_in(run: Run) -> RunScatter:
    """The scatter in the phases of a run, which `can_scatter`."""
    phases = {}
    for phase in (run.protocol.main_phase, *held_out(run)):
        stored, neighbours = run.embeddings(phase), run.neighbours[phase]
        labels = neighbours.gallery_labels, neighbours.query_labels
        phases[phase] = scatter(stored.gallery, stored.query, *labels)
    return RunScatter(run, phases)


def scatter_rows(runs: Sequence[RunScatter]) -> list[ScatterRow]:
    """The rows of one experiment. Of several hold-outs, an image has the mean over those in which
    its class belongs to the group."""
    by_seed = [models_of(run) for run in runs]
    rows = []
    for classes in GROUPS:
        for model in (ALL, LIMITED, DIFFERENCE):
            of_seeds = [of_seed[model, classes] for of_seed in by_seed]
            values = {}
            for measure in MEASURES:
                mean = mean_of([of_seed[measure] for of_seed in of_seeds], measure, model)
                if mean is not None:
                    values[measure] = mean
            if values:
                rows.append(ScatterRow(model, classes, values))
    return rows


def models_of(measured: RunScatter) -> dict[tuple[str, str], PhaseScatter]:
    """By model and group of classes, the scatter in one run."""
    unseen, limited = held_out(measured.run), measured.phases
    of_all = limited[measured.run.protocol.main_phase]
    models: dict[tuple[str, str], PhaseScatter] = {}
    for classes in GROUPS:
        parts: dict[str, PhaseScatter] = {ALL: {}, LIMITED: {}, DIFFERENCE: {}}
        for measure in MEASURES:
            labels = of_all[measure].labels
            is_unseen = np.stack([np.isin(labels, held) for held in unseen.values()])
            belongs = is_unseen if classes == "unseen" else ~is_unseen
            values = np.stack([limited[phase][measure].values for phase in unseen])
            without = Scores(mean_over_holdouts(values, belongs), labels)
            chosen: np.ndarray = np.any(belongs, axis=0)
            parts[ALL][measure] = of_all[measure].where(chosen)
            parts[LIMITED][measure] = without.where(chosen)
            parts[DIFFERENCE][measure] = without.minus(of_all[measure]).where(chosen)
        models |= {(model, classes): part for model, part in parts.items()}
    return models


def mean_over_holdouts(values: np.ndarray, belongs: np.ndarray) -> np.ndarray:
    """(holdouts, images) -> (images) the mean over the hold-outs that count for an image; nan where
    none does."""
    counts = belongs.sum(0)
    totals = np.where(belongs, values, 0).sum(0)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def mean_of(seeds: Sequence[Scores], measure: str, model: str) -> Interval | None:
    """The mean over the classes that have the measure with every seed; None without any."""
    defined = [np.unique(of_seed.labels[np.isfinite(of_seed.values)]) for of_seed in seeds]
    shared = reduce(np.intersect1d, defined)
    if not len(shared):
        return None
    bounds = bounds_of(measure, is_difference=model == DIFFERENCE)
    return interval([of_seed.of_classes(shared) for of_seed in seeds], within=bounds)


def class_rows(measured: RunScatter) -> Iterator[tuple[str, str, bool, list[float]]]:
    """Of each phase and class of one run: the phase, the class, whether the phase never trained on
    it, and the mean of each measure; nan where no image has it."""
    unseen = held_out(measured.run)
    for phase, of_phase in measured.phases.items():
        for label, name in measured.run.class_names.items():
            means = []
            for scores in of_phase.values():
                values = scores.values[scores.labels == label]
                known = values[np.isfinite(values)]
                means.append(float(known.mean()) if len(known) else np.nan)
            yield phase, name, bool(label in unseen.get(phase, ())), means
