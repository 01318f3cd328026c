"""Heads: every name makes embeddings of the dimension that it says, and each is the formula that
its paper gives."""

import pytest
import torch
from torch.nn import functional

from dml_bench.config import experiments
from dml_bench.models.embedder import build_embedder
from dml_bench.registry import heads

NAMES = heads.names()


def features(batch: int = 6, num_features: int = 32) -> torch.Tensor:
    return torch.randn(batch, num_features, generator=torch.Generator().manual_seed(0))


def head(name: str, **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return heads[name].build(32, **heads[name].resolve(options, "model.head"))


# Conformance


@pytest.mark.parametrize("name", NAMES)
def test_every_head_makes_finite_embeddings_and_all_of_its_parameters_learn_from_them(name):
    network = head(name)
    inputs = features().requires_grad_()
    embeddings = network(inputs)
    (embeddings * torch.randn(embeddings.shape)).sum().backward()
    assert embeddings.shape == (6, network.dim) == (6, 32 if name == "identity" else 128)
    assert torch.isfinite(embeddings).all()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in network.parameters()
    )
    assert torch.isfinite(inputs.grad).all() and inputs.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_every_head_takes_features_of_bfloat16_inside_autocast(name):
    network = head(name).eval()
    with torch.no_grad():
        expected = network(features())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            embeddings = network(features().bfloat16())
    assert functional.cosine_similarity(embeddings.float(), expected).min() > 0.999


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"identity"}))
def test_every_head_that_projects_has_the_dimension_it_is_told(name):
    network = head(name, dim=7)
    assert network.dim == 7
    assert network(features()).shape == (6, 7)
    with pytest.raises(ValueError, match=r"^model\.head\.dim must be at least 1, got 0$"):
        head(name, dim=0)


@pytest.mark.parametrize("name", NAMES)
def test_every_head_embeds_an_image_in_evaluation_as_it_does_inside_a_batch(name):
    network = head(name).eval()
    assert torch.allclose(network(features())[:1], network(features()[:1]), atol=1e-6)


# Formulas


def test_the_linear_head_with_batchnorm_standardises_each_dimension_over_the_batch():
    network = head("linear_bn", dim=5)
    projected = features() @ next(network.parameters()).T
    expected = (projected - projected.mean(dim=0)) / (
        projected.var(dim=0, unbiased=False) + 1e-5
    ).sqrt()
    assert torch.allclose(network(features()), expected, atol=1e-5)


def test_the_statistics_of_the_head_with_batchnorm_are_state_and_used_in_evaluation():
    network = head("linear_bn", dim=5)
    network(features())
    projected = features() @ next(network.parameters()).T
    mean, variance = 0.1 * projected.mean(dim=0), 0.9 + 0.1 * projected.var(dim=0)
    assert torch.allclose(
        network.eval()(features()), (projected - mean) / (variance + 1e-5).sqrt(), atol=1e-5
    )
    assert sum(key.endswith("running_mean") for key in network.state_dict()) == 1


def test_the_skip_head_adds_half_of_its_layer_at_the_start():
    network = head("skip").eval()
    projected = network.projection(features())
    assert network.gate.tolist() == [0.0] * 128
    assert torch.allclose(network(features()), projected + 0.5 * network.layer(projected))


def test_the_gate_of_the_skip_head_lets_each_dimension_of_its_layer_through_or_not():
    network = head("skip", dim=2).eval()
    with torch.no_grad():
        network.gate.copy_(torch.tensor([-100.0, 100.0]))
    projected = network.projection(features())
    assert torch.allclose(network(features())[:, 0], projected[:, 0])
    assert torch.allclose(network(features())[:, 1], (projected + network.layer(projected))[:, 1])


