"""Metrix: mixtures of a positive and a negative, which are partly positive (Venkataramanan et al.
2022, "It takes two to tango").

For an anchor a, a positive p and a negative n, the mixture v = lambda p + (1 - lambda) n counts in
the positive term of the loss with weight lambda and in its negative term with 1 - lambda. Or the
anchor itself is mixed with a negative: v = lambda a + (1 - lambda) n.

Embeddings are mixed and brought back to unit length; every (positive, negative) pair of the batch
is mixed for every anchor, where the paper also samples some of them. Feature maps and images are
mixed too, and go through the rest of the network: each positive pair with the nearest negatives of
its anchor, as the authors' code (billpsomas/Metrix_ICLR22) does with images. With maps it takes all
negatives, as `hardest` = 0 does here.

For embeddings and maps that code takes one of an anchor's positives, and all of an anchor's
negatives once for each positive; here each positive is mixed. It mixes only anchors that have no
positive in the batch with negatives, with a weight of .3 for embeddings; here, as in the paper, all
anchors are mixed, with one weight.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.config import Component

__all__ = ["FORMS", "EmbedAgain", "Metrix"]

LARGEST_CUBE = 2**25
"""Anchors times positives times negatives up to which a GPU computes all, those too that are no
mixtures; above that it is waited for to say how many there are."""


class Mixtures(NamedTuple):
    """Of a positive and a negative of an anchor each."""

    similarity: Tensor
    """(mixtures) to the anchor."""
    kept: Tensor
    """(mixtures) lambda, the part of the positive."""
    anchor: Tensor
    """(mixtures) the number of the anchor."""
    num_anchors: int
    counts: Tensor | None
    """(mixtures) 1, or 0 for what is no mixture; None where all are."""


class Triples(NamedTuple):
    """Numbers of anchors, positives and negatives that are mixed, and whether they count."""

    anchor: Tensor
    positive: Tensor
    negative: Tensor
    counts: Tensor | None


Form = Callable[[Mixtures], Tensor]
"""Mixtures of a batch -> scalar."""
EmbedAgain = Callable[[str, Callable[[Tensor], Tensor]], Tensor]
"""A level and how its values are mixed: (batch, ...) -> (mixtures, ...) -> (mixtures, dim) unit
vectors."""


class Metrix(nn.Module):
    """The term of the mixtures, times its weight, by the loss's own options; 0 where the batch has
    no positive or no negative."""

    def __init__(
        self,
        loss: Component,
        *,
        alpha: float,
        weight: float,
        level: str = "embeddings",
        pairs: str = "positive_negative",
        share: str = "image",
        hardest: int = 1,
    ):
        super().__init__()
        self.form = FORMS[loss.name](**loss.options)
        self.alpha = alpha
        self.weight = weight
        self.level = level
        self.pairs = pairs
        self.share = share
        self.hardest = hardest

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        loss: nn.Module,
        embed_again: EmbedAgain | None = None,
    ) -> Tensor:
        """(batch, dim) unit vectors, (batch) labels, and the loss, whose proxies are the anchors if
        it has some -> scalar. `embed_again` is needed at levels below the embeddings."""
        proxies = getattr(getattr(loss, "loss", None), "proxies", None)
        if proxies is None:
            anchors, same = embeddings, labels[:, None] == labels
            positives = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        else:
            anchors = functional.normalize(proxies, dim=1)
            positives = same = torch.arange(len(proxies), device=labels.device)[:, None] == labels
        mixes_anchors = self._mixes_anchors()
        if self.level != "embeddings":
            nearest = (anchors @ embeddings.T).detach()
            triples = with_hardest(positives, same, nearest, self.hardest, mixes_anchors)
        elif mixes_anchors:
            triples = anchors_with_negatives(same, first=0 if proxies is None else len(labels))
        elif labels.device.type == "cpu" or len(labels) ** 3 > LARGEST_CUBE:
            triples = listed(positives, same)
        elif proxies is None:
            triples = all_of_pairs(positives, same)
        else:
            triples = all_of_proxies(labels)
        if not len(triples.anchor):
            return embeddings.sum() * 0
        kept = lambdas(self.alpha, triples.anchor)
        if self.share == "batch":
            kept = kept[:1].expand_as(kept)
        if self.level == "embeddings":
            # An anchor that is a proxy is no image, so it stands behind the images.
            is_proxy = mixes_anchors and proxies is not None
            pool = torch.cat([embeddings, anchors]) if is_proxy else embeddings
            similarity = to_mixed_embeddings(anchors, pool, triples, kept)
        else:
            assert embed_again is not None, "mixtures of images go through the network"
            mixed = embed_again(self.level, lambda values: mixed_values(values, triples, kept))
            similarity = (anchors[triples.anchor] * mixed).sum(dim=1)
        mixtures = Mixtures(similarity, kept, triples.anchor, len(anchors), triples.counts)
        return self.weight * self.form(mixtures)

    def _mixes_anchors(self) -> bool:
        """Whether this batch mixes anchors with negatives; of `either`, half of the batches do."""
        if self.pairs == "either":
            return bool(torch.rand(()) < 0.5)
        return self.pairs == "anchor_negative"


def to_mixed_embeddings(anchors: Tensor, pool: Tensor, triples: Triples, kept: Tensor) -> Tensor:
    """(mixtures) similarity of each anchor to its mixture of unit vectors of (pool, dim), brought
    back to unit length."""
    anchor, positive, negative, _ = triples
    to_anchor, to_each_other = anchors @ pool.T, pool @ pool.T
    mixed = kept * to_anchor[anchor, positive] + (1 - kept) * to_anchor[anchor, negative]
    squared_length = (
        kept**2 + (1 - kept) ** 2 + 2 * kept * (1 - kept) * to_each_other[positive, negative]
    )
    return mixed / squared_length.clamp_min(1e-6).sqrt()


def mixed_values(values: Tensor, triples: Triples, kept: Tensor) -> Tensor:
    """(batch, ...) images or maps -> (mixtures, ...)."""
    if not values.is_floating_point():
        values = values.float()
    part = kept.to(values.dtype).view([-1] + [1] * (values.dim() - 1))
    return torch.lerp(values[triples.negative], values[triples.positive], part)


def with_hardest(
    positives: Tensor, same: Tensor, similarity: Tensor, hardest: int, mixes_anchors: bool
) -> Triples:
    """Each positive pair with the nearest negatives of its anchor, or each anchor with them, of
    (anchors, batch) masks and similarities. 0 takes all negatives."""
    count = min(hardest or same.shape[1], same.shape[1])
    nearest = similarity.masked_fill(same, -torch.inf).topk(count, dim=1).indices
    is_negative = ~same.gather(1, nearest)
    if mixes_anchors:
        anchor, place = is_negative.nonzero().T
        return Triples(anchor, anchor, nearest[anchor, place], None)
    first, positive = positives.nonzero().T
    pair, place = is_negative[first].nonzero().T
    anchor = first[pair]
    return Triples(anchor, positive[pair], nearest[anchor, place], None)


def anchors_with_negatives(same: Tensor, first: int) -> Triples:
    """(anchors, batch) -> each anchor with each of its negatives; the anchors stand from `first` on
    in what is mixed."""
    anchor, negative = (~same).nonzero().T
    return Triples(anchor, anchor + first, negative, None)


def listed(positives: Tensor, same: Tensor) -> Triples:
    """(anchors, batch) twice -> those that there are, for which a GPU has to be waited for."""
    anchor, positive, negative = (positives[:, :, None] & ~same[:, None, :]).nonzero().T
    return Triples(anchor, positive, negative, None)


def all_of_pairs(positives: Tensor, same: Tensor) -> Triples:
    """(batch, batch) twice -> all triples of the batch."""
    images = torch.arange(len(same), device=same.device)
    anchor, positive, negative = torch.meshgrid(images, images, images, indexing="ij")
    counts = (positives[:, :, None] & ~same[:, None, :]).flatten().float()
    return Triples(anchor.flatten(), positive.flatten(), negative.flatten(), counts)


def all_of_proxies(labels: Tensor) -> Triples:
    """(batch) labels -> all pairs of images, with the proxy of the first one's class."""
    images = torch.arange(len(labels), device=labels.device)
    positive, negative = torch.meshgrid(images, images, indexing="ij")
    counts = (labels[:, None] != labels).flatten().float()
    positive = positive.flatten()
    return Triples(labels[positive], positive, negative.flatten(), counts)


