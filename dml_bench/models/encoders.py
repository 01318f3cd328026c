"""Image encoders of other libraries: transformers (`hf:`), OpenCLIP (`openclip:`) and
sentence-transformers (`st:`).

An encoder is the library's own network, with its names of tensors, without what reads texts. Its
forward pass takes normalised images and returns what the library calls the features of an image.
The libraries are extras, imported only where such a backbone is built.
"""

import importlib
import importlib.util
import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Resampling
from torch import Tensor, nn

from dml_bench.models.hub import from_cache_or_hub, require_answer, require_hub
from dml_bench.registry import UnknownName, near_miss

__all__ = [
    "PACKAGES",
    "build_encoder",
    "describe_interpolation",
    "package_installed",
    "pretrained_encoder",
]

PACKAGES = {
    "hf": ("transformers", "transformers"),
    "openclip": ("open_clip", "open-clip-torch"),
    "st": ("sentence_transformers", "sentence-transformers"),
}
"""By prefix, the module to import and the package to install."""
IMAGENET = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "size": 224,
    "interpolation": "bilinear",
}
"""What is assumed of a model that says nothing of its preprocessing."""
OF_TEXTS = ("text_", "logit_")
"""How the names of a model of pictures and texts begin, where they are no part of the picture's
side."""


def package_installed(prefix: str) -> bool:
    """Whether the library of a prefix is there; it is not imported."""
    return importlib.util.find_spec(PACKAGES[prefix][0]) is not None


def build_encoder(name: str) -> nn.Module:
    """The encoder `prefix:name` with random weights. Raises ValueError where its library is
    missing, or its configuration can't be had."""
    return encoder(name, pretrained=False)


def pretrained_encoder(name: str) -> nn.Module:
    """The encoder `prefix:name` with its published weights. Raises ValueError where they can't be
    had."""
    return encoder(name, pretrained=True)


def describe_interpolation(name: str, backbone: nn.Module, interpolation: str | None) -> str:
    """A sentence where an encoder was made with images that are resized in another way, and nobody
    chose that; '' else."""
    said = getattr(backbone, "pretrained_cfg", {}).get("interpolation", "")
    if name.partition(":")[0] not in PACKAGES or interpolation is not None or said != "bicubic":
        return ""
    return (
        f"{name} was made with bicubic resizing, and images are resized bilinearly: --set"
        " images.interpolation=bicubic does as its library does"
    )


def encoder(name: str, *, pretrained: bool) -> nn.Module:
    prefix, _, of_library = name.partition(":")
    library = imported(prefix, name)
    make = {"hf": of_transformers, "openclip": of_open_clip, "st": of_sentence_transformers}[prefix]
    with one_line(name, "weights" if pretrained else "configuration"), quiet():
        return finished(*make(library, of_library, pretrained))


def imported(prefix: str, name: str) -> Any:
    module, package = PACKAGES[prefix]
    if not package_installed(prefix):
        raise ValueError(
            f"backbone {name} needs a package that is not installed: pip install {package}"
        )
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"backbone {name} needs {package}, which can't be imported ({first_line(error)}):"
            f" pip install --upgrade {package}"
        ) from None


@contextmanager
def one_line(name: str, what: str) -> Iterator[None]:
    try:
        yield
    except UnknownName:
        raise
    except Exception as error:
        raise ValueError(
            f"{what} of {name} can't be had ({first_line(error)}): check the name, or download the"
            " model on a machine with a network and copy its cache or folder here"
        ) from None


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' progress bars and remarks."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    level, were_disabled = logging.root.manager.disable, are_progress_bars_disabled()
    logging.disable(logging.WARNING)
    disable_progress_bars()
    bars = (
        importlib.import_module("transformers.utils.logging") if package_installed("hf") else None
    )
    if bars is not None:
        bars.disable_progress_bar()
    try:
        yield
    finally:
        logging.disable(level)
        if not were_disabled:
            enable_progress_bars()


