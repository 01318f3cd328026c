"""The weight gradient on small maps is the convolution's own, and nothing else is touched."""

import threading
import time
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from dml_bench.models import convolutions
from dml_bench.models.convolutions import (
    GradientsApart,
    SmallMapConv2d,
    speed_up_small_maps,
)
from dml_bench.models.folding import fold_batch_norm
from dml_bench.registry import optimizers
from dml_bench.system.devices import torch_threads
from dml_bench.system.spare_threads import (
    SPARE,
    SpareThreads,
    own_threads_only,
    spare_threads,
    weight_gradients_beside,
)

CASES = [
    (4, 3, 1, 1),
    (2, 3, 1, 1),
    (1, 3, 1, 1),
    (7, 3, 1, 1),
    (14, 3, 2, 1),
    (8, 3, 2, 1),
    (5, 3, 2, 1),
    (4, 1, 1, 0),
    (8, 1, 2, 0),
    (3, 2, 1, 0),
]


def pair(kernel: int, stride: int, padding: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """The same convolution as it is, and made fast."""
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 10, kernel, stride, padding, bias=False)
    fast = nn.Sequential(nn.Conv2d(6, 10, kernel, stride, padding, bias=False))
    fast[0].load_state_dict(plain.state_dict())
    speed_up_small_maps(fast)
    return plain, fast[0]


