"""The labels that a phase trains on: given, corrupted on purpose, softened or corrected. Of
training images and trained classes only."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dml_bench.config import Experiment
from dml_bench.data.datasets import Dataset
from dml_bench.data.label_strategies import Correcting, LikelihoodRatio
from dml_bench.data.split import Phase, Split
from dml_bench.system.devices import to_device
from dml_bench.system.seeding import uniform

__all__ = ["Correction", "TrainingLabels", "balanced", "corrupted", "given_labels"]


@dataclass(frozen=True, slots=True)
class Correction:
    """One label that was replaced."""

    image: int
    before: int
    after: int
    """Class ids."""
    epoch: int
    margin: float
    """Probability of the new class less that of the old one."""


FEW = 0.001
"""Part of the labels: where fewer are replaced, the ratio that is asked for grows."""
LARGEST_DELTA = 0.9


@dataclass(kw_only=True)
class TrainingLabels:
    """(images) arrays over the whole data set; what they hold for images that the phase does not
    train on is never read."""

    trained: np.ndarray
    """(trained classes) ascending class ids: label i of the objective is class trained[i]."""
    clean: np.ndarray
    """(images) class ids of the data set."""
    initial: np.ndarray
    """(images) class ids that are trained on at first, sampled by and validated with: those of
    `given_labels`."""
    out_of_fold: np.ndarray | None = None
    """(images) class ids that count too, where they differ; see `a`."""
    a: float = 1.0
    """Weight of the given label beside a second one."""
    class_weights: np.ndarray | None = None
    """(classes) how much an image of each class counts."""
    corrected: Correcting | None = None
    current: np.ndarray = field(init=False)
    """(images) class ids after the corrections."""
    corrections: list[Correction] = field(default_factory=list)
    delta: float = 0.0
    """The ratio below which a label is replaced now; see `plc_ratio`."""
    window: list[Tensor] = field(default_factory=list)
    """(images, trained classes) probabilities of the last epochs, for strategies that average."""
    _likeliest: Tensor | None = None
    _margin: Tensor | None = None
    _probability: Tensor | None = None

    def __post_init__(self) -> None:
        self.current = self.initial.copy()
        if isinstance(self.corrected, LikelihoodRatio):
            self.delta = self.corrected.delta

    def targets(self, images: np.ndarray) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """What the images are: (batch) labels 0 .. trained classes - 1, each with (batch) weights
        or None for 1."""
        first = self.current[images]
        weights = None if self.class_weights is None else self.class_weights[first]
        if self.out_of_fold is None:
            return [(self._label(first), weights)]
        other = self.out_of_fold[images]
        share = np.where(other != first, self.a, 1.0)
        of_class = 1.0 if weights is None else weights
        return [
            (self._label(first), of_class * share),
            (self._label(other), of_class * (1 - share)),
        ]

    def _label(self, classes: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.trained, classes)

    def observe(self, images: np.ndarray, logits: Tensor) -> None:
        """Remember what the model holds a batch to be, (batch, trained classes) logits; nothing
        leaves the device."""
        if isinstance(self.corrected, LikelihoodRatio):
            if self._probability is None:
                shape = (len(self.current), logits.shape[1])
                self._probability = torch.zeros(shape, device=logits.device)
            places = to_device(images, logits.device)
            self._probability[places] = logits.detach().float().softmax(dim=1)
            return
        if self._likeliest is None or self._margin is None:
            self._likeliest = torch.zeros(len(self.current), dtype=torch.long, device=logits.device)
            self._margin = torch.zeros(len(self.current), device=logits.device)
        probability = logits.detach().float().softmax(dim=1)
        most, likeliest = probability.max(dim=1)
        labels = self._label(self.current[images])
        own, place = to_device(np.stack([labels, images]), logits.device)
        self._likeliest[place] = likeliest
        self._margin[place] = most - probability.gather(1, own[:, None])[:, 0]

    def correct(
        self, images: np.ndarray, epoch: int, epochs: int, accuracy: float | None = None
    ) -> None:
        """At the end of an epoch: replace the labels that the model contradicts, once its
        `accuracy` on validation images is what the strategy waits for. What was observed is
        forgotten."""
        strategy = self.corrected
        if strategy is None:
            return
        listens = not strategy.listen_from or (accuracy or 0.0) >= strategy.listen_from
        if isinstance(strategy, LikelihoodRatio):
            warm = epoch > strategy.warm_up * epochs
            self._correct_by_ratio(strategy, images, epoch, now=listens and warm)
            return
        threshold = strategy.threshold(epoch, epochs) if listens else None
        if threshold is not None and self._likeliest is not None and self._margin is not None:
            classes = self.trained[self._likeliest.cpu().numpy()[images]]
            margins = self._margin.cpu().numpy()[images]
            for image, new, margin in zip(images, classes, margins, strict=True):
                if margin > threshold and new != self.current[image]:
                    self._replace(image, new, epoch, margin)
        self._likeliest = self._margin = None

    def _correct_by_ratio(
        self, strategy: LikelihoodRatio, images: np.ndarray, epoch: int, *, now: bool
    ) -> None:
        """The epoch enters the window; where it is time, labels are replaced by the window."""
        assert self._probability is not None, "an epoch was observed"
        self.window = [*self.window, self._probability][-strategy.window :]
        self._probability = None
        if not now:
            return
        mean = torch.stack(self.window).mean(dim=0).cpu().numpy()[images]
        rows = np.arange(len(images))
        own, most = mean[rows, self._label(self.current[images])], mean.max(axis=1)
        # An image that was in no batch has no probabilities, and 0 < 0 is false.
        replaced = np.flatnonzero(own < self.delta * most)
        for row in replaced:
            new = self.trained[mean[row].argmax()]
            self._replace(images[row], new, epoch, most[row] - own[row])
        if len(replaced) < FEW * len(images):
            self.delta = min(self.delta + strategy.delta_step, LARGEST_DELTA)

    def _replace(self, image: np.integer, new: np.integer, epoch: int, margin: np.floating) -> None:
        before = int(self.current[image])
        self.corrections.append(Correction(int(image), before, int(new), epoch, float(margin)))
        self.current[image] = new

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the corrections, and what the next ones will rest on."""
        rows = [[c.image, c.before, c.after, c.epoch, c.margin] for c in self.corrections]
        return {"corrections": rows, "delta": self.delta, "window": self.window}

    def restore(self, state: dict[str, Any]) -> None:
        """Make all corrections of a checkpoint again."""
        self.corrections = [Correction(*row) for row in state["corrections"]]
        self.delta = state.get("delta", self.delta)
        self.window = list(state.get("window", []))
        self.current = self.initial.copy()
        for correction in self.corrections:
            self.current[correction.image] = correction.after

    def summary(self, images: np.ndarray) -> dict[str, Any]:
        """How many of these training images' labels were wrong and replaced, and how often
        rightly."""
        final = self.current if self.out_of_fold is None else self.out_of_fold
        changed = final[images] != self.initial[images]
        wrong = self.initial[images] != self.clean[images]
        right = final[images] == self.clean[images]
        return {
            "training_images": len(images),
            "wrong_labels": int(wrong.sum()),
            "replaced": int(changed.sum()),
            "replaced_rightly": int(right[changed].sum()),
            "wrong_labels_after": int((~right).sum()),
            "replaced_precision": float(right[changed].mean()) if changed.any() else None,
            "replaced_recall": float(right[wrong].mean()) if wrong.any() else None,
        }


