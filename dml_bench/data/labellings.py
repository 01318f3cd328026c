"""Labellings: whose labels are trained on, where those that are given may be wrong.

A registered function checks the options and returns them as a value that `training.labels` follows. No labelling ever sees a test image
or a class that the phase holds out. Fact `classifies`: the loss has to say the class of an image by itself.
"""

from dataclasses import dataclass

from dml_bench.registry import labellings

__all__ = ["Corrected", "Soft"]


@dataclass(frozen=True, slots=True)
class Soft:
    a: float
    folds: int


@dataclass(frozen=True, slots=True)
class Corrected:
    warm_up: float
    theta: float
    theta_end: float

    def threshold(self, epoch: int, epochs: int) -> float | None:
        """The margin to beat after this epoch, counted from 1; None while warming up."""
        begin = self.warm_up * epochs
        if epoch < begin:
            return None
        return self.theta + (self.theta_end - self.theta) * (epoch - begin) / max(epochs - begin, 1)


def fraction(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"labelling.{name} is {value}; a number from 0 to 1 is wanted")


@labellings.register("given", summary="the labels of the data set", source="the usual way")
def given() -> None:
    return None


@labellings.register(
    "softlabels",
    summary="where models of the other folds see another class, both labels, weighted",
    source="out-of-fold pseudo-labels, as in the winning plant-pathology entries of 2020",
)
def softlabels(*, a: float = 0.7, folds: int = 5) -> Soft:
    """`a` is the weight of the given label, 1 - a that of the predicted one. `folds` models are trained for each phase, each without the
    images that it then judges: by the logits where the loss has some, else by the nearest image that it trained on."""
    fraction(a=a)
    if folds < 2:
        raise ValueError(f"labelling.folds is {folds}; at least 2 is wanted")
    return Soft(a, folds)


@labellings.register(
    "plc",
    summary="progressive label correction: labels that the model contradicts with enough margin are replaced while it trains",
    source="Zhang et al. 2021, Learning with feature-dependent label noise: a progressive approach",
    classifies=True,
)
def plc(*, warm_up: float = 0.2, theta: float = 0.3, theta_end: float = 0.1) -> Corrected:
    """After an epoch beyond the part `warm_up` of all, an image whose likeliest class is more probable than its label by more than a
    threshold takes that class; the threshold falls linearly from `theta` to `theta_end`. Probabilities are those of the epoch's own
    training batches. The paper's rounds are of several epochs and its threshold falls only when few labels change."""
    fraction(warm_up=warm_up, theta=theta, theta_end=theta_end)
    if theta_end > theta:
        raise ValueError(f"labelling.theta_end is {theta_end}, above labelling.theta ({theta}): the threshold falls")
    return Corrected(warm_up, theta, theta_end)