def test_the_skip_head_drops_a_part_of_the_projection_in_training_only_before_its_layer():
    network = head("skip", dim=2000, dropout=0.25).train()
    with torch.no_grad():
        network.layer.weight.copy_(torch.eye(2000))
        network.layer.bias.fill_(5.0)
        network.gate.fill_(100.0)
        projected = network.projection(features())
        added = network(features()) - projected
    assert ((added - 5).abs() < 1e-3).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert ((added - 5 - projected / 0.75).abs() < 1e-3).float().mean().item() == pytest.approx(
        0.75, abs=0.02
    )


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 7.0])
def test_a_dropout_that_is_no_part_of_the_whole_is_refused(dropout):
    with pytest.raises(
        ValueError,
        match=rf"^model\.head\.dropout must be a number from 0 to less than 1, got {dropout}$",
    ):
        head("skip", dropout=dropout)


def test_the_mlp_of_two_layers_is_the_projection_head_of_simclr():
    network = head("mlp", dim=3, hidden=9)
    first, first_bias, second, second_bias = network.parameters()
    assert first.shape == (9, 32)
    expected = (features() @ first.T + first_bias).clamp(min=0) @ second.T + second_bias
    assert torch.allclose(network(features()), expected, atol=1e-6)


def test_the_mlp_has_as_many_linear_layers_as_it_is_told():
    shapes = [
        tuple(parameter.shape)
        for parameter in head("mlp", dim=3, hidden=9, layers=4).parameters()
        if parameter.dim() == 2
    ]
    assert shapes == [(9, 32), (9, 9), (9, 9), (3, 9)]


@pytest.mark.parametrize(
    ("option", "value", "least"), [("hidden", 0, 1), ("layers", 1, 2), ("dim", -4, 1)]
)
def test_an_mlp_that_can_not_be_is_refused(option, value, least):
    with pytest.raises(
        ValueError, match=rf"^model\.head\.{option} must be at least {least}, got {value}$"
    ):
        head("mlp", **{option: value})


# In the model


@pytest.mark.parametrize("name", NAMES)
def test_every_head_sits_on_the_features_of_a_backbone(name):
    overrides = [
        "model.backbone=timm:test_resnet",
        "model.weights=none",
        "images.size=32",
        "augment.random_crop_from=0",
    ]
    embedder = build_embedder(
        experiments.resolve(
            "EPSHN_cosine_resnet18_sgd_aug", overrides=[*overrides, f"model.head={{name='{name}'}}"]
        )
    )
    pixels = torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8)
    assert embedder.eval().embed(pixels).shape == (2, embedder.dim)


def test_layer_norm_gives_each_image_features_of_mean_0_and_deviation_1_before_they_are_projected():
    network = head("layer_norm", dim=5)
    rows = features()
    standard = (rows - rows.mean(1, keepdim=True)) / rows.std(1, unbiased=False, keepdim=True)
    projection = network[1]
    expected = standard @ projection.weight.T + projection.bias
    torch.testing.assert_close(network(rows), expected, rtol=1e-4, atol=1e-4)
    assert [name for name, _ in network.named_parameters()] == ["1.weight", "1.bias"]


def test_the_linear_head_with_layer_norm_gives_embeddings_of_mean_0_and_deviation_1():
    network = head("linear_ln", dim=200)
    projected = network[0](features())
    standard = projected - projected.mean(1, keepdim=True)
    standard = standard / projected.std(1, unbiased=False, keepdim=True)
    torch.testing.assert_close(network(features()), standard, rtol=1e-3, atol=1e-4)
    assert network[0].weight.std().item() == pytest.approx((2 / 200) ** 0.5, rel=0.05)
    assert [name for name, _ in network.named_parameters()] == ["0.weight", "0.bias"]


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_dropout_leaves_features_out_in_training_only(name):
    network = head(name, dropout=0.5)
    assert not torch.equal(network(features()), network(features()))
    network.eval()
    assert torch.equal(network(features()), network(features()))
    names = head(name).state_dict().keys()
    assert names == {"linear": {"weight", "bias"}}.get(name, names)


def test_fan_out_starts_a_projection_with_the_deviation_of_its_outputs_and_no_bias():
    network = head("linear", dim=2000, init="fan_out")
    assert network.weight.std().item() == pytest.approx((2 / 2000) ** 0.5, rel=0.02)
    assert not network.bias.any()
