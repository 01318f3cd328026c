"""Label strategies: which labels are trained on, where those of the data set may be wrong.

A registered function returns its options as a value that `training.labels` follows. No strategy
ever sees a test image or a class that the phase holds out. Fact `classifies`: the loss has to say
the class of an image by itself.
"""

from dataclasses import dataclass
from typing import Annotated

from dml_bench.registry import labellings
from dml_bench.registry.option_checks import Count, Fraction, at_least, between, between_open

__all__ = ["Corrected", "Correcting", "LikelihoodRatio", "Soft"]


@dataclass(frozen=True, slots=True)
class Soft:
    """Options of `softlabels`, which see."""

    a: float
    folds: int


@dataclass(frozen=True, slots=True)
class Corrected:
    """Options of `plc`, which see."""

    warm_up: float
    theta: float
    theta_end: float
    listen_from: float = 0.0

    def threshold(self, epoch: int, epochs: int) -> float | None:
        """The margin to beat after this epoch, counted from 1; None while warming up."""
        begin = self.warm_up * epochs
        if epoch < begin:
            return None
        return self.theta + (self.theta_end - self.theta) * (epoch - begin) / max(epochs - begin, 1)


@dataclass(frozen=True, slots=True)
class LikelihoodRatio:
    """Options of `plc_ratio`, which see."""

    warm_up: float
    window: int
    delta: float
    delta_step: float
    listen_from: float = 0.0


Correcting = Corrected | LikelihoodRatio
"""A strategy that replaces labels while the model trains."""


@labellings.register("given", summary="the labels of the data set", source="the usual way")
def labels_of_the_data_set() -> None:
    return None


@labellings.register(
    "softlabels",
    summary="where models of the other folds see another class, both labels, weighted",
    source="out-of-fold pseudo-labels, as in the winning plant-pathology entries of 2020",
)
def softlabels(*, a: Fraction = 0.7, folds: Annotated[int, at_least(2)] = 5) -> Soft:
    """`a` is the weight of the given label, 1 - a that of the predicted one. `folds` models are
    trained for each phase, each without the images that it then labels: by the logits where the
    loss has some, else by the nearest image that it trained on."""
    return Soft(a, folds)


@labellings.register(
    "plc",
    summary=(
        "progressive label correction: labels that the model contradicts with enough margin are"
        " replaced while it trains"
    ),
    source="Zhang et al. 2021, Learning with feature-dependent label noise: a progressive approach",
    classifies=True,
)
def plc(
    *,
    warm_up: Fraction = 0.2,
    theta: Fraction = 0.3,
    theta_end: Annotated[float, between(0, "theta")] = 0.1,
    listen_from: Fraction = 0.0,
) -> Corrected:
    """After an epoch beyond the part `warm_up` of all, an image whose likeliest class is more
    probable than its label by more than a threshold takes that class; the threshold falls linearly
    from `theta` to `theta_end`. Probabilities are those of the epoch's own training batches. The
    paper's rounds are of several epochs and its threshold falls only when few labels change.
    Nothing is replaced before the logits are right about the part `listen_from` of the validation
    images, by the labels that are given; 0 does not wait."""
    return Corrected(warm_up, theta, theta_end, listen_from)


@labellings.register(
    "plc_ratio",
    summary=(
        "progressive label correction as its authors' code does it: by the ratio of the label's"
        " probability to the likeliest class's"
    ),
    source="Zhang et al. 2021, Learning with feature-dependent label noise: a progressive approach",
    classifies=True,
)
def plc_ratio(
    *,
    warm_up: Fraction = 0.2,
    window: Count = 4,
    delta: Annotated[float, between_open(0, 1)] = 0.1,
    delta_step: Annotated[float, between_open(0, 1)] = 0.05,
    listen_from: Fraction = 0.0,
) -> LikelihoodRatio:
    """After each epoch beyond the part `warm_up` of all, an image whose label is less than `delta`
    times as probable as its likeliest class takes that class. Probabilities are means over the
    last `window` epochs, of their training batches. Where fewer than a thousandth of the labels
    are replaced, `delta` grows by `delta_step`, up to 0.9. `listen_from` as for `plc`.

    The defaults are those of the authors' code for Food-101N, but for a longer warm-up: theirs is 4
    of 30 epochs. For CIFAR it has 8 of 180, a window of 5, and .3 with steps of .1."""
    return LikelihoodRatio(warm_up, window, delta, delta_step, listen_from)