def finished(
    network: nn.Module, kind: Any, preprocessing: Mapping[str, Any], left_out: tuple[str, ...]
) -> nn.Module:
    """The network in float32 as an encoder of that kind. `left_out` begins the names of tensors
    that a file of the whole model has besides."""
    network = network.float()
    before: Any = type(network)
    network.__class__ = encoder_class(kind, before)
    size = int(preprocessing["size"])
    own: Any = network
    own.left_out = left_out
    own.pretrained_cfg = {
        "mean": tuple(preprocessing["mean"]),
        "std": tuple(preprocessing["std"]),
        "input_size": (3, size, size),
        "interpolation": preprocessing["interpolation"],
    }
    training = network.training
    with torch.no_grad():
        own.num_features = network.eval()(torch.zeros(1, 3, size, size)).shape[1]
    return network.train(training)


@cache
def encoder_class(kind: type[Any], network: type[Any]) -> type[Any]:
    return type(network.__name__, (kind, network), {})


# transformers


def of_transformers(library: Any, name: str, pretrained: bool) -> tuple[Any, ...]:
    if pretrained:
        network = from_cache_or_hub(library.AutoModel.from_pretrained, name)
    else:
        config = from_cache_or_hub(library.AutoConfig.from_pretrained, name)
        network = library.AutoModel.from_config(config)
    try:
        processor = from_cache_or_hub(library.AutoImageProcessor.from_pretrained, name)
    except (OSError, ValueError):
        processor = None
    left_out = without_texts(network)
    if isinstance(getattr(getattr(network, "pooler", None), "dense", None), nn.Linear):
        # Most weights come without it; the first token is what it would be made of.
        network.pooler = None
        left_out = (*left_out, "pooler.")
    return network, ImageFeatures, preprocessing_of(processor, network.config), left_out


class ImageFeatures:
    """What is put before the class of a model of transformers."""

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, num_features)"""
        model: Any = self
        own: Any = super().forward  # type: ignore[misc]
        compute = getattr(model, "get_image_features", own)
        options = {}
        if "interpolate_pos_encoding" in inspect.signature(compute).parameters:
            options["interpolate_pos_encoding"] = True
        outputs = compute(pixel_values=images, **options)
        if isinstance(outputs, Tensor):
            return outputs
        if outputs.pooler_output is not None:
            return outputs.pooler_output.flatten(1)
        tokens = outputs.last_hidden_state
        return tokens[:, 0] if tokens.dim() == 3 else tokens.mean((2, 3))


def without_texts(network: Any) -> tuple[str, ...]:
    """Take from a model of pictures and texts what its pictures don't need. Returns how the names
    of what was taken begin."""
    if not hasattr(network, "get_image_features"):
        return ()
    taken = []
    for name, _ in (*network.named_children(), *network.named_parameters(recurse=False)):
        if name.startswith(OF_TEXTS):
            delattr(network, name)
            taken.append(name)
    return tuple(taken)


def preprocessing_of(processor: Any, config: Any) -> dict[str, Any]:
    """By a processor of transformers; by its model's configuration what that doesn't say."""
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", IMAGENET["size"])
    if isinstance(size, (list, tuple)):
        size = size[0]
    said: dict[str, Any] = {**IMAGENET, "size": size}
    mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    if mean and std:
        said |= {"mean": mean, "std": std}
    if getattr(processor, "resample", None) == Resampling.BICUBIC:
        said["interpolation"] = "bicubic"
    return said


# OpenCLIP


def of_open_clip(library: Any, name: str, pretrained: bool) -> tuple[Any, ...]:
    """`name` is that of an architecture, with a tag of weights after a slash, or begins with
    OpenCLIP's own hf-hub: or local-dir:."""
    if name.startswith(("hf-hub:", "local-dir:")):
        if name.startswith("hf-hub:") and pretrained:
            require_hub(name.removeprefix("hf-hub:"))
        model = library.create_model(name, load_weights=pretrained)
        return open_clip_parts(model, {})
    architecture, _, tag = name.partition("/")
    known = library.list_models()
    if architecture not in known:
        raise UnknownName(f"OpenCLIP has no model {architecture!r}{near_miss(architecture, known)}")
    tags = library.list_pretrained_tags_by_model(architecture)
    if (tag and tag not in tags) or (pretrained and not tag):
        raise UnknownName(
            f"OpenCLIP's weights of {architecture} must be one of {', '.join(tags) or 'none'}, got"
            f" {tag!r}: write openclip:{architecture}/TAG"
        )
    if pretrained:
        require_open_clip_weights(library, architecture, tag)
    weights = {"pretrained": tag} if pretrained else {"load_weights": False}
    model = library.create_model(architecture, pretrained_text=False, **weights)
    of_tag = library.pretrained.get_pretrained_cfg(architecture, tag) if tag else {}
    return open_clip_parts(model, of_tag)


