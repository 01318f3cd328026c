"""Stochastic gradient descent that uses all threads there are."""

from typing import Any

from torch.optim import SGD

from dml_bench.system.spare_threads import on_spare_threads

__all__ = ["SGDOnSpareThreads"]


class SGDOnSpareThreads(SGD):
    """PyTorch's own: each weight changes by itself, so the bits are those of one thread."""

    def step(self, *arguments: Any) -> Any:
        """One step, as that of torch.optim.SGD."""
        with on_spare_threads():
            return super().step(*arguments)
