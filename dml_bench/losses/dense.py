"""Losses over pairs and triplets as matrices of a whole batch, for a GPU that is never waited for.

What comes out is what pytorch-metric-learning's losses make of lists, up to rounding. Why there are
no lists is said in `dense_miners`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.losses.dense_miners import LEAST, MINERS, MinedCounts, mine
from dml_bench.losses.sample_weights import ByImage

__all__ = ["dense_loss", "is_dense"]

MOST_NT_XENT = 87.33654
"""The loss of a positive pair of probability 0: minus the logarithm of the smallest float32."""


class Batch(NamedTuple):
    """What a loss looks at."""

    embeddings: Tensor
    """(batch, dim)"""
    labels: Tensor
    """(batch)"""
    distance: Tensor
    """(batch, batch) as the loss measures it: distances, or similarities."""


Loss = Callable[[Any, "Batch", MinedCounts], Tensor]
"""(loss, batch, what was mined) -> scalar."""


def is_dense(loss: nn.Module, miner: nn.Module | None) -> bool:
    """Whether both can do without lists."""
    return type(loss).__name__ in LOSSES and (miner is None or type(miner).__name__ in MINERS)


def dense_loss(
    loss: Any, miner: nn.Module | None, embeddings: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor | int]:
    """(batch, dim), (batch) -> the loss, and () whether the miner found nothing, so that the loss
    is 0."""
    mined = mine(miner, embeddings, labels)
    batch = Batch(embeddings, labels, loss.distance(embeddings))
    value = LOSSES[type(loss).__name__](loss, batch, mined)
    if miner is None:
        return value, 0
    empty = mined.is_empty()
    # A zero with a graph behind it. What is left out is finite, so its gradient is 0 and not nan.
    return torch.where(empty, embeddings.sum() * 0, value), empty


def mean(reducer: nn.Module, values: Tensor, counts: Tensor) -> Tensor:
    """The mean that a reducer of pytorch-metric-learning makes, of (batch, ...) finite values by
    anchor, each as often as it counts."""
    from pytorch_metric_learning.reducers import ThresholdReducer

    weights = None
    if isinstance(reducer, ByImage):
        weights, reducer = reducer.weights, reducer.reducer
    if isinstance(reducer, ThresholdReducer):
        counts = counts * (values > reducer.low)
    summed = values * counts
    if weights is not None:
        summed = summed * by_anchor(weights, values)
    return summed.sum() / counts.sum().clamp_min(1)


def by_anchor(numbers: Tensor, like: Tensor) -> Tensor:
    """(batch) -> (batch, 1, ...)"""
    return numbers.view(-1, *[1] * (like.dim() - 1))


def log_sum_exp(values: Tensor, counts: Tensor) -> Tensor:
    """(batch, batch) twice -> (batch, 1) over each row, the least float32 where none counts."""
    counted = torch.where(counts > 0, values + counts.clamp_min(1).log(), LEAST)
    return counted.logsumexp(dim=1, keepdim=True)


def nt_xent(loss: Any, batch: Batch, mined: MinedCounts) -> Tensor:
    """Cross-entropy of each positive pair against the negatives of its anchor."""
    similarity = batch.distance if loss.distance.is_inverted else -batch.distance
    similarity = similarity / loss.temperature
    values = functional.softplus(log_sum_exp(similarity, mined.negatives) - similarity)
    return mean(loss.reducer, values.clamp_max(MOST_NT_XENT), mined.positives)


def tuplet_margin(loss: Any, batch: Batch, mined: MinedCounts) -> Tensor:
    """Softmax of the angle of each positive pair, less a slack, against the anchor's negatives."""
    positive = loss.scale * torch.cos(torch.acos(batch.distance) - loss.margin)
    values = functional.softplus(
        log_sum_exp(loss.scale * batch.distance, mined.negatives) - positive
    )
    return mean(loss.reducer, values, mined.positives)


def sup_con(loss: Any, batch: Batch, mined: MinedCounts) -> Tensor:
    """Mean over an anchor's positives of their log probability among all others."""
    positives, negatives = (mined.positives > 0).float(), (mined.negatives > 0).float()
    logits = batch.distance / loss.temperature
    log_probability = logits - log_sum_exp(logits, positives + negatives)
    of_positives = (positives * log_probability.clamp_min(LEAST)).sum(dim=1)
    values = -of_positives / positives.sum(dim=1).clamp_min(1)
    enough = (positives.sum() > 0) & (negatives.sum() > 0)
    return mean(loss.reducer, values, torch.ones_like(values) * enough)


