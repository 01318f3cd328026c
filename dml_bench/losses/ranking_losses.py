"""Losses over whole rankings: how the batch is sorted for each of its embeddings."""

from typing import TYPE_CHECKING, Annotated, Literal

from dml_bench.registry import losses
from dml_bench.registry.option_checks import Positive, at_least

if TYPE_CHECKING:
    from torch import nn


@losses.register(
    "FastAP",
    summary="1 - average precision, from soft histograms of distances",
    source="Cakir et al. 2019, Deep metric learning to rank",
)
def fast_ap(
    num_classes: int, dim: int, *, num_bins: Annotated[int, at_least(2)] = 10
) -> "nn.Module":
    from pytorch_metric_learning.losses import FastAPLoss

    return FastAPLoss(num_bins=num_bins)


@losses.register(
    "SmoothAP",
    summary="1 - average precision, from sigmoids of similarity differences",
    source="Brown et al. 2020, Smooth-AP: smoothing the path towards large-scale image retrieval",
    one_number=True,
)
def smooth_ap(num_classes: int, dim: int, *, temperature: Positive = 0.01) -> "nn.Module":
    from dml_bench.losses.reimplemented import SmoothAP

    return SmoothAP(temperature)


@losses.register(
    "PNP",
    summary=(
        "number of negatives ranked before each positive, from sigmoids of similarity differences"
    ),
    source="Li et al. 2022, Rethinking the optimization of average precision",
    one_number=True,
)
def pnp(
    num_classes: int,
    dim: int,
    *,
    temperature: Positive = 0.01,
    variant: Literal["O", "Ds", "Iu"] = "O",
) -> "nn.Module":
    """`O` counts, `Ds` takes the logarithm of the count, `Iu` grows faster than it."""
    from pytorch_metric_learning.losses import PNPLoss

    return PNPLoss(anneal=temperature, variant=variant)


@losses.register(
    "Histogram",
    summary=(
        "probability that a negative pair is more similar than a positive one, from soft histograms"
    ),
    source="Ustinova and Lempitsky 2016, Learning deep embeddings with histogram loss",
    one_number=True,
)
def histogram(
    num_classes: int, dim: int, *, num_bins: Annotated[int, at_least(2)] = 100
) -> "nn.Module":
    from dml_bench.losses.reimplemented import Histogram

    return Histogram(num_bins)


def check_cutoffs(*, k: tuple[int, ...], simix: int, **_: float) -> None:
    """Raises ValueError for no k, or for virtual images of no pair."""
    if not k or min(k) < 1:
        raise ValueError(f"loss.k must be positive numbers, got {list(k)}: the paper has 1 to 16")
    if simix == 1:
        raise ValueError(f"loss.simix must be 0 (off) or at least 2, got {simix}: set sampler.m")


@losses.register(
    "RecallAtK",
    summary="1 - recall@k, from sigmoids of similarity differences and of ranks",
    source=(
        "Patel, Tolias and Matas 2022, Recall@k surrogate loss with large batches and similarity"
        " mixup"
    ),
    one_number=True,
    check=check_cutoffs,
)
def recall_at_k(
    num_classes: int,
    dim: int,
    *,
    k: tuple[int, ...] = (1, 2, 4, 8, 16),
    rank_temperature: Positive = 0.01,
    k_temperature: Positive = 1.0,
    simix: Annotated[int, at_least(0)] = 0,
) -> "nn.Module":
    """`simix` is the sampler's m, and adds a virtual image between each two of a class (SiMix); 0
    is off."""
    from dml_bench.losses.recall_at_k import RecallAtK

    return RecallAtK(k, rank_temperature, k_temperature, simix)
