"""The trainings that make up a phase: one as a rule; one for each fold; and before it, those whose
models label the images that they did not train on."""

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
    """One training of a phase: what is trained on, and where it is kept."""

    phase: Phase
    experiment: Experiment
    folder: Path
    labels_only: bool = False
    """Whether it only labels the images that it did not train on."""


def training_jobs(
    experiment: Experiment, phase: Phase, dataset: Dataset, split: Split, folder: Path
) -> tuple[TrainingJob, ...]:
    """In the order in which they are trained. The last ones answer the queries; several are an
    ensemble."""
    folds, seed = experiment.train.folds, experiment.seed
    labels = given_labels(experiment, Phase("all"), dataset, split)
    if folds:
        parts = fold_phases(phase, dataset, split, labels, folds, seed)
        return tuple(
            TrainingJob(part, experiment, folder / f"fold-{number}")
            for number, part in enumerate(parts, start=1)
        )
    labelling_jobs: tuple[TrainingJob, ...] = ()
    labelling = labellings[experiment.labelling.name].build(**experiment.labelling.options)
    if isinstance(labelling, Soft):
        plain = replace(
            experiment,
            labelling=Component("given"),
            train=replace(experiment.train, checkpoint="last"),
        )
        parts = fold_phases(phase, dataset, split, labels, labelling.folds, seed, name="judge")
        labelling_jobs = tuple(
            TrainingJob(part, plain, folder / f"judge-{number}", labels_only=True)
            for number, part in enumerate(parts, start=1)
        )
    return (*labelling_jobs, TrainingJob(phase, experiment, folder))


def out_of_fold_labels(state: TrainingState) -> dict[str, np.ndarray]:
    """The training images that this model did not train on, and what it holds them to be: by its
    logits where the loss has some, else by the nearest image that it trained on, under the label
    that was trained on."""
    images = np.array(state.phase.fold_images, np.int64)
    outputs = state.outputs(images)
    if state.objective.classifies:
        return {"images": images, "predicted": state.classify(outputs)}
    known = state.labels.current
    neighbours = search(
        state.embed(state.images), unit(outputs), known[state.images], known[images], k=1
    )
    return {"images": images, "predicted": neighbours.labels[:, 0]}
