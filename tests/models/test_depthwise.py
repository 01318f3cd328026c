"""Gradients of a depthwise convolution in training are those of the convolution."""

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn
from torch.nn import functional

from dml_bench.models.depthwise import open_depthwise_to_float32, weight_gradient_by_parts
from dml_bench.models.precision import autocast

CPU = torch.device("cpu")
CHANNELS = 20


def images(side: int) -> torch.Tensor:
    maps = torch.randn(2, CHANNELS, side, side, generator=torch.Generator().manual_seed(1))
    return maps.to(memory_format=torch.channels_last)


def convolution(kind: type[nn.Conv2d], kernel: int, stride: int) -> nn.Conv2d:
    torch.manual_seed(0)
    options = {} if kind is Conv2dSame else {"padding": kernel // 2}
    return kind(CHANNELS, CHANNELS, kernel, stride, groups=CHANNELS, bias=False, **options)


def gradients(layer: nn.Module, maps: torch.Tensor, precision: str) -> tuple[torch.Tensor, ...]:
    maps = maps.clone().requires_grad_()
    with autocast(CPU, precision):
        outputs = layer(maps)
    weights = torch.linspace(-1, 1, outputs.numel()).reshape(outputs.shape)
    (outputs * weights).sum().backward()
    parameter = next(layer.parameters())
    return outputs.detach(), maps.grad, parameter.grad


@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "side"), [(3, 8), (3, 2), (5, 12), (5, 7), (5, 3), (5, 1), (7, 9)]
)
def test_outputs_and_gradients_are_those_of_the_convolution_in_float32(kind, stride, kernel, side):
    plain = gradients(convolution(kind, kernel, stride), images(side), "float32")
    layers = nn.Sequential(convolution(kind, kernel, stride))
    open_depthwise_to_float32(layers)
    fast = gradients(layers, images(side), "bfloat16_dense")
    for expected, actual in zip(plain, fast, strict=True):
        assert actual.shape == expected.shape and actual.dtype == torch.float32
        assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_in_training_maps_keep_their_type():
    layers = nn.Sequential(convolution(nn.Conv2d, 5, 1))
    open_depthwise_to_float32(layers)
    with autocast(CPU, "bfloat16_dense"):
        outputs = layers(images(12).bfloat16())
    assert outputs.dtype == torch.bfloat16
    outputs.float().sum().backward()
    assert layers[0].weight.grad.dtype == torch.float32


@pytest.mark.parametrize("padding", [(2, 2), (0, 0), (1, 2)])
def test_the_weight_gradient_by_parts_is_that_of_the_definition(padding):
    maps = images(9)
    weight = torch.randn(CHANNELS, 1, 5, 5, requires_grad=True)
    outputs = functional.conv2d(maps, weight, None, (2, 1), padding, 1, CHANNELS)
    gradient = torch.randn_like(outputs)
    outputs.backward(gradient)
    by_parts = weight_gradient_by_parts(gradient, maps, (5, 5), (2, 1), padding)
    assert (by_parts - weight.grad).abs().max() < 1e-4


@pytest.mark.parametrize("frozen", [True, False])
def test_only_a_weight_that_learns_takes_the_way_of_training(frozen, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "dml_bench.models.depthwise.padding_of", lambda *_: calls.append(1) or (1, 1, 1, 1)
    )
    layers = nn.Sequential(convolution(nn.Conv2d, 3, 1))
    open_depthwise_to_float32(layers)
    layers.requires_grad_(not frozen)
    with autocast(CPU, "bfloat16_dense"):
        layers(images(8))
    assert bool(calls) is not frozen
