"""Schedules: how the learning rate changes from step to step.

A registered function takes options and returns what makes torch's scheduler for an optimiser and a
number of steps. All parts are parts of the whole training, so that they hold for any number of
epochs. Each group of parameters keeps its own base rate, which is the highest that it gets.
"""

from collections.abc import Callable
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Literal

from dml_bench.registry import schedules
from dml_bench.registry.option_checks import LessThanOne, at_least, between, between_open

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    Maker = Callable[[Optimizer, int], LRScheduler]
    Part = tuple[int, Callable[[Optimizer], LRScheduler]]

WARM_UP = "Goyal et al. 2017 (warm-up)"


@schedules.register("constant", summary="one rate throughout", source=WARM_UP)
def constant(*, warmup: LessThanOne = 0.0) -> "Maker":
    """`warmup` is the part of the training in which the rate rises to its height."""

    def make(optimizer: "Optimizer", steps: int) -> "LRScheduler":
        rise = round(warmup * steps)
        return in_turn(optimizer, rising(rise), (steps - rise, flat))

    return make


@schedules.register(
    "cosine",
    summary="falls from the start to 0 along half a cosine",
    source="Loshchilov and Hutter 2017, without restarts",
)
def cosine(*, warmup: LessThanOne = 0.0) -> "Maker":

    def make(optimizer: "Optimizer", steps: int) -> "LRScheduler":
        rise = round(warmup * steps)
        return in_turn(optimizer, rising(rise), falling(steps - rise))

    return make


@schedules.register(
    "flat_cosine",
    summary="one rate for a part, then falls to 0 along half a cosine",
    source="Wright 2019 (Ranger), fastai",
)
def flat_cosine(
    *, flat_part: LessThanOne = 0.72, warmup: Annotated[float, between(0, "flat_part")] = 0.0
) -> "Maker":
    """`flat_part` counts from the start of the training, warm-up included."""

    def make(optimizer: "Optimizer", steps: int) -> "LRScheduler":
        rise, end = round(warmup * steps), round(flat_part * steps)
        return in_turn(optimizer, rising(rise), (end - rise, flat), falling(steps - end))

    return make


def check_milestones(*, milestones: tuple[float, ...], gamma: float, warmup: float) -> None:
    """Raises ValueError for milestones that are not in order, or not within the training."""
    if (
        not milestones
        or list(milestones) != sorted(set(milestones))
        or not warmup < milestones[0]
        or not milestones[-1] < 1
    ):
        raise ValueError(
            "schedule.milestones must be ascending parts of the training, after warmup"
            f" ({warmup}) and below 1, got {list(milestones)}"
        )


@schedules.register(
    "steps",
    summary="multiplied by gamma at each milestone",
    source="He et al. 2016",
    check=check_milestones,
)
def steps(
    *,
    milestones: tuple[float, ...] = (0.5, 0.75),
    gamma: Annotated[float, between_open(0, 1)] = 0.1,
    warmup: LessThanOne = 0.0,
) -> "Maker":
    """Milestones are parts of the training."""

    def make(optimizer: "Optimizer", steps: int) -> "LRScheduler":
        from torch.optim.lr_scheduler import MultiStepLR

        rise = round(warmup * steps)
        at = [round(milestone * steps) - rise for milestone in milestones]
        return in_turn(
            optimizer,
            rising(rise),
            (steps - rise, lambda optimizer: MultiStepLR(optimizer, at, gamma)),
        )

    return make


@schedules.register(
    "one_cycle",
    summary="rises to its height, then falls to nearly 0, while momentum falls and rises",
    source="Smith and Topin 2019",
)
def one_cycle(
    *,
    rise: Annotated[float, between_open(0, 1)] = 0.3,
    start_divisor: Annotated[float, at_least(1)] = 25.0,
    end_divisor: Annotated[float, at_least(1)] = 1e4,
    momentum_dip: LessThanOne = 0.1,
    anneal: Literal["cos", "linear"] = "cos",
) -> "Maker":
    """From 1 / start_divisor of the rate up to it, then down to 1 / (start_divisor * end_divisor).

    The optimiser's momentum (Adam's first beta) meanwhile falls by momentum_dip and rises again; an
    optimiser without momentum stays without.
    """

    def make(optimizer: "Optimizer", steps: int) -> "LRScheduler":
        from torch.optim.lr_scheduler import OneCycleLR

        total = max(steps, 3)  # torch divides by zero where a single step rises or falls
        highest = [
            group["betas"][0] if "betas" in group else group.get("momentum", 0.0)
            for group in optimizer.param_groups
        ]
        has_momentum = {"betas", "momentum"} & optimizer.param_groups[0].keys()
        return OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=total,
            pct_start=max(rise, 2 / total),
            div_factor=start_divisor,
            final_div_factor=end_divisor,
            cycle_momentum=bool(has_momentum),
            max_momentum=highest,
            base_momentum=[max(momentum - momentum_dip, 0.0) for momentum in highest],
            anneal_strategy=anneal,
        )

    return make


@schedules.register(
    "plateau",
    summary="multiplied by a factor where P@1 on validation images no longer gets better",
    source="ReduceLROnPlateau of torch, as Teh et al. 2020 (ProxyNCA++) use it",
    needs_validation=True,
)
def plateau(
    *,
    factor: Annotated[float, between_open(0, 1)] = 0.1,
    patience: Annotated[int, at_least(0)] = 4,
) -> "Maker":
    """`patience` measurements without a new best are borne; the next one lowers the rate. A best
    is better than the last one by a ten-thousandth of it. Measured every `evaluate.every` epochs;
    those in which only the head learns (`train.head_epochs`) don't count.
    """

    def make(optimizer: "Optimizer", steps: int) -> "LRScheduler":
        from dml_bench.training.plateau import Plateau

        return Plateau(optimizer, factor=factor, patience=patience)

    return make


def flat(optimizer: "Optimizer") -> "LRScheduler":
    """The rate stays as it is."""
    from torch.optim.lr_scheduler import LambdaLR

    return LambdaLR(optimizer, lambda _: 1.0)


def falling(steps: int) -> "Part":
    """The rate falls to 0 along half a cosine."""

    def make(optimizer: "Optimizer") -> "LRScheduler":
        from torch.optim.lr_scheduler import CosineAnnealingLR

        return CosineAnnealingLR(optimizer, steps)

    return steps, make


def rising(steps: int) -> "Part":
    """The rate grows by as much at each of so many steps."""

    def make(optimizer: "Optimizer") -> "LRScheduler":
        from torch.optim.lr_scheduler import LinearLR

        return LinearLR(optimizer, 1 / steps, total_iters=steps)

    return steps, make


def in_turn(optimizer: "Optimizer", *parts: "Part") -> "LRScheduler":
    """Schedulers one after the other, each for its number of steps; those of none are left out."""
    from torch.optim.lr_scheduler import SequentialLR

    there = [(steps, make) for steps, make in parts if steps]
    if len(there) == 1:
        return there[0][1](optimizer)
    ends = list(accumulate(steps for steps, _ in there))
    return SequentialLR(optimizer, [make(optimizer) for _, make in there], ends[:-1])
