"""Lookahead: slow weights that follow those of another optimiser."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

__all__ = ["Lookahead"]


class Lookahead(Optimizer):
    """Every `k` steps the slow weights move the part `alpha` of the way to the fast optimiser's,
    which then goes on from there.

    Zhang et al. 2019, "Lookahead Optimizer: k steps forward, 1 step back". As there, the slow
    weights begin as the first weights (timm's begin as those after k steps, so its first look back
    does nothing) and the fast optimiser keeps its moments. Unlike there, a model is evaluated with
    the weights that it has, which between two looks back are the fast ones.
    """

    def __init__(self, fast: Optimizer, *, k: int, alpha: float) -> None:
        super().__init__(fast.param_groups, dict(fast.defaults))
        self.fast, self.k, self.alpha, self.steps = fast, k, alpha, 0
        self._share_groups()
        self.slow = [weight.detach().clone() for weight in self._weights()]

    def _share_groups(self) -> None:
        """A schedule that changes the groups of one changes those of the other."""
        self.param_groups = self.fast.param_groups

    def _weights(self) -> list[torch.Tensor]:
        return [weight for group in self.param_groups for weight in group["params"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step of the fast optimiser; every k steps a step of the slow weights too."""
        loss = self.fast.step(closure)
        self.steps += 1
        if self.steps % self.k == 0:
            weights = self._weights()
            torch._foreach_lerp_(self.slow, weights, self.alpha)
            torch._foreach_copy_(weights, self.slow)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state of both, and at which step they are."""
        return {"fast": self.fast.state_dict(), "slow": self.slow, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from such a state."""
        self.fast.load_state_dict(state_dict["fast"])
        self._share_groups()
        torch._foreach_copy_(self.slow, state_dict["slow"])
        self.steps = state_dict["steps"]
