"""A loss in which some images of the batch count more than others."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ["ByImage", "ImageMean", "weigh", "weighing"]


class ImageMean(nn.Module):
    """The mean of one loss per image."""

    weights: Tensor | None = None

    def forward(self, values: Tensor) -> Tensor:
        """(batch) -> scalar."""
        return (values if self.weights is None else values * self.weights).mean()


class ByImage(nn.Module):
    """A reducer of pytorch-metric-learning that weighs each part of the loss by the image it is about: of pairs and triplets, the anchor."""

    weights: Tensor | None = None

    def __init__(self, reducer: nn.Module):
        super().__init__()
        self.reducer = reducer

    def forward(self, parts: dict[str, dict[str, Any]], embeddings: Tensor, labels: Tensor) -> Tensor:
        return self.reducer({name: self._weighed(part) for name, part in parts.items()}, embeddings, labels)

    def _weighed(self, part: dict[str, Any]) -> dict[str, Any]:
        if self.weights is None:
            return part
        if part["reduction_type"] == "already_reduced":  # a regulariser, or nothing to compare
            return {**part, "losses": part["losses"] * self.weights.mean() if isinstance(part["losses"], Tensor) else part["losses"]}
        images = part["indices"][0] if part["reduction_type"] != "element" else part["indices"]
        return {**part, "losses": part["losses"] * self.weights[images].view(-1, *[1] * (part["losses"].dim() - 1))}


def weigh(loss: nn.Module) -> nn.Module:
    """The loss itself, whose images can be weighed from now on. Its values without weights stay the same, bit for bit."""
    from pytorch_metric_learning.losses import BaseMetricLossFunction

    for module in loss.modules():
        if isinstance(module, BaseMetricLossFunction):
            module.reducer = ByImage(module.reducer)
    return loss


@contextmanager
def weighing(loss: nn.Module, weights: Tensor | None) -> Iterator[None]:
    """While this holds, image i of the batch counts weights[i] times. (batch) weights, 0 or more; None is 1 for all."""
    means = [module for module in loss.modules() if isinstance(module, ByImage | ImageMean)]
    for mean in means:
        mean.weights = weights
    try:
        yield
    finally:
        for mean in means:
            mean.weights = None
