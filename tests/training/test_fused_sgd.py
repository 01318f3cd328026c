"""SGD in the order of memory takes the steps of PyTorch's own, and copies nothing."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.profiler import profile

from dml_bench.registry import optimizers
from dml_bench.training.fused_sgd import FusedSGD

LAYOUTS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}


def network(layout: torch.memory_format) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(16, 32, 3), nn.Conv2d(32, 16, 1), nn.Flatten(), nn.Linear(16, 16)
    )
    return layers.to(memory_format=layout)


def take_steps(layers: nn.Module, optimizer: SGD, count: int = 3) -> None:
    """Of which the first leaves the last layer alone."""
    for step in range(count):
        optimizer.zero_grad()
        for number, weight in enumerate(layers.parameters()):
            random = torch.randn(weight.shape, generator=torch.manual_seed(10 * step + number))
            weight.grad = torch.empty_like(weight).copy_(random)
        if step == 0:
            layers[-1].weight.grad = None
        optimizer.step()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.0},
        {"momentum": 0.9, "weight_decay": 5e-4},
        {"momentum": 0.9, "nesterov": True},
    ],
    ids=["plain", "momentum", "nesterov"],
)
def test_its_steps_are_those_of_pytorch(layout, options):
    ours, theirs = network(layout), network(layout)
    fused = FusedSGD(ours.parameters(), lr=0.1, **options)
    plain = SGD(theirs.parameters(), lr=0.1, **options)
    take_steps(ours, fused)
    take_steps(theirs, plain)
    for name, weight in ours.state_dict().items():
        torch.testing.assert_close(weight, theirs.state_dict()[name], rtol=1e-6, atol=1e-7)
    assert fused.state_dict()["state"].keys() == plain.state_dict()["state"].keys()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_its_bits_are_those_of_the_fused_one_of_pytorch(momentum):
    ours, theirs = network(torch.channels_last), network(torch.channels_last)
    take_steps(ours, FusedSGD(ours.parameters(), lr=0.1, momentum=momentum))
    optimizer = SGD(theirs.parameters(), lr=0.1, momentum=momentum, fused=True)
    for weight in theirs[-1].parameters():  # PyTorch fails where some have no momentum yet
        optimizer.state[weight] = {"momentum_buffer": torch.zeros_like(weight)} if momentum else {}
    for weight in theirs[:-1].parameters():
        optimizer.state[weight] = {"momentum_buffer": torch.zeros_like(weight)} if momentum else {}
    take_steps(theirs, optimizer)
    for name, weight in ours.state_dict().items():
        assert torch.equal(weight, theirs.state_dict()[name]), name


def test_it_goes_on_from_a_state_that_was_kept():
    straight, begun = network(torch.channels_last), network(torch.channels_last)
    take_steps(straight, optimizers["sgd"].build(list(straight.parameters()), lr=0.1, momentum=0.9))
    first = FusedSGD(begun.parameters(), lr=0.1, momentum=0.9)
    take_steps(begun, first, count=2)
    state = copy.deepcopy(first.state_dict())
    later = FusedSGD(begun.parameters(), lr=0.1, momentum=0.9)
    later.load_state_dict(state)
    for number, weight in enumerate(begun.parameters()):
        weight.grad.copy_(torch.randn(weight.shape, generator=torch.manual_seed(20 + number)))
    later.step()
    for name, weight in straight.state_dict().items():
        assert torch.equal(weight, begun.state_dict()[name]), name


def test_nothing_is_copied():
    layers = network(torch.channels_last)
    optimizer = optimizers["sgd"].build(list(layers.parameters()), lr=0.1, momentum=0.9)
    assert isinstance(optimizer, FusedSGD)
    take_steps(layers, optimizer)
    with profile() as seen:
        optimizer.step()
    names = {event.key for event in seen.key_averages()}
    assert "aten::_fused_sgd_" in names
    assert not names & {"aten::clone", "aten::copy_"}
