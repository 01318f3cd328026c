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


@optimizers.register(
    "ranger", summary="rectified Adam, with slow weights that look ahead", source="Liu et al. 2020 (RAdam), Zhang et al. 2019 (Lookahead)"
)
def ranger(
    parameters: "ParamsT", *, lr: float = 1e-3, weight_decay: float = 0.0, eps: float = 1e-5, k: int = 6, alpha: float = 0.5
) -> "Optimizer":
    """Every k steps the slow weights move the part alpha of the way. Betas are (0.95, 0.999), as in the Ranger of Wright 2019.

    Raises ValueError if k is less than 1 or alpha is not in (0, 1].
    """
    if k < 1:
        raise ValueError(f"optimizer.k is {k}; at least 1 step between two looks back is wanted")
    if not 0 < alpha <= 1:
        raise ValueError(f"optimizer.alpha is {alpha}; more than 0 and at most 1 is wanted")
    from torch.optim import RAdam

    from dml_bench.training.lookahead import Lookahead

    return Lookahead(RAdam(parameters, lr=lr, betas=(0.95, 0.999), eps=eps, weight_decay=weight_decay), k=k, alpha=alpha)
