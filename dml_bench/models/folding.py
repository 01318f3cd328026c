"""A convolutional network that embeds on a CPU with BatchNorm in its convolutions.

In evaluation, BatchNorm multiplies and shifts each channel by constants, which a convolution with
other weights and a bias does as well (Jacob et al. 2018, "Quantization and training of neural
networks for efficient integer-arithmetic-only inference", 3.2). oneDNN adds the shortcut and
applies the ReLU before it writes the output, and keeps the weights in the order in which it reads
them.

It computes in bfloat16, but for networks of depthwise and 1 x 1 convolutions, which would compute
in both types: their BatchNorm and the ways from one type to the other take longer than the
convolutions, and with neither, all in float32 is faster and exact (benchmarks/folding.py).
"""

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from dml_bench.models.convolutions import SmallMapConv2d
from dml_bench.models.depthwise import original_class, padding_of, pads_by_size
from dml_bench.models.precision import depthwise_is_float32, is_depthwise
from dml_bench.system.devices import choose_precision
from dml_bench.system.spare_threads import on_spare_threads

__all__ = ["FoldedConv2d", "fold_batch_norm", "is_fast_in_float32"]

CPU = torch.device("cpu")
ACTIVATIONS: dict[Any, tuple[str, tuple[float, ...], str]] = {
    None: ("none", (), ""),
    nn.ReLU: ("relu", (), ""),
    nn.ReLU6: ("hardtanh", (0.0, 6.0), ""),
}
"""Layers that oneDNN applies before it writes, and how it is told so."""


class FoldedConv2d(nn.Module):
    """A convolution and the BatchNorm after it on a CPU, for evaluation mode: in float32 under
    `bfloat16_dense`, else in bfloat16."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, activation: type[nn.Module] | None):
        super().__init__()
        # In a tuple: their parameters are none of this module.
        self.layers: tuple[nn.Conv2d, Any] = conv, norm
        self.geometry = conv.padding, conv.stride, conv.dilation, conv.groups
        self.pads_by_size = pads_by_size(conv)
        self.activation = activation
        self._folded: tuple[Any, Tensor, Tensor] | None = None

    @property
    def dtype(self) -> torch.dtype:
        """In what it computes now."""
        return torch.float32 if depthwise_is_float32() else torch.bfloat16

    def forward(self, images: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """(batch, channels, height, width) -> (batch, out, ...). A shortcut of that shape is added
        before the ReLU, and overwritten."""
        _, weight, bias = self.folded()
        images = images.to(self.dtype)
        if self.pads_by_size:
            images = functional.pad(images, padding_of(self.layers[0], images))
        convolved = images, weight, bias, *self.geometry
        with on_spare_threads():
            if shortcut is None:
                applied = ACTIVATIONS[self.activation]
                return torch.ops.mkldnn._convolution_pointwise(*convolved, *applied)
            total = shortcut.to(self.dtype).contiguous(memory_format=torch.channels_last)
            return torch.ops.mkldnn._convolution_pointwise_.binary(
                total, *convolved, "add", 1.0, "relu" if self.activation else None, (), None
            )

    def train(self, mode: bool = True) -> "FoldedConv2d":
        """Training mode, in which layers change, some of them without a new version of a tensor."""
        self._folded = None if mode else self._folded
        return super().train(mode)

    def folded(self) -> tuple[Any, Tensor, Tensor]:
        """What they were folded from, weight and bias; anew after training and where other weights
        were loaded."""
        conv, norm = self.layers
        tensors = conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var
        state = [(tensor.data_ptr(), tensor._version) for tensor in tensors], self.dtype
        if self._folded is None or self._folded[0] != state:
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            weight = (conv.weight * scale.view(-1, 1, 1, 1)).to(self.dtype).contiguous()
            packed = torch.ops.aten.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *self.geometry)
            bias = norm.bias - norm.running_mean * scale
            self._folded = state, packed, bias.to(self.dtype)
        return self._folded


READING = nn.Conv2d, SmallMapConv2d, FoldedConv2d
"""Layers whose output has nothing of their input's memory."""
FRESH = FoldedConv2d, nn.BatchNorm2d, nn.MaxPool2d
"""Layers whose output nobody else holds."""


def fold_batch_norm(network: nn.Module, precision: str = "bfloat16") -> nn.Module | None:
    """A network in evaluation mode -> one of the same layers and weights in which each BatchNorm
    after a convolution without bias is part of it, after a depthwise one in `bfloat16_dense` alone:
    oneDNN's bfloat16 rounds those more than the layers do, and runs of older versions keep them.
    None where there is none, where torch.fx can't follow the network, or where the processor has no
    fast bfloat16."""
    if choose_precision("auto", CPU) != "bfloat16" or not torch.backends.mkldnn.is_available():
        return None
    try:
        graph = ConvolutionTracer().trace(network)
    except (ValueError, TypeError, RuntimeError):  # of code that looks at the numbers themselves
        return None
    parts: dict[str, Any] = dict(network.named_modules())
    for node in list(graph.nodes):
        if layer_of(node, parts, nn.Identity):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    foldable = [node for node in graph.nodes if has_norm_to_fold(node, parts)]
    if precision != "bfloat16_dense":
        foldable = [node for node in foldable if not is_depthwise(any_layer_of(node, parts))]
    for node in foldable:
        activate_apart(graph, only_user(node), parts)
    for number, node in enumerate(foldable):
        fold(graph, node, parts, f"folded_{number}")
    if not foldable:
        return None
    return fx.GraphModule(
        {**parts, **dict(network.named_parameters()), **dict(network.named_buffers())}, graph
    )