def open_clip_parts(model: Any, of_tag: Mapping[str, Any]) -> tuple[Any, ...]:
    """`of_tag` is what the weights say, which may differ from the architecture."""
    visual = model.visual
    said = {**visual.preprocess_cfg, **of_tag}
    size = visual.image_size if hasattr(visual, "image_size") else said["size"]
    side = size[0] if isinstance(size, (list, tuple)) else size
    preprocessing = {"mean": said["mean"], "std": said["std"], "size": side}
    preprocessing["interpolation"] = said.get("interpolation", IMAGENET["interpolation"])
    return visual, FirstOutput, preprocessing, ()


class FirstOutput:
    """What is put before the class of a picture's side in OpenCLIP, which may return tokens too."""

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, num_features)"""
        outputs = super().forward(images)  # type: ignore[misc]
        return outputs[0] if isinstance(outputs, tuple) else outputs


def require_open_clip_weights(library: Any, architecture: str, tag: str) -> None:
    """Raises OSError within seconds where the weights are on no disk here and their host does not
    answer."""
    from huggingface_hub import try_to_load_from_cache

    source = library.pretrained.get_pretrained_cfg(architecture, tag)
    repository = source.get("hf_hub", "").rstrip("/")
    url = source.get("url", "")
    names = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    in_cache = [try_to_load_from_cache(repository, file) for file in names] if repository else []
    if any(isinstance(path, str) for path in in_cache):
        return
    if url and (Path("~/.cache/clip").expanduser() / Path(url).name).is_file():
        return
    if repository:
        require_hub(repository)
    elif url:
        require_answer(url)


# sentence-transformers


def of_sentence_transformers(library: Any, name: str, pretrained: bool) -> tuple[Any, ...]:
    def load(name: str, local_files_only: bool) -> Any:
        return library.SentenceTransformer(name, device="cpu", local_files_only=local_files_only)

    network = from_cache_or_hub(load, name)
    if not network.supports("image"):
        raise ValueError("it embeds no images")
    first = network[0]
    if not pretrained:
        first.model = type(first.model)(first.model.config)
        for module in list(network.children())[1:]:
            module.apply(reset)
    taken = without_texts(first.model)
    processor = getattr(first.processor, "image_processor", first.processor)
    preprocessing = preprocessing_of(processor, first.model.config)
    return network, SentenceEmbedding, preprocessing, tuple(f"0.model.{part}" for part in taken)


class SentenceEmbedding:
    """What is put before the class of sentence-transformers."""

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, num_features)"""
        features = {"pixel_values": images, "modality": "image"}
        return super().forward(features)["sentence_embedding"]  # type: ignore[misc]


def reset(module: nn.Module) -> None:
    draw_anew: Any = getattr(module, "reset_parameters", None)
    if draw_anew is not None:
        draw_anew()
