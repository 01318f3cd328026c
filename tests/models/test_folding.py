"""A network with folded BatchNorm embeds as the plain one does, up to the rounding of bfloat16."""

import itertools

import pytest
import timm
import torch
from tiny import tiny
from torch import nn
from torch.nn import functional

from dml_bench.models.convolutions import speed_up_small_maps
from dml_bench.models.depthwise import open_depthwise_to_float32
from dml_bench.models.embedder import build_embedder
from dml_bench.models.folding import FoldedConv2d, fold_batch_norm, is_fast_in_float32
from dml_bench.models.precision import autocast, is_depthwise
from dml_bench.registry import backbones
from dml_bench.system.devices import choose_precision, torch_threads

pytestmark = pytest.mark.skipif(
    choose_precision("auto", torch.device("cpu")) != "bfloat16",
    reason="this processor has no fast bfloat16",
)


def with_statistics(network: nn.Module) -> nn.Module:
    """The network with BatchNorm layers that change what goes through them."""
    torch.manual_seed(3)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
    speed_up_small_maps(network)
    open_depthwise_to_float32(network)
    return network.eval().to(memory_format=torch.channels_last)


def images(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(count, size, size, 3, generator=generator).permute(0, 3, 1, 2)


@torch.no_grad()
def in_bfloat16(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return functional.normalize(network(pixels).float(), dim=1)


def folded_layers(network: nn.Module) -> int:
    return sum(isinstance(layer, FoldedConv2d) for layer in network.modules())


@pytest.mark.parametrize(
    ("name", "activation", "layers"),
    [
        ("resnet18", nn.ReLU, 20),
        ("resnet26", nn.ReLU, 29),
        ("resnet18d", nn.ReLU, 22),
        ("resnet18", nn.Mish, 20),  # which oneDNN does not apply after the sum
    ],
)
@torch.no_grad()
def test_it_is_no_further_from_float32_than_the_plain_network(name, activation, layers):
    network = with_statistics(timm.create_model(name, num_classes=0, act_layer=activation))
    folded, pixels = fold_batch_norm(network), images(8, 64)
    assert folded_layers(folded) == layers
    exact = functional.normalize(network(pixels), dim=1)
    plain = (in_bfloat16(network, pixels) * exact).sum(dim=1)
    assert (1 - (in_bfloat16(folded, pixels) * exact).sum(dim=1)).max() < 1.2 * (1 - plain).max()
    assert plain.min() > 0.999
    # The layers of the network itself are still the plain ones.
    assert torch.equal(functional.normalize(network(pixels), dim=1), exact)


def test_one_image_has_the_same_bits_alone_and_in_a_batch():
    network = with_statistics(timm.create_model("resnet18", num_classes=0))
    folded, pixels = fold_batch_norm(network), images(6, 48)
    together = in_bfloat16(folded, pixels)
    assert torch.equal(in_bfloat16(folded, pixels[2:3]), together[2:3])
    assert torch.equal(in_bfloat16(folded, pixels), together)


@pytest.mark.parametrize(("name", "layers"), [("efficientnet_lite0", 49), ("mobilenet_v2", 52)])
@torch.no_grad()
def test_a_network_of_depthwise_convolutions_is_exact_and_has_the_same_bits_in_any_batch(
    name, layers
):
    torch.manual_seed(7)
    network = with_statistics(backbones[name].build(name))
    folded, pixels = fold_batch_norm(network, "bfloat16_dense"), images(4, 70)
    assert is_fast_in_float32(network)
    assert folded_layers(folded) == layers
    exact = network(pixels)
    with autocast(torch.device("cpu"), "bfloat16_dense"):
        together = folded(pixels)
        alone = folded(pixels[2:3])
        with torch_threads(2):
            on_two = folded(pixels)
    assert together.dtype == torch.float32
    near = functional.normalize(together, dim=1), functional.normalize(exact, dim=1)
    torch.testing.assert_close(*near, rtol=0, atol=1e-5)
    assert torch.equal(alone, together[2:3])
    assert torch.equal(on_two, together)
    # In bfloat16 runs of older versions folded the others alone, and their galleries stay so.
    others = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    others = [layer for layer in others if not is_depthwise(layer)]
    assert folded_layers(fold_batch_norm(network)) == len(others)


@pytest.mark.parametrize("way", [{}, {"foreach": True}, {"fused": True}])
def test_weights_that_training_or_a_file_changes_are_folded_anew(way):
    embedder = build_embedder(tiny())
    pixels = torch.randint(256, (8, 32, 32, 3), generator=torch.Generator().manual_seed(5))

    def embedded() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return embedder.eval().embed(pixels)

    before = {name: tensor.clone() for name, tensor in embedder.state_dict().items()}
    plain = embedded()
    assert embedder.fold_batch_norm()
    first = embedded()
    optimizer = torch.optim.SGD(embedder.parameters(), lr=0.01, **way)
    embedder.train()(pixels).square().sum().backward()
    statistics = embedded()  # a training step has moved those of BatchNorm
    embedder.train()
    optimizer.step()
    changed = embedded()
    assert embedder.fold_batch_norm()
    assert torch.equal(embedded(), changed)
    embedder.load_state_dict(before)
    assert torch.equal(embedded(), first)
    seen = []  # by a hook, which the network's own layers call
    hook = embedder.backbone.layer1.register_forward_hook(lambda *call: seen.append(call))
    assert torch.equal(embedded(), plain)
    assert len(seen) == 1
    hook.remove()
    assert torch.equal(embedded(), first)
    different = [plain, first, statistics, changed]
    assert not any(torch.equal(*pair) for pair in itertools.pairwise(different))


class SharedSum(nn.Module):
    """Its shortcut is needed once more after the sum."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3))
            for _ in range(2)
        )

    def forward(self, pixels):
        shortcut = self.first(pixels)
        return (self.second(shortcut) + shortcut + shortcut).mean((2, 3))


def test_a_shortcut_that_is_needed_later_is_not_overwritten():
    network = with_statistics(SharedSum())
    folded, pixels = fold_batch_norm(network), images(4, 16)
    assert folded_layers(folded) == 2
    assert torch.allclose(in_bfloat16(folded, pixels), in_bfloat16(network, pixels), atol=0.02)


class LooksAtNumbers(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3)

    def forward(self, pixels):
        return self.norm(self.conv(pixels if pixels.sum() > 0 else -pixels))


@pytest.mark.parametrize(
    "network",
    [LooksAtNumbers(), timm.create_model("test_vit", num_classes=0), nn.Conv2d(3, 3, 1)],
    ids=["control flow", "transformer", "no BatchNorm"],
)
def test_other_networks_are_left_alone(network):
    assert fold_batch_norm(network.eval()) is None
