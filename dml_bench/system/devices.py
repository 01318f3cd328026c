"""On which device a run computes, and in which precision."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from dml_bench.system import distributed

__all__ = ["LaterNumber", "choose_device", "choose_precision", "to_device", "torch_threads"]


def choose_device(device: str | torch.device) -> torch.device:
    """The device itself or that of a name. `auto` is cuda where there is one; each process that
    torchrun starts on a machine has its own. Raises ValueError for a device that is not there."""
    name = str(device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"(cpu|cuda)(:\d+)?", name):
        raise ValueError(f"--device must be auto, cpu, cuda or cuda:1, got {name!r}")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            "no CUDA device is visible to torch; --device cpu, or see `dml-bench doctor`"
        )
    place = distributed.torchrun_rank()
    if place.size == 1 or name == "cpu":
        return torch.device(name)
    if name != "cuda":
        raise ValueError(
            f"--device {name}: torchrun gives each process a GPU of its own; leave --device out"
        )
    if place.local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"there are more processes than GPUs; --nproc-per-node {torch.cuda.device_count()}, or"
            " --device cpu"
        )
    return torch.device("cuda", place.local_rank)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Within, torch computes on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_precision(wanted: str, device: torch.device) -> str:
    """`auto` is bfloat16 where the device computes in it faster than in float32: CUDA with bf16,
    CPUs with AMX tiles or with AVX-512's bf16 instructions. Raises ValueError for `tf32` on a
    CPU."""
    if wanted == "tf32" and device.type != "cuda":
        raise ValueError("train.precision = tf32 needs a GPU: --set train.precision=float32")
    if wanted != "auto":
        return wanted
    fast = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if device.type == "cuda"
        else torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )
    return "bfloat16" if fast else "float32"


def to_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """The same numbers on a device. A GPU copies them when it comes to it, while the host goes on:
    from memory that the system may move, it would first have to end all it was asked before."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class LaterNumber:
    """A number that a device will have computed, to be read some steps later without waiting for
    what was asked of the device meanwhile."""

    def __init__(self, number: Tensor):
        self.copy = number.detach().to("cpu", non_blocking=True)
        self.copied: torch.cuda.Event | None = None
        if number.device.type == "cuda":
            self.copied = torch.cuda.Event()
            self.copied.record()

    def is_known(self) -> bool:
        """Whether it can be read at once."""
        return self.copied is None or self.copied.query()

    def __float__(self) -> float:
        if self.copied is not None:
            self.copied.synchronize()
        return float(self.copy)
