"""Poolings: how a backbone's last map (batch, channels, height, width) becomes features (batch,
channels).

A registered function takes nothing but options. It returns None for the backbone's own pooling, or
the module that replaces it and whose parameters then belong to the backbone.
"""

from typing import TYPE_CHECKING

from dml_bench.registry import poolings
from dml_bench.registry.option_checks import Positive

if TYPE_CHECKING:
    from torch import Tensor, nn


@poolings.register(
    "own",
    summary="the backbone's own: the average of the map, or a transformer's class token",
    source="each network's own paper",
)
def own() -> None:
    return None


@poolings.register(
    "avg", summary="the average of the map", source="Lin et al. 2014, Network in Network"
)
def avg() -> "nn.Module":
    from torch import nn

    class Average(nn.Module):
        def forward(self, maps: "Tensor") -> "Tensor":
            return maps.mean(dim=(2, 3))

    return Average()


@poolings.register("max", summary="the maximum of the map", source="Tolias et al. 2016, MAC")
def maximum() -> "nn.Module":
    from torch import nn

    class Maximum(nn.Module):
        def forward(self, maps: "Tensor") -> "Tensor":
            return maps.amax(dim=(2, 3))

    return Maximum()


@poolings.register(
    "avg+max",
    summary="average plus maximum of the map",
    source="Kim et al. 2020, Proxy-Anchor (its published code)",
)
def avg_plus_max() -> "nn.Module":
    """The sum, not the mean of the two that timm calls avgmax."""
    from torch import nn

    class AveragePlusMaximum(nn.Module):
        def forward(self, maps: "Tensor") -> "Tensor":
            return maps.mean(dim=(2, 3)) + maps.amax(dim=(2, 3))

    return AveragePlusMaximum()


@poolings.register(
    "GeM",
    summary="generalised mean: the p-th root of the average p-th power",
    source="Radenović et al. 2018",
)
def gem(*, p: Positive = 3.0, trainable: bool = True) -> "nn.Module":
    """One p for all channels: 1 is the average, towards infinity the maximum. Values below 1e-6
    count as 1e-6; always in float32."""
    import torch
    from torch import nn

    class GeneralizedMean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = nn.Parameter(torch.tensor([p]), requires_grad=trainable)

        def forward(self, maps: "Tensor") -> "Tensor":
            return maps.float().clamp(min=1e-6).pow(self.p).mean(dim=(2, 3)).pow(1 / self.p)

    return GeneralizedMean()
