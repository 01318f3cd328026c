"""What `train.precision = auto` takes, and that `bfloat16_dense` changes depthwise convolutions and
nothing else."""

from contextlib import nullcontext

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from dml_bench.models.depthwise import open_depthwise_to_float32
from dml_bench.models.precision import autocast, network_precision

CPU = torch.device("cpu")


def images(side: int = 8) -> torch.Tensor:
    return torch.randn(2, 6, side, side, generator=torch.Generator().manual_seed(0))


def network(kind: type[nn.Conv2d] = nn.Conv2d) -> nn.Sequential:
    """A dense, a depthwise and a dense convolution."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(6, 8, 1), kind(8, 8, 3, stride=2, groups=8), nn.Conv2d(8, 4, 1))


def opened(kind: type[nn.Conv2d] = nn.Conv2d) -> nn.Sequential:
    layers = network(kind)
    open_depthwise_to_float32(layers)
    return layers


@pytest.fixture
def bfloat16_units(monkeypatch) -> None:
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)


@pytest.mark.parametrize(
    ("wanted", "device", "layers", "precision"),
    [
        ("auto", "cpu", network(), "bfloat16_dense"),
        ("auto", "cpu", nn.Sequential(nn.Conv2d(8, 8, 3, groups=2)), "bfloat16"),
        ("auto", "cuda", network(), "bfloat16"),
        ("bfloat16", "cpu", network(), "bfloat16"),
        ("float32", "cpu", network(), "float32"),
        ("bfloat16_dense", "cuda", network(), "bfloat16_dense"),
    ],
)
def test_auto_looks_at_the_layers_and_at_the_device(
    bfloat16_units, wanted, device, layers, precision
):
    assert network_precision(wanted, torch.device(device), layers) == precision


def test_auto_without_bfloat16_units_is_float32_for_every_network(monkeypatch):
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False)
    assert network_precision("auto", CPU, network()) == "float32"


def test_a_gpu_computes_in_tf32_where_that_is_chosen_and_nowhere_else(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # as PyTorch comes
    monkeypatch.setattr("torch.autocast", lambda *_, enabled, **__: nullcontext(enabled))
    cuda, allowed = torch.device("cuda"), []
    for precision in ("float32", "tf32", "bfloat16"):
        with autocast(cuda, precision):
            pass
        allowed.append(torch.backends.cudnn.allow_tf32)  # also for the gradients that follow
    assert allowed == [False, True, False]


def test_tf32_is_refused_on_a_cpu():
    with pytest.raises(ValueError, match=r"train\.precision = tf32 needs a GPU: --set train\.prec"):
        network_precision("tf32", CPU, network())


def test_auto_is_float32_on_a_gpu_that_only_emulates_bfloat16(monkeypatch):
    monkeypatch.setattr(
        "torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    assert network_precision("auto", torch.device("cuda"), network()) == "float32"


@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
def test_dense_convolutions_are_in_bfloat16_and_depthwise_ones_in_float32(kind):
    layers, plain = opened(kind), network(kind)
    with autocast(CPU, "bfloat16_dense"):
        first = layers[0](images())
        middle = layers[1](first)
        last = layers[2](middle)
    assert (first.dtype, middle.dtype, last.dtype) == (
        torch.bfloat16,
        torch.float32,
        torch.bfloat16,
    )
    assert torch.equal(middle, plain[1](first.float()))
    last.float().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in layers.parameters())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_in_every_other_precision_a_network_keeps_its_bits(precision):
    plain = network()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        expected = plain(images())
    with autocast(CPU, precision):
        outputs = opened()(images())
    assert outputs.dtype == expected.dtype
    assert torch.equal(outputs, expected)


def test_after_the_context_nothing_is_left_of_it_even_where_it_ends_in_an_error():
    layers, plain = opened(), network()
    with pytest.raises(RuntimeError), autocast(CPU, "bfloat16_dense"):
        layers(images()[:, :5])
    with autocast(CPU, "bfloat16"):
        assert layers[:2](images()).dtype == torch.bfloat16
    assert torch.equal(layers(images()), plain(images()))


def test_a_state_dict_has_the_names_of_the_plain_network():
    assert opened().state_dict().keys() == network().state_dict().keys()