def contrastive(loss: Any, batch: Batch, mined: MinedCounts) -> Tensor:
    """Positive pairs closer than one margin, negative pairs farther than another."""
    margin, reducers = loss.distance.margin, loss.reducer.reducers
    near = functional.relu(margin(batch.distance, loss.pos_margin))
    far = functional.relu(margin(loss.neg_margin, batch.distance))
    return mean(reducers["pos_loss"], near, mined.positives) + mean(
        reducers["neg_loss"], far, mined.negatives
    )


def triplet_margin(loss: Any, batch: Batch, mined: MinedCounts) -> Tensor:
    """Each positive closer to its anchor than each negative, by a margin."""
    to_negative = batch.distance[:, None, :]
    if loss.swap:
        nearer = torch.maximum if loss.distance.is_inverted else torch.minimum
        to_negative = nearer(to_negative, batch.distance[None])
    violation = loss.distance.margin(batch.distance[:, :, None], to_negative) + loss.margin
    activation = functional.softplus if loss.smooth_loss else functional.relu
    return mean(loss.reducer, activation(violation), mined.as_triplets())


def margin_based(loss: Any, batch: Batch, mined: MinedCounts) -> Tensor:
    """Pairs of triplets on their side of a learned boundary, by a margin."""
    if mined.triplets is None:
        positives = mined.positives * mined.negatives.sum(dim=1, keepdim=True)
        negatives = mined.negatives * mined.positives.sum(dim=1, keepdim=True)
    else:
        positives, negatives = mined.positives, mined.negatives
    per_class = len(loss.beta) > 1
    beta = loss.beta[batch.labels][:, None] if per_class else loss.beta
    margin, reducer = loss.distance.margin, loss.reducer.reducers["margin_loss"]
    weights = reducer.weights if isinstance(reducer, ByImage) else None
    near = functional.relu(margin(batch.distance, beta) + loss.margin)
    far = functional.relu(margin(beta, batch.distance) + loss.margin)
    divisor = (positives * (near > 0)).sum() + (negatives * (far > 0)).sum()
    summed = (positives * near + negatives * far).sum(dim=1)
    price = loss.beta.sum() * loss.nu
    if per_class:
        summed = summed + loss.nu * beta[:, 0] * positives.sum(dim=1)
        price = torch.zeros_like(price)
    if weights is not None:
        summed, price = summed * weights, price * weights.mean()
    any_triplet = positives.sum() > 0
    return summed.sum() / divisor.clamp_min(1) * (divisor > 0) + price * any_triplet


def of_masks(loss: Any, batch: Batch, mined: MinedCounts) -> Tensor:
    """A loss that pytorch-metric-learning computes from masks."""
    positives, negatives = (mined.positives > 0).float(), (mined.negatives > 0).float()
    values = loss._compute_loss(batch.distance, positives, negatives)["loss"]["losses"].flatten()
    return mean(loss.reducer, values, torch.ones_like(values))


def circle(loss: Any, batch: Batch, mined: MinedCounts) -> Tensor:
    """Pairs weighted by how far their cosine is from its optimum."""
    known = batch.distance.detach()
    near = -loss.gamma * functional.relu(loss.op - known) * (batch.distance - loss.delta_p)
    far = loss.gamma * functional.relu(known - loss.on) * (batch.distance - loss.delta_n)
    positives, negatives = (mined.positives > 0).float(), (mined.negatives > 0).float()
    there = ((positives.sum(dim=1) > 0) & (negatives.sum(dim=1) > 0))[:, None]
    exponent = (log_sum_exp(near, positives) + log_sum_exp(far, negatives)).masked_fill(~there, 0)
    values = (functional.softplus(exponent) * there)[:, 0]
    return mean(loss.reducer, values, torch.ones_like(values))


def angular(loss: Any, batch: Batch, mined: MinedCounts) -> Tensor:
    """Angle at the negative of the triangle with each positive pair below a bound."""
    tangent = math.tan(float(loss.alpha)) ** 2
    unit = loss.distance.normalize(batch.embeddings)
    products = unit @ batch.embeddings.T
    by_negative = 4 * tangent * (products[:, None, :] + products[None, :, :])
    are_negatives = (mined.negatives > 0)[:, None, :]
    highest = by_negative.masked_fill(~are_negatives, LEAST).logsumexp(dim=2)
    values = functional.softplus(highest - 2 * (1 + tangent) * (unit @ unit.T))
    return mean(loss.reducer, values, mined.positives)


