"""The model that is trained and kept: pixels in, embeddings out."""

from collections.abc import Iterable
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from dml_bench.config import Experiment
from dml_bench.models.backbones import check_image_size, drop_pooling, replace_pooling
from dml_bench.models.convolutions import speed_up_small_maps
from dml_bench.models.depthwise import open_depthwise_to_float32
from dml_bench.models.encoders import describe_interpolation
from dml_bench.models.folding import fold_batch_norm, is_fast_in_float32
from dml_bench.models.lora import add_lora
from dml_bench.models.stages import LastStages, cut_backbone, first_stages
from dml_bench.models.weights import load_backbone
from dml_bench.registry import backbones, heads, poolings
from dml_bench.system import distributed
from dml_bench.system.seeding import seed_everything
from dml_bench.system.shapes import Float, shaped

__all__ = ["Embedder", "Numerics", "build_embedder", "fold_where_it_pays"]


class Numerics(NamedTuple):
    """What rounds an embedding."""

    precision: str
    """That of `models.precision`."""
    folded_batch_norm: bool
    """Whether BatchNorm is folded into the convolutions (`models.folding`)."""


class Embedder(nn.Module):
    """Normalisation of pixels, backbone, head. The channel statistics are buffers, so a weights
    file holds all there is."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, head: nn.Module, mean: Tensor, std: Tensor):
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("mean", mean * 255)
        self.register_buffer(
            "std", (std * 255).clamp(min=1)
        )  # a channel without contrast stays finite
        self.frozen: dict[str, nn.Module] = {}
        self._last: tuple[LastStages, ...] = ()  # in a tuple: its parameters have names already
        self._folded: tuple[nn.Module, ...] = ()  # likewise
        self.remarks: tuple[str, ...] = ()
        """Sentences about the first weights: what was taken off the names in their file, and how
        images were resized for them; empty ones where there is nothing to say."""

    @property
    def dim(self) -> int:
        """The length of an embedding."""
        return int(self.head.dim)  # type: ignore[arg-type]

    def features(self, pixels: Tensor) -> Tensor:
        """(batch, height, width, 3) values 0-255 of any type -> (batch, num_features) pooled
        features; the map for a head that takes it."""
        only_embeds = not self.training and not torch.is_grad_enabled()
        folded = self._folded and only_embeds and torch.is_autocast_enabled("cpu")
        backbone = self._folded[0] if folded and not self._has_hooks() else self.backbone
        return backbone(self.normalised(pixels))

    def _has_hooks(self) -> bool:
        """Whether somebody looks at what goes through layers of the backbone."""
        layers = self.backbone.modules()
        return any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)

    @property
    def is_folded(self) -> bool:
        """Whether `fold_batch_norm` found something to fold."""
        return bool(self._folded)

    @property
    def last_stages(self) -> LastStages | None:
        """What is trained on `first_stages`; None where the backbone is one part."""
        return self._last[0] if self._last else None

    def first_stages(self, pixels: Tensor) -> Tensor:
        """(batch, height, width, 3) values 0-255 -> what `last_stages` takes: (batch, height,
        width, channels), or (batch, tokens, dim)."""
        assert self.last_stages is not None, "this embedder's backbone is one part"
        return first_stages(self.backbone, self.last_stages.cut_after, self.normalised(pixels))

    def normalised(self, pixels: Tensor) -> Tensor:
        """(batch, height, width, 3) values 0-255 of any type -> (batch, 3, height, width)."""
        images = torch.addcmul(-self.mean / self.std, pixels.float(), 1 / self.std)
        return images.permute(0, 3, 1, 2)  # channels-last memory

    def project(self, features: Tensor) -> Tensor:
        """What `features` returns -> (batch, dim), before normalisation."""
        return self.head(features)

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, height, width, 3) values 0-255 -> (batch, dim), before normalisation."""
        return self.project(self.features(pixels))

    def fold_batch_norm(self, precision: str = "bfloat16") -> bool:
        """From now on, features that are computed under autocast on a CPU, in evaluation, without
        gradients and hooks, are those of the backbone with BatchNorm folded into its convolutions,
        for this precision. False where it has none to fold."""
        mode = self.training
        folded = fold_batch_norm(self.eval().backbone, precision)
        self.train(mode)
        self._folded = () if folded is None else (folded,)
        return self.is_folded

    def freeze_batch_norm(self, *, affine: bool = True) -> None:
        """From now on training does not change the statistics of the backbone's BatchNorm layers;
        with `affine` not their affine parameters either."""
        layers = self.backbone.named_modules()
        names = [name for name, layer in layers if isinstance(layer, _BatchNorm)]
        self._freeze(names, parameters=affine)

    def train_last_stages(self, backbone: str, count: int, size: int) -> None:
        """From now on training changes nothing but the last stages of the backbone of that name,
        for images of `size` pixels, and the head. Raises ValueError where that can't be."""
        last = cut_backbone(self.backbone, self.head, backbone, count, size)
        self._last = (last,)
        inside = tuple(f"{name}." for name in last.finished)
        self._freeze(
            name
            for name, _ in self.backbone.named_modules()
            if name in last.finished or name.startswith(inside)
        )

    def _freeze(self, names: Iterable[str], *, parameters: bool = True) -> None:
        for name in names:
            layer = self.backbone.get_submodule(name)
            self.frozen[f"backbone.{name}"] = layer
            if parameters:
                for parameter in layer.parameters(recurse=False):
                    parameter.requires_grad_(False)
        self.train(self.training)

    def frozen_state(self) -> dict[str, Tensor]:
        """Copies of all tensors of the frozen layers that don't learn, by their names in the state
        dict; empty where nothing is frozen."""
        return {
            f"{name}.{key}": tensor.detach().clone()
            for name, layer in self.frozen.items()
            for key, tensor in (
                *layer.named_parameters(recurse=False),
                *layer.named_buffers(recurse=False),
            )
            if not tensor.requires_grad
        }

    def train(self, mode: bool = True) -> "Embedder":
        """Training mode, in which frozen layers go on as in evaluation."""
        super().train(mode)
        for other in (*self._last, *self._folded):
            other.train(mode)
        for layer in self.frozen.values():
            layer.eval()
        return self

    @torch.no_grad()
    @shaped
    def embed(self, pixels: Tensor) -> Annotated[Tensor, Float("batch dim")]:
        """(batch, height, width, 3) values 0-255 -> (batch, dim) float32 unit vectors."""
        return functional.normalize(self(pixels).float(), dim=1)


