"""Ways to see where a network looks: each is the formula of its paper, and leaves the network as it
was."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dml_bench.config import experiments
from dml_bench.explain.hooks import HookedEmbedder, attention_weights
from dml_bench.explain.methods import applicable, methods, only_positive_gradients
from dml_bench.explain.targets import ScoreDirection, closest_rows, toward_class
from dml_bench.models.embedder import build_embedder
from dml_bench.registry import UnknownName

CONVOLUTIONAL = ["cam", "gradcam", "vanilla", "guided", "guided_gradcam"]
TRANSFORMER = ["attention", "rollout", "vanilla"]


def network(*overrides: str, size: int = 64, layer: str = "") -> HookedEmbedder:
    settings = [
        "model.backbone=timm:test_resnet",
        "model.weights=none",
        f"images.size={size}",
        "augment={}",
        *overrides,
    ]
    experiment = experiments.resolve("EPSHN_cosine_resnet18_sgd_aug", overrides=settings)
    embedder = build_embedder(experiment)
    for (
        module
    ) in embedder.modules():  # as after training: statistics of BatchNorm that are those of images
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        embedder.train()(pixels(16, size))
    return HookedEmbedder(embedder, experiment.model.backbone.name, size, layer)


def pixels(batch: int = 3, size: int = 64) -> Tensor:
    return torch.randint(
        256, (batch, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def directions(batch: int = 3, dim: int = 128) -> Tensor:
    return functional.normalize(
        torch.randn(batch, dim, generator=torch.Generator().manual_seed(1)), dim=1
    )


def explained(
    name: str, looking: HookedEmbedder, images: Tensor, question: ScoreDirection
) -> Tensor:
    return methods[name].build(looking, images, question)


# Questions


def test_the_direction_of_a_class_is_the_mean_over_all_triplets():
    chance = np.random.default_rng(0)
    embedding, *gallery = (
        vector / np.linalg.norm(vector) for vector in chance.normal(size=(6, 4)).astype(np.float32)
    )
    positives, negatives = np.stack(gallery[:2]), np.stack(gallery[2:])
    triplets = [
        embedding @ positive - embedding @ negative
        for positive in positives
        for negative in negatives
    ]
    question = ScoreDirection(toward_class(positives, negatives)[None])
    assert question.score(7 * torch.from_numpy(embedding)[None]).item() == pytest.approx(
        np.mean(triplets), abs=1e-6
    )
    assert question.linear(7 * torch.from_numpy(embedding)[None]).item() == pytest.approx(
        np.mean(triplets), abs=1e-6
    )


def test_a_logit_takes_the_embedding_as_it_is():
    question = ScoreDirection(torch.tensor([[1.0, 2.0]]), unit=False)
    assert question.score(torch.tensor([[3.0, 4.0]])).item() == 11.0
    assert question.linear(torch.tensor([[3.0, 4.0]])).item() == 11.0


def test_the_closest_rows_are_those_of_the_mask_by_falling_similarity_and_gallery_order():
    gallery = np.array([[1, 0], [0.6, 0.8], [0, 1], [0.6, 0.8]], np.float32)
    assert closest_rows(
        np.array([0, 1], np.float32), gallery, np.array([True, True, False, True]), 2
    ).tolist() == [1, 3]


# Which methods, and where


@pytest.mark.parametrize(
    ("name", "size", "layer", "names"),
    [
        ("resnet18", 64, "layer3", CONVOLUTIONAL),
        ("resnet18", 224, "layer4", CONVOLUTIONAL),
        ("xresnet18", 64, "layer3", CONVOLUTIONAL),
        ("efficientnet_b0", 128, "features.8", CONVOLUTIONAL),
        ("efficientnet_lite0", 64, "blocks.4", CONVOLUTIONAL),
        ("mobilenet_v2", 64, "features.13", CONVOLUTIONAL),
        ("convnext_tiny", 64, "features.5", CONVOLUTIONAL),
        ("timm:test_vit", 64, "", TRANSFORMER),
        pytest.param(
            *("timm:swin_tiny_patch4_window7_224", 224, "", ["vanilla"]), marks=pytest.mark.slow
        ),
    ],
)
def test_a_network_is_looked_into_at_its_deepest_stage_with_a_map_of_at_least_four_by_four(
    name, size, layer, names
):
    experiment = experiments.resolve(
        "EPSHN_cosine_resnet18_sgd_aug",
        overrides=[
            f"model.backbone={name}",
            "model.weights=none",
            f"images.size={size}",
            "augment={}",
        ],
    )
    looking = HookedEmbedder(build_embedder(experiment), name, size)
    assert (looking.layer, applicable(looking)) == (layer, names)


def test_a_layer_of_ones_own_is_taken_and_one_that_does_not_exist_is_answered_with_the_near_miss():
    assert network(layer="layer1").layer == "layer1"
    with pytest.raises(
        UnknownName, match=r"^timm:test_resnet has no layer 'layr1' \(did you mean layer1\?\)$"
    ):
        network(layer="layr1")
    with pytest.raises(
        ValueError,
        match=(
            r"^layer fc of timm:test_resnet makes no map of channels by height and width: choose"
            r" another --layer$"
        ),
    ):
        network(layer="fc")


# Conformance


@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        ("timm:test_resnet", "linear"),
        ("timm:test_resnet", "skip"),
        ("timm:test_resnet", "cam"),
        ("xresnet18", "linear"),
        ("efficientnet_lite0", "linear"),
        ("timm:test_convnext", "identity"),
        ("timm:test_vit", "linear"),
        ("timm:test_vit", "identity"),
    ],
)
def test_every_method_makes_a_map_of_each_image_by_itself_and_leaves_the_network_as_it_was(
    backbone, head
):
    looking = network(f"model.backbone={backbone}", f"model.head={{name='{head}'}}")
    embedder = looking.embedder
    before = {key: tensor.clone() for key, tensor in embedder.state_dict().items()}
    with torch.no_grad():
        outputs = embedder(pixels())
    question = ScoreDirection(directions(dim=embedder.dim))
    for name in applicable(looking):
        maps = explained(name, looking, pixels(), question)
        assert maps.shape == (3, 64, 64)
        assert torch.isfinite(maps).all() and not maps.requires_grad
        assert maps.abs().sum() > 0
        alone = explained(name, looking, pixels()[1:2], ScoreDirection(question.directions[1:2]))
        assert torch.allclose(maps[1], alone[0], rtol=1e-3, atol=1e-4 * float(maps.abs().max()))
        if name != "cam":
            assert maps.min() >= 0
        assert torch.equal(explained(name, looking, pixels(), question), maps)
    with torch.no_grad():
        assert torch.equal(embedder(pixels()), outputs)
    assert all(torch.equal(before[key], tensor) for key, tensor in embedder.state_dict().items())
    assert all(parameter.grad is None for parameter in embedder.parameters())
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in embedder.modules()
    )


# Formulas


def last_map(looking: HookedEmbedder, images: Tensor) -> Tensor:
    """(batch, channels, 2, 2) of timm's test_resnet."""
    with torch.no_grad():
        normalised = (images.float() - looking.embedder.mean) / looking.embedder.std
        return looking.embedder.backbone.forward_features(normalised.permute(0, 3, 1, 2))


