"""A trained network with the places at which it can be looked into."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from dml_bench.models.backbones import POOLING_PLACES, stage_names
from dml_bench.models.embedder import Embedder
from dml_bench.registry import UnknownName, near_miss

__all__ = ["LEAST_SIDE", "HookedEmbedder", "attention_weights", "kept_input", "kept_output"]

LEAST_SIDE = 4
"""A map is explained by the deepest stage with at least this many positions a side: at 224 px the
last one, at 64 px the one before."""


class HookedEmbedder:
    """An embedder in evaluation mode, in float32, and its layers. `offers` says what it has: `map`,
    the map that its pooling takes; `stage`, a stage of a convolutional network; `tokens`, attention
    among the patches of a transformer."""

    def __init__(self, embedder: Embedder, name: str, size: int, layer: str = ""):
        """`name` is the backbone's, `size` the side of its images. Raises UnknownName for a layer
        that it does not have, ValueError for one that makes no map."""
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
        wide = [stage for stage, side in sides.items() if side >= LEAST_SIDE] or list(sides)[:1]
        self.layer = wide[-1] if wide else ""
        """The stage whose map Grad-CAM weighs; empty where there is none."""
        self.stage = modules.get(self.layer) if self.layer else None
        self.offers = {
            name
            for name, there in (
                ("map", self._pools_a_map(size)),
                ("stage", sides),
                ("tokens", self._attends(size)),
            )
            if there
        }

    @property
    def device(self) -> torch.device:
        return self.embedder.mean.device

    def _blank(self, size: int) -> Tensor:
        return torch.zeros(1, size, size, 3, device=self.device)

    def _sides(self, names: list[str], size: int) -> dict[str, int]:
        """The side of the map that each stage makes of an image; only stages that make a square map
        of channels by height and width."""
        found: dict[str, list[Tensor]] = {name: [] for name in names}
        with torch.no_grad(), ExitStack() as stack:
            for name, outputs in found.items():
                stack.enter_context(
                    kept_output(self.embedder.backbone.get_submodule(name), outputs)
                )
            self.embedder(self._blank(size))
        shapes = {
            name: outputs[0].shape
            for name, outputs in found.items()
            if outputs and isinstance(outputs[0], Tensor)
        }
        return {
            name: shape[2]
            for name, shape in shapes.items()
            if len(shape) == 4 and shape[2] == shape[3]
        }

    def _pools_a_map(self, size: int) -> bool:
        if self.pooling is None:
            return False
        found: list[Tensor] = []
        with torch.no_grad(), kept_input(self.pooling, found):
            self.embedder(self._blank(size))
        return bool(found) and found[0].dim() == 4 and found[0].shape[2] == found[0].shape[3]

    def _attends(self, size: int) -> bool:
        """Whether each layer's attention is among all patches of the image, and a few tokens before
        them."""
        if not self.attentions:
            return False
        with torch.no_grad(), attention_weights(self.attentions) as kept:
            self.embedder(self._blank(size))
        prefix = int(getattr(self.embedder.backbone, "num_prefix_tokens", 0))
        among_all = len(kept) == len(self.attentions) and all(
            len(weights) == 1 for weights in kept
        )  # of windows there are more
        patches = {weights.shape[axis] - prefix for weights in kept for axis in (2, 3)}
        return among_all and len(patches) == 1 and math.isqrt(count := patches.pop()) ** 2 == count

    @torch.no_grad()
    def outputs(self, pixels: Tensor, batch_size: int = 64) -> Tensor:
        """(images, size, size, 3) values 0-255 -> (images, dim) before normalisation, on the
        CPU."""
        return torch.cat(
            [self.embedder(part.to(self.device)).float().cpu() for part in pixels.split(batch_size)]
        )


def stages_of(backbone: nn.Module, name: str, layer: str) -> list[str]:
    """Names of the stages of a backbone, shallow to deep, or the layer that was asked for."""
    modules = [module for module, _ in backbone.named_modules() if module]
    if layer and layer not in modules:
        raise UnknownName(f"{name} has no layer {layer!r}{near_miss(layer, modules)}")
    return [layer] if layer else [stage for stage in stage_names(backbone) if stage in modules]


@contextmanager
def kept_output(module: nn.Module, outputs: list[Tensor]) -> Iterator[None]:
    """Each output of the module is appended to `outputs`."""
    hook = module.register_forward_hook(lambda _, inputs, output: outputs.append(output))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def kept_input(module: nn.Module, inputs: list[Tensor]) -> Iterator[None]:
    hook = module.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def attention_weights(attentions: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The attention (batch, heads, tokens, tokens) of each of timm's layers is appended to the
    list; they make it a tensor for the time."""
    kept: list[Tensor] = []
    fused = [module.fused_attn for module in attentions]
    with ExitStack() as stack:
        for module in attentions:
            stack.enter_context(kept_output(module.attn_drop, kept))  # type: ignore[arg-type]
            module.fused_attn = False  # type: ignore[assignment]
        try:
            yield kept
        finally:
            for module, before in zip(attentions, fused, strict=True):
                module.fused_attn = before
