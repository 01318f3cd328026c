"""Losses that pytorch-metric-learning 2.9 lacks, or where its own differs from the paper or fails,
or makes a GPU wait for the host; each says which."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.losses.sample_weights import ImageMean

__all__ = [
    "BinaryClassifier",
    "CentroidTriplet",
    "Histogram",
    "MarginSoftmax",
    "P2SGrad",
    "ProxyAnchor",
    "ProxyNCA",
    "SmoothAP",
    "SoftTriple",
    "SoftmaxClassifier",
    "SpreadOfCenters",
    "WithLogits",
]

Mined = tuple[Tensor, ...] | None


class WithLogits(nn.Module):
    """A loss of pytorch-metric-learning that has class vectors, with `logits` = `scale` times its
    own scores."""

    def __init__(self, loss: nn.Module, scale: float = 1.0):
        super().__init__()
        self.loss = loss
        self.scale = scale

    def forward(self, embeddings: Tensor, labels: Tensor, mined: Mined = None) -> Tensor:
        """(batch, dim) embeddings and (batch) labels -> the loss of the batch."""
        return self.loss(embeddings, labels)

    def logits(self, embeddings: Tensor) -> Tensor:
        """(batch, dim) -> (batch, num_classes)."""
        return self.scale * self.loss.get_logits(embeddings)  # type: ignore[operator]


def of_own_class(labels: Tensor, num_classes: int) -> Tensor:
    """(batch) labels -> (batch, num_classes) bool: where an image's own class stands."""
    return labels[:, None] == torch.arange(num_classes, device=labels.device)


class MarginSoftmax(WithLogits):
    """Cross-entropy over cosines whose true class is handicapped by a margin, as ArcFace, SubCenter
    and CosFace of pytorch-metric-learning define it.

    Theirs looks the true cosines up by a mask, whose number the host has to wait for. Here they are
    sums of one cosine and zeros.
    """

    def forward(self, embeddings: Tensor, labels: Tensor, mined: Mined = None) -> Tensor:
        """(batch, dim) embeddings and (batch) labels -> the loss of the batch."""
        loss: Any = self.loss
        cosine = loss.get_cosine(embeddings)
        is_own = of_own_class(labels, loss.num_classes)
        own = cosine.where(is_own, 0).sum(dim=1, keepdim=True)
        change = loss.modify_cosine_of_target_classes(own) - own
        cosine = cosine + is_own * change
        values = loss.cross_entropy(loss.scale_logits(cosine, embeddings), labels)
        return reduced(loss, values, embeddings, labels)


class SoftTriple(WithLogits):
    """SoftTriple of pytorch-metric-learning, whose margin is put in place by a list of rows that
    the host copies to the device and waits for."""

    def forward(self, embeddings: Tensor, labels: Tensor, mined: Mined = None) -> Tensor:
        """(batch, dim) embeddings and (batch) labels -> the loss of the batch."""
        loss: Any = self.loss
        margin = of_own_class(labels, loss.num_classes) * loss.margin
        logits = loss.la * (loss.get_logits(embeddings) - margin)
        values = functional.cross_entropy(logits, labels, reduction="none")
        return reduced(loss, values, embeddings, labels, loss.fc.t())


def reduced(
    loss: Any, values: Tensor, embeddings: Tensor, labels: Tensor, weights: Tensor | None = None
) -> Tensor:
    """(batch) losses of images -> what the loss's own reducer makes of them, and of its
    regulariser's price of (class vectors, dim) weights."""
    part = {
        "losses": values,
        "indices": torch.arange(len(values), device=values.device),
        "reduction_type": "element",
    }
    parts = {"loss": part}
    if weights is not None:
        loss.add_weight_regularization_to_loss_dict(parts, weights)
    total: Tensor = loss.reducer(parts, embeddings, labels)
    return total


class ProxyAnchor(WithLogits):
    """ProxyAnchor of pytorch-metric-learning, which counts the classes of a batch on the host."""

    def forward(self, embeddings: Tensor, labels: Tensor, mined: Mined = None) -> Tensor:
        """(batch, dim) embeddings and (batch) labels -> the loss of the batch."""
        from pytorch_metric_learning.utils.loss_and_miner_utils import logsumexp

        loss: Any = self.loss
        cosine = loss.get_logits(embeddings)
        own = of_own_class(labels, loss.num_classes)
        near, far = loss.alpha * (loss.margin - cosine), loss.alpha * (cosine + loss.margin)
        positive = logsumexp(near, keep_mask=own, add_one=True, dim=0).sum()
        negative = logsumexp(far, keep_mask=~own, add_one=True, dim=0).sum()
        total: Tensor = positive / own.any(dim=0).sum() + negative / loss.num_classes
        return total


