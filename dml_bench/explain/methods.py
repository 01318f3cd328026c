"""Ways to share out among the pixels of an image what the network makes of it.

A registered function takes a lens, pixels (batch, size, size, 3) of values 0-255, and a question,
and returns maps (batch, size, size), higher where more of the answer comes from. The fact `needs`
names what the lens must offer, see `Lens`. Nothing in them is random.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers import activations
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.explain.hooks import HookedEmbedder, attention_weights, kept_input, kept_output
from dml_bench.explain.targets import ScoreDirection
from dml_bench.registry import Registry

__all__ = ["applicable", "methods"]

methods = Registry("method", "dml_bench.explain.methods", {"needs": "", "title": ""})

ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    *(
        kind
        for name in ("Swish", "Mish", "HardSwish", "HardMish", "GELU", "GELUTanh", "QuickGELU")
        if (kind := getattr(activations, name, None))
    ),
)


def applicable(lens: HookedEmbedder) -> list[str]:
    """Names of the methods that the network allows, in the order of a panel."""
    return [
        name
        for name in ORDER
        if not methods[name].facts["needs"] or methods[name].facts["needs"] in lens.offers
    ]


@methods.register(
    "cam",
    summary=(
        "the similarity shared out among the positions of the last map: what each adds to it,"
        " negative parts included"
    ),
    source="Zhou et al. 2016, CAM; Zhang et al. 2018, ACoL; Stylianou et al. 2019, for embeddings",
    needs="map",
    title="class activation map",
)
def cam(lens: HookedEmbedder, pixels: Tensor, question: ScoreDirection) -> Tensor:
    """With the CAM head the embedding's own map, no gradient needed. Elsewhere the last map times
    the gradient there, which is the same for a linear head on an average, and linearises other
    heads and poolings at the image. A bias, alike everywhere, is left out."""
    if hasattr(lens.embedder.head, "maps"):
        return enlarged(shares_of_own_map(lens, pixels, question), pixels)
    assert lens.pooling is not None
    kept: list[Tensor] = []
    with kept_input(lens.pooling, kept):
        outputs = lens.embedder(with_gradient(pixels, lens))
    (gradient,) = torch.autograd.grad(question.linear(outputs).sum(), kept[0])
    return enlarged((kept[0] * gradient).sum(dim=1).detach(), pixels)


@torch.no_grad()
def shares_of_own_map(lens: HookedEmbedder, pixels: Tensor, question: ScoreDirection) -> Tensor:
    """(batch, side, side) what each position of the head's own map adds to the answer, the
    embedding being the map's average."""
    maps = lens.embedder.head.maps(lens.embedder.features(pixels.to(lens.device)))  # type: ignore[operator]
    length = (
        maps.mean(dim=(2, 3)).norm(dim=1)
        if question.unit
        else torch.ones(len(maps), device=lens.device)
    )
    at_each = torch.einsum("bdhw,bd->bhw", maps, question.directions)
    return at_each / length[:, None, None] / (maps.shape[2] * maps.shape[3])


@methods.register(
    "gradcam",
    summary=(
        "maps of a stage, each weighted by the average gradient of the answer there; positive part"
    ),
    source="Selvaraju et al. 2017, Grad-CAM; Chen et al. 2020, for embeddings",
    needs="stage",
    title="Grad-CAM",
)
def gradcam(lens: HookedEmbedder, pixels: Tensor, question: ScoreDirection) -> Tensor:
    assert lens.stage is not None
    kept: list[Tensor] = []
    with kept_output(lens.stage, kept):
        outputs = lens.embedder(with_gradient(pixels, lens))
    (gradient,) = torch.autograd.grad(question.score(outputs).sum(), kept[0])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return enlarged((weights * kept[0]).sum(dim=1).relu().detach(), pixels)


@methods.register(
    "vanilla",
    summary="the largest absolute gradient over the colours of a pixel",
    source="Simonyan et al. 2014",
    title="vanilla backpropagation",
)
def vanilla(lens: HookedEmbedder, pixels: Tensor, question: ScoreDirection) -> Tensor:
    return pixel_gradient(lens, pixels, question).abs().amax(dim=3)