def given_labels(
    experiment: Experiment, phase: Phase, dataset: Dataset, split: Split
) -> np.ndarray:
    """(images) the class ids that a phase trains and validates with. With `data.label_noise`, a
    part of its training images and of its validation images have a wrong class; gallery and queries
    are always evaluated under the true one."""
    noise, seed = experiment.data.label_noise, experiment.seed
    if not noise:
        return dataset.labels
    trained = np.setdiff1d(dataset.labels[split.train], phase.held_out_classes)
    labels = corrupted(dataset.labels, split.train, trained, noise, seed)
    validated = np.unique(dataset.labels[split.valid]) if phase.leaves_one_out else trained
    return corrupted(labels, split.valid, validated, noise, seed)


def corrupted(
    labels: np.ndarray, images: np.ndarray, trained: np.ndarray, fraction: float, seed: int
) -> np.ndarray:
    """(images) class ids with round(fraction * images) of these images under another of the trained
    classes, each as likely.

    Which images are wrong is the same in all phases and folds; those of classes that are not
    trained on stay as they are.
    """
    chance, which = uniform(seed, "label_noise", rows=len(labels), columns=2).T
    wrong = images[np.argsort(chance[images], kind="stable")[: round(fraction * len(images))]]
    wrong = wrong[np.isin(labels[wrong], trained)]
    # A step of 1 to classes - 1 round the trained classes never ends at the class itself.
    step = 1 + (which[wrong] * (len(trained) - 1)).astype(int)
    changed = labels.copy()
    changed[wrong] = trained[(np.searchsorted(trained, labels[wrong]) + step) % len(trained)]
    return changed


def balanced(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(classes) weights in inverse proportion to the number of these labels, whose mean over the
    labels is 1; 0 for absent classes."""
    counts = np.bincount(labels, minlength=num_classes)
    return np.where(
        counts > 0, len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0.0
    )
