"""Ways to attribute the score of an image to its pixels.

A registered function takes a network, pixels (batch, size, size, 3) of values 0-255, and the
direction of the score. It returns maps (batch, size, size), higher where more of the score comes
from. The fact `needs` names what the network must offer, see `HookedEmbedder`. Nothing is random.

Gradients of pixels, Grad-CAM and maps times their gradients are those of captum, which explains any
function of the images, so also one that scores an embedding. Its products of a bfloat16 map are
bfloat16. What else stands here has no equal there: its guided backpropagation holds nothing back at
other activations than `nn.ReLU`, and it has no map of a head, nor attention of several layers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from captum.attr import LayerGradCam, LayerGradientXActivation, Saliency
from timm.layers import activations
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.explain.hooks import HookedEmbedder, attention_weights
from dml_bench.explain.targets import ScoreDirection
from dml_bench.registry import Registry

__all__ = ["applicable", "methods"]

methods = Registry("method", "dml_bench.explain.methods", {"needs": "", "title": ""})

TIMM_ACTIVATIONS = ("Swish", "Mish", "HardSwish", "HardMish", "GELU", "GELUTanh", "QuickGELU")
ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    # timm's own classes, of which older versions lack some
    *(getattr(activations, name) for name in TIMM_ACTIVATIONS if hasattr(activations, name)),
)


def applicable(network: HookedEmbedder) -> list[str]:
    """Names of the methods that the network allows, in the order of a panel."""
    names = []
    for name in PANEL_ORDER:
        needs = methods[name].facts["needs"]
        if not needs or needs in network.offers:
            names.append(name)
    return names


@methods.register(
    "cam",
    summary=("what each position of the last map adds to the similarity, negative parts included"),
    source="Zhou et al. 2016, CAM; Zhang et al. 2018, ACoL; Stylianou et al. 2019, for embeddings",
    needs="map",
    title="class activation map",
)
def cam(network: HookedEmbedder, pixels: Tensor, direction: ScoreDirection) -> Tensor:
    """With the CAM head the embedding's own map, which needs no gradient. Elsewhere the last map
    times its gradient: for a linear head on an average this is the same, and other heads and
    poolings are linearised at the image. A bias, which is the same everywhere, is left out."""
    if hasattr(network.embedder.head, "maps"):
        return enlarged(shares_of_head_map(network, pixels, direction), pixels)
    explainer = LayerGradientXActivation(scored(network, direction.linear), network.pooling)
    products = explainer.attribute(with_gradient(pixels, network), attribute_to_layer_input=True)
    return enlarged(products.detach().float().sum(dim=1), pixels)


@torch.no_grad()
def shares_of_head_map(
    network: HookedEmbedder, pixels: Tensor, direction: ScoreDirection
) -> Tensor:
    """(batch, side, side) what each position of the head's own map adds to the score: the embedding
    is the map's average."""
    with network.computing():
        features = network.embedder.features(pixels.to(network.device))
        maps = network.embedder.head.maps(features).float()  # type: ignore[operator]
    length = torch.ones(len(maps), device=network.device)
    if direction.unit:
        length = maps.mean(dim=(2, 3)).norm(dim=1)
    scores = torch.einsum("bdhw,bd->bhw", maps, direction.directions)
    return scores / length[:, None, None] / (maps.shape[2] * maps.shape[3])


@methods.register(
    "gradcam",
    summary=("maps of a stage, each weighted by its average gradient of the score; positive part"),
    source="Selvaraju et al. 2017, Grad-CAM; Chen et al. 2020, for embeddings",
    needs="stage",
    title="Grad-CAM",
)
def gradcam(network: HookedEmbedder, pixels: Tensor, direction: ScoreDirection) -> Tensor:
    explainer = LayerGradCam(scored(network, direction.score), network.stage)
    maps = explainer.attribute(with_gradient(pixels, network), relu_attributions=True)
    return enlarged(maps[:, 0].detach().float(), pixels)


@methods.register(
    "vanilla",
    summary="the largest absolute gradient over the colours of a pixel",
    source="Simonyan et al. 2014",
    title="vanilla backpropagation",
)
def vanilla(network: HookedEmbedder, pixels: Tensor, direction: ScoreDirection) -> Tensor:
    explainer = Saliency(scored(network, direction.score))
    return explainer.attribute(with_gradient(pixels, network)).amax(dim=3)


