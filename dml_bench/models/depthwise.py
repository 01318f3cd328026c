"""Depthwise convolutions that train fast on a CPU.

oneDNN's bfloat16 gradients of strided and of small depthwise maps take 4 to 300 times as long as
those in float32. In float32, its weight gradient of a kernel that is wider than 3 computes all
pairs of 16 channels where one of each is wanted. Parts of such a kernel that are at most 3 wide
have fast gradients, and together they are the whole one (benchmarks/finetuning.py).
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.models.convolutions import convolution_gradients
from dml_bench.models.precision import depthwise_is_float32, is_depthwise

__all__ = [
    "open_depthwise_to_float32",
    "original_class",
    "padding_of",
    "pads_by_size",
    "weight_gradient_by_parts",
]

WIDEST, TALLEST = 3, 5
"""Columns and rows of the largest kernel that oneDNN's depthwise weight gradient takes."""

Padding = tuple[int, int, int, int]
"""Columns on the left and the right, rows above and below."""


def open_depthwise_to_float32(network: nn.Module) -> None:
    """Let every depthwise convolution of `network` compute in float32 under `bfloat16_dense`;
    nothing else changes."""
    for module in network.modules():
        if is_depthwise(module) and not isinstance(module, DepthwiseInFloat32):
            module.__class__ = in_float32(type(module))  # type: ignore[arg-type]


class DepthwiseInFloat32:
    """What is put before the class of a convolution, e.g. of one with timm's own padding."""

    def forward(self, images: Tensor) -> Tensor:
        if not depthwise_is_float32():
            return super().forward(images)  # type: ignore[misc]
        module: Any = self
        with torch.autocast(images.device.type, enabled=False):
            if trains_here(module, images):
                padding = padding_of(module, images)
                return DepthwiseTraining.apply(images, module.weight, module.stride, padding)
            return super().forward(images.float())  # type: ignore[misc]


def original_class(convolution: nn.Conv2d) -> type[nn.Module]:
    """What it was before it was opened to float32."""
    kinds = type(convolution).__mro__
    return kinds[2] if DepthwiseInFloat32 in kinds else kinds[0]


def pads_by_size(convolution: nn.Conv2d) -> bool:
    """Whether it is timm's convolution that pads as TensorFlow does, by the size of the map."""
    return original_class(convolution).__name__ == "Conv2dSame"


@cache
def in_float32(convolution: type[Any]) -> type[Any]:
    return type(convolution.__name__, (DepthwiseInFloat32, convolution), {})


def trains_here(module: nn.Conv2d, images: Tensor) -> bool:
    """Whether the gradient of its weight is wanted of a CPU."""
    learns = torch.is_grad_enabled() and module.weight.requires_grad
    plain = module.bias is None and module.dilation == (1, 1) and module.padding_mode == "zeros"
    return learns and plain and images.device.type == "cpu" and not isinstance(module.padding, str)


def padding_of(module: nn.Conv2d, images: Tensor) -> Padding:
    """What a convolution puts around (batch, channels, height, width) images."""
    if not pads_by_size(module):
        rows, columns = (int(side) for side in module.padding)
        return columns, columns, rows, rows
    # Only here, since timm takes seconds to import, and brings wandb.
    from timm.layers.padding import get_same_padding

    sides = []
    for axis in (1, 0):
        side, kernel, stride = images.shape[2 + axis], module.kernel_size[axis], module.stride[axis]
        both = get_same_padding(side, kernel, stride, 1)
        sides += [both // 2, both - both // 2]
    return sides[0], sides[1], sides[2], sides[3]


class DepthwiseTraining(torch.autograd.Function):
    """Takes maps of any type, computes in float32, and returns maps of the type that it took: what
    follows, BatchNorm above all, then moves half the bytes."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: Padding
    ) -> Tensor:
        left, right, top, bottom = padding
        height, width = images.shape[2:]
        even = left == right and top == bottom
        rows_columns = (top, left) if even else (0, 0)
        if even:
            wide = images.float()
        else:
            columns = range(-left, width + right)
            wide = window(images, range(-top, height + bottom), columns)
        ctx.save_for_backward(wide, weight)
        ctx.stride, ctx.padding, ctx.type = stride, rows_columns, images.dtype
        ctx.inside = (0, 0, height, width) if even else (top, left, height, width)
        outputs = functional.conv2d(wide, weight, None, stride, rows_columns, 1, len(weight))
        return outputs.to(images.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        images, weight = ctx.saved_tensors
        gradient = gradients[0].float().contiguous(memory_format=torch.channels_last)
        by_parts = weight.shape[3] > WIDEST and weight.shape[2] <= TALLEST
        of_images, of_weight = convolution_gradients(
            gradient,
            images,
            weight,
            ctx.stride,
            ctx.padding,
            wanted=(ctx.needs_input_grad[0], not by_parts),
            groups=len(weight),
        )
        if by_parts:
            of_weight = weight_gradient_by_parts(
                gradient, images, weight.shape[2:], ctx.stride, ctx.padding
            )
        assert of_weight is not None
        if of_images is not None:
            top, left, height, width = ctx.inside
            of_images = of_images[:, :, top : top + height, left : left + width].to(
                ctx.type, memory_format=torch.channels_last
            )
        return of_images, of_weight, None, None


def weight_gradient_by_parts(
    gradient: Tensor,
    images: Tensor,
    kernel: Sequence[int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    """(batch, channels, ...) gradient of the output and input, both float32 -> (channels, 1,
    *kernel) gradient of the weight. Columns of the kernel that stand `stride` apart see neighbours
    in a map of every `stride`-th column."""
    rows, columns = kernel
    step = stride[1]
    # oneDNN's depthwise gradient takes no map that is lower than its kernel.
    above = padding[0] if images.shape[2] < rows else 0
    seen_rows = range(-above, images.shape[2] + above)
    weight = gradient.new_empty(images.shape[1], 1, rows, columns)
    for phase in range(step):
        for first in range(phase, columns, WIDEST * step):
            part = weight[..., first::step][..., :WIDEST]
            start = first - padding[1]
            reached = gradient.shape[3] + part.shape[3] - 1
            seen = window(images, seen_rows, range(start, start + reached * step, step))
            _, of_part = convolution_gradients(
                gradient,
                seen,
                part,
                (stride[0], 1),
                (padding[0] - above, 0),
                wanted=(False, True),
                groups=len(part),
            )
            assert of_part is not None
            part.copy_(of_part)
    return weight


def window(images: Tensor, rows: range, columns: range) -> Tensor:
    """These rows and columns of (batch, channels, height, width), in float32; zeros outside."""
    batch, channels, height, width = images.shape
    size = (batch, channels, len(rows), len(columns))
    seen = torch.empty(size, memory_format=torch.channels_last)
    first = max(0, -(columns.start // columns.step))
    inside = [column for column in columns if 0 <= column < width]
    top, end = max(0, -rows.start), first + len(inside)
    if len(inside) < len(columns) or height < len(rows):
        seen.zero_()
    if not inside:  # a map narrower than the kernel's reach into its padding
        return seen
    kept = images[:, :, max(0, rows.start) : rows.stop, inside[0] : inside[-1] + 1 : columns.step]
    seen[:, :, top : top + kept.shape[2], first:end] = kept
    return seen
