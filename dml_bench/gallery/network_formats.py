"""Formats in which a trained network leaves this package: a graph from pixels to unit vectors,
with the normalisation of pixels inside it."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from dml_bench.system.files import write_atomically

if TYPE_CHECKING:
    import onnx

__all__ = ["FORMATS", "NetworkFormat", "PixelsToUnitVectors", "open_onnx", "quantize", "save"]

Network = Callable[[np.ndarray], np.ndarray]
"""(batch, size, size, 3) uint8 -> (batch, dim) float32 unit vectors."""
GRAPH_FILE = "graph.pt2"
ANY_BATCH = {0: torch.export.Dim.DYNAMIC}
CALIBRATION_BATCH = 8
"""Images that the quantiser sees at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkFormat:
    """A format of the network's file."""

    file: str
    """The name of the file."""
    write: Callable[[nn.Module, int, Path, Mapping[str, str]], None]
    """Writes an embedder for images of some size, with facts that the format has a place for."""
    open: Callable[[Path], Network]
    """The network in a file."""
    imports: str
    """The packages that the model card's Python imports."""
    snippet: str
    """Lines of the card that make `embeddings` of `batch`."""


class PixelsToUnitVectors(nn.Module):
    """(batch, height, width, 3) uint8 -> (batch, dim) float32 unit vectors."""

    def __init__(self, embedder: nn.Module):
        super().__init__()
        self.embedder = embedder

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels to unit vectors."""
        return functional.normalize(self.embedder(pixels), dim=1)


class WithWeights(nn.Module):
    """A network that takes its weights by name, so that its graph holds none."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.without_parameters = (network,)  # in a tuple: its parameters are none of this module

    def forward(self, weights: dict[str, Tensor], pixels: Tensor) -> Tensor:
        """Pixels to unit vectors."""
        vectors: Tensor = functional_call(self.without_parameters[0], weights, (pixels,))
        return vectors


def graph_of(embedder: nn.Module, size: int) -> torch.export.ExportedProgram:
    """The network as a graph of torch.export, for batches of any size. It names no folder of this
    machine."""
    network = PixelsToUnitVectors(embedder).eval()
    return traced(network, (example_of(size),), (ANY_BATCH,))


def example_of(size: int) -> Tensor:
    """Pixels with which a network is traced."""
    return torch.zeros(2, size, size, 3, dtype=torch.uint8)


def traced(
    network: nn.Module, example: tuple[Any, ...], shapes: tuple[Any, ...]
) -> torch.export.ExportedProgram:
    """A graph that names no folder of this machine."""
    graph = torch.export.export(network, example, dynamic_shapes=shapes)
    for module in graph.graph_module.modules():
        for node in module.graph.nodes if hasattr(module, "graph") else ():
            node.meta.pop("stack_trace", None)
    return graph


@torch.no_grad()
def save(embedder: nn.Module, size: int, path: Path, facts: Mapping[str, str] = {}) -> None:
    """Write the graph of torch.export."""
    write_graph(graph_of(embedder, size), path)


def write_graph(graph: torch.export.ExportedProgram, path: Path) -> None:
    """Write a graph for torch.export.load."""
    with warnings.catch_warnings():
        # about weights that share a file's memory
        warnings.filterwarnings("ignore", message="No complete tensor found in the group")
        write_atomically(path, lambda file: torch.export.save(graph, file))


def open_graph(path: Path) -> Network:
    """A network that `save` wrote."""
    module = torch.export.load(str(path)).module()

    @torch.no_grad()
    def embed(pixels: np.ndarray) -> np.ndarray:
        vectors: np.ndarray = module(torch.from_numpy(pixels)).numpy()
        return vectors

    return embed


@torch.no_grad()
def save_safetensors(
    embedder: nn.Module, size: int, path: Path, facts: Mapping[str, str] = {}
) -> None:
    """Write the weights, and beside them the graph that takes them as its first input."""
    network = PixelsToUnitVectors(embedder).eval()
    weights = {name: kept.contiguous() for name, kept in sorted(network.state_dict().items())}
    write_atomically(path, lambda file: file.write(safetensors_bytes(weights, dict(facts))))
    graph = traced(
        WithWeights(network), (weights, example_of(size)), (dict.fromkeys(weights), ANY_BATCH)
    )
    graph.example_inputs = None  # they would be all weights again
    write_graph(graph, path.with_name(GRAPH_FILE))