def quadrants(maps: Tensor) -> Tensor:
    """The four values of a 2 x 2 map from its bilinear enlargement, which keeps them in the
    corners."""
    return maps[:, [0, 0, -1, -1], [0, -1, 0, -1]]


def test_the_activation_map_of_a_linear_head_is_what_each_position_adds_to_the_similarity():
    looking, question = network(), ScoreDirection(directions())
    features, head = last_map(looking, pixels()), looking.embedder.head
    with torch.no_grad():
        outputs = looking.embedder(pixels())
        length = outputs.norm(dim=1)
        shares = [
            (features[:, :, i, j] @ head.weight.T * question.directions).sum(1) / length / 4
            for i in (0, 1)
            for j in (0, 1)
        ]
        bias = question.directions @ head.bias / length
        similarity = (functional.normalize(outputs) * question.directions).sum(dim=1)
    maps = explained("cam", looking, pixels(), question)
    assert torch.allclose(quadrants(maps), torch.stack(shares, dim=1), atol=1e-5)
    assert torch.allclose(4 * maps.mean(dim=(1, 2)) + bias, similarity, atol=1e-5)


def test_the_cam_head_gives_the_same_map_without_a_gradient_and_with_its_bias():
    looking, question = network("model.head={name='cam', dim=128}"), ScoreDirection(directions())
    maps = explained("cam", looking, pixels(), question)
    with torch.no_grad():
        outputs = looking.embedder(pixels())
        similarity = (functional.normalize(outputs) * question.directions).sum(dim=1)
        bias = question.directions @ looking.embedder.head.projection.bias / outputs.norm(dim=1) / 4
    assert torch.allclose(4 * maps.mean(dim=(1, 2)), similarity, atol=1e-5)
    by_gradient = explained("cam", network(), pixels(), question)
    assert torch.allclose(maps - bias[:, None, None], by_gradient, atol=1e-4)


