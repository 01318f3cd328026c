"""A convolutional network that embeds in bfloat16 on a CPU, with BatchNorm in its convolutions.

In evaluation, BatchNorm multiplies and shifts each channel by constants, which a convolution with
other weights and a bias does as well (Jacob et al. 2018, "Quantization and training of neural
networks for efficient integer-arithmetic-only inference", 3.2). oneDNN adds the shortcut and
applies the ReLU before it writes the output, and keeps the weights in the order in which it reads
them.
"""

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from dml_bench.models.convolutions import SmallMapConv2d
from dml_bench.system.devices import choose_precision
from dml_bench.system.spare_threads import on_spare_threads

__all__ = ["FoldedConv2d", "fold_batch_norm"]

CPU = torch.device("cpu")


class FoldedConv2d(nn.Module):
    """A convolution and the BatchNorm after it, in bfloat16 on a CPU, for evaluation mode."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, *, relu: bool):
        super().__init__()
        # In a tuple: their parameters are none of this module.
        self.layers: tuple[nn.Conv2d, Any] = conv, norm
        self.geometry = conv.padding, conv.stride, conv.dilation, conv.groups
        self.relu = relu
        self._folded: tuple[Any, Tensor, Tensor] | None = None

    def forward(self, images: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """(batch, channels, height, width) -> (batch, out, ...) bfloat16. A shortcut of that shape
        is added before the ReLU, and overwritten."""
        _, weight, bias = self.folded()
        convolved = images.bfloat16(), weight, bias, *self.geometry
        with on_spare_threads():
            if shortcut is None:
                activation = "relu" if self.relu else "none"
                return torch.ops.mkldnn._convolution_pointwise(*convolved, activation, (), "")
            total = shortcut.bfloat16().contiguous(memory_format=torch.channels_last)
            return torch.ops.mkldnn._convolution_pointwise_.binary(
                total, *convolved, "add", 1.0, "relu" if self.relu else None, (), None
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
        state = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        if self._folded is None or self._folded[0] != state:
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            weight = (conv.weight * scale.view(-1, 1, 1, 1)).bfloat16().contiguous()
            packed = torch.ops.aten.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *self.geometry)
            bias = norm.bias - norm.running_mean * scale
            self._folded = state, packed, bias.bfloat16()
        return self._folded


CONVOLUTIONS = nn.Conv2d, SmallMapConv2d
READING = *CONVOLUTIONS, FoldedConv2d
"""Layers whose output has nothing of their input's memory."""
FRESH = FoldedConv2d, nn.BatchNorm2d, nn.MaxPool2d
"""Layers whose output nobody else holds."""


def fold_batch_norm(network: nn.Module) -> nn.Module | None:
    """A network in evaluation mode -> one of the same layers and weights in which each BatchNorm
    after a plain convolution is part of it; None where there is none, where torch.fx can't follow
    the network, or where the processor has no fast bfloat16."""
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
    for number, node in enumerate(foldable):
        fold(graph, node, parts, f"folded_{number}")
    if not foldable:
        return None
    return fx.GraphModule(
        {**parts, **dict(network.named_parameters()), **dict(network.named_buffers())}, graph
    )


class ConvolutionTracer(fx.Tracer):
    """Looks into modules that hold convolutions."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Any other one stays as it is."""
        return isinstance(m, nn.Conv2d) or not any(isinstance(p, nn.Conv2d) for p in m.modules())


def layer_of(node: fx.Node | None, parts: Mapping[str, Any], *kinds: type[nn.Module]) -> Any:
    """The layer that a node calls, where it is of exactly one of these kinds."""
    layer = parts.get(str(node.target)) if node is not None and node.op == "call_module" else None
    return layer if type(layer) in kinds else None


def only_user(node: Any) -> fx.Node | None:
    """What takes the output of a node, where that is one node."""
    one = isinstance(node, fx.Node) and len(node.users) == 1
    return next(iter(node.users)) if one else None


def has_norm_to_fold(node: fx.Node, parts: Mapping[str, Any]) -> bool:
    conv = layer_of(node, parts, *CONVOLUTIONS)
    norm = layer_of(only_user(node), parts, nn.BatchNorm2d)
    if conv is None or norm is None or conv.bias is not None or conv.padding_mode != "zeros":
        return False
    return norm.affine and norm.track_running_stats and not isinstance(conv.padding, str)


def fold(graph: fx.Graph, node: fx.Node, parts: dict[str, Any], name: str) -> None:
    """Put one layer in the place of a convolution, its BatchNorm, a sum with a shortcut where it
    may overwrite that, and a ReLU."""
    norm = only_user(node)
    assert norm is not None
    replaced, inputs, place = [node, norm], [node.args[0]], node
    total = only_user(norm)
    if total is not None and (shortcut := overwritten(total, norm, node, parts)) is not None:
        replaced.append(total)
        inputs.append(shortcut)
        place = total
    relu = only_user(replaced[-1])
    if relu is not None and layer_of(relu, parts, nn.ReLU):
        replaced.append(relu)
    parts[name] = FoldedConv2d(
        parts[str(node.target)], parts[str(norm.target)], relu=relu is replaced[-1]
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
