"""A backbone that is cut in two computes what it computed as one, and only its last stages and the
head learn."""

import pytest
import torch

from dml_bench.config import Experiment, experiments
from dml_bench.models.embedder import Embedder, build_embedder
from dml_bench.models.stages import cut_backbone

BACKBONES = ["timm:test_resnet", "timm:test_efficientnet", "timm:test_vit", "timm:test_convnext"]


def experiment(*overrides: str) -> Experiment:
    settings = ["model.weights=none", "images.size=32", "augment={}", *overrides]
    return experiments.resolve("EPSHN_cosine_resnet18_sgd_aug", overrides=settings)


def embedder(name: str, trainable: str, *overrides: str) -> Embedder:
    return build_embedder(
        experiment(f"model.backbone={name}", f"model.trainable={trainable}", *overrides)
    )


def pixels() -> torch.Tensor:
    numbers = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 32, 32, 3), generator=numbers, dtype=torch.uint8)


def learning(network: torch.nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", BACKBONES)
def test_the_two_parts_make_what_the_network_makes(name):
    network = embedder(name, "last:1").eval()
    with torch.no_grad():
        assert torch.equal(network.last_stages(network.first_stages(pixels())), network(pixels()))


@pytest.mark.parametrize("name", BACKBONES)
def test_gradients_are_those_of_the_network_and_reach_all_that_learns_and_nothing_else(name):
    network = embedder(name, "last:1").eval()
    network(pixels()).square().sum().backward()
    of_network = {key: p.grad for key, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    with torch.no_grad():
        features = network.first_stages(pixels())
    network.last_stages(features).square().sum().backward()
    of_parts = {key: p.grad for key, p in network.named_parameters() if p.grad is not None}
    assert learning(network) == of_parts.keys() == of_network.keys()
    assert len(learning(network)) < len(list(network.parameters()))
    for key, gradient in of_parts.items():
        assert torch.allclose(gradient, of_network[key], rtol=1e-4, atol=1e-6)


def test_more_stages_learn_where_more_are_asked_for_and_names_stay():
    names = [learning(embedder("timm:test_resnet", f"last:{count}")) for count in (1, 2, 3)]
    assert names[0] < names[1] < names[2]
    assert any(name.startswith("backbone.layer2.") for name in names[2])
    assert not any(name.startswith("backbone.layer1.") for name in names[2])
    cut = embedder("timm:test_resnet", "last:1").state_dict()
    assert cut.keys() == embedder("timm:test_resnet", "all").state_dict().keys()


def test_first_stages_keep_their_statistics_and_last_ones_learn_theirs():
    network = embedder("timm:test_resnet", "last:1").train()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    network.last_stages(network.first_stages(pixels()))
    network(pixels())
    changed = {key for key, value in network.state_dict().items() if not value.equal(before[key])}
    assert {"backbone.layer4.0.bn1.running_mean", "backbone.layer4.0.bn1.running_var"} <= changed
    assert all(key.startswith("backbone.layer4.") for key in changed)


def test_with_frozen_statistics_no_batch_norm_learns():
    network = embedder("timm:test_resnet", "last:1", "model.batch_norm=frozen")
    assert "backbone.layer4.0.conv1.weight" in learning(network)
    assert not any(".bn" in name for name in learning(network))


def test_more_stages_than_there_are_is_one_line_that_says_what_fits():
    with pytest.raises(
        ValueError,
        match="last:4 must be from last:1 to last:3, because timm:test_resnet has 4 stages",
    ):
        embedder("timm:test_resnet", "last:4")


def test_a_backbone_that_is_no_plain_row_of_stages_is_refused():
    class Skipping(torch.nn.Module):
        """Its last stage also sees the image."""

        def __init__(self) -> None:
            super().__init__()
            self.layer1, self.layer2 = torch.nn.Conv2d(3, 3, 1), torch.nn.Conv2d(3, 3, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer2(self.layer1(images) + images).mean((2, 3))

    with pytest.raises(ValueError, match=r"last:1: mine can't be cut after layer1, .* --set"):
        cut_backbone(Skipping(), torch.nn.Identity(), "mine", 1, 8)
    with pytest.raises(ValueError, match="last:1: mine has no stages: --set"):
        cut_backbone(torch.nn.Flatten(), torch.nn.Identity(), "mine", 1, 8)
