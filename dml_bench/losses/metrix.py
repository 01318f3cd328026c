"""Metrix: mixtures of a positive and a negative, which are partly positive (Venkataramanan et al.
2022, "It takes two to tango").

For an anchor a, a positive p and a negative n, the mixture v = lambda p + (1 - lambda) n counts in
the positive term of the loss with weight lambda and in its negative term with 1 - lambda.
Embeddings are mixed and brought back to unit length; every (positive, negative) pair of the batch
is mixed for every anchor, where the paper also samples some of them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.config import Component

__all__ = ["FORMS", "Metrix", "build_metrix"]

Form = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""(mixtures) similarity to their anchor, lambda, and the anchor's number, of so many anchors ->
scalar."""


class Metrix(nn.Module):
    """The term of the mixtures, times its weight; 0 where the batch has no positive or no
    negative."""

    def __init__(self, form: Form, alpha: float, weight: float):
        super().__init__()
        self.form = form
        self.alpha = alpha
        self.weight = weight

    def forward(self, embeddings: Tensor, labels: Tensor, loss: nn.Module) -> Tensor:
        """(batch, dim) unit vectors, (batch) labels, and the loss, whose proxies are the anchors if
        it has some -> scalar."""
        proxies = getattr(getattr(loss, "loss", None), "proxies", None)
        if proxies is None:
            anchors, same = embeddings, labels[:, None] == labels
            positives = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        else:
            anchors = functional.normalize(proxies, dim=1)
            positives = same = torch.arange(len(proxies), device=labels.device)[:, None] == labels
        anchor, positive, negative = (positives[:, :, None] & ~same[:, None, :]).nonzero().T
        if not len(anchor):
            return embeddings.sum() * 0
        kept = (
            torch.distributions.Beta(self.alpha, self.alpha)
            .sample(anchor.shape)
            .to(embeddings.device)
        )
        to_anchor, to_each_other = anchors @ embeddings.T, embeddings @ embeddings.T
        mixed = kept * to_anchor[anchor, positive] + (1 - kept) * to_anchor[anchor, negative]
        squared_length = (
            kept**2 + (1 - kept) ** 2 + 2 * kept * (1 - kept) * to_each_other[positive, negative]
        )
        return self.weight * self.form(
            mixed / squared_length.clamp_min(1e-6).sqrt(), kept, anchor, len(anchors)
        )


def contrastive(*, pos_margin: float, neg_margin: float, distance: str) -> Form:
    """Mean over mixtures of lambda [d - pos_margin]+ + (1 - lambda) [neg_margin - d]+."""

    def form(similarity: Tensor, kept: Tensor, anchor: Tensor, num_anchors: int) -> Tensor:
        far = (
            1 - similarity if distance == "cosine" else (2 - 2 * similarity).clamp_min(1e-12).sqrt()
        )
        return (
            kept * functional.relu(far - pos_margin)
            + (1 - kept) * functional.relu(neg_margin - far)
        ).mean()

    return form


def multi_similarity(*, alpha: float, beta: float, base: float) -> Form:
    """Mean over anchors of log(1 + sum lambda e^(-alpha (s - base))) / alpha + log(1 + sum (1 -
    lambda) e^(beta (s - base))) / beta."""

    def form(similarity: Tensor, kept: Tensor, anchor: Tensor, num_anchors: int) -> Tensor:
        near = softplus_sum(-alpha * (similarity - base), kept, anchor, num_anchors) / alpha
        far = softplus_sum(beta * (similarity - base), 1 - kept, anchor, num_anchors) / beta
        return (near + far).sum() / len(anchor.unique())

    return form


def proxy_anchor(*, margin: float, alpha: float) -> Form:
    """Mean over proxies with positives of log(1 + sum lambda e^(-alpha (s - margin))) + log(1 + sum
    (1 - lambda) e^(alpha (s + margin)))."""

    def form(similarity: Tensor, kept: Tensor, anchor: Tensor, num_anchors: int) -> Tensor:
        near = softplus_sum(-alpha * (similarity - margin), kept, anchor, num_anchors)
        far = softplus_sum(alpha * (similarity + margin), 1 - kept, anchor, num_anchors)
        return (near + far).sum() / len(anchor.unique())

    return form


def softplus_sum(exponents: Tensor, weights: Tensor, anchor: Tensor, num_anchors: int) -> Tensor:
    """(anchors) log(1 + sum of weight * e^exponent over the anchor's mixtures)."""
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


def build_metrix(loss: Component, *, alpha: float, weight: float) -> Metrix:
    """The further term of a loss, by the loss's own options."""
    return Metrix(FORMS[loss.name](**loss.options), alpha, weight)
