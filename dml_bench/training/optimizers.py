"""Optimisers: a registered function takes groups of parameters and options, `lr` among them, and returns a torch optimiser."""

from typing import TYPE_CHECKING

from dml_bench.registry import optimizers

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.optimizer import ParamsT


@optimizers.register("sgd", summary="stochastic gradient descent", source="Robbins and Monro 1951")
def sgd(parameters: "ParamsT", *, lr: float = 1e-3, momentum: float = 0.0, weight_decay: float = 0.0) -> "Optimizer":
    from torch.optim import SGD

    return SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)


@optimizers.register("adam", summary="adaptive moments", source="Kingma and Ba 2015")
def adam(parameters: "ParamsT", *, lr: float = 1e-3, weight_decay: float = 0.0, eps: float = 1e-8) -> "Optimizer":
    from torch.optim import Adam

    return Adam(parameters, lr=lr, weight_decay=weight_decay, eps=eps)


@optimizers.register("adamw", summary="Adam with decoupled weight decay", source="Loshchilov and Hutter 2019")
def adamw(parameters: "ParamsT", *, lr: float = 1e-3, weight_decay: float = 0.01, eps: float = 1e-8) -> "Optimizer":
    from torch.optim import AdamW

    return AdamW(parameters, lr=lr, weight_decay=weight_decay, eps=eps)
