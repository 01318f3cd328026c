"""Poolings: from the last map to features, by the formula of each, in the place of the backbone's
own; and frozen BatchNorm."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from dml_bench.config import experiments
from dml_bench.models.embedder import Embedder, build_embedder
from dml_bench.registry import optimizers, poolings

REPLACING = sorted(set(poolings.names()) - {"own"})
FAMILIES = [
    "resnet18",
    "efficientnet_b0",
    "convnext_tiny",
    "efficientnet_lite0",
    "mobilenet_v2",
    "timm:test_resnet",
    "timm:test_convnext",
]


def pooling(name: str, **options: object) -> torch.nn.Module:
    return poolings[name].build(**poolings[name].resolve(options, "model.pooling"))


def maps(channels: int = 5) -> torch.Tensor:
    return torch.randn(2, channels, 3, 4, generator=torch.Generator().manual_seed(0)) + 1


def pixels(batch: int = 4, size: int = 32) -> torch.Tensor:
    return torch.randint(
        256, (batch, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def embedder(*overrides: str) -> Embedder:
    tiny = ["model.backbone=timm:test_resnet", "model.weights=none", "images.size=32", "augment={}"]
    return build_embedder(
        experiments.resolve("EPSHN_cosine_resnet18_sgd_aug", overrides=[*tiny, *overrides])
    )


def copied(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in network.state_dict().items()}


# Formulas


@pytest.mark.parametrize(
    ("name", "options", "by_hand"),
    [
        ("avg", {}, 2.5),
        ("max", {}, 4.0),
        ("avg+max", {}, 6.5),
        ("GeM", {}, 25 ** (1 / 3)),  # (1 + 8 + 27 + 64) / 4
        ("GeM", {"p": 1.0}, 2.5),
        ("GeM", {"p": 2.0}, 7.5**0.5),
        ("GeM", {"p": 60.0, "trainable": False}, 4.0 * 0.25 ** (1 / 60)),
    ],
)
def test_a_map_of_four_values_pooled_by_hand(name, options, by_hand):
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    assert pooling(name, **options)(values).tolist() == [[pytest.approx(by_hand, rel=1e-5)]]


@pytest.mark.parametrize("name", REPLACING)
def test_every_pooling_makes_one_value_per_image_and_channel_whatever_the_order_of_the_places(name):
    pooled = pooling(name)(maps())
    shuffled = (
        maps()
        .flatten(2)[:, :, torch.randperm(12, generator=torch.Generator().manual_seed(1))]
        .reshape(2, 5, 4, 3)
    )
    assert pooled.shape == (2, 5)
    assert torch.allclose(pooling(name)(shuffled), pooled, atol=1e-6)


@pytest.mark.parametrize("p", [1.0, 3.0, 4.5])
def test_the_generalised_mean_by_its_definition(p):
    for image, row in zip(maps().tolist(), pooling("GeM", p=p)(maps()).tolist(), strict=True):
        for channel, value in zip(image, row, strict=True):
            powers = [max(place, 1e-6) ** p for line in channel for place in line]
            assert value == pytest.approx((sum(powers) / 12) ** (1 / p), rel=1e-5)


def test_p_learns_the_slope_of_the_generalised_mean():
    network = pooling("GeM")
    network(maps()).sum().backward()
    slope = (
        pooling("GeM", p=3.01)(maps()).double().sum()
        - pooling("GeM", p=2.99)(maps()).double().sum()
    ) / 0.02
    assert network.p.grad.item() == pytest.approx(slope.item(), rel=1e-2)


def test_the_generalised_mean_of_a_map_without_anything_is_finite_and_so_are_its_gradients():
    network, nothing = pooling("GeM"), torch.zeros(1, 2, 3, 3, requires_grad=True)
    pooled = network(nothing)
    pooled.sum().backward()
    assert pooled.tolist() == [[pytest.approx(1e-6, rel=1e-3)] * 2]
    assert torch.isfinite(network.p.grad).all() and torch.isfinite(nothing.grad).all()


def test_the_generalised_mean_is_taken_in_float32_where_the_map_is_in_bfloat16():
    narrow = maps().abs().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pooling("GeM")(narrow)
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, pooling("GeM")(narrow.float()))


@pytest.mark.parametrize("p", [0.0, -3.0])
def test_a_power_that_is_not_positive_is_refused(p):
    with pytest.raises(ValueError, match=rf"^model\.pooling\.p must be a number above 0, got {p}$"):
        pooling("GeM", p=p)


# In the place of the backbone's own


@pytest.mark.parametrize("backbone", FAMILIES)
def test_the_average_in_the_place_of_a_backbones_own_pooling_gives_its_own_features(backbone):
    own, average = (
        embedder(f"model.backbone={backbone}", f"model.pooling={name}").eval()
        for name in ("own", "avg")
    )
    expected = own.features(pixels(size=64))
    assert torch.allclose(average.features(pixels(size=64)), expected, atol=1e-5, rtol=1e-4)
    assert own.backbone.state_dict().keys() == average.backbone.state_dict().keys()


@pytest.mark.parametrize("backbone", ["efficientnet_b0", "timm:test_convnext", "timm:test_resnet"])
def test_another_pooling_gives_other_features_of_the_same_weights_in_both_precisions(backbone):
    own, gem = (
        embedder(f"model.backbone={backbone}", f"model.pooling={name}").eval()
        for name in ("own", "GeM")
    )
    with torch.no_grad():
        features = gem.features(pixels(size=64))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            narrow = gem.features(pixels(size=64))
        assert features.shape == (4, gem.backbone.num_features)
        assert not torch.allclose(own.features(pixels(size=64)), features, rtol=1e-3)
    assert functional.cosine_similarity(narrow.double(), features.double(), eps=1e-30).min() > 0.99


def test_the_layernorm_behind_the_pooling_of_a_convnext_stays():
    features = (
        embedder("model.backbone=timm:test_convnext", "model.pooling=max")
        .eval()
        .features(pixels(size=64))
    )
    assert torch.allclose(features.mean(dim=1), torch.zeros(4), atol=1e-5)
    assert torch.allclose(features.var(dim=1, unbiased=False), torch.ones(4), atol=1e-2)


@pytest.mark.parametrize(
    ("backbone", "name"), [("vit_s16", "avg"), *(("timm:test_vit", name) for name in REPLACING)]
)
def test_a_transformer_has_no_map_to_pool(backbone, name):
    with pytest.raises(
        ValueError, match=rf"^backbone {backbone} has no map to pool: leave model\.pooling out$"
    ):
        embedder(f"model.backbone={backbone}", f"model.pooling={name}")


def test_a_learned_pooling_belongs_to_the_backbone_and_goes_where_its_weights_go(tmp_path):
    stage = embedder("model.pooling={name='GeM', p=4.5}")
    (key,) = (key for key in stage.backbone.state_dict() if key.endswith(".p"))
    phase = embedder("model.pooling=GeM", "seed=7")
    assert phase.backbone.state_dict()[key].tolist() == [3.0]
    phase.backbone.load_state_dict(stage.backbone.state_dict())
    assert phase.backbone.state_dict()[key].tolist() == [4.5]
    save_file(
        {name: tensor.contiguous() for name, tensor in stage.state_dict().items()},
        tmp_path / "run.safetensors",
    )
    assert embedder(
        "model.pooling=GeM", f"model.weights={tmp_path / 'run.safetensors'}"
    ).backbone.state_dict()[key].tolist() == [4.5]


def test_weights_that_know_no_pooling_leave_p_at_its_start_and_must_be_complete_otherwise(tmp_path):
    state = embedder("seed=9").backbone.state_dict()
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "own.safetensors"
    )
    started = embedder(
        "model.pooling=GeM", f"model.weights={tmp_path / 'own.safetensors'}"
    ).backbone.state_dict()
    assert started.keys() - state.keys() == {"global_pool.p"}
    assert started["global_pool.p"].tolist() == [3.0]
    assert all(torch.equal(started[name], state[name]) for name in state)
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items() if "conv1" not in name},
        tmp_path / "part.safetensors",
    )
    with pytest.raises(ValueError, match=r"tensors missing, e\.g\. conv1\.0\.weight"):
        embedder("model.pooling=GeM", f"model.weights={tmp_path / 'part.safetensors'}")


# Frozen BatchNorm


def train(network: Embedder) -> set[str]:
    """Two steps of SGD on a loss that every dimension of every image enters; the names of the
    tensors that they changed.

    Two, since the last BatchNorm of a residual branch may start at 0 and hide the branch from the
    first.
    """
    torch.manual_seed(0)
    before = copied(network)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = optimizers["sgd"].build(trained, lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        embeddings = network.train()(pixels())
        (embeddings * torch.randn(embeddings.shape)).mean().backward()
        optimizer.step()
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())
    return {
        name
        for name, tensor in network.state_dict().items()
        if not torch.equal(tensor, before[name])
    }


@pytest.mark.parametrize("backbone", ["timm:test_resnet", "timm:test_efficientnet", "resnet18"])
def test_training_with_frozen_batchnorm_gem_and_skip_head_changes_all_but_batchnorms(
    backbone,
):
    network = embedder(
        f"model.backbone={backbone}",
        "model.batch_norm=frozen",
        "model.pooling=GeM",
        "model.head=skip",
    )
    frozen = network.frozen_state()
    changed = train(network)
    after = network.frozen_state()
    layers = {
        name for name, module in network.named_modules() if isinstance(module, torch.nn.BatchNorm2d)
    }
    tensors = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert frozen.keys() == {f"{layer}.{tensor}" for layer in layers for tensor in tensors}
    assert changed == set(network.state_dict()) - frozen.keys() - {"mean", "std"}
    assert any(name.endswith(".p") for name in changed) and "head.gate" in changed
    assert all(torch.equal(after[name], frozen[name]) for name in frozen)


def test_without_freezing_training_changes_the_batchnorms_too():
    network = embedder("model.pooling=GeM", "model.head=skip")
    assert network.frozen_state() == {}
    assert train(network) == set(network.state_dict()) - {"mean", "std"}


def test_a_pooling_that_is_not_trainable_keeps_its_p():
    assert "backbone.global_pool.p" not in train(
        embedder("model.pooling={name='GeM', trainable=false}")
    )


def test_the_batchnorm_of_the_head_is_not_the_backbones_and_learns_on():
    network = embedder("model.batch_norm=frozen", "model.head=linear_bn")
    assert {
        "head.1.weight",
        "head.1.bias",
        "head.1.running_mean",
        "head.1.num_batches_tracked",
    } <= train(network)


def test_frozen_batchnorms_stay_in_evaluation_while_all_else_trains():
    network = embedder("model.batch_norm=frozen", "model.head=skip").train()
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms and not any(module.training for module in norms)
    assert network.training and network.head.dropout.training and network.backbone.training
    assert not any(module.training for module in network.eval().modules())


def test_weights_that_are_loaded_after_freezing_are_what_is_kept():
    network, stage = embedder("model.batch_norm=frozen"), embedder("seed=3")
    train(stage)
    network.backbone.load_state_dict(stage.backbone.state_dict())
    train(network)
    expected = stage.state_dict()
    frozen = network.frozen_state()
    assert frozen and all(torch.equal(tensor, expected[name]) for name, tensor in frozen.items())


def test_frozen_state_is_a_copy_that_training_can_not_reach():
    network = embedder("model.batch_norm=frozen")
    frozen = network.frozen_state()
    network.load_state_dict({name: tensor + 1 for name, tensor in network.state_dict().items()})
    assert all(
        torch.equal(network.state_dict()[name], tensor + 1) for name, tensor in frozen.items()
    )


def test_a_backbone_without_batchnorm_can_not_freeze_it():
    with pytest.raises(
        ValueError,
        match=(
            r"^model\.batch_norm is 'frozen', but timm:test_vit has no BatchNorm: leave"
            r" model\.batch_norm out$"
        ),
    ):
        embedder("model.backbone=timm:test_vit", "model.batch_norm=frozen")


def test_a_frozen_backbone_without_a_head_has_nothing_to_train():
    with pytest.raises(
        ValueError,
        match=(
            r"^model\.trainable is 'head', but head identity has nothing to train: --set"
            r" model\.head=linear"
        ),
    ):
        embedder("model.trainable=head", "model.head=identity")