@methods.register(
    "guided",
    summary=(
        "the same, where each activation passes back only positive gradients; largest positive one"
        " over the colours"
    ),
    source="Springenberg et al. 2015",
    needs="stage",
    title="guided backpropagation",
)
def guided(lens: HookedEmbedder, pixels: Tensor, question: ScoreDirection) -> Tensor:
    """The paper has ReLU. Other activations pass back the positive part of what arrives, times
    their own derivative."""
    with only_positive_gradients(lens.embedder.backbone):
        return pixel_gradient(lens, pixels, question).relu().amax(dim=3)


@methods.register(
    "guided_gradcam",
    summary="Grad-CAM times guided backpropagation",
    source="Selvaraju et al. 2017",
    needs="stage",
    title="guided Grad-CAM",
)
def guided_gradcam(lens: HookedEmbedder, pixels: Tensor, question: ScoreDirection) -> Tensor:
    return gradcam(lens, pixels, question) * guided(lens, pixels, question)


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
def attention(lens: HookedEmbedder, pixels: Tensor, question: ScoreDirection) -> Tensor:
    with attention_weights(lens.attentions) as kept:
        outputs = lens.embedder(with_gradient(pixels, lens))
    gradients = torch.autograd.grad(question.score(outputs).sum(), kept)
    relevance = torch.eye(kept[0].shape[-1], device=kept[0].device)[None]
    for weights, gradient in zip(kept, gradients, strict=True):
        relevance = relevance + (weights.detach() * gradient).relu().mean(dim=1) @ relevance
    return enlarged(of_patches(lens, relevance), pixels)


@methods.register(
    "rollout",
    summary=(
        "attention of all layers multiplied, half of each layer being the shortcut; whatever is"
        " asked"
    ),
    source="Abnar and Zuidema 2020",
    needs="tokens",
    title="attention roll-out",
)
def rollout(lens: HookedEmbedder, pixels: Tensor, question: ScoreDirection) -> Tensor:
    with torch.no_grad(), attention_weights(lens.attentions) as kept:
        lens.embedder(pixels.to(lens.device))
    identity = torch.eye(kept[0].shape[-1], device=kept[0].device)[None]
    flow = identity
    for weights in kept:
        flow = (weights.mean(dim=1) + identity) / 2 @ flow
    return enlarged(of_patches(lens, flow), pixels)


ORDER = ("cam", "gradcam", "attention", "rollout", "vanilla", "guided", "guided_gradcam")


def with_gradient(pixels: Tensor, lens: HookedEmbedder) -> Tensor:
    """A copy on the network's device that a gradient can be taken with respect to."""
    return pixels.to(lens.device, torch.float32, copy=True).requires_grad_()


def pixel_gradient(lens: HookedEmbedder, pixels: Tensor, question: ScoreDirection) -> Tensor:
    """(batch, size, size, 3) derivative of each image's answer."""
    images = with_gradient(pixels, lens)
    (gradient,) = torch.autograd.grad(question.score(lens.embedder(images)).sum(), images)
    return gradient


def enlarged(maps: Tensor, pixels: Tensor) -> Tensor:
    """(batch, height, width) -> (batch, size, size), bilinear."""
    return functional.interpolate(
        maps[:, None], size=pixels.shape[1:3], mode="bilinear", align_corners=False
    )[:, 0]


def of_patches(lens: HookedEmbedder, relevance: Tensor) -> Tensor:
    """(batch, tokens, tokens) what each token got from each -> (batch, side, side) what the pooled
    ones got from each patch."""
    backbone = lens.embedder.backbone
    prefix = int(getattr(backbone, "num_prefix_tokens", 1))
    pooled = (
        relevance[:, :1]
        if getattr(backbone, "global_pool", "token") == "token"
        else relevance[:, prefix:]
    )
    patches = pooled[:, :, prefix:].mean(dim=1)
    side = round(patches.shape[1] ** 0.5)
    return patches.reshape(-1, side, side)


@contextmanager
def only_positive_gradients(network: nn.Module) -> Iterator[None]:
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
