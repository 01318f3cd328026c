"""The classifier of a run, where its loss has logits: it names the classes that it was trained on,
and no others."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from dml_bench.data.label_sets import LIKELY, combined, label_sets_of
from dml_bench.losses.objective import Objective, build_objective
from dml_bench.runs.run import Run
from dml_bench.system.seeding import callers_draws_kept

__all__ = ["PhotoClassifier", "open_classifier", "trained_objective"]


@dataclass(frozen=True, slots=True)
class PhotoClassifier:
    """The logits of a phase."""

    objective: Objective
    class_names: tuple[str, ...]
    """(classes) those that the phase was trained on, as the run calls them or the gallery by now;
    or labels, see below."""
    several: bool = False
    """Whether a photo has several labels: its class is then all that are likelier than not, or the
    likeliest, and its probability that of the least likely of these."""

    @torch.no_grad()
    def classify(self, outputs: np.ndarray) -> tuple[list[str], np.ndarray]:
        """(photos, dim) before normalisation -> (photos) the likeliest class and (photos) its
        probability among the trained classes."""
        logits = self.objective.logits(torch.from_numpy(outputs))
        if self.several:
            return self.labelled(logits.sigmoid().numpy())
        probabilities = logits.softmax(dim=1).numpy()
        places = probabilities.argmax(axis=1)
        return [self.class_names[place] for place in places], probabilities.max(axis=1)

    def renamed(self, names: Mapping[str, str]) -> "PhotoClassifier":
        """The same with other names for some classes; labels keep theirs."""
        if self.several:
            return self
        return replace(self, class_names=tuple(names.get(name, name) for name in self.class_names))

    def labelled(self, probabilities: np.ndarray) -> tuple[list[str], np.ndarray]:
        """(photos, labels) -> what `classify` says."""
        likeliest = probabilities == probabilities.max(axis=1, keepdims=True)
        chosen = (probabilities >= LIKELY) | likeliest
        names = np.array(self.class_names, object)
        return [combined(names[row]) for row in chosen], np.where(chosen, probabilities, 1.0).min(
            axis=1
        )


def open_classifier(run: Run, phase: str) -> PhotoClassifier:
    """Raises ValueError where the run's loss has no logits, or where several networks or views
    answer together."""
    if not run.logits(phase).path.is_file():
        raise ValueError(
            f"{run.folder} has no classifier, as its loss {run.experiment.loss.name} has no logits:"
            " use --by photo or --by mean"
        )
    if run.models(phase) != [phase] or run.experiment.evaluate.tta != "none":
        raise ValueError(
            f"the classifier of {run.folder} is an ensemble of several models or views, which"
            " answers no new photos: use --by photo or --by mean"
        )
    stored = run.embeddings(phase)
    dim = stored.gallery.shape[1]
    if run.protocol.label_sets:
        every = label_sets_of(sorted({image.class_name for image in run.split})).names
        return PhotoClassifier(trained_objective(run, phase, dim), every, several=True)
    names = {}
    labels = run.neighbours[phase].gallery_labels
    for image, label in zip(stored.gallery_images, labels.tolist(), strict=True):
        names[label] = run.split[image].class_name
    class_names = tuple(names[label] for label in run.logits(phase).classes.tolist())
    return PhotoClassifier(trained_objective(run, phase, dim), class_names)


@callers_draws_kept()
def trained_objective(run: Run, phase: str, dim: int) -> Objective:
    """The loss of a phase as it was trained, for embeddings of `dim` dimensions."""
    objective = build_objective(run.experiment, len(run.logits(phase).classes), dim)
    objective.load_state_dict(run.objective_weights(phase))
    return objective.eval()
