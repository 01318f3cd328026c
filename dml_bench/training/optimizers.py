"""Optimisers: a registered function takes groups of parameters and options, `lr` among them, and
returns a torch optimiser.

One with the fact `at_once` makes no steps: it fits the last layer of a classifier on frozen
features (`training.at_once`), with `train.epochs = 0`. The features are then the same in every
phase, and `no_drop_because` says why there is no precision drop.
"""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

from dml_bench.registry import optimizers
from dml_bench.registry.option_checks import Count, LessThanOne, NotNegative, Positive, above

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.optim import Adam, Optimizer
    from torch.optim.optimizer import ParamsT


def check_nesterov(*, nesterov: bool, momentum: float, **_: float) -> None:
    """Raises ValueError for a look ahead along no momentum."""
    if nesterov and not momentum:
        raise ValueError("optimizer.nesterov has no effect without momentum: set it to 0.9")


def check_decoupled(*, decoupled: bool, weight_decay: float, **_: float) -> None:
    """Raises ValueError where there is no decay."""
    if decoupled and not weight_decay:
        raise ValueError(
            "optimizer.decoupled has no effect without weight decay: --set"
            " optimizer.weight_decay=0.01"
        )


@optimizers.register(
    "sgd",
    summary="stochastic gradient descent",
    source="Robbins and Monro 1951; Sutskever et al. 2013 (nesterov)",
    check=check_nesterov,
)
def sgd(
    parameters: "ParamsT",
    *,
    lr: NotNegative = 1e-3,
    momentum: LessThanOne = 0.0,
    weight_decay: NotNegative = 0.0,
    nesterov: bool = False,
) -> "Optimizer":
    from torch.optim import SGD

    from dml_bench.training.fused_sgd import FusedSGD

    # A third of the time, to the same bits: but the rest behind the last whole vector of a
    # processor would be rounded in another way.
    tensors = tensors_of(parameters)
    fused = all_on("cpu", tensors) and all(tensor.numel() % 16 == 0 for tensor in tensors)
    kind = FusedSGD if fused else SGD
    optimizer = kind(
        parameters,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=nesterov,
    )
    step_on_spare_threads(optimizer)
    return optimizer


def step_on_spare_threads(optimizer: "Optimizer") -> None:
    """Each weight changes by itself, so the bits are those of one thread."""
    from dml_bench.system.spare_threads import on_spare_threads

    stack = ExitStack()
    optimizer.register_step_pre_hook(lambda *_: stack.enter_context(on_spare_threads()))
    optimizer.register_step_post_hook(lambda *_: stack.close())


def check_betas(*, betas: tuple[float, ...], **_: float) -> None:
    """Raises ValueError for what are not two means that forget."""
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(
            f"optimizer.betas must be two numbers from 0 to less than 1, got {list(betas)}:"
            " the paper has [0.9, 0.999]"
        )


@optimizers.register(
    "adam", summary="adaptive moments", source="Kingma and Ba 2015", check=check_betas
)
def adam(
    parameters: "ParamsT",
    *,
    lr: NotNegative = 1e-3,
    weight_decay: NotNegative = 0.0,
    eps: Positive = 1e-8,
    betas: tuple[float, ...] = (0.9, 0.999),
) -> "Optimizer":
    from torch.optim import Adam

    return adaptive(Adam, parameters, betas, lr=lr, weight_decay=weight_decay, eps=eps)


@optimizers.register(
    "adamw",
    summary="Adam with decoupled weight decay",
    source="Loshchilov and Hutter 2019",
    check=check_betas,
)
def adamw(
    parameters: "ParamsT",
    *,
    lr: NotNegative = 1e-3,
    weight_decay: NotNegative = 0.01,
    eps: Positive = 1e-8,
    betas: tuple[float, ...] = (0.9, 0.999),
) -> "Optimizer":
    from torch.optim import AdamW

    return adaptive(AdamW, parameters, betas, lr=lr, weight_decay=weight_decay, eps=eps)


@optimizers.register(
    "ranger",
    summary="rectified Adam, with slow weights that look ahead",
    source="Liu et al. 2020 (RAdam), Zhang et al. 2019 (Lookahead)",
    check=check_decoupled,
)
def ranger(
    parameters: "ParamsT",
    *,
    lr: NotNegative = 1e-3,
    weight_decay: NotNegative = 0.0,
    eps: Positive = 1e-5,
    k: Count = 6,
    alpha: Annotated[float, above(0, 1)] = 0.5,
    decoupled: bool = False,
) -> "Optimizer":
    """Every k steps the slow weights move the part alpha of the way. Betas are (0.95, 0.999), as in
    the Ranger of Wright 2019, whose weight decay is `decoupled` from the gradient, as in AdamW."""
    from torch.optim import RAdam

    from dml_bench.training.lookahead import Lookahead

    return Lookahead(
        RAdam(
            parameters,
            lr=lr,
            betas=(0.95, 0.999),
            eps=eps,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled,
        ),
        k=k,
        alpha=alpha,
    )


@optimizers.register(
    "class_means",
    summary="nothing is trained: the class means of frozen features stand for a last layer",
    source="Mensink et al. 2013, Distance-based image classification",
    at_once=True,
    no_drop_because="no training",
)
def class_means(parameters: "ParamsT") -> "Optimizer":
    from dml_bench.training.at_once import ClassMeans

    return ClassMeans(parameters)


@optimizers.register(
    "linear_probe",
    summary="logistic regression on frozen features, solved; its L2 is chosen on validation images",
    source="Kornblith et al. 2019, Do better ImageNet models transfer better?",
    at_once=True,
    no_drop_because="features not trained",
)
def linear_probe(parameters: "ParamsT") -> "Optimizer":
    from dml_bench.training.at_once import LinearProbe

    return LinearProbe(parameters)


def adaptive(
    kind: "type[Adam]", parameters: "ParamsT", betas: tuple[float, ...], **options: float
) -> "Optimizer":
    """Adam, or a kind of it."""
    first, second = betas
    # On a GPU one kernel makes the step that takes some hundred operations of the host.
    fused = all_on("cuda", tensors_of(parameters)) or None
    return kind(parameters, betas=(first, second), fused=fused, **options)  # type: ignore[arg-type]


def tensors_of(parameters: "ParamsT") -> list[Any]:
    """The tensors of all groups."""
    tensors: list[Any] = []
    for group in parameters:
        tensors += group["params"] if isinstance(group, dict) else [group]
    return tensors


def all_on(device: str, tensors: "Sequence[Tensor]") -> bool:
    """Whether there are some, and all are on such a device."""
    return bool(tensors) and all(tensor.device.type == device for tensor in tensors)
