"""The threshold below which a photo is `unknown`, exactly as `dml-bench predict` would choose it,
tried on the final part."""

from dataclasses import dataclass

import numpy as np

from dml_bench.decision.choice import By
from dml_bench.decision.final import FinalPhotos
from dml_bench.evaluation.thresholds import GuaranteedThreshold, precision_curve
from dml_bench.gallery.calibration import CalibrationSet, calibration_set
from dml_bench.gallery.index_store import exact_search
from dml_bench.gallery.mean_search import mean_search
from dml_bench.gallery.predict import describe_lack
from dml_bench.gallery.store import run_gallery
from dml_bench.protocols.holdout_metrics import ALL
from dml_bench.runs.run import Run

__all__ = ["UnknownThreshold", "unknown_threshold"]

GOALS = (0.95, 0.9, 0.8)
"""Precisions, the first that can be promised is taken."""


@dataclass(frozen=True, slots=True)
class UnknownThreshold:
    """What is promised, and what came of it on the final part."""

    promise: GuaranteedThreshold
    """Of the highest goal that can be promised, else of the lowest goal."""
    lack: str
    """Why nothing can be promised; empty where something can."""
    answered: float
    """The share of final photos of known classes that are answered."""
    precision: float
    """The share of these answers that are right; nan where nothing is answered."""
    strangers_answered: float
    """The share of final photos of classes that were neither trained on nor enrolled that are
    answered all the same, by the models without these classes and their own thresholds; nan where
    these have none."""


def unknown_threshold(final: FinalPhotos, run: Run, by: By) -> UnknownThreshold:
    """Chosen on the run's validation photos."""
    find = mean_search if by == "mean" else exact_search
    images = calibration_set(run, ALL, run_gallery(run, ALL), find)
    promise = highest(images)
    if not promise.promised:
        lack = describe_lack(promise, images)
        return UnknownThreshold(promise, lack, np.nan, np.nan, np.nan)
    precision, answered = precision_curve(final.nearest(run, by=by).outcomes).at(promise.value)
    strangers = []
    for phase in run.held_out:
        of_phase = calibration_set(run, phase, run_gallery(run, phase), find).promise(promise.goal)
        similarities = final.strangers(run, phase, by)
        if of_phase.promised and len(similarities):
            strangers.append(np.mean(similarities >= of_phase.value))
    share = float(np.mean(strangers)) if strangers else np.nan
    return UnknownThreshold(promise, "", answered, precision, share)


def highest(images: CalibrationSet) -> GuaranteedThreshold:
    """The promise of the highest goal."""
    for goal in GOALS:
        promise = images.promise(goal)
        if promise.promised:
            break
    return promise
