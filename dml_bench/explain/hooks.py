"""A trained network, and the layers whose maps, gradients and attention can be recorded."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch import Tensor, nn

from dml_bench.models.backbones import POOLING_PLACES, stage_names
from dml_bench.models.embedder import Embedder
from dml_bench.models.precision import autocast
from dml_bench.registry import UnknownName, near_miss

__all__ = ["SMALLEST_SIDE", "HookedEmbedder", "attention_weights"]

SMALLEST_SIDE = 4
"""Grad-CAM takes the deepest stage with at least this many positions a side: at 224 px the last
stage, at 64 px the one before."""


class HookedEmbedder:
    """An embedder in evaluation mode, and its layers. `offers` names what it has: `map` is the map
    that its pooling takes, `stage` a stage of a convolutional network, `tokens` the attention among
    the patches of a transformer."""

    def __init__(
        self,
        embedder: Embedder,
        name: str,
        size: int,
        layer: str = "",
        precision: str = "float32",
    ):
        """`name` is the backbone's, `size` the side of its images, `precision` that in which the
        network computes (`models.precision`). Raises UnknownName for a layer that it does not have,
        ValueError for one that makes no map."""
        self.precision = precision
        self.embedder = embedder.eval().requires_grad_(False)
        self.attentions = [
            module
            for module in embedder.backbone.modules()
            if hasattr(module, "fused_attn") and hasattr(module, "attn_drop")
        ]
        modules = dict(embedder.backbone.named_modules())
        self.pooling = next((modules[place] for place in POOLING_PLACES if place in modules), None)
        sides = self._sides(stages_of(embedder.backbone, name, layer), size)
        if layer and not sides:
            raise ValueError(
                f"layer {layer} of {name} makes no map of channels by height and width: choose"
                " another --layer"
            )
        large = [stage for stage, side in sides.items() if side >= SMALLEST_SIDE]
        candidates = large or list(sides)[:1]
        self.layer = candidates[-1] if candidates else ""
        """The stage whose map Grad-CAM weighs; empty where there is none."""
        self.stage = modules.get(self.layer) if self.layer else None
        self.side = 0
        """The patches of a transformer along a side of an image; 0 without `tokens`."""
        self.pooled: list[int] = []
        """The tokens of its last layer that it pools."""
        self.offers = set()
        if self._pools_a_map(size):
            self.offers.add("map")
        if sides:
            self.offers.add("stage")
        if self._attends(size):
            self.offers.add("tokens")

    @property
    def device(self) -> torch.device:
        """The device on which the network runs."""
        return self.embedder.mean.device

    def computing(self) -> AbstractContextManager[None]:
        """The context in which the network computes in its precision."""
        return autocast(self.device, self.precision)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(images, size, size, 3) values 0-255 on the network's device -> (images, dim) float32
        outputs before normalisation, through which a gradient can be taken."""
        with self.computing():
            return self.embedder(pixels).float()

    def _blank(self, size: int) -> Tensor:
        return torch.zeros(1, size, size, 3, device=self.device)

    def _sides(self, names: list[str], size: int) -> dict[str, int]:
        """The side of the map that each stage makes of an image. Stages that make no square map of
        channels by height and width are left out."""
        recorded: dict[str, list[Tensor]] = {name: [] for name in names}
        with torch.no_grad(), ExitStack() as stack:
            for name, outputs in recorded.items():
                module = self.embedder.backbone.get_submodule(name)
                stack.enter_context(record_outputs(module, outputs))
            self(self._blank(size))
        return {name: outputs[0].shape[2] for name, outputs in recorded.items() if is_map(outputs)}

    def _pools_a_map(self, size: int) -> bool:
        if self.pooling is None:
            return False
        inputs: list[Tensor] = []
        with torch.no_grad(), record_inputs(self.pooling, inputs):
            self(self._blank(size))
        return is_map(inputs)

    def _attends(self, size: int) -> bool:
        """Whether each layer's attention is among all patches of the image, and a few tokens before
        them."""
        if not self.attentions:
            return False
        with torch.no_grad(), attention_weights(self.attentions) as layers:
            self(self._blank(size))
        # Attention within windows has a batch of several windows for one image.
        if len(layers) != len(self.attentions) or any(len(weights) != 1 for weights in layers):
            return False
        prefix = int(getattr(self.embedder.backbone, "num_prefix_tokens", 0))
        patches = {side - prefix for weights in layers for side in weights.shape[2:]}
        if len(patches) != 1:
            return False
        count = patches.pop()
        if math.isqrt(count) ** 2 != count:
            return False
        self.side, self.pooled = math.isqrt(count), self._pooled_tokens(size, prefix)
        return True

    def _pooled_tokens(self, size: int, prefix: int) -> list[int]:
        """Those of the last layer on which the output depends: the class token, also that of a
        teacher (DeiT), or all patches, of which a maximum may take any."""
        tokens: list[Tensor] = []
        with record_outputs(self.attentions[-1], tokens):
            outputs = self(self._blank(size).requires_grad_())
        weights = torch.linspace(1, 2, outputs.shape[1], device=self.device)
        (gradient,) = torch.autograd.grad((outputs * weights).sum(), tokens)
        is_read = gradient[0].flatten(0, -2).abs().sum(dim=1) > 0  # VOLO has rows of tokens
        is_read[prefix:] = is_read[prefix:].any()
        return is_read.nonzero().flatten().tolist()

    @torch.no_grad()
    def outputs(self, pixels: Tensor, batch_size: int = 64) -> Tensor:
        """(images, size, size, 3) values 0-255 -> (images, dim) before normalisation, on the
        CPU."""
        return torch.cat([self(part.to(self.device)).cpu() for part in pixels.split(batch_size)])


def is_map(tensors: list[Tensor]) -> bool:
    """Whether the first of recorded tensors is a square map of channels by height and width."""
    if not tensors or not isinstance(tensors[0], Tensor):
        return False
    shape = tensors[0].shape
    return len(shape) == 4 and shape[2] == shape[3]


def stages_of(backbone: nn.Module, name: str, layer: str) -> list[str]:
    """Names of the stages of a backbone, shallow to deep, or the layer that was asked for."""
    modules = [module for module, _ in backbone.named_modules() if module]
    if layer and layer not in modules:
        raise UnknownName(f"{name} has no layer {layer!r}{near_miss(layer, modules)}")
    if layer:
        return [layer]
    return [stage for stage in stage_names(backbone) if stage in modules]


@contextmanager
def record_outputs(module: nn.Module, outputs: list[Tensor]) -> Iterator[None]:
    """Each output of the module is appended to `outputs`."""
    hook = module.register_forward_hook(lambda _, inputs, output: outputs.append(output))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def record_inputs(module: nn.Module, inputs: list[Tensor]) -> Iterator[None]:
    """The first argument of each call of the module is appended to `inputs`."""
    hook = module.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def attention_weights(attentions: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The attention (batch, heads, tokens, tokens) of each of timm's layers is appended to the
    list. Their fused kernels, which never hold it as a tensor, are switched off meanwhile."""
    weights: list[Tensor] = []
    fused = [module.fused_attn for module in attentions]
    with ExitStack() as stack:
        for module in attentions:
            stack.enter_context(record_outputs(module.attn_drop, weights))  # type: ignore[arg-type]
            module.fused_attn = False  # type: ignore[assignment]
        try:
            yield weights
        finally:
            for module, before in zip(attentions, fused, strict=True):
                module.fused_attn = before
