"""Rivals that make no steps: the last layer of a classifier is fitted at once, on the features of a
frozen backbone.

`ClassMeans` trains nothing: the layer holds the class means, and the nearest image and the nearest
class mean answer. `LinearProbe` is logistic regression. Both see the training images of their phase
only, and validation images of the same classes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dml_bench.data.grouping import groups_of
from dml_bench.evaluation.linear_probe import choose_l2, fit_linear_probe, set_aside
from dml_bench.system import distributed

if TYPE_CHECKING:
    from dml_bench.training.training_state import TrainingState

__all__ = ["ClassMeans", "LinearProbe", "fit_at_once"]


@dataclass(frozen=True, slots=True)
class FitImages:
    """What a last layer may be fitted on: features as they are, labels in 0 .. classes-1."""

    features: np.ndarray
    """(images, dim)"""
    labels: np.ndarray
    valid_features: np.ndarray
    """(validation images, dim) of the same classes; perhaps none."""
    valid_labels: np.ndarray
    num_classes: int
    seed: int
    groups: np.ndarray | None = None
    """(images) which of them belong together, as `data.group` says; None where it is not set."""


class AtOnce(torch.optim.Optimizer):
    """In the place of an optimizer, where nothing is trained in steps."""

    def __init__(self, parameters: Any):
        super().__init__(parameters, {"lr": 0.0})

    def fit(
        self, images: FitImages, progress: Callable[[int, int], None]
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Weights (classes, dim), biases (classes), and what is worth knowing of them. `progress`
        hears of each part of a long fit."""
        raise NotImplementedError


class ClassMeans(AtOnce):
    """The means of unit features, at unit length: the highest logit is that of the nearest one."""

    def fit(
        self, images: FitImages, progress: Callable[[int, int], None]
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """No validation image is looked at."""
        unit = functional.normalize(torch.from_numpy(images.features), dim=1)
        sums = torch.zeros(images.num_classes, unit.shape[1])
        sums.index_add_(0, torch.from_numpy(images.labels), unit)
        means = functional.normalize(sums, dim=1).numpy()
        return means, np.zeros(images.num_classes, np.float32), {}


class LinearProbe(AtOnce):
    """Logistic regression. Without validation images, a fifth of each class is set aside to choose
    the l2, in whole groups where `data.group` is set. The probe is then fitted on all training
    images."""

    def fit(
        self, images: FitImages, progress: Callable[[int, int], None]
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """`l2`, the accuracy that chose it, and on which images."""
        features, labels = images.features, images.labels
        valid_features, valid_labels = images.valid_features, images.valid_labels
        chosen_on = "validation images"
        if not len(valid_labels):
            chosen_on = "training images that were set aside"
            aside = set_aside(labels, images.seed, images.groups)
            valid_features, valid_labels = features[aside], labels[aside]
            features, labels = features[~aside], labels[~aside]
        choice = choose_l2(
            features,
            labels,
            valid_features,
            valid_labels,
            images.num_classes,
            progress=progress,
        )
        probe = fit_linear_probe(images.features, images.labels, images.num_classes, choice.l2)
        facts = {
            "l2": choice.l2,
            "chosen_on": chosen_on,
            "chosen_on_images": len(valid_labels),
            "valid_accuracy": choice.accuracy,
        }
        return probe.weights, probe.bias, facts


def fit_at_once(state: "TrainingState") -> None:
    """Fill in the last layer of the state's classifier, and say in `state.fitted` what came of it.
    Of several processes the first one's weights count."""
    assert isinstance(state.optimizer, AtOnce)
    start, cpu_start = time.perf_counter(), time.process_time()
    progress = partial(state.callback.progress, "linear probe")
    weights, bias, facts = state.optimizer.fit(fit_images(state), progress)
    layer = state.objective.loss.classifier
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
        layer.bias.copy_(torch.from_numpy(bias))
        distributed.broadcast_tensors_(layer.parameters())
    state.fitted = {
        **facts,
        "images": len(state.images),
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
    }


def fit_images(state: "TrainingState") -> FitImages:
    """The training images of the phase, and the validation images of its classes. Test images have
    no part in it."""
    rule = state.experiment.data.group
    valid = state.monitored.queries.get("valid", state.images[:0])
    valid = valid[np.isin(state.labels.initial[valid], state.trained)]

    def features_of(images: np.ndarray) -> np.ndarray:
        return state.source.view(images).cpu().numpy()

    def labels_of(images: np.ndarray) -> np.ndarray:
        return np.searchsorted(state.trained, state.labels.initial[images])

    return FitImages(
        features=features_of(state.images),
        labels=labels_of(state.images),
        valid_features=features_of(valid),
        valid_labels=labels_of(valid),
        num_classes=len(state.trained),
        seed=state.experiment.seed,
        groups=groups_of(state.dataset, rule)[state.images] if rule else None,
    )
