"""Optimisers: a registered function takes parameters and options and returns a torch optimiser."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dml_bench.registry import optimizers

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


@optimizers.register("sgd", summary="stochastic gradient descent", source="Robbins and Monro 1951")
def sgd(parameters: "Iterable[nn.Parameter]", *, lr: float = 1e-3, momentum: float = 0.0, weight_decay: float = 0.0) -> "Optimizer":
    from torch.optim import SGD

    return SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)


@optimizers.register("adam", summary="adaptive moments", source="Kingma and Ba 2015")
def adam(parameters: "Iterable[nn.Parameter]", *, lr: float = 1e-3, weight_decay: float = 0.0) -> "Optimizer":
    from torch.optim import Adam

    return Adam(parameters, lr=lr, weight_decay=weight_decay)


@optimizers.register("adamw", summary="Adam with decoupled weight decay", source="Loshchilov and Hutter 2019")
def adamw(parameters: "Iterable[nn.Parameter]", *, lr: float = 1e-3, weight_decay: float = 0.01) -> "Optimizer":
    from torch.optim import AdamW

    return AdamW(parameters, lr=lr, weight_decay=weight_decay)
