"""Miners: which pairs or triplets of a batch a loss looks at.

A registered function returns a module `(embeddings (batch, dim), labels (batch)) -> tuple of index
tensors`: anchors, positives and negatives of triplets, or anchors and positives of positive pairs,
then anchors and negatives of negative pairs. What is drawn at random comes from torch's global
generator. Distances among the options are Euclidean or 1 - cosine.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from dml_bench.losses.distances import as_threshold, distance_named
from dml_bench.registry import miners
from dml_bench.registry.option_checks import Count, Fraction, NotNegative, Positive, between

if TYPE_CHECKING:
    from torch import nn

Strategy = Literal["easy", "semihard", "hard", "all"]


@miners.register("none", summary="every pair or triplet of the batch", source="")
def none() -> None:
    return None


@miners.register(
    "EPSHN",
    summary="for each anchor its easiest positive and its hardest negative that is farther than it",
    source="Xuan, Stylianou and Pless 2020, Improved embeddings with easy positive triplet mining",
)
def easy_positive_semihard_negative(
    *, distance: Literal["cosine", "euclidean"] = "cosine"
) -> "nn.Module":
    from pytorch_metric_learning.miners import BatchEasyHardMiner

    return BatchEasyHardMiner(
        pos_strategy="easy", neg_strategy="semihard", distance=distance_named(distance)
    )


@miners.register(
    "BatchHard",
    summary="for each anchor its farthest positive and its nearest negative",
    source="Hermans et al. 2017, In defense of the triplet loss",
)
def batch_hard(*, distance: Literal["cosine", "euclidean"] = "euclidean") -> "nn.Module":
    from pytorch_metric_learning.miners import BatchHardMiner

    return BatchHardMiner(distance=distance_named(distance))


def check_strategies(
    *,
    pos_strategy: Strategy,
    neg_strategy: Strategy,
    allowed_pos_range: tuple[float, ...],
    allowed_neg_range: tuple[float, ...],
    distance: str,
) -> None:
    """Raises ValueError for strategies and ranges that contradict each other."""
    if "semihard" in (pos_strategy, neg_strategy) and (
        pos_strategy == neg_strategy or "all" in (pos_strategy, neg_strategy)
    ):
        raise ValueError(
            "miner.pos_strategy and neg_strategy must be easy or hard beside semihard, got"
            f" {pos_strategy!r} and {neg_strategy!r}"
        )
    for name, strategy, distances in (
        ("allowed_pos_range", pos_strategy, allowed_pos_range),
        ("allowed_neg_range", neg_strategy, allowed_neg_range),
    ):
        if distances and strategy == "all":
            raise ValueError(
                f"miner.{name} has no effect with the strategy all: leave it out, or choose hard"
            )
        if distances and (len(distances) != 2 or not 0 <= distances[0] <= distances[1] <= 2):
            raise ValueError(
                f"miner.{name} must be two ascending distances from 0 to 2, or none, got"
                f" {list(distances)}"
            )


@miners.register(
    "BatchEasyHard",
    summary="for each anchor a positive and a negative by a strategy for each",
    source="Xuan, Stylianou and Pless 2020, Improved embeddings with easy positive triplet mining",
    check=check_strategies,
)
def batch_easy_hard(
    *,
    pos_strategy: Strategy = "easy",
    neg_strategy: Strategy = "semihard",
    allowed_pos_range: tuple[float, ...] = (),
    allowed_neg_range: tuple[float, ...] = (),
    distance: Literal["cosine", "euclidean"] = "cosine",
) -> "nn.Module":
    """`easy`: the nearest positive, the farthest negative; `hard`: the other way round; `semihard`:
    the hardest that still leaves the negative farther than the positive; `all`: every one. A range
    is a least and a greatest distance; empty allows all."""
    from pytorch_metric_learning.miners import BatchEasyHardMiner

    return BatchEasyHardMiner(
        pos_strategy=pos_strategy,
        neg_strategy=neg_strategy,
        allowed_pos_range=_interval(allowed_pos_range, distance),
        allowed_neg_range=_interval(allowed_neg_range, distance),
        distance=distance_named(distance),
    )


def _interval(distances: tuple[float, ...], distance: str) -> tuple[float, float] | None:
    """The two ends of a range of distances, ascending in the units of `distance_named`; None for an
    empty one."""
    if not distances:
        return None
    least, greatest = sorted(as_threshold(end, distance) for end in distances)
    return least, greatest


@miners.register(
    "TripletMargin",
    summary="triplets by whether they violate a margin, and how badly",
    source="Schroff et al. 2015, FaceNet",
)
def triplet_margin(
    *,
    margin: NotNegative = 0.2,
    type_of_triplets: Literal["all", "hard", "semihard", "easy"] = "all",
    distance: Literal["cosine", "euclidean"] = "euclidean",
) -> "nn.Module":
    """`all` that violate the margin: of these, `hard` have the negative nearer than the positive
    and `semihard` have not; `easy` are those that do not violate it."""
    from pytorch_metric_learning.miners import TripletMarginMiner

    return TripletMarginMiner(
        margin=margin, type_of_triplets=type_of_triplets, distance=distance_named(distance)
    )


@miners.register(
    "MultiSimilarity",
    summary=(
        "negatives nearer than the farthest positive and positives farther than the nearest"
        " negative, give or take"
    ),
    source="Wang et al. 2019, Multi-similarity loss with general pair weighting",
)
def multi_similarity(
    *, epsilon: NotNegative = 0.1, distance: Literal["cosine", "euclidean"] = "cosine"
) -> "nn.Module":
    from pytorch_metric_learning.miners import MultiSimilarityMiner

    return MultiSimilarityMiner(epsilon=epsilon, distance=distance_named(distance))


@miners.register(
    "DistanceWeighted",
    summary="for each positive pair a negative, drawn evenly over distances",
    source="Wu et al. 2017, Sampling matters in deep embedding learning",
)
def distance_weighted(
    *, cutoff: Positive = 0.5, nonzero_loss_cutoff: Annotated[float, between("cutoff", 1.99)] = 1.4
) -> "nn.Module":
    """Distances are Euclidean; negatives from `nonzero_loss_cutoff` on are never drawn."""
    from dml_bench.losses.distance_weighted import DistanceWeighted

    return DistanceWeighted(cutoff, nonzero_loss_cutoff)


@miners.register(
    "PairMargin",
    summary="positive pairs farther than one margin and negative pairs nearer than another",
    source=(
        "Hadsell, Chopra and LeCun 2006, Dimensionality reduction by learning an invariant mapping"
    ),
)
def pair_margin(
    *,
    pos_margin: Annotated[float, between(0, 2)] = 0.2,
    neg_margin: Annotated[float, between(0, 2)] = 0.8,
    distance: Literal["cosine", "euclidean"] = "euclidean",
) -> "nn.Module":
    from pytorch_metric_learning.miners import PairMarginMiner

    return PairMarginMiner(
        pos_margin=as_threshold(pos_margin, distance),
        neg_margin=as_threshold(neg_margin, distance),
        distance=distance_named(distance),
    )


@miners.register(
    "UniformHistogram",
    summary="positive and negative pairs drawn evenly over bins of their distances",
    source="Musgrave, Belongie and Lim 2020, pytorch-metric-learning",
)
def uniform_histogram(
    *,
    num_bins: Count = 100,
    pos_per_bin: Count = 10,
    neg_per_bin: Count = 10,
    distance: Literal["cosine", "euclidean"] = "euclidean",
) -> "nn.Module":
    """From each bin that is not empty, so many pairs with replacement."""
    from pytorch_metric_learning.miners import UniformHistogramMiner

    return UniformHistogramMiner(
        num_bins=num_bins,
        pos_per_bin=pos_per_bin,
        neg_per_bin=neg_per_bin,
        distance=distance_named(distance),
    )


@miners.register(
    "Angular",
    summary="triplets whose angle at the negative, as the angular loss has it, exceeds a bound",
    source="Wang et al. 2017, Deep metric learning with angular loss",
)
def angular(*, angle: Annotated[float, between(0, 90)] = 20.0) -> "nn.Module":
    """`angle` is in degrees: of arctan(half the distance of the pair / the distance of its middle
    from the negative)."""
    from pytorch_metric_learning.miners import AngularMiner

    return AngularMiner(angle=angle)


@miners.register(
    "HDC",
    summary="the hardest part of all positive and of all negative pairs",
    source="Yuan et al. 2017, Hard-aware deeply cascaded embedding",
)
def hard_aware(
    *, filter_percentage: Fraction = 0.5, distance: Literal["cosine", "euclidean"] = "euclidean"
) -> "nn.Module":
    """`filter_percentage` is the part that is kept, 0 .. 1."""
    from pytorch_metric_learning.miners import HDCMiner

    return HDCMiner(filter_percentage=filter_percentage, distance=distance_named(distance))
