"""A loss in which some images of the batch count more than others."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ByImage", "ImageMean", "weigh", "weighing", "weighs_all_images"]


class ImageMean(nn.Module):
    """The mean of one loss per image."""

    weights: Tensor | None = None

    def forward(self, values: Tensor) -> Tensor:
        """(batch) -> scalar."""
        return (values if self.weights is None else values * self.weights).mean()


class ByImage(nn.Module):
    """A reducer of pytorch-metric-learning that weighs each part of the loss by the image it is
    about: of pairs and triplets, the anchor, or by the product of the weights of `all_images`.

    Weights never change what is divided by: a reducer that averages over what is not zero counts
    the parts before they are weighed, so that a weight of 0 is the limit of small ones.
    """

    weights: Tensor | None = None
    all_images = False

    def __init__(self, reducer: nn.Module):
        super().__init__()
        self.reducer = reducer

    def forward(
        self, parts: dict[str, dict[str, Any]], embeddings: Tensor, labels: Tensor
    ) -> Tensor:
        """What the reducer makes of the parts, each weighed by its image."""
        if self.weights is None:
            return self.reducer(parts, embeddings, labels)
        from pytorch_metric_learning.reducers import MeanReducer, ThresholdReducer

        reducer = self.reducer
        if isinstance(reducer, ThresholdReducer):
            parts = {name: counted(part, reducer.low, reducer.high) for name, part in parts.items()}
            reducer = MeanReducer()
        return reducer(
            {name: self._weighed(part) for name, part in parts.items()}, embeddings, labels
        )

    def _weighed(self, part: dict[str, Any]) -> dict[str, Any]:
        assert self.weights is not None
        if not isinstance(part["losses"], Tensor):  # nothing to compare: 0, whatever counts
            return part
        if part["reduction_type"] == "already_reduced":  # a regulariser
            return {**part, "losses": part["losses"] * self.weights.mean()}
        of_images = part["indices"]
        images = of_images if part["reduction_type"] == "element" else of_images[0]
        weights = self.weights[images]
        if self.all_images and part["reduction_type"] != "element":
            for others in of_images[1:]:
                weights = weights * self.weights[others]
        return {
            **part,
            "losses": part["losses"] * weights.view(-1, *[1] * (part["losses"].dim() - 1)),
        }


def counted(part: dict[str, Any], low: float | None, high: float | None) -> dict[str, Any]:
    """What a ThresholdReducer of pytorch-metric-learning averages over: the losses between its
    thresholds; without any, a loss of 0."""
    losses, indices = part["losses"], part["indices"]
    if part["reduction_type"] == "already_reduced" or not isinstance(losses, Tensor):
        return part
    per_tuple = losses.view(len(losses))
    between = torch.ones_like(per_tuple, dtype=torch.bool)
    if low is not None:
        between &= per_tuple > low
    if high is not None:
        between &= per_tuple < high
    if not between.any():
        return {**part, "losses": 0, "indices": None, "reduction_type": "already_reduced"}
    kept = (
        indices[between]
        if isinstance(indices, Tensor)
        else tuple(images[between] for images in indices)
    )
    return {**part, "losses": losses[between], "indices": kept}


def weigh(loss: nn.Module, *, all_images: bool = False) -> nn.Module:
    """The loss itself, whose images can be weighed from now on. Its values without weights stay the
    same, bit for bit. A pair counts by its anchor, or by `all_images` of it."""
    from pytorch_metric_learning.losses import BaseMetricLossFunction
    from pytorch_metric_learning.reducers import MultipleReducers

    for module in loss.modules():
        if not isinstance(module, BaseMetricLossFunction):
            continue
        if isinstance(module.reducer, MultipleReducers):  # each part of the loss has its own
            reducers = module.reducer.reducers
            for name in reducers:
                reducers[name] = ByImage(reducers[name])
            module.reducer.default_reducer = ByImage(module.reducer.default_reducer)
        else:
            module.reducer = ByImage(module.reducer)
    for module in loss.modules():
        if isinstance(module, ByImage):
            module.all_images = all_images
    return loss


def weighs_all_images(loss: nn.Module) -> bool:
    """Whether a pair counts by the weights of all its images."""
    return any(isinstance(module, ByImage) and module.all_images for module in loss.modules())


@contextmanager
def weighing(loss: nn.Module, weights: Tensor | None) -> Iterator[None]:
    """While this holds, image i of the batch counts weights[i] times. (batch) weights, 0 or more;
    None is 1 for all."""
    means = [module for module in loss.modules() if isinstance(module, ByImage | ImageMean)]
    if weights is not None and not means:
        raise ValueError(
            f"images can't be weighed in loss {type(loss).__name__}: register it with"
            " one_number=True, or let dml_bench.losses.sample_weights.ImageMean average it"
        )
    for mean in means:
        mean.weights = weights
    try:
        yield
    finally:
        for mean in means:
            mean.weights = None
