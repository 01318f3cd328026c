"""The trainings that make up a phase: one as a rule; one for each fold; and before it, those whose
models judge the labels."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dml_bench.config import Component, Experiment
from dml_bench.data.datasets import Dataset
from dml_bench.data.label_strategies import Soft
from dml_bench.data.split import Phase, Split, fold_phases
from dml_bench.evaluation.search import search
from dml_bench.registry import labellings
from dml_bench.training.labels import given_labels
from dml_bench.training.training_state import TrainingState, unit

__all__ = ["TrainingJob", "out_of_fold_labels", "training_jobs"]


@dataclass(frozen=True, slots=True)
class TrainingJob:
    phase: Phase
    experiment: Experiment
    folder: Path
    judges: bool = False
    """Whether it only says what the images are that it did not train on."""


def training_jobs(
    experiment: Experiment, phase: Phase, dataset: Dataset, split: Split, folder: Path
) -> tuple[TrainingJob, ...]:
    """In the order in which they are trained. The last ones answer the queries, together where
    there are several."""
    folds, seed = experiment.train.folds, experiment.seed
    given = given_labels(experiment, Phase("all"), dataset, split)
    if folds:
        parts = fold_phases(phase, dataset, split, given, folds, seed)
        return tuple(
            TrainingJob(part, experiment, folder / f"fold-{number}")
            for number, part in enumerate(parts, start=1)
        )
    judges: tuple[TrainingJob, ...] = ()
    labelling = labellings[experiment.labelling.name].build(**experiment.labelling.options)
    if isinstance(labelling, Soft):
        plain = replace(
            experiment,
            labelling=Component("given"),
            train=replace(experiment.train, checkpoint="last"),
        )
        parts = fold_phases(phase, dataset, split, given, labelling.folds, seed, name="judge")
        judges = tuple(
            TrainingJob(part, plain, folder / f"judge-{number}", judges=True)
            for number, part in enumerate(parts, start=1)
        )
    return (*judges, TrainingJob(phase, experiment, folder))


def out_of_fold_labels(run: TrainingState) -> dict[str, np.ndarray]:
    """The training images that this model did not train on, and what it holds them to be: by its
    logits where the loss has some, else by the nearest image that it trained on, under the label
    that was trained on."""
    images = np.array(run.phase.fold_images, np.int64)
    outputs = run.outputs(images)
    if run.objective.classifies:
        return {"images": images, "predicted": run.classify(outputs)}
    known = run.labels.current
    found = search(run.embed(run.images), unit(outputs), known[run.images], known[images], k=1)
    return {"images": images, "predicted": found.labels[:, 0]}
