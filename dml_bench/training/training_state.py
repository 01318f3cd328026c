"""A phase in training: all that the loop touches, and nothing of how it was made."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.config import Experiment
from dml_bench.data.datasets import Dataset
from dml_bench.data.inputs import PLAIN, FeatureInputs, InputSource, TTAView
from dml_bench.data.mixing import Mixer
from dml_bench.data.split import Monitored, Phase
from dml_bench.losses.objective import Objective
from dml_bench.models.backbones import stage_names
from dml_bench.models.embedder import Embedder
from dml_bench.models.precision import autocast
from dml_bench.system import distributed
from dml_bench.system.callbacks import Callback, EpochRecord
from dml_bench.system.shapes import Float, Int, shaped
from dml_bench.training.labels import TrainingLabels
from dml_bench.training.plateau import FollowsValidation

__all__ = ["Diverged", "TrainingState", "unit"]

FULL_GPU = 512
"""Images from which on a larger batch makes embedding little faster (reports/gpu)."""


class Diverged(ValueError):
    """Training led to embeddings, weights or a loss that say nothing."""


@dataclass(kw_only=True)
class TrainingState:
    """A phase of an experiment. `records` holds one row per finished epoch."""

    experiment: Experiment
    phase: Phase
    dataset: Dataset
    images: np.ndarray
    """Indices of the training images."""
    labels: TrainingLabels
    monitored: Monitored
    mixer: Mixer | None
    source: InputSource
    embedder: Embedder
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    device: torch.device
    precision: str
    callback: Callback
    replica: nn.Module | None = None
    """What inputs go through in place of the embedder, where several processes train it together or
    a GPU replays it."""
    frozen: dict[str, Tensor] = field(default_factory=dict)
    """Tensors that training must leave as they are, by name."""
    backbone_learns: tuple[nn.Parameter, ...] = ()
    """What learns of the backbone, after the epochs in which only the head does."""
    best: dict[str, Any] | None = None
    """The weights of the best epoch so far, where one is chosen; see `checkpoint`."""
    records: list[EpochRecord] = field(default_factory=list)
    fitted: dict[str, Any] = field(default_factory=dict)
    """What came of fitting the last layer at once, with its seconds; empty after epochs."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which a network computes in the precision of the run."""
        return autocast(self.device, self.precision)

    def begin_epoch(self, epoch: int) -> None:
        """Training mode, and what learns in this epoch, counted from 1."""
        self.embedder.train()
        self.objective.train()
        self.objective.batches_without_tuples = 0
        learns = epoch > self.experiment.train.head_epochs
        for parameter in self.backbone_learns:
            parameter.requires_grad_(learns)

    def end_epoch(self, record: EpochRecord) -> None:
        """What waits for the measurements of an epoch: labels are corrected, and a schedule that
        follows validation hears of it."""
        train, epoch = self.experiment.train, record["epoch"]
        self.labels.correct(self.images, epoch, train.epochs, self.logits_accuracy())
        accuracy = record.get(f"valid_accuracy{self.phase.suffix}")
        if not isinstance(self.schedule, FollowsValidation) or accuracy is None:
            return
        # What the head reached alone is no best that the whole network has to beat.
        if epoch > train.head_epochs:
            self.schedule.validated(cast(float, accuracy))

    def logits_accuracy(self) -> float | None:
        """Of the objective's logits on validation images, as last measured."""
        name = f"valid_logits_accuracy{self.phase.suffix}"
        records = [cast(dict[str, Any], record) for record in self.records]
        measured = [float(record[name]) for record in records if name in record]
        return measured[-1] if measured else None

    def forward(
        self, inputs: Tensor, layer: str = "", inside: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Inputs of the source -> (batch, dim), before normalisation. `inside` changes what comes
        out of a layer of the backbone."""
        if inside is None:
            return (self.trained_part if self.replica is None else self.replica)(inputs)
        hook = self.embedder.backbone.get_submodule(layer).register_forward_hook(
            lambda module, args, output: inside(output)
        )
        try:
            return self.trained_part(inputs)
        finally:
            hook.remove()

    def embed_mixed(self, inputs: Tensor, level: str, mixed: Callable[[Tensor], Tensor]) -> Tensor:
        """(batch, ...) inputs of the source -> (mixtures, dim) of what `mixed` makes of them, or of
        their maps after the last stage of the backbone (level `features`)."""
        with self.autocast():
            if level == "input":
                return self.trained_part(mixed(inputs))
            return self.forward(inputs, stage_names(self.embedder.backbone)[-1], mixed)

    @property
    def trained_part(self) -> nn.Module:
        """Of the embedder, what inputs of the source go through."""
        if not isinstance(self.source, FeatureInputs):
            return self.embedder
        return self.embedder.last_stages or self.embedder.head

    @property
    def trained(self) -> np.ndarray:
        """(trained classes) ascending class ids: label i of the objective is class trained[i]."""
        return self.labels.trained

    @property
    def answers(self) -> np.ndarray:
        """(logits) what each logit of the objective is of: the class ids that were trained, or,
        where images have several labels, the numbers of the labels."""
        sets = self.dataset.label_sets
        return self.trained if sets is None else np.arange(len(sets.names))

    @property
    def embedded_at_a_time(self) -> int:
        """How many images are embedded together."""
        chosen, trained = self.experiment.evaluate.batch_size, self.experiment.train.batch_size
        if chosen is not None:
            return chosen
        return trained if self.device.type == "cpu" else max(trained, FULL_GPU)

    @torch.no_grad()
    @shaped
    def outputs(
        self, images: Annotated[np.ndarray, Int("images")], variant: TTAView = PLAIN
    ) -> Annotated[Tensor, Float("images dim")]:
        """(images) indices -> (images, dim) float32 on the CPU, before normalisation, under a
        deterministic view. Of several processes, which must all ask, each computes a part and has
        all."""
        self.embedder.eval()
        outputs, own = [], images[distributed.local_slice(len(images))]
        # Within one context weights are cast once. Embeddings stay on the device until all are
        # there, as a copy of each batch would be waited for.
        with self.autocast():
            for start in range(0, len(own), self.embedded_at_a_time):
                batch = own[start : start + self.embedded_at_a_time]
                outputs.append(self.forward(self.source.view(batch, variant)).float())
                self.callback.on_embedded(len(batch) * len(images) // len(own))
        joint = distributed.all_gather_with_grad(torch.cat(outputs).cpu(), len(images))
        # A vector of zeros stays zero when it is normalised, so its length tells; a length that is
        # not finite compares false.
        length = functional.normalize(joint, dim=1).norm(dim=1)
        if not ((length > 0.5) & joint.isfinite().all(dim=1)).all():
            raise Diverged(
                f"embeddings of phase {self.phase.name} are not finite, or all 0: the training"
                " diverged; try a smaller optimizer.lr"
            )
        return joint

    @shaped
    def embed(
        self, images: Annotated[np.ndarray, Int("images")]
    ) -> Annotated[np.ndarray, Float("images dim")]:
        """(images) indices -> (images, dim) float32 unit vectors, under the deterministic view."""
        return unit(self.outputs(images))

    @shaped
    def classify(
        self, outputs: Annotated[Tensor, Float("images dim")]
    ) -> Annotated[np.ndarray, Int("images")]:
        """(images, dim) before normalisation -> (images) the class id that the objective's own
        logits choose."""
        self.objective.eval()
        return self.trained[self.objective.classify(outputs.to(self.device)).cpu().numpy()]

    @torch.no_grad()
    @shaped
    def probabilities(
        self, outputs: Annotated[Tensor, Float("images dim")]
    ) -> Annotated[np.ndarray, Float("images classes")]:
        """(images, dim) before normalisation -> (images, trained classes) float32 softmax of the
        objective's own logits; of images with several labels (images, labels), each label's own."""
        self.objective.eval()
        logits = self.objective.logits(outputs.to(self.device)).float()
        has_sets = self.dataset.label_sets is not None
        return (logits.sigmoid() if has_sets else logits.softmax(dim=1)).cpu().numpy()

    @cached_property
    def constant(self) -> set[str]:
        """Names of the embedder's tensors that are the same in any process that goes on with this
        phase: those of published weights that are not trained."""
        experiment = self.experiment
        if experiment.start.name != "none" or experiment.model.weights == "source":
            return set()
        names = set(self.frozen)
        if experiment.model.trainable == "head":
            names |= {name for name in self.embedder.state_dict() if name.startswith("backbone.")}
        return names

    def check_frozen(self) -> None:
        """Raises AssertionError if a frozen tensor is not bit-equal to what was loaded."""
        now = self.embedder.state_dict()
        changed = [
            name for name, tensor in self.frozen.items() if not torch.equal(now[name], tensor)
        ]
        assert not changed, (
            f"{len(changed)} frozen tensors were changed by training, e.g. {changed[0]}"
        )


def unit(outputs: Tensor) -> np.ndarray:
    """(images, dim) -> the same directions at unit length."""
    return functional.normalize(outputs, dim=1).numpy()
