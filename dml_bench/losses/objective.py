"""What a phase minimises: a loss, with its miner, in float32."""

from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.config import Experiment
from dml_bench.losses.dense import dense_loss, is_dense
from dml_bench.losses.metrix import EmbedAgain, Metrix
from dml_bench.losses.sample_weights import weigh, weighing, weighs_all_images
from dml_bench.registry import losses, miners
from dml_bench.system.seeding import seed_everything
from dml_bench.system.shapes import Float, Int, shaped

__all__ = ["Objective", "SharedLabels", "Targets", "build_objective"]


class Targets(NamedTuple):
    """One way to label a batch."""

    labels: Tensor
    """(batch) labels in 0 .. classes-1."""
    weights: Tensor | None = None
    """(batch) or () how much each image, or the whole batch, counts; None is 1."""


class SharedLabels(nn.Module):
    """A miner for images of several labels: two that share a label are positives, two that share
    none are negatives."""

    def __init__(self, members: np.ndarray):
        """`members` are (classes, labels) bool, the labels of each class."""
        super().__init__()
        self.register_buffer("members", torch.from_numpy(members), persistent=False)

    members: Tensor

    def forward(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """(batch, dim), (batch) class ids -> (pairs) anchors and positives, (pairs) anchors and
        negatives, as pytorch-metric-learning has them."""
        sets = self.members[labels].float()
        share = sets @ sets.T > 0
        others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        return *torch.where(share & others), *torch.where(~share & others)


class Objective(nn.Module):
    """Loss over the mined part of a batch. Counts the batches in which the miner found nothing."""

    label_sets: Tensor | None

    def __init__(
        self,
        loss: nn.Module,
        miner: nn.Module | None,
        unit_vectors: bool,
        classifies: bool = False,
        metrix: Metrix | None = None,
        label_sets: np.ndarray | None = None,
    ):
        """`label_sets` are (classes, labels) bool, for a loss that takes the labels of an image in
        place of its class."""
        super().__init__()
        self.loss = loss
        self.miner = miner
        self.unit_vectors = unit_vectors
        self.classifies = classifies
        """Whether the loss can say the class of an embedding by itself, without a gallery."""
        members = None if label_sets is None else torch.from_numpy(label_sets)
        self.register_buffer("label_sets", members, persistent=False)
        self.metrix = metrix
        """A further term of the loss, see `weighted_loss`."""
        self.batches_without_tuples = 0
        self.without_lists = is_dense(loss, miner) and not weighs_all_images(loss)
        """Whether a GPU mines and computes the loss as matrices, so that it is not waited for. On a
        CPU lists are as fast, and keep the bits of earlier runs."""

    def lr_factor(self, name: str) -> float:
        """Of one of its parameters, by name: the multiple of the rate of the loss's parameters at
        which it learns."""
        of_parts: dict[str, float] = getattr(self.loss, "lr_factors", {})
        return of_parts.get(name.removeprefix("loss.").partition(".")[0], 1.0)

    @property
    def batches_without_tuples(self) -> int:
        """Since it was set to 0. Reading it waits for the device."""
        return int(self._batches_without_tuples)

    @batches_without_tuples.setter
    def batches_without_tuples(self, count: int) -> None:
        self._batches_without_tuples: int | Tensor = count

    @shaped
    def forward(
        self,
        embeddings: Annotated[Tensor, Float("batch dim")],
        labels: Annotated[Tensor, Int("batch")],
        weights: Annotated[Tensor, Float("...")] | None = None,
    ) -> Annotated[Tensor, Float("")]:
        """(batch, dim) and targets -> scalar, float32 whatever the embeddings were computed
        in."""
        # bfloat16 has 8 bits of precision: similarities of unit vectors would be rounded to steps
        # of .004, more than margins and temperatures bear.
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = self._as_wanted(embeddings)
            if weights is not None and weights.dim() == 0:
                return weights * self._checked_loss(embeddings, labels)
            with weighing(self.loss, weights):
                return self._checked_loss(embeddings, labels)

    def _checked_loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Raises ValueError where the loss of a plug-in can't be learned from."""
        loss = self._mined_loss(embeddings, labels)
        if not isinstance(loss, Tensor):
            got = type(loss).__name__
        elif loss.numel() != 1:
            got = f"a tensor of shape {tuple(loss.shape)}"
        elif embeddings.requires_grad and not loss.requires_grad:
            got = "a tensor without gradient"
        else:
            return loss
        raise ValueError(
            f"loss {type(self.loss).__name__} must give one number as a tensor with gradient, got"
            f" {got}: compute it from the embeddings, and take the mean of single losses"
        )

    def _mined_loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if self.without_lists and embeddings.device.type != "cpu":
            loss, is_empty = dense_loss(self.loss, self.miner, embeddings, labels)
            self._batches_without_tuples = self._batches_without_tuples + is_empty
            return loss
        if self.label_sets is not None:
            labels = self.label_sets[labels]
        if self.miner is None:
            return self.loss(embeddings, labels)
        mined = self.miner(embeddings, labels)
        require_tuples(self.miner, mined)
        if all(part.numel() <= 1 for part in mined):
            self._batches_without_tuples += 1
            # A zero with a graph behind it, so that the step goes on as in any other batch.
            return embeddings.sum() * 0
        return self.loss(embeddings, labels, mined)

    def weighted_loss(
        self,
        embeddings: Tensor,
        targets: tuple[Targets, ...],
        *,
        interpolate: bool = False,
        embed_again: EmbedAgain | None = None,
    ) -> Tensor:
        """The sum over several targets of a batch; each is mined by itself. `interpolate` adds the
        term of mixtures, for which `embed_again` gives (mixtures, dim) of mixed images or maps."""
        loss = self(embeddings, *targets[0])
        for further in targets[1:]:
            loss = loss + self(embeddings, *further)
        if interpolate and self.metrix is not None:
            again = None if embed_again is None else self._as_unit_vectors(embed_again)
            with torch.autocast(embeddings.device.type, enabled=False):
                loss = loss + self.metrix(
                    self._as_wanted(embeddings), targets[0].labels, self.loss, again
                )
        return loss

    @shaped
    def logits(
        self, embeddings: Annotated[Tensor, Float("batch dim")]
    ) -> Annotated[Tensor, Float("batch classes")]:
        """(batch, dim) -> (batch, classes), higher is likelier. Only where `classifies`."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.loss.logits(self._as_wanted(embeddings))  # type: ignore[operator]

    @torch.no_grad()
    @shaped
    def classify(
        self, embeddings: Annotated[Tensor, Float("batch dim")]
    ) -> Annotated[Tensor, Int("batch")]:
        """(batch, dim) -> (batch) the label 0 .. classes-1 with the highest logit. Only where
        `classifies`."""
        return self.logits(embeddings).argmax(dim=1)

    def _as_unit_vectors(self, embed_again: EmbedAgain) -> EmbedAgain:
        return lambda level, mix: self._as_wanted(embed_again(level, mix))

    def _as_wanted(self, embeddings: Tensor) -> Tensor:
        """float32, and of unit length where the loss wants that."""
        return (
            functional.normalize(embeddings.float(), dim=1)
            if self.unit_vectors
            else embeddings.float()
        )


def require_tuples(miner: nn.Module, mined: Any) -> None:
    """Raises ValueError for what is neither triplets nor pairs, as a plug-in may give."""
    is_tuple = isinstance(mined, tuple | list)
    if not is_tuple or not all(isinstance(part, Tensor) and part.dim() == 1 for part in mined):
        got = type(mined).__name__
    elif len(mined) not in (3, 4):
        got = f"{len(mined)} tensors"
    else:
        return
    raise ValueError(
        f"miner {type(miner).__name__} must give a tuple of index tensors, 3 for triplets or"
        f" 4 for positive and negative pairs, got {got}: give one place in the batch for each"
    )


def require_known_tensors(loss: nn.Module, name: str) -> None:
    """Raises ValueError where a loss has a tensor that is to learn, and that torch does not know:
    it would be neither trained nor saved."""
    for module in loss.modules():
        for attribute, held in vars(module).items():
            tensors = held if isinstance(held, list | tuple) else [held]
            if any(isinstance(one, Tensor) and one.requires_grad for one in tensors):
                raise ValueError(
                    f"loss {name} has a tensor with gradient in {attribute}, where it is neither"
                    " trained nor saved: make it an nn.Parameter, a list an nn.ParameterList"
                )


def build_objective(
    experiment: Experiment, num_classes: int, dim: int, label_sets: np.ndarray | None = None
) -> Objective:
    """The objective of an experiment for a phase that trains on `num_classes` classes, or on so
    many labels, of which (classes, labels) `label_sets` says which an image of a class has."""
    seed_everything(experiment.seed, "objective")
    entry = losses.of(experiment.loss)
    counts_all = experiment.mixing.pair_weight == "all"
    loss = entry.built(nn.Module, num_classes, dim, **experiment.loss.options)
    require_known_tensors(loss, entry.name)
    if entry.facts["classifies"] and not hasattr(loss, "logits"):
        raise ValueError(
            f"loss {entry.name} is registered with classifies=True, and {type(loss).__name__} has"
            " no method logits(embeddings): add it, or leave classifies out"
        )
    loss = weigh(loss, all_images=counts_all)
    miner = miners.of(experiment.miner).build(**experiment.miner.options)
    if label_sets is not None and entry.facts["takes_miner"]:
        miner, label_sets = SharedLabels(label_sets), None
    technique = experiment.mixing.technique
    metrix = Metrix(experiment.loss, **technique.options) if technique.name == "metrix" else None
    return Objective(
        loss, miner, entry.facts["unit_vectors"], entry.facts["classifies"], metrix, label_sets
    )