def open_safetensors(path: Path) -> Network:
    """A network that `save_safetensors` wrote."""
    module = torch.export.load(str(path.with_name(GRAPH_FILE))).module()
    weights = dict(sorted(load_file(path).items()))

    @torch.no_grad()
    def embed(pixels: np.ndarray) -> np.ndarray:
        vectors: np.ndarray = module(weights, torch.from_numpy(pixels)).numpy()
        return vectors

    return embed


@torch.no_grad()
def save_onnx(embedder: nn.Module, size: int, path: Path, facts: Mapping[str, str] = {}) -> None:
    """Write the same graph in ONNX, for batches of any size, with `facts` as its metadata."""
    require_onnx()
    program = torch.onnx.export(
        graph_of(embedder, size),
        dynamo=True,
        input_names=["pixels"],
        output_names=["embeddings"],
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    for node in nodes_of(model):
        del node.metadata_props[:]  # where PyTorch's own code made it
        node.doc_string = ""
    for name, fact in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, fact
    write_atomically(path, lambda file: file.write(model.SerializeToString()))


def nodes_of(model: "onnx.ModelProto") -> Iterator[Any]:
    """The nodes and values of a model that carry notes."""
    yield from model.graph.node
    yield from model.graph.value_info
    yield from model.graph.initializer
    yield from model.graph.input
    yield from model.graph.output
    for function in model.functions:
        yield from function.node


def open_onnx(path: Path) -> Network:
    """A network in ONNX, on this machine's processors."""
    require_onnx()
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def embed(pixels: np.ndarray) -> np.ndarray:
        (vectors,) = session.run(None, {"pixels": pixels})
        return np.asarray(vectors, np.float32)

    return embed


def quantize(source: Path, target: Path, pixels: np.ndarray) -> None:
    """Write a network of ONNX with weights and activations of 8 bits (per channel, QDQ). Their
    ranges are those of (images, size, size, 3) uint8 `pixels`, which should be training images."""
    import logging

    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization.quantize import quantize_static

    class Batches(CalibrationDataReader):
        def __init__(self) -> None:
            self.starts = iter(range(0, len(pixels), CALIBRATION_BATCH))

        def get_next(self) -> dict[str, np.ndarray] | None:
            start = next(self.starts, None)
            if start is None:
                return None
            return {"pixels": pixels[start : start + CALIBRATION_BATCH]}

    # It advises on every graph to simplify it first, which PyTorch's exporter has done.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            str(source),
            str(target),
            Batches(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(disabled)


def require_onnx() -> None:
    """Raises ValueError where a package of the extra is missing."""
    from importlib.util import find_spec

    for package in ("onnx", "onnxruntime", "onnxscript"):
        if find_spec(package) is None:
            raise ValueError(
                f"an export to ONNX needs the package {package}, which is not installed: pip"
                " install 'dml-bench[onnx]'"
            )


FORMATS = {
    "torch": NetworkFormat(
        file="embedder.pt2",
        write=save,
        open=open_graph,
        imports="import torch",
        snippet="""embedder = torch.export.load("embedder.pt2").module()
with torch.no_grad():
    embeddings = embedder(torch.from_numpy(batch)).numpy()""",
    ),
    "onnx": NetworkFormat(
        file="embedder.onnx",
        write=save_onnx,
        open=open_onnx,
        imports="import onnxruntime",
        snippet="""embedder = onnxruntime.InferenceSession("embedder.onnx")
(embeddings,) = embedder.run(None, {"pixels": batch})""",
    ),
    "hf": NetworkFormat(
        file="model.safetensors",
        write=save_safetensors,
        open=open_safetensors,
        imports="import torch\nfrom safetensors.torch import load_file",
        snippet=f"""weights = dict(sorted(load_file("model.safetensors").items()))
network = torch.export.load("{GRAPH_FILE}").module()
with torch.no_grad():
    embeddings = network(weights, torch.from_numpy(batch)).numpy()""",
    ),
}
"""By the name that `--to` takes."""
