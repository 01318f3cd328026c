"""Time the weight gradient of 3 x 3 convolutions in bfloat16: oneDNN's, and the matrix product that
replaces it on small maps.

    python benchmarks/small_maps.py

This is where `LARGEST` in dml_bench/models/convolutions.py comes from. Writes
reports/speed/small_maps.json and small_maps.md.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import facts, median_spread, of_rounds, options_of, table, write
from torch import Tensor

from dml_bench.models.convolutions import weight_gradient

SHAPES = (
    *((512, 512, 2, 1), (512, 512, 3, 1), (512, 512, 4, 1), (512, 512, 7, 1)),
    *((256, 512, 8, 2), (256, 512, 14, 2), (256, 256, 8, 1), (256, 256, 14, 1)),
)
"""Channels in and out, side of the input map, stride: the last layers of a ResNet-18 at 64 to 224
px."""


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def both_ways(shape: tuple[int, ...], batch: int, rounds: int) -> dict[str, list[float]]:
    into, out, side, stride = shape
    numbers = torch.Generator().manual_seed(0)

    def made(*size: int) -> Tensor:
        return (
            torch.randn(size, generator=numbers)
            .bfloat16()
            .contiguous(memory_format=torch.channels_last)
        )

    images, weight = made(batch, into, side, side), made(out, into, 3, 3)
    gradient = torch.randn_like(torch.nn.functional.conv2d(images, weight, None, stride, 1))

    def backward(of_weight: bool) -> Any:
        return torch.ops.aten.convolution_backward(
            gradient,
            images,
            weight,
            None,
            (stride,) * 2,
            (1, 1),
            (1, 1),
            False,
            (0, 0),
            1,
            (True, of_weight, False),
        )

    def product() -> Any:
        return backward(False), weight_gradient(gradient, images, (3, 3), (stride,) * 2, (1, 1))

    ways = {"oneDNN": lambda: backward(True), "product": product}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 2):
        for name, way in ways.items():
            took = 1000 * seconds(way)
            if number >= 2:
                taken[name].append(took)
    return taken


def main() -> None:
    options = options_of(__doc__, rounds=15, batch_size=64)
    batch = 8 if options.quick else options.batch_size
    milliseconds = {str(shape): both_ways(shape, batch, options.rounds) for shape in SHAPES}
    rows = []
    for shape, taken in zip(SHAPES, milliseconds.values(), strict=True):
        into, out, side, stride = shape
        after = -(-side // stride)
        fast = statistics.median(
            a / b for a, b in zip(taken["oneDNN"], taken["product"], strict=True)
        )
        rows.append(
            [
                f"{into} to {out}, map {after} x {after}",
                *(median_spread(taken[name]) for name in taken),
                f"{fast:.2f}",
            ]
        )
    lines = [
        "",
        (f"Backward pass in milliseconds, batch of {batch}. {of_rounds(options.rounds)}."),
        "",
    ]
    lines += table(["", "oneDNN", "weight gradient as a product", "oneDNN : product"], rows)
    write(
        "small_maps",
        "Weight gradients on small maps",
        {**facts(), "milliseconds": milliseconds, "batch_size": batch},
        lines,
        options.out,
    )


if __name__ == "__main__":
    main()