def test_a_logit_is_shared_out_as_the_classifiers_weights_say():
    looking, question = (
        network("model.head=identity"),
        ScoreDirection(directions(dim=96), unit=False),
    )
    maps = explained("cam", looking, pixels(), question)
    classic = (last_map(looking, pixels()) * question.directions[:, :, None, None]).sum(dim=1)
    assert torch.allclose(quadrants(maps), classic.flatten(1) / 4, atol=1e-4)


def test_gradcam_weighs_channels_by_their_mean_gradient_and_keeps_the_positive_part():
    looking, question = network(), ScoreDirection(directions())
    backbone = looking.embedder.backbone
    with torch.no_grad():
        x = ((pixels().float() - looking.embedder.mean) / looking.embedder.std).permute(0, 3, 1, 2)
        stage = backbone.layer3(
            backbone.layer2(
                backbone.layer1(backbone.maxpool(backbone.act1(backbone.bn1(backbone.conv1(x)))))
            )
        )
    stage.requires_grad_()
    outputs = looking.embedder.head(backbone.global_pool(backbone.layer4(stage)))
    (gradient,) = torch.autograd.grad(
        (functional.normalize(outputs) * question.directions).sum(), stage
    )
    expected = torch.zeros(3, 4, 4)
    for image in range(3):
        for channel in range(stage.shape[1]):
            expected[image] += gradient[image, channel].mean() * stage[image, channel].detach()
    maps = explained("gradcam", looking, pixels(), question)
    corners = maps[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert torch.allclose(
        corners, expected.relu()[:, [0, 0, -1, -1], [0, -1, 0, -1]], rtol=1e-3, atol=1e-6
    )
    assert maps.mean().item() == pytest.approx(expected.relu().mean().item(), rel=1e-3)


def test_vanilla_backpropagation_is_how_fast_the_answer_changes_with_a_pixel():
    looking, question = network(), ScoreDirection(directions())
    looking.embedder.double()
    double = ScoreDirection(question.directions.double())
    images = pixels().double()
    gradients = explained("vanilla", looking, pixels(), double)
    for image, row, column in ((0, 10, 20), (1, 33, 40), (2, 5, 60)):
        slopes = []
        for colour in range(3):
            step = torch.zeros_like(images)
            step[image, row, column, colour] = 1e-2
            with torch.no_grad():
                up, down = (
                    double.score(
                        looking.embedder.head(forward_double(looking, images + sign * step))
                    )
                    for sign in (1, -1)
                )
            slopes.append(float((up - down)[image]) / 2e-2)
        assert gradients[image, row, column].item() == pytest.approx(np.abs(slopes).max(), rel=0.02)


def forward_double(looking: HookedEmbedder, images: Tensor) -> Tensor:
    return looking.embedder.backbone(
        ((images - looking.embedder.mean) / looking.embedder.std).permute(0, 3, 1, 2)
    )


class Small(torch.nn.Module):
    """relu(a) - relu(b) + relu(-c), to go through by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = torch.nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x[0] * 1.0) - self.relu(x[1] * 1.0) + self.relu(-x[2])


def test_guided_backpropagation_lets_only_positive_gradients_through_active_units():
    network = Small()
    values = torch.tensor([2.0, 3.0, -4.0, 0.0], requires_grad=True)
    with only_positive_gradients(network):
        network(values).backward()
    # a: active, gradient 1. b: active, but the gradient -1 is held back. c: active, 1 comes through
    # and is turned by the minus before.
    assert values.grad.tolist() == [1.0, 0.0, -1.0, 0.0]
    values.grad = None
    network(values).backward()
    assert values.grad.tolist() == [1.0, -1.0, -1.0, 0.0]


def test_guided_gradcam_is_the_product_of_both():
    looking, question = network(), ScoreDirection(directions())
    product = explained("gradcam", looking, pixels(), question) * explained(
        "guided", looking, pixels(), question
    )
    assert torch.equal(explained("guided_gradcam", looking, pixels(), question), product)


# Transformers


def test_recorded_attention_is_the_softmax_of_queries_and_keys_and_the_fused_kernel_is_put_back():
    looking = network("model.backbone=timm:test_vit")
    block = looking.embedder.backbone.blocks[0]
    received: list[Tensor] = []
    hook = block.attn.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    with torch.no_grad(), attention_weights(looking.attentions) as kept:
        slow = looking.embedder(pixels())
        batch, tokens, _ = received[0].shape
        query, key, _ = (
            block.attn.qkv(received[0])
            .reshape(batch, tokens, 3, block.attn.num_heads, -1)
            .permute(2, 0, 3, 1, 4)
        )
        expected = (query @ key.mT * block.attn.head_dim**-0.5).softmax(dim=-1)
    hook.remove()
    assert len(kept) == len(looking.embedder.backbone.blocks)
    assert torch.allclose(kept[0], expected, atol=1e-5)
    assert block.attn.fused_attn
    with torch.no_grad():
        assert torch.allclose(looking.embedder(pixels()), slow, atol=1e-4)


def kept_attention(looking: HookedEmbedder) -> list[Tensor]:
    with torch.no_grad(), attention_weights(looking.attentions) as kept:
        looking.embedder(pixels())
    return kept


def test_rollout_follows_attention_and_shortcuts_from_the_class_token_back_to_the_patches():
    looking = network("model.backbone=timm:test_vit")
    flow = np.eye(17)[None].repeat(3, axis=0)
    for weights in kept_attention(looking):
        flow = (weights.mean(dim=1).double().numpy() + np.eye(17)) / 2 @ flow
    maps = explained("rollout", looking, pixels(), ScoreDirection(directions()))
    expected = flow[:, 0, 1:].reshape(3, 4, 4)
    assert np.allclose(maps[:, 0, 0], expected[:, 0, 0], atol=1e-5)
    assert np.allclose(maps[:, -1, 0], expected[:, -1, 0], atol=1e-5)
    assert np.allclose(16 * maps.mean(dim=(1, 2)).numpy() + flow[:, 0, 0], 1, atol=1e-4), (
        "what the class token got adds up to one"
    )


def test_gradient_weighted_attention_keeps_heads_that_raise_the_answer():
    looking, question = network("model.backbone=timm:test_vit"), ScoreDirection(directions())
    images = pixels().float().requires_grad_()
    with attention_weights(looking.attentions) as kept:
        score = question.score(looking.embedder(images)).sum()
    gradients = torch.autograd.grad(score, kept)
    relevance = np.eye(17)[None].repeat(3, axis=0)
    for weights, gradient in zip(kept, gradients, strict=True):
        heads = [
            (weights[:, head] * gradient[:, head]).clamp(min=0).detach().double().numpy()
            for head in range(weights.shape[1])
        ]
        relevance = relevance + np.mean(heads, axis=0) @ relevance
    expected = relevance[:, 0, 1:].reshape(3, 4, 4)
    maps = explained("attention", looking, pixels(), question)
    assert np.allclose(maps[:, 0, -1], expected[:, 0, -1], rtol=1e-3, atol=1e-7)
    assert np.allclose(maps.mean(dim=(1, 2)), expected.mean(axis=(1, 2)), rtol=1e-3)


@pytest.mark.parametrize(
    ("backbone", "size", "pooled"),
    [
        ("test_vit", 64, [0]),
        ("test_vit2", 64, [*range(1, 17)]),
        ("deit_tiny_distilled_patch16_224", 32, [0, 1]),
        ("vit_tiny_patch16_224", 32, [0]),
    ],
)
def test_maps_of_attention_start_from_all_tokens_that_the_embedding_is_made_of(
    backbone, size, pooled
):
    looking = network(f"model.backbone=timm:{backbone}", size=size)
    assert looking.pooled == pooled
    side, images = looking.side, pixels(size=size)
    prefix = 2 if "distilled" in backbone else 1
    tokens = prefix + side**2
    flow = np.eye(tokens)[None].repeat(3, axis=0)
    with torch.no_grad(), attention_weights(looking.attentions) as kept:
        looking.embedder(images)
    for weights in kept:
        flow = (weights.mean(dim=1).double().numpy() + np.eye(tokens)) / 2 @ flow
    expected = flow[:, pooled, prefix:].mean(axis=1).reshape(3, side, side)
    maps = explained("rollout", looking, images, ScoreDirection(directions()))
    assert np.allclose(maps[:, 0, 0], expected[:, 0, 0], atol=1e-5)