def lambdas(alpha: float, like: Tensor) -> Tensor:
    """As many numbers of Beta(alpha, alpha) as there are in `like`, drawn on its device."""
    if like.device.type == "cpu":
        return torch.distributions.Beta(alpha, alpha).sample(like.shape)
    # torch's Beta checks its arguments on the host, which waits for the GPU.
    one, other = torch._standard_gamma(torch.full((2, len(like)), alpha, device=like.device))
    return one / (one + other).clamp_min(torch.finfo(torch.float32).tiny)


def contrastive(*, pos_margin: float, neg_margin: float, distance: str) -> Form:
    """Mean of lambda [d - pos_margin]+ over the mixtures where it is above 0, plus the same of
    (1 - lambda) [neg_margin - d]+, as in the authors' code."""

    def form(mixtures: Mixtures) -> Tensor:
        similarity, kept, counts = mixtures.similarity, mixtures.kept, mixtures.counts
        far = (
            1 - similarity if distance == "cosine" else (2 - 2 * similarity).clamp_min(1e-12).sqrt()
        )
        near = kept * functional.relu(far - pos_margin)
        apart = (1 - kept) * functional.relu(neg_margin - far)
        if counts is not None:
            near, apart = near * counts, apart * counts
        return mean_of_positive(near) + mean_of_positive(apart)

    return form


