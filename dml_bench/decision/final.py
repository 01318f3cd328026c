"""The final part, opened once: what each run answers on photos that had no part in the choice."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dml_bench.data.cache import View
from dml_bench.data.images import Unreadable, decode
from dml_bench.evaluation.metrics import precision_at_1
from dml_bench.evaluation.search import search
from dml_bench.evaluation.statistics import Scores
from dml_bench.gallery.embedder import precision_of, trained_embedder
from dml_bench.losses.objective import build_objective
from dml_bench.models.precision import autocast
from dml_bench.protocols.holdout_metrics import ALL
from dml_bench.runs.run import Run
from dml_bench.system.devices import choose_device
from dml_bench.training.training_state import unit

__all__ = ["FinalPhotos", "Nearest"]

BATCH = 32


@dataclass(frozen=True, slots=True)
class Nearest:
    """What a nearest-photo search says of each final photo."""

    similarity: np.ndarray
    correct: np.ndarray
    """(photos) float, 1 where the nearest photo is of the right class."""
    labels: np.ndarray
    """(photos) class ids of the run."""

    @property
    def scores(self) -> Scores:
        """What intervals take."""
        return Scores(self.correct, self.labels)


class FinalPhotos:
    """The photos of the final part. A frozen backbone sees them once, whichever runs share it."""

    def __init__(
        self,
        files: Sequence[Path],
        classes: Sequence[str],
        device: str,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ):
        self.files, self.classes = files, np.array(classes, object)
        self.device = choose_device(device)
        self.progress = progress
        self._features: dict[tuple[str, str, int], tuple[Tensor, np.ndarray]] = {}

    def nearest(self, run: Run, phase: str = ALL) -> Nearest:
        """The nearest development photo of each."""
        outputs, readable = self.outputs(run, phase)
        labels = self.labels(run)[readable]
        gallery_labels = run.neighbours[phase].gallery_labels
        gallery = run.embeddings(phase).gallery
        neighbours = search(gallery, unit(outputs), gallery_labels, labels, 1)
        return Nearest(neighbours.similarities[:, 0], precision_at_1(neighbours), labels)

    def by_logits(self, run: Run) -> Scores:
        """Whether the logits are right."""
        outputs, readable = self.outputs(run, ALL)
        classes = run.logits(ALL).classes
        objective = build_objective(run.experiment, len(classes), outputs.shape[1])
        objective.load_state_dict(run.objective_weights(ALL))
        objective.eval()
        predicted = classes[objective.classify(outputs).numpy()]
        labels = self.labels(run)[readable]
        return Scores((predicted == labels).astype(float), labels)

    def labels(self, run: Run) -> np.ndarray:
        """(photos) class ids of the run."""
        ids = {name: label for label, name in run.class_names.items()}
        return np.array([ids[name] for name in self.classes], np.int64)

    @torch.no_grad()
    def outputs(self, run: Run, phase: str) -> tuple[Tensor, np.ndarray]:
        """(readable, dim) before normalisation, and (readable) which photos could be read."""
        experiment = run.experiment
        view = View(experiment.images.fit, experiment.images.size)
        key = (experiment.model.backbone.name, view.fit, view.size)
        embedder = trained_embedder(run, phase).to(self.device)
        if key not in self._features:
            parts, readable = [], []
            with ThreadPoolExecutor() as pool:
                for first in range(0, len(self.files), BATCH):
                    pixels = []
                    decoded = pool.map(
                        lambda file: viewed(view, file), self.files[first : first + BATCH]
                    )
                    for place, image in enumerate(decoded, start=first):
                        if image is not None:
                            pixels.append(image)
                            readable.append(place)
                    if pixels:
                        batch = torch.from_numpy(np.stack(pixels)).to(self.device)
                        with autocast(self.device, precision_of(run)):
                            parts.append(embedder.features(batch).float())
                    self.progress(min(first + BATCH, len(self.files)), len(self.files))
            self._features[key] = (torch.cat(parts), np.array(readable))
        features, rows = self._features[key]
        with autocast(self.device, precision_of(run)):
            outputs = embedder.project(features)
        return outputs.float().cpu(), rows


def viewed(view: View, file: Path) -> np.ndarray | None:
    """(size, size, 3) uint8; None where the file can't be read."""
    try:
        return view.apply(decode(file))
    except Unreadable:
        return None
