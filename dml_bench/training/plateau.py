"""A schedule that waits: the rate falls where validation no longer gets better."""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

__all__ = ["FollowsValidation", "Plateau"]


class FollowsValidation(LRScheduler):
    """A schedule that hears of each measurement on validation images."""

    def validated(self, accuracy: float) -> None:
        """After an epoch that was measured: P@1 of its validation images, 0-1."""
        raise NotImplementedError


class Plateau(FollowsValidation):
    """All rates are multiplied by `factor` after `patience` measurements, and one more, that are
    not better than the best so far: torch's ReduceLROnPlateau, on accuracy."""

    def __init__(self, optimizer: Optimizer, *, factor: float, patience: int):
        self.optimizer = optimizer
        self.by_measurement = ReduceLROnPlateau(
            optimizer, mode="max", factor=factor, patience=patience
        )

    def step(self, epoch: int | None = None) -> None:
        """A step of the training changes nothing."""

    def validated(self, accuracy: float) -> None:
        """May lower the rates."""
        self.by_measurement.step(accuracy)

    def get_last_lr(self) -> list[float | Tensor]:
        """The rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The best so far, and since when it is."""
        return self.by_measurement.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from such a state."""
        self.by_measurement.load_state_dict(state_dict)
