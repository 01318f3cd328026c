"""A linear probe: multinomial logistic regression on features that stay as they are, by L-BFGS.

It minimises the mean cross-entropy plus l2/2 times the squared norm of the weights; biases are
free. Features are centred and divided by the root mean square of their lengths beforehand, so that
one grid of l2 suits every backbone; the probe that comes back takes features as they are.
Scikit-learn's LogisticRegression with C = 1 / (images * l2) on such features is the same.

Source: Kornblith, Shlens and Le 2019, "Do better ImageNet models transfer better?", who choose
among 45 values of l2; here they are 13.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dml_bench.system import seeding
from dml_bench.system.blas import one_blas_thread

__all__ = ["L2_GRID", "LinearProbe", "ProbeChoice", "choose_l2", "fit_linear_probe", "set_aside"]

L2_GRID = tuple(float(f"{10**exponent:.3g}") for exponent in np.arange(0, -6.5, -0.5))
"""From strong to weak."""
MOST_ITERATIONS = 200
TOLERANCE = 1e-5
"""The largest part of the gradient at the end."""
PARTS = 5
"""One of so many parts of a class's images is set aside where there are no validation images."""


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """Scores of classes, linear in the features."""

    weights: np.ndarray
    """(classes, dim)"""
    bias: np.ndarray
    """(classes)"""

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(images, dim) -> (images, classes), higher is likelier."""
        return features @ self.weights.T + self.bias


@dataclass(frozen=True, slots=True)
class ProbeChoice:
    """The l2 with the highest accuracy on images that had no part in the fit; of equals, the
    strongest."""

    l2: float
    accuracy: float
    accuracies: tuple[float, ...]
    """For each l2 of the grid."""


def fit_linear_probe(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    l2: float,
    start: LinearProbe | None = None,
    weights: np.ndarray | None = None,
) -> LinearProbe:
    """The probe of (images, dim) features and (images) labels in 0 .. num_classes-1.

    `start` is where the solver begins, which decides its time and not its end. `weights` are
    (images) how much each counts; by default all count the same. Raises ValueError where l2 is not
    positive.
    """
    from scipy.optimize import minimize

    if l2 <= 0:
        raise ValueError(f"l2 must be above 0, got {l2}: the weights would grow without bound")
    centre = features.mean(axis=0)
    centred = features - centre
    scale = float(np.sqrt(np.mean(np.sum(centred**2, axis=1)))) or 1.0
    centred /= scale
    dim, images = features.shape[1], np.arange(len(labels))
    shares = np.full(len(labels), 1 / len(labels)) if weights is None else weights / weights.sum()
    share = shares.astype(centred.dtype)[:, None]

    def loss_and_gradient(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        table = parameters.reshape(num_classes, dim + 1)
        slopes, bias = table[:, :dim].astype(centred.dtype), table[:, dim]
        scores = centred @ slopes.T + bias.astype(centred.dtype)
        scores -= scores.max(axis=1, keepdims=True)
        of_label = scores[images, labels].astype(float)
        np.exp(scores, out=scores)
        total = scores.sum(axis=1, keepdims=True)
        loss = float(shares @ (np.log(total[:, 0].astype(float)) - of_label))
        scores /= total  # now probabilities
        scores[images, labels] -= 1
        scores *= share
        gradient = np.empty_like(table)
        gradient[:, :dim] = scores.T @ centred + l2 * table[:, :dim]
        gradient[:, dim] = scores.sum(axis=0)
        return loss + l2 / 2 * float(np.sum(table[:, :dim] ** 2)), gradient.ravel()

    first = np.zeros((num_classes, dim + 1))
    if start is not None:
        first[:, :dim] = start.weights * scale
        first[:, dim] = start.bias + start.weights @ centre
    with one_blas_thread():
        solved = minimize(
            loss_and_gradient,
            first.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": MOST_ITERATIONS,
                "gtol": TOLERANCE,
                "ftol": float(np.finfo(centred.dtype).eps),  # below it the loss is rounding
            },
        )
    table = solved.x.reshape(num_classes, dim + 1)
    slopes = table[:, :dim] / scale
    bias = table[:, dim] - slopes @ centre
    return LinearProbe(slopes.astype(features.dtype), bias.astype(features.dtype))


def choose_l2(
    features: np.ndarray,
    labels: np.ndarray,
    valid_features: np.ndarray,
    valid_labels: np.ndarray,
    num_classes: int,
    grid: tuple[float, ...] = L2_GRID,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ProbeChoice:
    """Fit with every l2 of a falling grid, each from where the one before ended, and choose by
    accuracy on the validation images. `progress` hears of each fit.

    Where there are none, because each class has a single image, it is the strongest, with an
    accuracy of 0 on all: then the probe is close to the nearest class mean.
    """
    if not len(valid_labels):
        return ProbeChoice(grid[0], 0.0, (0.0,) * len(grid))
    accuracies = []
    probe = None
    for number, l2 in enumerate(grid):
        progress(number, len(grid))
        probe = fit_linear_probe(features, labels, num_classes, l2, probe)
        predicted = probe.logits(valid_features).argmax(axis=1)
        accuracies.append(float(np.mean(predicted == valid_labels)))
    best = int(np.argmax(accuracies))
    return ProbeChoice(grid[best], accuracies[best], tuple(accuracies))


def set_aside(labels: np.ndarray, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """(images) bool: about a fifth of each class, drawn at random, to choose on; never the last
    image of a class. Where images have (images) `groups`, those of a class in one group are on one
    side, and it may be more than a fifth; a class of a single group is divided by its images."""
    unit = np.arange(len(labels)) if groups is None else units_of(labels, groups)
    count = int(unit.max(initial=-1)) + 1
    chance = seeding.uniform(seed, "linear probe", rows=count, columns=1)[unit, 0]
    order = np.lexsort((chance, labels))
    place = np.empty(len(labels), int)
    place[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    sizes = np.bincount(labels)[labels]
    first, last = np.full(count, len(labels)), np.zeros(count, int)
    np.minimum.at(first, unit, place)
    np.maximum.at(last, unit, place)
    wanted = np.maximum(sizes // PARTS, (sizes > 1).astype(int))
    return (first[unit] < wanted) & (last[unit] < sizes - 1)


def units_of(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(images) from 0: the same number for the images of a class in one group; where a class has
    one group only, a number for each image."""
    number = np.unique(groups, return_inverse=True)[1]
    pairs = np.unique(np.stack([labels, number]), axis=1)
    is_alone = np.bincount(pairs[0])[labels] == 1
    own = np.where(is_alone, number.max() + 1 + np.arange(len(labels)), number)
    return np.unique(np.stack([labels, own]), axis=1, return_inverse=True)[1].reshape(-1)
