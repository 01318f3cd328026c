"""Convolutions whose weight gradient is fast on small maps.

On a CPU, oneDNN's bfloat16 weight gradient of a convolution over a small map takes far longer than
its arithmetic wants; at 64 px, where the last maps are 4 x 4 and less, longer than the rest of the
step. There it is one matrix product of the output's gradient with the unfolded input: the same sum,
on the processor's matrix units.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.system.spare_threads import SPARE, on_spare_threads

__all__ = ["convolution_gradients", "speed_up_small_maps", "weight_gradient"]

LARGEST = 49
"""Positions of the output map up to which the matrix product was measured to be faster
(benchmarks/small_maps.py)."""


class SmallMapConv2d(nn.Conv2d):
    """A Conv2d with the same parameters and the same forward pass. Where threads are spare, they
    compute its maps in bfloat16, and where it has no stride the gradient of its images. Others may
    be summed in another order on another number of threads: those with a stride, and in float32
    those of fewer than 16 images."""

    def forward(self, images: Tensor) -> Tensor:
        if images.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(images)
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        by_product = learns and self._is_small(images)
        # Of a weight that is used twice, autograd adds gradients of its copy in bfloat16, and here
        # they are added in float32: so whether spare threads help now must not matter.
        gradients_apart = by_product or (learns and SPARE.lent)
        with on_spare_threads():
            if not gradients_apart:
                return super().forward(images)
            return GradientsApart.apply(
                images.bfloat16(), self.weight, self.stride, self.padding, by_product
            )

    def _is_small(self, images: Tensor) -> bool:
        positions = 1
        for axis in (0, 1):
            side, padding = images.shape[2 + axis], int(self.padding[axis])
            positions *= (side + 2 * padding - self.kernel_size[axis]) // self.stride[axis] + 1
        return positions <= LARGEST


class GradientsApart(torch.autograd.Function):
    """A convolution in the type of its images. The gradient of its weight is computed by itself, as
    a matrix product where it is said, and beside the rest where a thread is spare."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
        by_product: bool,
    ) -> Tensor:
        factors = weight.to(images.dtype)
        ctx.save_for_backward(images, factors)
        ctx.parameter, ctx.dtype = weight if weight.is_leaf else None, weight.dtype
        ctx.geometry, ctx.by_product = (stride, padding), by_product
        return functional.conv2d(images, factors, None, stride, padding)

    @staticmethod
    def backward(
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        images, weight = ctx.saved_tensors
        stride, padding = ctx.geometry
        gradient = gradients[0]
        if ctx.by_product:
            gradient = gradient.contiguous(memory_format=torch.channels_last)

        def of_weight() -> Tensor:
            if ctx.by_product:
                product = weight_gradient(gradient, images, weight.shape[2:], stride, padding)
                return product.to(ctx.dtype)
            _, own = convolution_gradients(
                gradient, images, weight, stride, padding, wanted=(False, True)
            )
            assert own is not None
            return own.to(ctx.dtype)

        beside = SPARE.beside if ctx.parameter is not None else None
        on_both = stride == (1, 1) and (beside is None or beside.is_idle)
        if beside and not on_both:
            beside.add(ctx.parameter, of_weight)
        of_images: Tensor | None = None
        if ctx.needs_input_grad[0]:
            with on_spare_threads() if on_both else nullcontext():
                of_images, _ = convolution_gradients(
                    gradient, images, weight, stride, padding, wanted=(True, False)
                )
        if beside and on_both:  # both threads were at work until now
            beside.add(ctx.parameter, of_weight)
        return of_images, None if beside else of_weight(), None, None, None


def convolution_gradients(
    gradient: Tensor,
    images: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    *,
    wanted: tuple[bool, bool],
    groups: int = 1,
) -> tuple[Tensor | None, Tensor | None]:
    """PyTorch's own gradients of the images and of the weight, those that are wanted."""
    of_images, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient,
        images,
        weight,
        None,
        stride,
        padding,
        (1, 1),
        False,
        (0, 0),
        groups,
        (*wanted, False),
    )
    return of_images, of_weight


def weight_gradient(
    gradient: Tensor,
    images: Tensor,
    kernel: Sequence[int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    """(batch, out, height, width) gradient of the output and (batch, in, ...) input -> (out, in,
    *kernel) gradient of the weight."""
    batch, out_channels, height, width = gradient.shape
    unfolded = unfold(images, kernel, stride, padding, (height, width))
    product = (
        gradient.permute(0, 2, 3, 1).reshape(batch * height * width, out_channels).t() @ unfolded
    )
    return product.reshape(out_channels, *kernel, images.shape[1]).permute(0, 3, 1, 2)


def unfold(
    images: Tensor,
    kernel: Sequence[int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    size: tuple[int, int],
) -> Tensor:
    """(batch, channels, ...) -> (batch * positions, kernel area * channels): what the kernel sees
    at each position of the output."""
    batch, channels = images.shape[:2]
    padded = functional.pad(
        images.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0])
    ).contiguous()
    along_batch, down, right, along_channels = padded.stride()
    windows = padded.as_strided(
        (batch, *size, *kernel, channels),
        (along_batch, down * stride[0], right * stride[1], down, right, along_channels),
    )
    return windows.reshape(batch * size[0] * size[1], -1)


def speed_up_small_maps(network: nn.Module) -> None:
    """Let every plain convolution of `network` take the fast way where its map is small; nothing
    else changes."""
    for module in network.modules():
        plain = (
            type(module) is nn.Conv2d
            and module.groups == 1
            and module.bias is None
            and module.dilation == (1, 1)
        )
        if plain and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            module.__class__ = SmallMapConv2d