@methods.register(
    "guided",
    summary=(
        "vanilla backpropagation whose activations pass back only positive gradients; the largest"
        " over the colours"
    ),
    source="Springenberg et al. 2015",
    needs="stage",
    title="guided backpropagation",
)
def guided(network: HookedEmbedder, pixels: Tensor, direction: ScoreDirection) -> Tensor:
    """The paper has ReLU. Here other activations pass back the positive part of the gradient that
    arrives, times their own derivative. captum knows `nn.ReLU` alone: of EfficientNet, MobileNet
    and ConvNeXt it returns the plain gradient."""
    explainer = Saliency(scored(network, direction.score))
    with only_positive_gradients(network.embedder.backbone):
        gradient = explainer.attribute(with_gradient(pixels, network), abs=False)
    return gradient.relu().amax(dim=3)


@methods.register(
    "guided_gradcam",
    summary="Grad-CAM times guided backpropagation",
    source="Selvaraju et al. 2017",
    needs="stage",
    title="guided Grad-CAM",
)
def guided_gradcam(network: HookedEmbedder, pixels: Tensor, direction: ScoreDirection) -> Tensor:
    return gradcam(network, pixels, direction) * guided(network, pixels, direction)


@methods.register(
    "attention",
    summary=(
        "attention weighted by its gradient, positive part, summed up through the layers of a"
        " transformer"
    ),
    source="Chefer et al. 2021, generic attention explainability",
    needs="tokens",
    title="gradient-weighted attention",
)
def attention(network: HookedEmbedder, pixels: Tensor, direction: ScoreDirection) -> Tensor:
    with attention_weights(network.attentions) as kept:
        outputs = network(with_gradient(pixels, network))
    gradients = torch.autograd.grad(direction.score(outputs).sum(), kept)
    relevance = torch.eye(kept[0].shape[-1], device=kept[0].device)[None]
    for weights, gradient in zip(kept, gradients, strict=True):
        raising = (weights.detach().float() * gradient.float()).relu().mean(dim=1)
        relevance = relevance + raising @ relevance
    return enlarged(patch_maps(network, relevance), pixels)


@methods.register(
    "rollout",
    summary=(
        "attention of all layers multiplied, half of each layer being the shortcut; it ignores the"
        " target"
    ),
    source="Abnar and Zuidema 2020",
    needs="tokens",
    title="attention roll-out",
)
def rollout(network: HookedEmbedder, pixels: Tensor, direction: ScoreDirection) -> Tensor:
    with torch.no_grad(), attention_weights(network.attentions) as kept:
        network(pixels.to(network.device))
    identity = torch.eye(kept[0].shape[-1], device=kept[0].device)[None]
    flow = identity
    for weights in kept:
        flow = (weights.float().mean(dim=1) + identity) / 2 @ flow
    return enlarged(patch_maps(network, flow), pixels)


PANEL_ORDER = ("cam", "gradcam", "attention", "rollout", "vanilla", "guided", "guided_gradcam")


def with_gradient(pixels: Tensor, network: HookedEmbedder) -> Tensor:
    """A copy on the network's device that a gradient can be taken with respect to."""
    return pixels.to(network.device, torch.float32, copy=True).requires_grad_()


def scored(
    network: HookedEmbedder, score: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """The function from images to their scores, which is all that captum asks of a network."""
    return lambda images: score(network(images))


def enlarged(maps: Tensor, pixels: Tensor) -> Tensor:
    """(batch, height, width) -> (batch, size, size), bilinear."""
    return functional.interpolate(
        maps[:, None], size=pixels.shape[1:3], mode="bilinear", align_corners=False
    )[:, 0]


def patch_maps(network: HookedEmbedder, relevance: Tensor) -> Tensor:
    """(batch, tokens, tokens) how much each token depends on each other -> (batch, side, side) how
    much the pooled tokens depend on each patch."""
    prefix = relevance.shape[-1] - network.side**2
    patches = relevance[:, network.pooled, prefix:].mean(dim=1)
    return patches.reshape(-1, network.side, network.side)


@contextmanager
def only_positive_gradients(network: nn.Module) -> Iterator[None]:
    """Activations of the network pass back only positive gradients."""

    def callback(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient.clamp(min=0))

    hooks = [
        module.register_forward_hook(callback)
        for module in network.modules()
        if isinstance(module, ACTIVATIONS)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
