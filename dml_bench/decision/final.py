"""The final part, opened once: what each run answers on photos that had no part in the choice."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dml_bench.data.cache import view_of
from dml_bench.data.digests import digest_of
from dml_bench.data.images import box_of
from dml_bench.data.photos import photo_batches
from dml_bench.data.same_picture import first_of_picture, small_copies
from dml_bench.decision.choice import By
from dml_bench.evaluation.class_means import class_means
from dml_bench.evaluation.metrics import precision_at_1
from dml_bench.evaluation.open_set import search_without_classes
from dml_bench.evaluation.search import search
from dml_bench.evaluation.statistics import Scores
from dml_bench.evaluation.thresholds import SearchOutcomes
from dml_bench.gallery.classifier import trained_objective
from dml_bench.gallery.embedder import precision_of, trained_embedder
from dml_bench.models.embedder import Embedder
from dml_bench.models.precision import autocast
from dml_bench.protocols.holdout_metrics import ALL
from dml_bench.runs.run import Run
from dml_bench.system.devices import choose_device
from dml_bench.training.frozen_features import add_backbone
from dml_bench.training.training_state import unit

__all__ = ["FinalPhotos", "Nearest"]

BATCH = 32


@dataclass(frozen=True, slots=True)
class Nearest:
    """What the nearest gallery photo, or the nearest class mean, says of each final photo."""

    similarity: np.ndarray
    correct: np.ndarray
    """(photos) float, 1 where it is of the right class."""
    labels: np.ndarray
    """(photos) class ids of the run."""

    @property
    def scores(self) -> Scores:
        """What intervals take."""
        return Scores(self.correct, self.labels)

    @property
    def outcomes(self) -> SearchOutcomes:
        """What thresholds are tried on."""
        return SearchOutcomes(self.similarity, self.correct.astype(bool))


def searched(run: Run, phase: str, by: By) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of a phase's gallery and their class ids: of its photos, or of class means."""
    vectors, labels = run.embeddings(phase).gallery, run.neighbours[phase].gallery_labels
    return (vectors, labels) if by == "photo" else class_means(vectors, labels)


class FinalPhotos:
    """The photos of the final part. Frozen backbones of the same weights see them once, whichever
    runs share them."""

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
        self.unreadable: set[Path] = set()
        """Those that were looked at and can't be decoded."""
        self._features: dict[tuple[object, ...], tuple[Tensor, np.ndarray]] = {}
        self._outputs: dict[tuple[Path, str], tuple[Tensor, np.ndarray]] = {}

    def without_copies_of(self, images: Sequence[Path]) -> "FinalPhotos":
        """Those that show none of the pictures of these images; itself where none does."""
        files = [*images, *self.files]
        # A file that can't be read has an empty digest, and is a copy of nothing.
        digests = [f"{digest_of(file) or file} {box_of(file)}" for file in files]
        first = first_of_picture(digests, small_copies(files))[len(images) :]
        kept = np.flatnonzero(first >= len(images)).tolist()
        if len(kept) == len(self.files):
            return self
        files = [self.files[place] for place in kept]
        return FinalPhotos(files, self.classes[kept].tolist(), self.device.type, self.progress)

    def nearest(self, run: Run, phase: str = ALL, by: By = "photo") -> Nearest:
        """What a phase's gallery says of the photos that can be read."""
        outputs, labels = self.outputs(run, phase)
        vectors, gallery_labels = searched(run, phase, by)
        neighbours = search(vectors, unit(outputs), gallery_labels, labels, 1)
        return Nearest(neighbours.similarities[:, 0], precision_at_1(neighbours), labels)

    def strangers(self, run: Run, phase: str, by: By = "photo") -> np.ndarray:
        """The similarities of photos of the classes that a phase never trained on, as if these were
        not enrolled."""
        outputs, labels = self.outputs(run, phase)
        vectors, gallery_labels = searched(run, phase, by)
        held_out = run.held_out[phase]
        is_new = np.isin(labels, held_out)
        neighbours = search_without_classes(
            vectors, unit(outputs)[is_new], gallery_labels, labels[is_new], held_out
        )
        similarities: np.ndarray = neighbours.similarities[:, 0]
        return similarities

    def by_logits(self, run: Run) -> Scores:
        """Whether the logits are right."""
        outputs, labels = self.outputs(run, ALL)
        classes = run.logits(ALL).classes
        objective = trained_objective(run, ALL, outputs.shape[1])
        predicted = classes[objective.classify(outputs).numpy()]
        return Scores((predicted == labels).astype(float), labels)

    @torch.no_grad()
    def outputs(self, run: Run, phase: str) -> tuple[Tensor, np.ndarray]:
        """(readable, dim) before normalisation, and (readable) class ids of the run."""
        if (run.folder, phase) in self._outputs:
            return self._outputs[run.folder, phase]
        embedder = trained_embedder(run, phase).to(self.device)
        features, readable = self.features(run, phase, embedder)
        with autocast(self.device, precision_of(run)):
            outputs = embedder.project(features)
        labels = np.array([run.class_ids[name] for name in self.classes[readable]], np.int64)
        self._outputs[run.folder, phase] = outputs.float().cpu(), labels
        return self._outputs[run.folder, phase]

    def features(self, run: Run, phase: str, embedder: Embedder) -> tuple[Tensor, np.ndarray]:
        """(readable, features) of the backbone, and (readable) the places of the photos that could
        be read."""
        view = view_of(run.experiment.images)
        key: tuple[object, ...] = (run.folder, phase)
        if run.experiment.model.trainable == "head":
            digest = hashlib.sha256(f"{precision_of(run)} {embedder.is_folded}".encode())
            add_backbone(digest, embedder, run.experiment)
            key = (digest.hexdigest(), view)
        if key in self._features:
            return self._features[key]
        places = {file: place for place, file in enumerate(self.files)}
        parts: list[Tensor] = []
        readable: list[int] = []
        done = 0
        for batch in photo_batches(view, self.files, BATCH):
            done += len(batch.paths) + len(batch.problems)
            self.unreadable.update(problem.path for problem in batch.problems)
            self.progress(done, len(self.files))
            if not batch.paths:
                continue
            readable += [places[path] for path in batch.paths]
            with autocast(self.device, precision_of(run)):
                pixels = torch.from_numpy(batch.pixels).to(self.device)
                parts.append(embedder.features(pixels).float())
        if not parts:
            raise ValueError(
                f"of {len(self.files)} photos none can be read, as {self.files[0]}: replace them or"
                " take them away; what has run is kept"
            )
        self._features[key] = (torch.cat(parts), np.array(readable))
        return self._features[key]