def is_fast_in_float32(network: nn.Module) -> bool:
    """Whether it has depthwise convolutions, and no others but of 1 x 1 and of the pixels."""
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    dense = [conv for conv in convolutions if not is_depthwise(conv)]
    is_small = all(conv.kernel_size == (1, 1) or conv.in_channels == 3 for conv in dense)
    return is_small and len(dense) < len(convolutions)


class ConvolutionTracer(fx.Tracer):
    """Looks into modules that hold convolutions."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Any other one stays as it is."""
        return isinstance(m, nn.Conv2d) or not any(isinstance(p, nn.Conv2d) for p in m.modules())


def layer_of(node: fx.Node | None, parts: Mapping[str, Any], *kinds: type[nn.Module]) -> Any:
    """The layer that a node calls, where it is of exactly one of these kinds."""
    layer = any_layer_of(node, parts)
    return layer if type(layer) in kinds else None


def any_layer_of(node: fx.Node | None, parts: Mapping[str, Any]) -> Any:
    """The layer that a node calls, where it calls one."""
    return parts.get(str(node.target)) if node is not None and node.op == "call_module" else None


def only_user(node: Any) -> fx.Node | None:
    """What takes the output of a node, where that is one node."""
    one = isinstance(node, fx.Node) and len(node.users) == 1
    return next(iter(node.users)) if one else None


def has_norm_to_fold(node: fx.Node, parts: Mapping[str, Any]) -> bool:
    conv, norm = any_layer_of(node, parts), any_layer_of(only_user(node), parts)
    if not isinstance(conv, nn.Conv2d) or conv.bias is not None or conv.padding_mode != "zeros":
        return False
    known = original_class(conv) in (nn.Conv2d, SmallMapConv2d) or pads_by_size(conv)
    if not known or isinstance(conv.padding, str) or not is_norm(norm):
        return False
    return norm.affine and norm.track_running_stats


def is_norm(layer: Any) -> bool:
    """Whether it is BatchNorm, or timm's with an activation in it and nothing else."""
    if type(layer).__name__ == "BatchNormAct2d":
        return isinstance(layer, nn.BatchNorm2d) and type(layer.drop) is nn.Identity
    return type(layer) is nn.BatchNorm2d


def activate_apart(graph: fx.Graph, norm: fx.Node | None, parts: Mapping[str, Any]) -> None:
    """Let the activation inside of a BatchNorm be a layer that comes after it."""
    assert norm is not None
    name = f"{norm.target}.act"
    if name not in parts or type(parts[name]) is nn.Identity:
        return
    with graph.inserting_after(norm):
        activated = graph.create_node("call_module", name)
    norm.replace_all_uses_with(activated)
    activated.args = (norm,)


def fold(graph: fx.Graph, node: fx.Node, parts: dict[str, Any], name: str) -> None:
    """Put one layer in the place of a convolution, its BatchNorm, a sum with a shortcut where it
    may overwrite that, and a ReLU, of which ReLU6 where there is no sum."""
    norm = only_user(node)
    assert norm is not None
    replaced, inputs, place, fitting = [node, norm], [node.args[0]], node, [nn.ReLU, nn.ReLU6]
    total = only_user(norm)
    if total is not None and (shortcut := overwritten(total, norm, node, parts)) is not None:
        replaced.append(total)
        inputs.append(shortcut)
        place, fitting = total, [nn.ReLU]
    relu = only_user(replaced[-1])
    layer = layer_of(relu, parts, *fitting)
    if relu is not None and layer is not None:
        replaced.append(relu)
    parts[name] = FoldedConv2d(
        parts[str(node.target)],
        parts[str(norm.target)],
        None if layer is None else type(layer),
    )
    with graph.inserting_before(place):
        folded = graph.create_node("call_module", name, tuple(inputs))
    replaced[-1].replace_all_uses_with(folded)
    for old in reversed(replaced):
        graph.erase_node(old)


def overwritten(
    total: fx.Node, norm: fx.Node, conv: fx.Node, parts: Mapping[str, Any]
) -> fx.Node | None:
    """What is added to a BatchNorm, where nothing else needs it from then on, and nothing but the
    convolution needs its own input."""
    if total.target not in (operator.add, operator.iadd) or only_user(conv.args[0]) is not conv:
        return None
    others = [node for node in total.all_input_nodes if node is not norm]
    if len(others) != 1 or not layer_of(others[0], parts, *FRESH):
        return None
    takers = [user for user in others[0].users if user is not total]
    before = all(user < total and layer_of(user, parts, *READING) for user in takers)
    return others[0] if before else None