def gradients(
    module: nn.Conv2d, images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images = images.clone().requires_grad_()
    module.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(images)
    (output.float() * torch.linspace(-1, 1, output.numel()).reshape(output.shape)).sum().backward()
    return output.float(), images.grad, module.weight.grad


@pytest.mark.parametrize(
    "layout", [torch.channels_last, torch.contiguous_format], ids=["channels last", "contiguous"]
)
@pytest.mark.parametrize(("side", "kernel", "stride", "padding"), CASES)
def test_outputs_and_gradients_are_those_of_the_convolution(side, kernel, stride, padding, layout):
    plain, fast = pair(kernel, stride, padding)
    images = torch.randn(12, 6, side, side, generator=torch.Generator().manual_seed(1)).to(
        memory_format=layout
    )
    for expected, actual in zip(gradients(plain, images), gradients(fast, images), strict=True):
        assert actual.dtype == expected.dtype == torch.float32
        assert actual.shape == expected.shape
        assert (actual - expected).norm() <= 0.01 * expected.norm()


def test_the_gradient_is_that_of_the_definition_in_float32():
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    images = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    doubles = tuple(tensor.detach().double().requires_grad_() for tensor in (images, weight))
    assert torch.autograd.gradcheck(
        lambda i, w: GradientsApart.apply(i, w, (1, 1), (1, 1), True), doubles
    )


@pytest.mark.parametrize(("side", "taken"), [(7, True), (8, False)])
def test_only_small_maps_under_bfloat16_take_the_other_way(side, taken, monkeypatch):
    calls = []
    original = GradientsApart.backward
    monkeypatch.setattr(
        GradientsApart,
        "backward",
        staticmethod(lambda ctx, *g: calls.append(1) or original(ctx, *g)),
    )
    _, fast = pair(3, 1, 1)
    gradients(fast, torch.randn(2, 6, side, side))
    assert bool(calls) is taken
    calls.clear()
    fast(torch.randn(2, 6, side, side)).sum().backward()
    assert not calls, "float32 is left alone"


def test_convolutions_with_groups_a_bias_or_dilation_are_left_alone():
    network = nn.Sequential(
        nn.Conv2d(6, 6, 3, groups=6, bias=False),
        nn.Conv2d(6, 6, 3),
        nn.Conv2d(6, 6, 3, dilation=2, bias=False),
    )
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    speed_up_small_maps(network)
    assert not any(isinstance(module, SmallMapConv2d) for module in network)
    network = nn.Sequential(nn.Conv2d(6, 6, 3, bias=False))
    speed_up_small_maps(network)
    assert isinstance(network[0], SmallMapConv2d)
    assert network.state_dict().keys() == {"0.weight"}
    assert before.keys() == {"0.weight", "1.weight", "1.bias", "2.weight"}


def trained(*, in_bfloat16: bool, beside: bool = False) -> dict[str, torch.Tensor]:
    """The weights and statistics of a small network after three steps, and the maps of its first
    layers, folded in bfloat16. Gradients of weights may be computed beside others."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 64, 3, 1, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.Conv2d(64, 128, 1, 2, bias=False),  # a small map
        nn.BatchNorm2d(128),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 16, bias=False),
    ).to(memory_format=torch.channels_last)
    speed_up_small_maps(network)
    optimizer = optimizers["sgd"].build(list(network.parameters()), lr=0.1, momentum=0.9)
    images = torch.randn(32, 3, 24, 24).to(memory_format=torch.channels_last)
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bfloat16):
            logits = network(images).float()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(logits, torch.arange(32) % 16)
        with weight_gradients_beside() if beside else nullcontext():
            loss.backward()
        optimizer.step()
    first_layers = network[:3].eval()
    if in_bfloat16:
        first_layers = fold_batch_norm(first_layers) or first_layers
    with torch.inference_mode():
        return network.state_dict() | {"maps": first_layers(images)}


@pytest.mark.parametrize("in_bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_spare_threads_compute_a_part_of_a_step_and_its_bits_stay_those_of_one(
    in_bfloat16, monkeypatch
):
    counts = []
    real = torch.set_num_threads
    with torch_threads(1):
        one = trained(in_bfloat16=in_bfloat16)
        monkeypatch.setattr(torch, "set_num_threads", lambda n: counts.append(n) or real(n))
        for threads in (2, 3):
            with spare_threads(threads):
                several = trained(in_bfloat16=in_bfloat16)
            for name, values in one.items():
                assert torch.equal(several[name], values), name
        # A step: three convolutions, the gradient of the images of the one without a stride, the
        # weights. Then the maps.
        calls = 3 * (3 + 1 + 1) + 1 if in_bfloat16 else 3
        assert counts == [2, 1] * calls + [3, 1] * calls


def test_gradients_of_weights_are_computed_beside_the_rest_to_the_bits_of_one_thread(monkeypatch):
    there = []
    real = convolutions.weight_gradient

    def product(*arguments) -> torch.Tensor:
        there.append((threading.current_thread().name, torch.get_num_threads()))
        return real(*arguments)

    monkeypatch.setattr(convolutions, "weight_gradient", product)
    with torch_threads(1):
        one = trained(in_bfloat16=True, beside=True)
        with spare_threads(2):
            two = trained(in_bfloat16=True, beside=True)
    for name, values in one.items():
        assert torch.equal(two[name], values), name
    main = threading.current_thread().name
    assert [name == main for name, _ in there] == [True] * 3 + [False] * 3  # one small map, 3 steps
    assert {threads for _, threads in there} == {1}


def small_map_used_twice() -> tuple[nn.Conv2d, torch.Tensor]:
    """A convolution, and a sum over its maps of two batches."""
    _, layer = pair(3, 1, 1)
    batches = torch.randn(2, 4, 6, 4, 4, generator=torch.manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = [layer(batch) for batch in batches]
    weights = torch.linspace(-1, 1, maps[0].numel()).reshape(maps[0].shape)
    return layer, ((maps[0].float() + 2 * maps[1].float()) * weights).sum()


def test_a_layer_used_twice_in_a_pass_has_the_same_gradient_whether_others_help_or_not():
    gradients = []
    with torch_threads(1):
        for lent in (1, 2):  # as source weights are trained, on one core and on two
            with spare_threads(lent):
                torch.manual_seed(0)
                network = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, bias=False))
                speed_up_small_maps(network)
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    maps = network(network(torch.randn(4, 16, 12, 12)))
                with weight_gradients_beside():
                    maps.float().square().sum().backward()
            gradients.append(network[0].weight.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("earlier", [False, True])
def test_gradients_computed_beside_are_added_up_as_others_are(earlier):
    gradients = []
    with torch_threads(1):
        for lent in (0, 2):
            with spare_threads(lent):
                layer, total = small_map_used_twice()
                layer.weight.grad = torch.ones_like(layer.weight) if earlier else None
                with weight_gradients_beside():
                    total.backward()
            gradients.append(layer.weight.grad)
    assert torch.equal(*gradients)


def test_what_fails_beside_the_rest_fails_the_backward_pass(monkeypatch):
    def fail(*_) -> None:
        raise MemoryError("no room")

    with torch_threads(1), spare_threads(2):
        layer, total = small_map_used_twice()
        monkeypatch.setattr(convolutions, "weight_gradient", fail)
        with pytest.raises(MemoryError, match="no room"), weight_gradients_beside():
            total.backward()
        assert SPARE.beside is None
        assert layer.weight.grad is None


@pytest.mark.parametrize(
    ("geometry", "side", "in_bfloat16"),
    [((512, 128, 1), 7, False), ((256, 512, 7, 2, 3), 5, True)],
    ids=["float32", "with a stride"],
)
def test_what_is_summed_in_another_order_on_more_threads_keeps_those_of_torch(
    geometry, side, in_bfloat16
):
    torch.manual_seed(0)
    layer = nn.Conv2d(*geometry, bias=False)
    speed_up_small_maps(nn.Sequential(layer.to(memory_format=torch.channels_last)))
    images = torch.randn(2, geometry[0], side, side).to(memory_format=torch.channels_last)

    def maps_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        inputs = images.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bfloat16):
            maps = layer(inputs)
        maps.backward(torch.randn(maps.shape, generator=torch.manual_seed(1)).to(maps))
        return maps, inputs.grad

    with torch_threads(1):
        one = maps_and_gradient()
        with spare_threads(3):
            several = maps_and_gradient()
    for expected, actual in zip(one, several, strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize(("with_them", "used"), [(0.5, True), (2.0, False)])
def test_spare_threads_are_used_where_they_make_steps_shorter(with_them, used, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    spare = SpareThreads()
    ways = []
    with torch_threads(1):
        spare.lend(2)
        assert spare.are_used
        for _ in range(104):
            spare.next_step()
            ways.append(spare.are_used)
            now += with_them if spare.are_used else 1.0
        spare.lend(1)
        assert not spare.are_used
    trial = [False, False, True, True]
    assert ways == [*trial, *[used] * 96, *trial]


def test_threads_that_are_lent_during_a_measurement_help_after_it():
    with torch_threads(1), spare_threads(0):
        with own_threads_only():
            SPARE.lend(2)
            assert not SPARE.are_used
        assert SPARE.are_used