def build_embedder(
    experiment: Experiment, statistics: tuple[Tensor, Tensor] | None = None
) -> Embedder:
    """The embedder of an experiment with its first weights; `source` weights are filled in by the
    caller.

    The same seed gives the same weights in every phase. `statistics` are channel means and
    deviations in 0-1, and default to the experiment's own, else to those that the backbone's
    weights were made with. Raises ValueError where parts of the model don't fit together.
    """
    config, name = experiment.model, experiment.model.backbone.name
    entry = backbones.of(config.backbone)
    seed_everything(experiment.seed, "weights")
    backbone = entry.built(nn.Module, name, **config.backbone.options)
    require_number(backbone, "num_features", name)
    pooling = poolings[config.pooling.name].build(**config.pooling.options)
    place = "" if pooling is None else replace_pooling(backbone, name, pooling)
    check_image_size(backbone, name, experiment.images.size)
    for size in experiment.images.progressive[:-1]:
        check_image_size(backbone, name, size, "a size of images.progressive")
    unwrapped = load_backbone(
        backbone,
        name,
        entry,
        "none" if config.weights == "source" else config.weights,
        may_lack=place,
    )
    speed_up_small_maps(backbone)
    open_depthwise_to_float32(backbone)
    if heads.of(config.head).facts["takes_map"]:
        drop_pooling(backbone, name, config.head.name)
    head = heads.of(config.head).built(nn.Module, backbone.num_features, **config.head.options)
    require_number(head, "dim", config.head.name)
    if config.lora_rank:
        add_lora(backbone, name, rank=config.lora_rank, alpha=config.lora_alpha)
    made_with = getattr(backbone, "pretrained_cfg", entry.facts)
    images = experiment.images
    mean, std = statistics or (
        torch.tensor(images.mean or made_with["mean"]),
        torch.tensor(images.std or made_with["std"]),
    )
    embedder = Embedder(backbone, head, mean, std)
    embedder.remarks = (
        unwrapped,
        describe_interpolation(name, backbone, experiment.images.interpolation),
    )
    freeze(embedder, experiment)
    return embedder.to(memory_format=torch.channels_last)


def require_number(module: nn.Module, attribute: str, name: str) -> None:
    """Raises ValueError where a network, a plug-in, does not say how long its vectors are."""
    if getattr(module, attribute, None) is None:
        raise ValueError(
            f"{name} must return a module with a number {attribute}, the length of the vectors that"
            f" it makes: set {attribute} on {type(module).__name__}"
        )


def fold_where_it_pays(
    embedder: Embedder, experiment: Experiment, device: torch.device, precision: str
) -> bool:
    """Whether a run of the experiment embeds with folded BatchNorm, as the embedder does from now
    on: on a CPU in bfloat16, and where folded float32 is faster than what `bfloat16_dense` is
    otherwise (benchmarks/folding.py); float32 keeps its bits. What the first stages say is computed
    once where only the last ones are trained."""
    fast = precision == "bfloat16" or (
        precision == "bfloat16_dense" and is_fast_in_float32(embedder.backbone)
    )
    one = device.type == "cpu" and distributed.world_size() == 1
    is_one_part = not experiment.model.last_stages
    pays = one and fast and is_one_part
    return pays and (embedder.is_folded or embedder.fold_batch_norm(precision))


def freeze(embedder: Embedder, experiment: Experiment) -> None:
    """Take from training what the experiment does not train. Raises ValueError where that is
    nothing, or everything."""
    config = experiment.model
    if config.last_stages:
        embedder.train_last_stages(config.backbone.name, config.last_stages, experiment.images.size)
    if config.batch_norm != "train":
        embedder.freeze_batch_norm(affine=config.batch_norm == "frozen")
        if not any(isinstance(layer, _BatchNorm) for layer in embedder.frozen.values()):
            raise ValueError(
                f"model.batch_norm is {config.batch_norm!r}, but {config.backbone.name} has no"
                " BatchNorm: leave model.batch_norm out"
            )
    if config.trainable == "head":
        embedder.backbone.requires_grad_(False)
        learns = any(parameter.requires_grad for parameter in embedder.parameters())
        if experiment.train.epochs and not learns:
            raise ValueError(
                f"model.trainable is 'head', but head {config.head.name} has nothing to train: "
                "--set model.head=linear, or --set model.trainable=all"
            )
