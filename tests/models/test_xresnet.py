"""The bag-of-tricks residual network: timm's ResNet-D by its tensors, and each option is the
formula of its paper."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional

from dml_bench.models.weights import load_backbone
from dml_bench.models.xresnet import SelfAttention
from dml_bench.registry import backbones

OPTIONS = [{}, {"activation": "mish"}, {"pool": "maxblur"}, {"self_attention": True}]


def network(name: str = "xresnet18", **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return backbones[name].build(name, **backbones[name].resolve(options, "model.backbone"))


def images(batch: int = 3, size: int = 64) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "twin"), [("xresnet18", "resnet18d"), ("xresnet50", "resnet50d")])
def test_without_options_it_takes_the_weights_of_timms_resnet_d_and_makes_its_features(
    tmp_path, name, twin
):
    other = timm.create_model(twin).eval()
    save_file(other.state_dict(), tmp_path / "model.safetensors")
    ours = network(name)
    load_backbone(ours, name, backbones[name], str(tmp_path / "model.safetensors"))
    with torch.no_grad():
        assert torch.equal(
            ours.eval()(images()),
            other.forward_head(other.forward_features(images()), pre_logits=True),
        )
    assert f"{timm.get_pretrained_cfg(twin).architecture}.ra2_in1k" == backbones[name].facts[
        "weights"
    ].removeprefix("timm:")
    assert f"{twin}.ra2_in1k" in timm.list_pretrained()


def test_the_stem_is_three_small_convolutions_and_shortcuts_shrink_by_averaging():
    ours = network()
    stem = [layer for layer in ours.conv1 if isinstance(layer, torch.nn.Conv2d)]
    assert [(layer.kernel_size, layer.stride, layer.out_channels) for layer in stem] == [
        ((3, 3), (2, 2), 32),
        ((3, 3), (1, 1), 32),
        ((3, 3), (1, 1), 64),
    ]
    average, convolution, _ = ours.layer2[0].downsample
    assert (average.kernel_size, average.stride, convolution.kernel_size, convolution.stride) == (
        2,
        2,
        (1, 1),
        (1, 1),
    )


def test_the_fifty_layer_network_shrinks_in_the_3x3_convolution_of_a_block():
    block = network("xresnet50").layer2[0]
    assert (block.conv1.stride, block.conv2.stride, block.conv2.kernel_size) == (
        (1, 1),
        (2, 2),
        (3, 3),
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_block_starts_as_its_shortcut(options):
    ours = network(**options).eval()
    assert all(
        (block.bn2.weight == 0).all()
        for stage in (ours.layer1[:2], ours.layer2, ours.layer3, ours.layer4)
        for block in stage
    )
    maps = torch.rand(2, 64, 8, 8)
    with torch.no_grad():
        assert torch.allclose(ours.layer1[0](maps), ours.layer1[0].act2(maps))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_makes_features_whose_gradient_reaches_every_parameter(options):
    ours = network(**options)
    for parameter in (
        parameter
        for name, parameter in ours.named_parameters()
        if name.endswith(("bn2.weight", "gamma"))
    ):
        torch.nn.init.ones_(parameter)
    features = ours(images())
    (features * torch.randn(3, 512)).sum().backward()
    assert features.shape == (3, 512)
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in ours.parameters()
    )


@pytest.mark.parametrize("options", OPTIONS[1:], ids=str)
def test_an_option_changes_the_features_once_blocks_and_attention_have_begun_to_learn(options):
    plain, changed = network().eval(), network(**options).eval()
    missing = changed.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == (
        [
            f"layer1.2.{name}"
            for name in ("gamma", "query.weight", "key.weight", "value.weight", "out.weight")
        ]
        if "self_attention" in options
        else []
    )
    with torch.no_grad():
        if missing:
            assert torch.equal(changed(images()), plain(images()))
            changed.layer1[2].gamma.fill_(1.0)
        assert not torch.allclose(changed(images()), plain(images()), rtol=1e-2)


def test_mish_takes_the_place_of_every_relu():
    kinds = {type(module).__name__ for module in network(activation="mish").modules()}
    assert "ReLU" not in kinds
    assert any("Mish" in kind for kind in kinds)
    assert network(activation="mish").act1(torch.tensor([1.0])).item() == pytest.approx(
        0.865098388
    )  # 1 * tanh(log(1 + e))


def test_blurred_max_pooling_is_a_maximum_then_a_binomial_filter_at_every_second_position():
    pool = network(pool="maxblur").maxpool
    maps = torch.zeros(1, 64, 6, 6)
    maps[0, :, 2, 3] = 16.0
    # Maxima of 3 x 3 neighbourhoods: 16 in rows 1-3, columns 2-4. The filter is (1 2 1) times (1 2
    # 1) over 16.
    expected = torch.tensor([[0.0, 3.0, 3.0], [0.0, 12.0, 12.0], [0.0, 3.0, 3.0]])
    assert torch.allclose(pool(maps)[0, 5], expected)
    assert torch.allclose(pool(torch.full((1, 64, 6, 6), 5.0)), torch.full((1, 64, 3, 3), 5.0)), (
        "a constant map stays constant at its border"
    )


def test_self_attention_is_the_sum_over_positions_that_its_paper_writes():
    torch.manual_seed(0)
    layer = SelfAttention(16)
    torch.nn.init.constant_(layer.gamma, 0.7)
    maps = torch.randn(1, 16, 2, 3)
    positions = maps[0].flatten(1).T
    f, g, h, v = (
        getattr(layer, name).weight[:, :, 0, 0] for name in ("key", "query", "value", "out")
    )
    expected = torch.empty(6, 16)
    for j in range(6):
        beta = torch.stack([(f @ positions[i]) @ (g @ positions[j]) for i in range(6)]).softmax(
            dim=0
        )
        expected[j] = 0.7 * (v @ sum(beta[i] * (h @ positions[i]) for i in range(6))) + positions[j]
    assert torch.allclose(layer(maps)[0].flatten(1).T, expected, atol=1e-6)


def test_self_attention_starts_as_nothing():
    maps = torch.randn(2, 16, 4, 4)
    assert torch.equal(SelfAttention(16)(maps), maps)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_bfloat16_makes_nearly_the_same_features(options):
    ours = network(**options).eval().to(memory_format=torch.channels_last)
    with torch.no_grad():
        wide = ours(images())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            narrow = ours(images())
    assert functional.cosine_similarity(narrow.float(), wide).min() > 0.999


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"activation": "swish"},
            r"model\.backbone\.activation must be one of 'relu', 'mish', got 'swish'",
        ),
        ({"pool": "blur"}, r"model\.backbone\.pool must be one of 'max', 'maxblur', got 'blur'"),
        (
            {"self_attention": "yes"},
            r"model\.backbone\.self_attention must be true or false, got 'yes'",
        ),
    ],
)
def test_an_option_that_it_does_not_have_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        network(**options)
