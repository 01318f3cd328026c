"""In which precision a network computes.

`bfloat16_dense` is bfloat16 with depthwise convolutions in float32. On a CPU, oneDNN's bfloat16 is
several times slower than float32 for those, and several times faster for the rest
(benchmarks/finetuning.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn

from dml_bench.system.devices import choose_precision

__all__ = ["autocast", "depthwise_is_float32", "is_depthwise", "network_precision"]

DEPTHWISE_IN_FLOAT32: ContextVar[bool] = ContextVar("depthwise_in_float32", default=False)
"""Of the computation that is going on in this thread."""


def network_precision(wanted: str, device: torch.device, network: nn.Module) -> str:
    """What `train.precision` means for a network on a device: `auto` looks at both."""
    precision = choose_precision(wanted, device)
    chosen_here = wanted == "auto" and precision == "bfloat16" and device.type == "cpu"
    if chosen_here and any(is_depthwise(module) for module in network.modules()):
        return "bfloat16_dense"
    return precision


@contextmanager
def autocast(device: torch.device, precision: str, *, keep_casts: bool = True) -> Iterator[None]:
    """The context in which a network computes in a precision: `float32`, `tf32`, `bfloat16` or
    `bfloat16_dense`. `keep_casts`: a weight is cast once, however often it is used. Whether a GPU
    computes in TF32 stays as it is set here, as gradients are computed outside of the context."""
    before = DEPTHWISE_IN_FLOAT32.set(precision == "bfloat16_dense")
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(
            device.type,
            dtype=torch.bfloat16,
            enabled=precision.startswith("bfloat16"),
            cache_enabled=keep_casts,
        ):
            yield
    finally:
        DEPTHWISE_IN_FLOAT32.reset(before)


def depthwise_is_float32() -> bool:
    """Whether the computation that is going on is one of `bfloat16_dense`."""
    return DEPTHWISE_IN_FLOAT32.get()


def is_depthwise(module: nn.Module) -> bool:
    """Whether it is a convolution that sees one channel at a time."""
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
