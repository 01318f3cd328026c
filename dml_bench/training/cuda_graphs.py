"""The network's part of a training step as a CUDA graph: recorded once, replayed at every step.

A step of a ResNet-18 starts about 600 kernels. To start them takes a host longer than a data-centre
GPU needs to run them, so that the GPU waits for more than half of the time (reports/gpu). A replay
is one call. It runs the same kernels on the same memory, so the bits stay.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from dml_bench.models.precision import autocast

__all__ = ["GraphedNetwork", "record"]


class GraphedNetwork(nn.Module):
    """A network whose training on full batches is replayed. Anything else goes through the network
    itself: the smaller batch that ends an epoch, evaluation, and a network that can't be recorded.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        rows: int,
        device: torch.device,
        precision: str,
        warn: Callable[[str], None],
    ):
        """`rows` of a full batch; `warn` hears why a network could not be recorded."""
        super().__init__()
        self.network = network
        self.rows = rows
        self.device = device
        self.precision = precision
        self.warn = warn
        self.recorded: nn.Module | None = None
        self.recorded_for: tuple[Any, ...] = ()
        self.can_be_recorded = True

    def forward(self, inputs: Tensor) -> Tensor:
        """(rows, ...) -> (rows, dim)."""
        trains = self.network.training and torch.is_grad_enabled()
        if not (trains and self.can_be_recorded and len(inputs) == self.rows):
            return self.network(inputs)
        state = self._state(inputs)
        if state != self.recorded_for:
            self._record(inputs)
            self.recorded_for = state
        return self.network(inputs) if self.recorded is None else self.recorded(inputs)

    def _state(self, inputs: Tensor) -> tuple[Any, ...]:
        """All that decides which kernels run: other sides of images, or layers that begin to learn,
        need another recording."""
        return (
            inputs.shape,
            inputs.dtype,
            tuple(parameter.requires_grad for parameter in self.network.parameters()),
            tuple(module.training for module in self.network.modules()),
        )

    def _record(self, inputs: Tensor) -> None:
        self.recorded = None  # its memory is free before the next one takes as much
        try:
            self.recorded = record(self.network, inputs, self.device, self.precision)
        except (RuntimeError, AssertionError) as error:
            self.can_be_recorded = False
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self.warn(
                "the network can't be recorded as a CUDA graph, so the GPU will wait for the host"
                f" in each step: {reason}"
            )


class Call(nn.Module):
    """Calls a network. torch replaces the `forward` of what it records: here, not the network's."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """What the network returns."""
        return self.network(inputs)


def record(network: nn.Module, inputs: Tensor, device: torch.device, precision: str) -> nn.Module:
    """A module that does with inputs of this shape and type what the network does in training, and
    shares its parameters. Recording leaves the network and the random numbers as they were."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    expect_gradients_from_the_stream_of_recording()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), autocast(device, precision, keep_casts=False):
        recorded = torch.cuda.make_graphed_callables(
            Call(network), (inputs.clone(),), allow_unused_input=True
        )
    # Before it records, torch runs the network a few times, which moves BatchNorm's statistics.
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    return cast(nn.Module, recorded)


def expect_gradients_from_the_stream_of_recording() -> None:
    """torch records on a stream of its own, where gradients are then added to parameters, and from
    version 2.11 warns of it at the first step. It keeps the order by itself."""
    dont_warn = getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", None)
    if dont_warn is not None:
        dont_warn(False)
