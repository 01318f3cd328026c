"""Images changed against a classifier: by one step along the sign of the loss's gradient (FGSM,
Goodfellow et al. 2015), or by several that stay near the image (PGD, Madry et al. 2018)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["fgsm", "pgd"]

Logits = Callable[[Tensor], Tensor]
"""(batch, height, width, 3) values 0-255 -> (batch, classes)."""


def fgsm(logits: Logits, pixels: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """(batch, height, width, 3) values 0-255 and (batch) classes -> the images, each value of which
    is `epsilon` higher or lower, where that makes the cross-entropy larger."""
    original = pixels.float()
    return stepped(logits, original, original, labels, epsilon, epsilon)


def pgd(logits: Logits, pixels: Tensor, labels: Tensor, epsilon: float, steps: int) -> Tensor:
    """The same by so many steps of 2.5 / steps of `epsilon`, the paper's rule, from the image
    itself; no value ends further than `epsilon` from where it was."""
    original = pixels.float()
    changed = original
    for _ in range(steps):
        changed = stepped(logits, changed, original, labels, 2.5 * epsilon / steps, epsilon)
    return changed


def stepped(
    logits: Logits, pixels: Tensor, original: Tensor, labels: Tensor, size: float, epsilon: float
) -> Tensor:
    """One step of a size, cut back to within `epsilon` of the original and to 0-255."""
    start = pixels.detach().clone().requires_grad_()
    with torch.enable_grad():
        loss = functional.cross_entropy(logits(start).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, start)
    moved = pixels + size * gradient.sign()
    within = torch.minimum(torch.maximum(moved, original - epsilon), original + epsilon)
    return within.clamp(0, 255)
