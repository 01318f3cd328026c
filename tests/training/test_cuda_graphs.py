"""The network's part of a step is recorded once as a CUDA graph; whatever is not a full batch in
training goes through the network. Where there is no GPU, a stand-in records nothing and says when
it was asked to."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dml_bench.models.precision import autocast
from dml_bench.training import cuda_graphs
from dml_bench.training.cuda_graphs import GraphedNetwork, record

CPU = torch.device("cpu")


def small_network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)
    return nn.Sequential(*layers)


class Recorder:
    """Stands in for `record`: remembers the inputs that it was asked to record for."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.replays = 0

    def __call__(self, network: nn.Module, inputs: Tensor, *_: object) -> Callable[..., Tensor]:
        self.shapes.append(tuple(inputs.shape))

        def replay(inputs: Tensor) -> Tensor:
            self.replays += 1
            return network(inputs)

        return replay


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    stand_in = Recorder()
    monkeypatch.setattr(cuda_graphs, "record", stand_in)
    return stand_in


def graphed(network: nn.Module, warnings: list[str] | None = None) -> GraphedNetwork:
    warn = (warnings if warnings is not None else []).append
    return GraphedNetwork(network, rows=4, device=CPU, precision="float32", warn=warn)


def test_full_batches_are_recorded_once_and_replayed(recorder: Recorder) -> None:
    network = graphed(small_network())
    for _ in range(3):
        network(torch.randn(4, 3, 8, 8))
    assert recorder.shapes == [(4, 3, 8, 8)] and recorder.replays == 3


def test_a_smaller_batch_and_evaluation_go_through_the_network(recorder: Recorder) -> None:
    network = graphed(small_network())
    network(torch.randn(3, 3, 8, 8))
    with torch.no_grad():
        network(torch.randn(4, 3, 8, 8))
    network.network.eval()
    network(torch.randn(4, 3, 8, 8))
    assert recorder.shapes == [] and recorder.replays == 0


def test_layers_that_begin_to_learn_and_other_types_need_another_recording(
    recorder: Recorder,
) -> None:
    inner = small_network()
    inner[0].weight.requires_grad_(False)
    network, pixels = graphed(inner), torch.randn(4, 3, 8, 8)
    network(pixels)
    inner[0].weight.requires_grad_(True)
    network(pixels)
    inner[1].eval()
    network(pixels)
    network(pixels)
    assert len(recorder.shapes) == 3 and recorder.replays == 4


def test_what_cant_be_recorded_is_said_once_and_trains_nevertheless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> nn.Module:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(cuda_graphs, "record", fails)
    warnings: list[str] = []
    network = graphed(small_network(), warnings)
    for _ in range(2):
        assert network(torch.randn(4, 3, 8, 8)).requires_grad
    assert len(warnings) == 1
    assert "operation not permitted" in warnings[0] and "and more" not in warnings[0]


def test_recording_moves_neither_statistics_nor_random_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def runs_it(network: nn.Module, inputs: tuple[Tensor, ...], **_: object) -> nn.Module:
        assert not torch.is_autocast_cache_enabled()
        torch.rand(3)
        network(*inputs)
        return network

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", runs_it)
    network = small_network()
    before, generator = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    record(network, torch.randn(4, 3, 8, 8, generator=torch.Generator()), CPU, "bfloat16")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.cuda
def test_a_replay_has_the_bits_of_the_network() -> None:
    device = torch.device("cuda")
    plain = small_network().to(device)
    other = copy.deepcopy(plain)
    replayed = GraphedNetwork(other, rows=4, device=device, precision="bfloat16", warn=pytest.fail)
    for network, called in ((plain, plain), (other, replayed)):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for step in range(5):
            generator = torch.Generator(device).manual_seed(step)
            pixels = torch.randn(4, 3, 8, 8, device=device, generator=generator)
            with autocast(device, "bfloat16"):
                outputs = called(pixels)
            optimizer.zero_grad()
            outputs.float().square().mean().backward()
            optimizer.step()
    assert replayed.recorded is not None
    for name, value in plain.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
