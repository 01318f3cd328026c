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