def mean_of_positive(values: Tensor) -> Tensor:
    """The mean of those above 0; 0 where none is."""
    return values.sum() / (values > 0).sum().clamp_min(1)


def multi_similarity(*, alpha: float, beta: float, base: float) -> Form:
    """Mean over anchors of log(1 + sum lambda e^(-alpha (s - base))) / alpha + log(1 + sum (1 -
    lambda) e^(beta (s - base))) / beta."""

    def form(mixtures: Mixtures) -> Tensor:
        similarity, kept = mixtures.similarity, mixtures.kept
        near = softplus_sum(-alpha * (similarity - base), kept, mixtures) / alpha
        far = softplus_sum(beta * (similarity - base), 1 - kept, mixtures) / beta
        return (near + far).sum() / num_mixed(mixtures)

    return form


def proxy_anchor(*, margin: float, alpha: float) -> Form:
    """Mean over proxies with positives of log(1 + sum lambda e^(-alpha (s - margin))) + log(1 + sum
    (1 - lambda) e^(alpha (s + margin)))."""

    def form(mixtures: Mixtures) -> Tensor:
        similarity, kept = mixtures.similarity, mixtures.kept
        near = softplus_sum(-alpha * (similarity - margin), kept, mixtures)
        far = softplus_sum(alpha * (similarity + margin), 1 - kept, mixtures)
        return (near + far).sum() / num_mixed(mixtures)

    return form


def num_mixed(mixtures: Mixtures) -> Tensor | int:
    """How many anchors have mixtures; at least 1."""
    anchor, counts = mixtures.anchor, mixtures.counts
    if counts is None:
        return len(anchor.unique())
    of_anchor = torch.zeros(mixtures.num_anchors, device=anchor.device).index_add(0, anchor, counts)
    return (of_anchor > 0).sum().clamp_min(1)


def softplus_sum(exponents: Tensor, weights: Tensor, mixtures: Mixtures) -> Tensor:
    """(anchors) log(1 + sum of weight * e^exponent over the anchor's mixtures)."""
    anchor, num_anchors, counts = mixtures.anchor, mixtures.num_anchors, mixtures.counts
    if counts is not None:
        exponents, weights = exponents.where(counts > 0, 0), weights * counts
    highest = torch.zeros(num_anchors, device=exponents.device).scatter_reduce(
        0, anchor, exponents.detach(), "amax"
    )
    sums = torch.zeros(num_anchors, device=exponents.device)
    sums = sums.index_add(0, anchor, weights * (exponents - highest[anchor]).exp())
    return highest + ((-highest).exp() + sums).log()


FORMS: dict[str, Callable[..., Form]] = {
    "Contrastive": contrastive,
    "MultiSimilarity": multi_similarity,
    "ProxyAnchor": proxy_anchor,
}
"""By the name of the loss, whose options they take."""