class SoftmaxClassifier(nn.Module):
    """Cross-entropy of a linear layer on the embedding as it is."""

    def __init__(self, num_classes: int, dim: int, label_smoothing: float):
        super().__init__()
        self.classifier = nn.Linear(dim, num_classes)
        self.label_smoothing = label_smoothing
        self.mean = ImageMean()

    def logits(self, embeddings: Tensor) -> Tensor:
        """(batch, dim) -> (batch, num_classes)."""
        return self.classifier(embeddings)

    def forward(self, embeddings: Tensor, labels: Tensor, mined: Mined = None) -> Tensor:
        """(batch, dim) embeddings and (batch) labels -> the loss of the batch."""
        return self.mean(
            functional.cross_entropy(
                self.logits(embeddings),
                labels,
                label_smoothing=self.label_smoothing,
                reduction="none",
            )
        )


class BinaryClassifier(nn.Module):
    """Binary cross-entropy of each class by itself, of a linear layer on the embedding as it is."""

    def __init__(self, num_classes: int, dim: int):
        super().__init__()
        self.classifier = nn.Linear(dim, num_classes)
        self.mean = ImageMean()

    def logits(self, embeddings: Tensor) -> Tensor:
        """(batch, dim) -> (batch, num_classes)."""
        return self.classifier(embeddings)

    def forward(self, embeddings: Tensor, labels: Tensor, mined: Mined = None) -> Tensor:
        """(batch, dim) embeddings, and (batch) labels or (batch, num_classes) bool whether an image
        has them -> the loss of the batch."""
        logits = self.logits(embeddings)
        has = labels if labels.dim() == 2 else of_own_class(labels, logits.shape[1])
        values = functional.binary_cross_entropy_with_logits(
            logits, has.to(logits.dtype), reduction="none"
        )
        return self.mean(values.mean(dim=1))


