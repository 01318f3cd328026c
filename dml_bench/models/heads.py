"""Heads: from pooled features (batch, num_features) to embeddings (batch, dim), not yet normalised.

A registered function takes `num_features` and returns a module with an attribute `dim`. One with
the fact `takes_map` is given the last map before any pooling, square and with num_features
channels, as (batch, num_features, side, side) or the same flattened, and has a method `maps`.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from dml_bench.registry import heads
from dml_bench.registry.option_checks import Count, LessThanOne, at_least

if TYPE_CHECKING:
    from torch import Tensor, nn


@heads.register(
    "linear", summary="one linear projection", source="the usual head of metric learning"
)
def linear(
    num_features: int,
    *,
    dim: Count = 128,
    dropout: LessThanOne = 0.0,
    init: Literal["torch", "fan_out"] = "torch",
) -> "nn.Module":
    """`dropout` is the part of the features that training leaves out. `init`: `fan_out` has normal
    weights of deviation sqrt(2 / dim) and no bias at first, as Proxy-Anchor's code does."""
    from torch import nn

    projection = nn.Linear(num_features, dim)
    if init == "fan_out":
        nn.init.kaiming_normal_(projection.weight, mode="fan_out")
        nn.init.zeros_(projection.bias)
    head = nn.Sequential(nn.Dropout(dropout), projection) if dropout else projection
    head.dim = dim  # type: ignore[assignment]
    return head


@heads.register(
    "layer_norm",
    summary="LayerNorm of the features, then one linear projection",
    source="Teh, DeVries and Taylor 2020, ProxyNCA++ (its published code)",
)
def layer_norm(num_features: int, *, dim: Count = 128, affine: bool = False) -> "nn.Module":
    """Each image's features have mean 0 and deviation 1; with `affine` they are then scaled and
    shifted by learned numbers; then they are projected."""
    from torch import nn

    head = nn.Sequential(
        nn.LayerNorm(num_features, elementwise_affine=affine), nn.Linear(num_features, dim)
    )
    head.dim = dim  # type: ignore[assignment]
    return head


@heads.register(
    "linear_bn",
    summary="one linear projection, then BatchNorm",
    source="Deng et al. 2019, ArcFace, end so",
)
def linear_bn(num_features: int, *, dim: Count = 128) -> "nn.Module":
    """The projection has no bias: BatchNorm would subtract it again."""
    from torch import nn

    head = nn.Sequential(nn.Linear(num_features, dim, bias=False), nn.BatchNorm1d(dim))
    head.dim = dim  # type: ignore[assignment]
    return head


@heads.register(
    "linear_ln",
    summary="one linear projection, then LayerNorm",
    source="Lim et al. 2022, HIST (its published code)",
)
def linear_ln(num_features: int, *, dim: Count = 128) -> "nn.Module":
    """The weights are at first normal numbers of deviation sqrt(2 / dim), the bias is 0. LayerNorm
    has no parameters."""
    from torch import nn

    projection = nn.Linear(num_features, dim)
    nn.init.kaiming_normal_(projection.weight, mode="fan_out")
    nn.init.zeros_(projection.bias)
    head = nn.Sequential(projection, nn.LayerNorm(dim, elementwise_affine=False))
    head.dim = dim  # type: ignore[assignment]
    return head


@heads.register(
    "skip",
    summary="linear projection x, then x + sigmoid(gate) * Linear(Dropout(x))",
    source="original study",
)
def skip(num_features: int, *, dim: Count = 128, dropout: LessThanOne = 0.1) -> "nn.Module":
    """The gate is learned, one number per dimension, and starts at 0: half of the layer is let
    through."""
    import torch
    from torch import nn

    class SkipConnection(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dim = dim
            self.projection = nn.Linear(num_features, dim)
            self.gate = nn.Parameter(torch.zeros(dim))
            self.dropout = nn.Dropout(dropout)
            self.layer = nn.Linear(dim, dim)

        def forward(self, features: "Tensor") -> "Tensor":
            projected = self.projection(features)
            return projected + self.gate.sigmoid() * self.layer(self.dropout(projected))

    return SkipConnection()


@heads.register(
    "mlp",
    summary="linear layers with ReLU between them",
    source="Chen et al. 2020, SimCLR's projection head (2 layers; 3 in v2)",
)
def mlp(
    num_features: int,
    *,
    dim: Count = 128,
    hidden: Count = 512,
    layers: Annotated[int, at_least(2)] = 2,
    dropout: LessThanOne = 0.0,
) -> "nn.Module":
    """`layers` counts the linear ones, at least 2; all but the last have `hidden` outputs, of which
    training leaves out the part `dropout`."""
    from torch import nn

    left_out: list[nn.Module] = [nn.Dropout(dropout)] if dropout else []
    blocks: list[nn.Module] = [nn.Linear(num_features, hidden), nn.ReLU(), *left_out]
    for _ in range(layers - 2):
        blocks += [nn.Linear(hidden, hidden), nn.ReLU(), *left_out]
    head = nn.Sequential(*blocks, nn.Linear(hidden, dim))
    head.dim = dim  # type: ignore[assignment]
    return head


@heads.register(
    "identity",
    summary="the backbone's pooled features themselves",
    source="Zhai and Wu 2019 use classifier features so",
)
def identity(num_features: int) -> "nn.Module":
    from torch import nn

    head = nn.Identity()
    head.dim = num_features  # type: ignore[assignment]
    return head


@heads.register(
    "cam",
    summary=(
        "1x1 convolution of the last map, then its average: each dimension has a class"
        " activation map"
    ),
    source="Zhang et al. 2018, ACoL; Zhou et al. 2016, CAM",
    takes_map=True,
)
def cam(
    num_features: int, *, dim: Count = 128, hidden: Annotated[int, at_least(0)] = 0
) -> "nn.Module":
    """Averaging and a 1x1 convolution commute, so with `hidden` 0 the embedding is that of `linear`
    on averaged features.

    A `hidden` above 0 puts ACoL's two 3x3 convolutions of that width, each with ReLU, before it
    (1024 in the paper). There the convolution's outputs are the classes; here they are the
    embedding, on which a classifying loss has its own linear layer, which gives class maps when it
    is applied to the embedding's.
    """
    import math
    from itertools import pairwise

    from torch import nn

    class ClassActivation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dim = dim
            widths = [num_features, hidden, hidden] if hidden else [num_features]
            self.layers = nn.Sequential(
                *(
                    layer
                    for pair in pairwise(widths)
                    for layer in (nn.Conv2d(*pair, 3, padding=1), nn.ReLU())
                )
            )
            self.projection = nn.Linear(
                widths[-1], dim
            )  # at each position, which is a 1x1 convolution; its gradient is faster

        def maps(self, features: "Tensor") -> "Tensor":
            """The last map -> (batch, dim, side, side), whose average over positions is the
            embedding."""
            side = math.isqrt(features[0].numel() // num_features)
            hidden_map = self.layers(features.reshape(-1, num_features, side, side))
            return self.projection(hidden_map.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

        def forward(self, features: "Tensor") -> "Tensor":
            return self.maps(features).mean(dim=(2, 3))

    return ClassActivation()
