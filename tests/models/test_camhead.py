"""The CAM head: it takes the map, keeps where each dimension comes from, and embeds as the linear
head does."""

from pathlib import Path

import pytest
import torch
from tiny import StopsAfter, train
from torch.nn import functional

from dml_bench.config import experiments
from dml_bench.losses.objective import build_objective
from dml_bench.models.embedder import Embedder, build_embedder
from dml_bench.registry import heads

FAMILIES = [
    "resnet18",
    "efficientnet_b0",
    "convnext_tiny",
    "xresnet18",
    "timm:test_resnet",
    "timm:test_convnext",
    "timm:mobilenetv3_small_050",
]


def embedder(*overrides: str) -> Embedder:
    tiny = ["model.backbone=timm:test_resnet", "model.weights=none", "images.size=64", "augment={}"]
    return build_embedder(
        experiments.resolve("EPSHN_cosine_resnet18_camhead_sgd_aug", overrides=[*tiny, *overrides])
    ).eval()


def pixels(batch: int = 4, size: int = 64) -> torch.Tensor:
    return torch.randint(
        256, (batch, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def head(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return heads["cam"].build(6, **heads["cam"].resolve(options, "model.head"))


def test_it_is_a_1x1_convolution_and_the_average_of_its_map():
    features = torch.randn(2, 6, 3, 3)
    network = head(dim=4)
    expected = functional.conv2d(
        features, network.projection.weight[:, :, None, None], network.projection.bias
    )
    assert torch.allclose(network.maps(features), expected, atol=1e-6)
    assert torch.allclose(network(features), expected.mean(dim=(2, 3)), atol=1e-6)


def test_a_flattened_map_is_the_same_map():
    features = torch.randn(2, 6, 3, 3)
    assert torch.equal(head().maps(features.flatten(1)), head().maps(features))


def test_only_hidden_convolutions_see_the_neighbours_of_a_position():
    features, moved = torch.randn(2, 1, 6, 5, 5)
    moved = torch.where(torch.arange(25).reshape(5, 5) == 12, moved, features)
    for hidden, reach in (
        (0, 1),
        (8, 25),
    ):  # two 3 x 3 convolutions reach two positions in each direction
        network = head(hidden=hidden)
        changed = (network.maps(features) != network.maps(moved)).any(dim=1)
        assert int(changed.sum()) == reach
    assert [
        tuple(layer.weight.shape) for layer in head(hidden=8).layers if hasattr(layer, "weight")
    ] == [(8, 6, 3, 3), (8, 8, 3, 3)]


def test_options_that_can_not_be_are_refused():
    with pytest.raises(ValueError, match=r"^model\.head\.hidden must be at least 0, got -1$"):
        head(hidden=-1)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_convolutional_family_gives_it_a_map_whose_average_is_the_embedding(name):
    network = embedder(f"model.backbone={name}")
    with torch.no_grad():
        features = network.features(pixels())
        maps = network.head.maps(features)
        assert maps.shape == (4, 128, 2, 2)
        assert torch.allclose(network(pixels()), maps.mean(dim=(2, 3)), atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "xresnet18", "timm:test_resnet"])
def test_it_starts_as_the_linear_head_of_the_same_seed_because_averaging_and_projecting_commute(
    name,
):
    with_map, pooled = (
        embedder(f"model.backbone={name}"),
        embedder(f"model.backbone={name}", "model.head=linear"),
    )
    with torch.no_grad():
        assert torch.allclose(with_map(pixels()), pooled(pixels()), rtol=1e-4, atol=1e-6)


def test_the_classifiers_weights_on_the_embeddings_map_are_the_maps_of_the_classes():
    experiment = experiments.resolve(
        "crossentropy_resnet18_camhead_sgd_aug",
        overrides=["model.weights=none", "images.size=64", "augment={}"],
    )
    network = build_embedder(experiment).eval()
    classifier = build_objective(experiment, 7, network.dim).loss.classifier
    with torch.no_grad():
        maps = network.head.maps(network.features(pixels()))
        class_maps = functional.conv2d(maps, classifier.weight[:, :, None, None], classifier.bias)
        assert torch.allclose(class_maps.mean(dim=(2, 3)), classifier(network(pixels())), atol=1e-5)


def test_a_backbone_without_a_map_is_refused():
    with pytest.raises(
        ValueError, match=r"^backbone vit_s16 has no map for head cam: choose another model\.head$"
    ):
        embedder("model.backbone=vit_s16")


def test_a_pooling_that_would_have_no_effect_is_refused():
    with pytest.raises(
        ValueError,
        match=(
            r"^model\.pooling has no effect: head cam takes the whole map; --set"
            r" model\.pooling=own$"
        ),
    ):
        embedder("model.pooling=GeM")


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_it_trains_both_phases_also_on_the_maps_of_a_frozen_backbone(
    birds, cache_dir, tmp_path, trainable
):
    frozen = ["augment={}", "model.trainable=head"] if trainable == "head" else []
    settings = ("model.head={name='cam', dim=16}", "train.epochs=1", *frozen)
    outcome = train(birds, cache_dir, tmp_path, *settings)
    assert set(outcome.summary["phases"]) == {"all", "limited"}


@pytest.mark.slow
def test_its_kept_maps_are_no_features_of_another_head(birds, tmp_path):
    cache = tmp_path / "cache"
    for name, head in (("cam", "{name='cam', dim=16}"), ("linear", "{name='linear', dim=16}")):
        settings = (f"model.head={head}", "augment={}", "model.trainable=head")
        outcome = train(birds, cache, tmp_path / name, *settings)
        fresh = train(birds, tmp_path / f"{name} cache", tmp_path / f"fresh {name}", *settings)
        assert (
            outcome.summary["precision_drop_all_classes"]
            == (fresh.summary["precision_drop_all_classes"])
        )


@pytest.mark.slow
def test_a_stopped_run_of_every_option_with_maps_that_grow_ends_as_one_that_never_was(
    birds, cache_dir, tmp_path
):
    settings = (
        "model.backbone={name='xresnet18', activation='mish', pool='maxblur', self_attention=true}",
        "model.head={name='cam', dim=16}",
        "images.progressive=[16, 32]",
        "train.epochs=2",
        "protocol=class_disjoint",
        "data.split=half",
    )
    with pytest.raises(KeyboardInterrupt):
        train(birds, cache_dir, tmp_path / "stopped", *settings, callback=StopsAfter(1))
    stopped, uninterrupted = (
        train(birds, cache_dir, tmp_path / name, *settings).folder for name in ("stopped", "whole")
    )
    model = Path("disjoint") / "weights.safetensors"
    assert (stopped / model).read_bytes() == (uninterrupted / model).read_bytes()