class ProxyNCA(nn.Module):
    """Cross-entropy over one proxy per class, of logits -scale * squared distance between unit
    vectors.

    With `positive_in_denominator` it is pytorch-metric-learning's ProxyNCALoss, which can't leave
    the embedding's own proxy out of the denominator, as the paper of 2017 does.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        scale: float,
        positive_in_denominator: bool = True,
        label_smoothing: float = 0.0,
        proxy_std: float = 1.0,
    ):
        super().__init__()
        self.proxies = nn.Parameter(torch.randn(num_classes, dim) * proxy_std)
        self.scale = scale
        self.positive_in_denominator = positive_in_denominator
        self.label_smoothing = label_smoothing
        self.mean = ImageMean()

    def logits(self, embeddings: Tensor) -> Tensor:
        """(batch, dim) -> (batch, num_classes)."""
        cosine = (
            functional.normalize(embeddings, dim=1) @ functional.normalize(self.proxies, dim=1).T
        )
        return -self.scale * (2 - 2 * cosine)

    def forward(self, embeddings: Tensor, labels: Tensor, mined: Mined = None) -> Tensor:
        """(batch, dim) embeddings and (batch) labels -> the loss of the batch."""
        logits = self.logits(embeddings)
        if self.positive_in_denominator:
            return self.mean(
                functional.cross_entropy(
                    logits, labels, label_smoothing=self.label_smoothing, reduction="none"
                )
            )
        own = labels[:, None]
        negatives = logits.scatter(1, own, -torch.inf)
        return self.mean(negatives.logsumexp(dim=1) - logits.gather(1, own)[:, 0])


class P2SGrad(nn.Module):
    """The loss whose gradient is the paper's eq. 11: sum over classes of (cosine - 1 where it is
    the embedding's own) * d cosine.

    pytorch-metric-learning averages the squares over classes, which makes the gradient num_classes
    / 2 times smaller.
    """

    def __init__(self, num_classes: int, dim: int):
        super().__init__()
        self.weight = nn.Parameter(functional.normalize(torch.randn(num_classes, dim), dim=1))
        self.mean = ImageMean()

    def logits(self, embeddings: Tensor) -> Tensor:
        """(batch, dim) -> (batch, num_classes) cosines."""
        return functional.normalize(embeddings, dim=1) @ functional.normalize(self.weight, dim=1).T

    def forward(self, embeddings: Tensor, labels: Tensor, mined: Mined = None) -> Tensor:
        """(batch, dim) embeddings and (batch) labels -> the loss of the batch."""
        own = functional.one_hot(labels, len(self.weight))
        return self.mean((self.logits(embeddings) - own).square().sum(dim=1)) / 2


class SpreadOfCenters(nn.Module):
    """SoftTriple's regulariser: half the mean distance between two centres of a class.

    pytorch-metric-learning compares all centres of all classes: 280 ms a batch for 200 classes of
    10.
    """

    def __init__(self, num_classes: int, centers_per_class: int):
        super().__init__()
        self.shape = (num_classes, centers_per_class)

    def forward(self, centers: Tensor) -> Tensor:
        """(num_classes * centers_per_class, dim) -> scalar."""
        unit = functional.normalize(centers, dim=1).unflatten(0, self.shape)
        first, second = torch.triu_indices(
            self.shape[1], self.shape[1], offset=1, device=centers.device
        )
        return (2 - 2 * unit @ unit.mT)[:, first, second].clamp_min(1e-12).sqrt().mean() / 2


class CentroidTriplet(nn.Module):
    """Triplets of an embedding, the centroid of the others of its class, and the centroid of
    another class, within the batch.

    Squared Euclidean distances; the mean over the triplets that violate the margin. Classes may be
    of any size in the batch.
    """

    def __init__(self, margin: float):
        super().__init__()
        self.margin = margin

    def forward(self, embeddings: Tensor, labels: Tensor, mined: Mined = None) -> Tensor:
        """(batch, dim) embeddings and (batch) labels -> the loss of the batch."""
        member = members(labels).to(embeddings.dtype)
        sizes, sums = member.sum(dim=0), member.T @ embeddings
        others = (member @ sizes - 1)[:, None]
        positive = (member @ sums - embeddings) / others.clamp_min(1)
        to_positive = (embeddings - positive).square().sum(dim=1)
        centroids = sums / sizes[:, None].clamp_min(1)
        to_negative = (embeddings[:, None] - centroids).square().sum(dim=2)
        violation = (
            functional.relu(to_positive[:, None] - to_negative + self.margin)
            * (1 - member)
            * (sizes > 0)
            * (others > 0)
        )
        return violation.sum() / (violation > 0).sum().clamp_min(1)


def members(labels: Tensor) -> Tensor:
    """(batch) labels -> (batch, classes) bool: who is of which class. On a GPU, which would be
    waited for to say how many classes there are, there is a column for each image, and it is empty
    where an image before it is of the same class."""
    if labels.device.type == "cpu":
        return labels[:, None] == labels.unique()
    same = labels[:, None] == labels
    return same & ~same.tril(-1).any(dim=1)


class SmoothAP(nn.Module):
    """1 - average precision, each rank a sum of sigmoids of similarity differences; memory grows
    with the cube of the batch.

    Each embedding that has another of its class asks the whole batch, itself included, as in the
    authors' code. pytorch-metric-learning 2.9 confuses the number of classes with that of images
    per class: it is right only where they are equal.
    """

    def __init__(self, temperature: float):
        super().__init__()
        self.temperature = temperature

    def forward(self, embeddings: Tensor, labels: Tensor, mined: Mined = None) -> Tensor:
        """(batch, dim) embeddings and (batch) labels -> the loss of the batch."""
        similarity = embeddings @ embeddings.T
        same = (labels[:, None] == labels).to(similarity.dtype)
        # beats[query, i, j]: how far j stands before i for the query, 0 .. 1.
        beats = torch.sigmoid((similarity[:, None, :] - similarity[:, :, None]) / self.temperature)
        beats = beats * (1 - torch.eye(len(labels), dtype=beats.dtype, device=beats.device))
        rank = 1 + beats.sum(dim=2)
        rank_among_positives = 1 + (beats * same[:, None, :]).sum(dim=2)
        average_precision = (rank_among_positives / rank * same).sum(dim=1) / same.sum(dim=1)
        asking = same.sum(dim=1) > 1
        return ((1 - average_precision) * asking).sum() / asking.sum().clamp_min(1)


class Histogram(nn.Module):
    """Probability that a random negative pair is more similar than a random positive pair, from
    histograms of the batch's cosines.

    Each cosine adds to the two nearest nodes of its histogram in proportion to its nearness.
    pytorch-metric-learning 2.9 stops with an IndexError at a cosine of 1 and indexes in a way that
    torch is about to change.
    """

    def __init__(self, num_bins: int):
        super().__init__()
        self.num_bins = num_bins

    def forward(self, embeddings: Tensor, labels: Tensor, mined: Mined = None) -> Tensor:
        """(batch, dim) embeddings and (batch) labels -> the loss of the batch."""
        first, second = torch.triu_indices(
            len(labels), len(labels), offset=1, device=embeddings.device
        )
        cosine = (embeddings @ embeddings.T)[first, second]
        nodes = torch.linspace(-1, 1, self.num_bins + 1, device=embeddings.device)
        share = functional.relu(1 - (cosine[:, None] - nodes).abs() * (self.num_bins / 2))
        positive = (labels[first] == labels[second]).to(share.dtype)
        positives = positive @ share / positive.sum().clamp_min(1)
        negatives = (1 - positive) @ share / (1 - positive).sum().clamp_min(1)
        return (negatives * positives.cumsum(dim=0)).sum()