def fast_ap(loss: Any, batch: Batch, mined: MinedCounts) -> Tensor:
    """1 - average precision, from soft histograms of distances."""
    most = 2**loss.distance.power
    middles = torch.linspace(0, most, loss.num_edges, device=batch.distance.device)
    pulse = functional.relu(
        1 - (batch.distance - middles[:, None, None]).abs() / (most / loss.num_bins)
    )
    of_positives = (pulse * mined.positives).sum(dim=2).T
    of_negatives = (pulse * mined.negatives).sum(dim=2).T
    products = of_positives * of_positives.cumsum(dim=1)
    totals = (of_positives + of_negatives).cumsum(dim=1)
    is_there = (products > 0) & (totals > 0)
    precision = products.where(is_there, 0) / totals.where(is_there, 1)
    positives = mined.positives.sum(dim=1)
    values = 1 - precision.sum(dim=1) / positives.clamp_min(1)
    return mean(loss.reducer, values, (positives > 0).float() * is_there.any())


def n_pairs(loss: Any, batch: Batch, mined: MinedCounts) -> Tensor:
    """Softmax of the first positive pair of each class against the positives of the others."""
    same = batch.labels[:, None] == batch.labels
    columns = torch.arange(len(same), device=same.device)
    is_first = (mined.positives.sum(dim=1) > 0) & ~same.tril(-1).any(dim=1)
    positive = torch.where(mined.positives > 0, columns, len(same)).amin(dim=1)
    chosen = (columns == positive[:, None]).float()
    logits = (batch.distance @ chosen.T).masked_fill(~is_first, LEAST)
    values = logits.logsumexp(dim=1) - logits.diagonal()
    reducers = loss.reducer.reducers
    price = loss.embedding_regularization_loss(batch.embeddings)["losses"]
    return mean(reducers["loss"], values.where(is_first, 0), is_first.float()) + price


def pnp(loss: Any, batch: Batch, mined: MinedCounts) -> Tensor:
    """Number of negatives ranked before each positive, from sigmoids of similarity differences."""
    differences = batch.distance[:, None, :] - batch.distance[:, :, None]
    before = (loss.sigmoid(differences, temp=loss.anneal) * mined.negatives).sum(dim=2)
    if loss.variant == "Ds":
        before = torch.log(1 + before)
    elif loss.variant == "Iu":
        before = (1 + before) * torch.log(1 + before)
    of_anchor = mined.positives.sum(dim=1)
    summed = (before * mined.positives).sum(dim=1) + before.diagonal()  # itself among them
    values, has_positives = summed / (of_anchor + 1), (of_anchor > 0).float()
    return (values * has_positives).sum() / has_positives.sum().clamp_min(1)


def ranked_list(loss: Any, batch: Batch, mined: MinedCounts) -> Tensor:
    """Positives within one ball around each anchor, negatives beyond a wider one."""
    bound, few = loss.alpha - loss.margin, 1e-5
    distance = batch.distance * (1 - torch.eye(len(batch.distance), device=batch.distance.device))
    far = (mined.positives > 0) & (distance > bound) & (distance > 0)
    near = (mined.negatives > 0) & (distance < loss.alpha) & (distance > 0)
    of_positives = torch.exp(loss.Tp * (distance - bound)).where(far, 0)
    of_negatives = torch.exp(loss.Tn * (loss.alpha - distance)).where(near, 0)
    attracted = (of_positives * (distance - bound)).sum(dim=1) / (of_positives + few).sum(dim=1)
    repelled = (of_negatives * (loss.alpha - distance)).sum(dim=1) / (of_negatives + few).sum(dim=1)
    values = (1 - loss.imbalance) * attracted + loss.imbalance * repelled
    return mean(loss.reducer, values, torch.ones_like(values))


LOSSES: dict[str, Loss] = {
    "AngularLoss": angular,
    "CircleLoss": circle,
    "ContrastiveLoss": contrastive,
    "FastAPLoss": fast_ap,
    "GeneralizedLiftedStructureLoss": of_masks,
    "MarginLoss": margin_based,
    "MultiSimilarityLoss": of_masks,
    "NPairsLoss": n_pairs,
    "NTXentLoss": nt_xent,
    "PNPLoss": pnp,
    "RankedListLoss": ranked_list,
    "SignalToNoiseRatioContrastiveLoss": contrastive,
    "SupConLoss": sup_con,
    "TripletMarginLoss": triplet_margin,
    "TupletMarginLoss": tuplet_margin,
}
"""By the class of a loss."""
