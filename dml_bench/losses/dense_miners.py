"""Mining without lists of pairs: how often each pair, or triplet, of a batch counts, for a GPU that
is never waited for.

A list of pairs is as long as the numbers on the device say, so making one stops the host until the
device has done all that it was asked, and stops the device until the host goes on. Counts are
(batch, batch), those of triplets (batch, batch, batch): sizes that are known before. They are what
pytorch-metric-learning's miners find.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["LEAST", "MINERS", "MinedCounts", "mine"]

LEAST = torch.finfo(torch.float32).min


class MinedCounts(NamedTuple):
    """What a miner found in a batch: how often each pair, or triplet, counts."""

    positives: Tensor
    """(batch, batch) float32: by anchor and positive."""
    negatives: Tensor
    """(batch, batch) float32: by anchor and negative."""
    triplets: Tensor | None = None
    """(batch, batch, batch) float32: by anchor, positive and negative, of a miner that finds
    triplets; else all that the pairs make."""

    def is_empty(self) -> Tensor:
        """() whether nothing was found, or but one pair or triplet."""
        if self.triplets is not None:
            return self.triplets.sum() <= 1
        return (self.positives.sum() <= 1) & (self.negatives.sum() <= 1)

    def as_triplets(self) -> Tensor:
        """(batch, batch, batch)"""
        if self.triplets is not None:
            return self.triplets
        return self.positives[:, :, None] * self.negatives[:, None, :]


Miner = Callable[[Any, Tensor, Tensor, Tensor], MinedCounts]
"""(miner, embeddings, (batch, batch) positives, (batch, batch) negatives) -> what it finds."""


def mine(miner: nn.Module | None, embeddings: Tensor, labels: Tensor) -> MinedCounts:
    """(batch, dim), (batch) -> what the miner finds; without one, all pairs."""
    same = labels[:, None] == labels
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positives, negatives = same & ~itself, ~same
    if miner is None:
        return MinedCounts(positives.float(), negatives.float())
    with torch.no_grad():
        return MINERS[type(miner).__name__](miner, embeddings, positives, negatives)


def easy_hard(miner: Any, embeddings: Tensor, positives: Tensor, negatives: Tensor) -> MinedCounts:
    """One positive and one negative of each anchor that has both, each by its strategy: `easy`,
    `hard`, or `semihard`, the hardest with the negative farther than the positive."""
    distance = miner.distance(embeddings)
    closeness = distance if miner.distance.is_inverted else -distance
    near, far = within(distance, miner.allowed_pos_range), within(distance, miner.allowed_neg_range)
    of_positives, of_negatives = miner.pos_strategy, miner.neg_strategy
    if of_positives == "semihard":
        chosen = extreme(closeness, negatives & far, highest=of_negatives == "hard")
        nearer = closeness > chosen.closeness[:, None]
        positive = extreme(closeness, positives & near & nearer, highest=False)
        return both(positive, chosen)
    if of_positives == "all":
        if of_negatives == "all":
            return MinedCounts(positives.float(), negatives.float())
        chosen = extreme(closeness, negatives & far, highest=of_negatives == "hard")
        return MinedCounts(positives.float(), chosen.counts)
    positive = extreme(closeness, positives & near, highest=of_positives == "easy")
    if of_negatives == "all":
        return MinedCounts(positive.counts, negatives.float())
    if of_negatives == "semihard":
        far = far & (closeness < positive.closeness[:, None])
    return both(positive, extreme(closeness, negatives & far, highest=of_negatives != "easy"))


class Chosen(NamedTuple):
    """Of each anchor one other image."""

    closeness: Tensor
    """(batch)"""
    counts: Tensor
    """(batch, batch) 1 for the one that was chosen, else 0."""
    there: Tensor
    """(batch) whether there was one to be chosen."""


def extreme(closeness: Tensor, allowed: Tensor, *, highest: bool) -> Chosen:
    """The nearest that is allowed, or the farthest."""
    if highest:
        values, places = closeness.masked_fill(~allowed, LEAST).max(dim=1)
    else:
        values, places = closeness.masked_fill(~allowed, -LEAST).min(dim=1)
    there = allowed.any(dim=1)
    columns = torch.arange(len(closeness), device=closeness.device)
    counts = (columns == places[:, None]) & there[:, None]
    return Chosen(values, counts.float(), there)


def both(positive: Chosen, negative: Chosen) -> MinedCounts:
    """Of the anchors that have a positive and a negative."""
    there = (positive.there & negative.there).float()[:, None]
    return MinedCounts(positive.counts * there, negative.counts * there)


def within(distance: Tensor, limits: tuple[float, float] | None) -> Tensor:
    """(batch, batch) whether a distance is in a range; all are where there is none."""
    if limits is None:
        return torch.ones_like(distance, dtype=torch.bool)
    return (distance >= limits[0]) & (distance <= limits[1])


def triplet_margin_miner(
    miner: Any, embeddings: Tensor, positives: Tensor, negatives: Tensor
) -> MinedCounts:
    """Triplets by whether, and how, they violate a margin."""
    distance = miner.distance(embeddings)
    margin = miner.distance.margin(distance[:, None, :], distance[:, :, None])
    violates = margin <= miner.margin
    wanted = {
        "all": violates,
        "easy": ~violates,
        "hard": violates & (margin <= 0),
        "semihard": violates & (margin > 0),
    }[miner.type_of_triplets]
    return of_triplets(wanted & positives[:, :, None] & negatives[:, None, :])


def of_triplets(triplets: Tensor) -> MinedCounts:
    """(batch, batch, batch) which there are."""
    counts = triplets.float()
    return MinedCounts(counts.sum(dim=2), counts.sum(dim=1), counts)


def angular_miner(
    miner: Any, embeddings: Tensor, positives: Tensor, negatives: Tensor
) -> MinedCounts:
    """Triplets whose angle at the negative exceeds a bound."""
    centres = (embeddings[:, None] + embeddings).flatten(0, 1) / 2
    exactly = "donot_use_mm_for_euclid_dist"
    pairs = torch.cdist(embeddings, embeddings, compute_mode=exactly)
    to_centres = torch.cdist(centres, embeddings, compute_mode=exactly)
    to_centres = to_centres.view(len(embeddings), len(embeddings), len(embeddings))
    angles = torch.atan(pairs[:, :, None] / (2 * to_centres))
    return of_triplets((angles > miner.angle) & positives[:, :, None] & negatives[:, None, :])


def multi_similarity_miner(
    miner: Any, embeddings: Tensor, positives: Tensor, negatives: Tensor
) -> MinedCounts:
    """Positives farther than the nearest negative and negatives nearer than the farthest positive,
    give or take epsilon."""
    distance = miner.distance(embeddings)
    closeness = distance if miner.distance.is_inverted else -distance
    nearest = extreme(closeness, negatives, highest=True).closeness[:, None]
    farthest = extreme(closeness, positives, highest=False).closeness[:, None]
    return MinedCounts(
        (positives & (closeness - miner.epsilon < nearest)).float(),
        (negatives & (closeness + miner.epsilon > farthest)).float(),
    )


def pair_margin_miner(
    miner: Any, embeddings: Tensor, positives: Tensor, negatives: Tensor
) -> MinedCounts:
    """Positives farther than one margin, negatives nearer than another."""
    distance = miner.distance(embeddings)
    margin = miner.distance.margin
    return MinedCounts(
        (positives & (margin(distance, miner.pos_margin) > 0)).float(),
        (negatives & (margin(miner.neg_margin, distance) > 0)).float(),
    )


def hard_aware(miner: Any, embeddings: Tensor, positives: Tensor, negatives: Tensor) -> MinedCounts:
    """The hardest part of all positive and of all negative pairs."""
    distance = miner.distance(embeddings)
    closeness = distance if miner.distance.is_inverted else -distance
    return MinedCounts(
        first_part(-closeness, positives, miner.filter_percentage),
        first_part(closeness, negatives, miner.filter_percentage),
    )


def first_part(hardness: Tensor, pairs: Tensor, part: float) -> Tensor:
    """(batch, batch) which of the pairs are among this part of them, the hardest first."""
    order = hardness.masked_fill(~pairs, LEAST).flatten().argsort(descending=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    kept = (pairs.sum().double() * part).ceil()
    return (rank < kept).view_as(pairs).float()


def uniform_histogram(
    miner: Any, embeddings: Tensor, positives: Tensor, negatives: Tensor
) -> MinedCounts:
    """From each bin of distances that is not empty so many pairs, with replacement."""
    distance = miner.distance(embeddings).flatten()

    def drawn(pairs: Tensor, per_bin: int) -> Tensor:
        wanted = pairs.flatten()
        least = distance.masked_fill(~wanted, -LEAST).min()
        most = distance.masked_fill(~wanted, LEAST).max()
        bins = ((distance - least) / (most - least) * miner.num_bins).long()
        bins = bins.clamp(0, miner.num_bins - 1).masked_fill(~wanted, miner.num_bins)
        bins, order = bins.sort()
        every = torch.arange(miner.num_bins, device=bins.device)
        first, end = torch.searchsorted(bins, every), torch.searchsorted(bins, every, right=True)
        chance = torch.rand(miner.num_bins, per_bin, device=bins.device)
        places = first[:, None] + (chance * (end - first)[:, None]).long()
        counted = (end > first)[:, None].expand_as(places).float()
        pairs_of_places = order[places.clamp_max(len(order) - 1)].flatten()
        counts = torch.zeros_like(distance).index_add_(0, pairs_of_places, counted.flatten())
        return counts.view_as(pairs)

    return MinedCounts(drawn(positives, miner.pos_per_bin), drawn(negatives, miner.neg_per_bin))


def distance_weighted(
    miner: Any, embeddings: Tensor, positives: Tensor, negatives: Tensor
) -> MinedCounts:
    """For each positive pair a negative of its anchor, drawn evenly over distances."""
    distances, eligible = miner.eligible(embeddings, negatives)
    weights = miner.log_weights(distances, embeddings.shape[1]).masked_fill(~eligible, LEAST)
    # The largest of logarithms of weights plus Gumbel noise is drawn by these weights.
    noise = -torch.empty(len(weights), *weights.shape, device=weights.device).exponential_().log()
    chosen = (weights[:, None] + noise).argmax(dim=2)
    columns = torch.arange(len(weights), device=weights.device)
    there = positives & eligible.any(dim=1)[:, None]
    return of_triplets((columns == chosen[:, :, None]) & there[:, :, None])


MINERS: dict[str, Miner] = {
    "AngularMiner": angular_miner,
    "BatchEasyHardMiner": easy_hard,
    "BatchHardMiner": easy_hard,
    "DistanceWeighted": distance_weighted,
    "HDCMiner": hard_aware,
    "MultiSimilarityMiner": multi_similarity_miner,
    "PairMarginMiner": pair_margin_miner,
    "TripletMarginMiner": triplet_margin_miner,
    "UniformHistogramMiner": uniform_histogram,
}
"""By the class of a miner."""
