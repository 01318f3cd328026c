"""SGD in one pass over each weight, in the order in which it lies in memory."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD

__all__ = ["FusedSGD"]


class FusedSGD(SGD):
    """PyTorch's `SGD(fused=True)` on a CPU, to the same bits and without its copies: it brings
    weights whose channels are last, their gradients and momenta into another order and back, which
    takes longer than the step itself."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step. A closure computes the gradients before it, as everywhere in PyTorch."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not group["momentum"]:
                update(group, [(weight, weight.grad) for weight in weights])
                continue
            new: list[tuple[Tensor, ...]] = []
            known: list[tuple[Tensor, ...]] = []
            for weight in weights:
                state = self.state[weight]
                tensors = known if "momentum_buffer" in state else new
                if tensors is new:
                    state["momentum_buffer"] = torch.empty_like(weight.grad)
                tensors.append((weight, weight.grad, state["momentum_buffer"]))
            update(group, new, are_new=True)
            update(group, known)
        return loss


def update(
    group: dict[str, Any], tensors: Sequence[tuple[Tensor, ...]], *, are_new: bool = False
) -> None:
    """A step of each weight with its gradient and, where there is some, its momentum, which is
    filled where they are new."""
    if not tensors:
        return
    weights, gradients, *momenta = zip(*map(in_memory_order, tensors), strict=True)
    torch._fused_sgd_(
        weights,
        gradients,
        momenta[0] if momenta else (),
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=group["dampening"],
        nesterov=group["nesterov"],
        maximize=group["maximize"],
        is_first_step=are_new,
    )


def in_memory_order(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same numbers as tensors that are contiguous, where the channels of all are last."""
    last = torch.channels_last
    if all(tensor.dim() == 4 and tensor.is_contiguous(memory_format=last) for tensor in tensors):
        return [tensor.permute(0, 2, 3, 1) for tensor in tensors]
    return list(tensors)
