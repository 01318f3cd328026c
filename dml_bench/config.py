"""The shape of an experiment: frozen values, checked as they are made, equal after a round trip through a file."""

from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from dml_bench import registry
from dml_bench.registry import UnknownName, checked, near_miss

__all__ = [
    "Augment", "Component", "Data", "Evaluate", "Expectation", "Experiment", "Images", "Model", "Pretrain", "Train", "as_table", "load",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Component:
    """A registered name with all of its options."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


def component(kind: registry.Registry, default: str | None = None) -> Any:
    """A field that holds a Component of `kind`; in a file it is a name, or a table of `name` and options."""
    metadata = {"registry": kind, "default": default}
    if default is None:
        return field(metadata=metadata)
    return field(default_factory=lambda: read_component(default, kind, kind.kind), metadata=metadata)


def require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Which images, and how they are divided."""

    dataset: Component = component(registry.datasets, "cub")
    split: Literal["stratified", "given"] = "stratified"
    """`stratified`: drawn per class from the seed; `given`: the data set's own train and test parts."""
    test_fraction: float = 0.2
    """Part of each class's images that become queries (only for the stratified split)."""
    skip_unreadable: bool = False
    """Leave out images that can't be decoded, and record which, instead of stopping."""

    def __post_init__(self) -> None:
        require(0 < self.test_fraction < 1, f"data.test_fraction is {self.test_fraction}; wanted between 0 and 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """The deterministic view of an image that gallery and query share."""

    size: int = 224
    """Side in pixels of the square that the network sees."""
    fit: Literal["crop", "squash"] = "crop"
    """`crop`: resize the shorter side to `size`, crop the centre; `squash`: resize both sides to `size`."""
    normalization: Literal["backbone", "train"] = "backbone"
    """Channel means and deviations: those of the backbone's weights, or of the phase's training images."""

    def __post_init__(self) -> None:
        require(self.size >= 8, f"images.size is {self.size}; at least 8 pixels are wanted")


@dataclass(frozen=True, kw_only=True, slots=True)
class Augment:
    """Random changes of training images. All off by default."""

    random_crop_from: int = 0
    """Resize the shorter side to this many pixels, then crop `images.size` at random; 0 is off."""
    horizontal_flip: float = 0.0
    """Probability of mirroring an image."""

    def __post_init__(self) -> None:
        require(0 <= self.horizontal_flip <= 1, f"augment.horizontal_flip is {self.horizontal_flip}; a probability from 0 to 1 is wanted")

    @property
    def active(self) -> bool:
        return self.random_crop_from > 0 or self.horizontal_flip > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Backbone, head, and where the weights come from."""

    backbone: Component = component(registry.backbones, "resnet18")
    weights: str = "imagenet"
    """`imagenet`, `none` (random), `source` (pretrained on drawn species, see `pretrain`), or the path of a state dict."""
    trainable: Literal["all", "head"] = "all"
    """`head` freezes the backbone, computes its features once and trains on those."""
    head: Component = component(registry.heads, "linear")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrain:
    """The source domain of `model.weights = "source"`: a softmax classifier on drawn species that no benchmark uses."""

    classes: int = 48
    per_class: int = 24
    epochs: int = 6
    batch_size: int = 32
    lr: float = 0.02
    """Of SGD with momentum 0.9 and weight decay 5e-4."""
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("classes", "per_class", "batch_size"):
            require(getattr(self, name) >= 2, f"pretrain.{name} is {getattr(self, name)}; at least 2 is wanted")
        require(self.epochs >= 1 and self.lr > 0, "pretrain.epochs must be at least 1 and pretrain.lr positive")


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    epochs: int = 100
    batch_size: int = 128
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the device has units for it, float32 elsewhere. The loss is always in float32."""

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"train.epochs is {self.epochs}; at least 1 is wanted")
        require(self.batch_size >= 2, f"train.batch_size is {self.batch_size}; at least 2 is wanted")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate:
    every: int = 1
    """Epochs between two measurements of P@1; the last epoch is always measured."""
    vote_k: tuple[int, ...] = (1, 3, 5, 10)
    """Numbers of neighbours that vote on the class of a query."""

    def __post_init__(self) -> None:
        require(self.every >= 1, f"evaluate.every is {self.every}; at least 1 is wanted")
        require(bool(self.vote_k) and min(self.vote_k) >= 1, f"evaluate.vote_k is {list(self.vote_k)}; positive numbers are wanted")


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectation:
    """A claim about the result, with its source, for a report to test."""

    metric: str
    source: str
    value: float | None = None
    """The claimed value itself, or"""
    change: float | None = None
    """the claimed difference from the experiment `versus`."""
    versus: str = ""

    def __post_init__(self) -> None:
        require((self.value is None) != (self.change is None), f"an expectation of {self.metric} needs either value or change")
        require((self.change is None) == (not self.versus), f"an expectation of {self.metric}: change and versus go together")


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """One row of the table, resolved: everything that decides its numbers, and what is expected of them."""

    name: str
    summary: str = ""
    profile: str = ""
    """Name of the profile that changed the experiment (`demo`), or empty."""
    seed: int = 42
    unseen: str = "last:20"
    """Classes that phase `limited` never sees: `last:N`, `random:N:SEED`, or class names joined by commas."""
    data: Data = field(default_factory=Data)
    images: Images = field(default_factory=Images)
    augment: Augment = field(default_factory=Augment)
    model: Model = field(default_factory=Model)
    pretrain: Pretrain | None = None
    loss: Component = component(registry.losses)
    miner: Component = component(registry.miners, "none")
    optimizer: Component = component(registry.optimizers)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)
    expects: tuple[Expectation, ...] = ()

    def __post_init__(self) -> None:
        loss = registry.losses[self.loss.name]
        if self.miner.name != "none" and not loss.facts["takes_miner"]:
            raise ValueError(f"miner {self.miner.name} has no effect: loss {loss.name} takes no miner; --set miner=none")
        crop = self.augment.random_crop_from
        if crop and self.images.fit == "squash":
            raise ValueError("augment.random_crop_from needs images.fit = crop: a squashed image has nothing left to crop")
        require(crop == 0 or crop >= self.images.size, f"augment.random_crop_from is {crop}, smaller than images.size ({self.images.size})")
        if self.model.trainable == "head" and self.augment.active:
            raise ValueError(
                "model.trainable = head trains on features computed once, so augmentation has no effect: "
                "--set augment.random_crop_from=0 --set augment.horizontal_flip=0"
            )
        if self.model.trainable == "head" and self.images.normalization == "train":
            raise ValueError(
                "images.normalization = train would give each phase other frozen features: use backbone with model.trainable = head"
            )
        if self.model.weights == "source" and self.pretrain is None:
            object.__setattr__(self, "pretrain", Pretrain())
        if self.pretrain is not None and self.model.weights != "source":
            raise ValueError(f"pretrain has no effect with model.weights = {self.model.weights}; it belongs to model.weights = source")


def read_component(value: Any, kind: registry.Registry, where: str, default: str | None = None) -> Component:
    """A Component from a name or a table with `name` and options; all options filled in and checked."""
    table = {"name": value} if isinstance(value, str) else value
    if isinstance(table, dict) and "name" not in table and default is not None:
        table = {"name": default, **table}
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise ValueError(f"{where} is {value!r}; a {kind.kind}'s name, or a table with a name and options, is wanted")
    name = table["name"]
    given = {key: option for key, option in table.items() if key != "name"}
    return Component(name, kind[name].resolve(given, where))


def load(table: dict[str, Any], wanted: type[Any] = Experiment, where: str = "") -> Any:
    """Build `wanted` from nested tables. Raises ValueError on an unknown key, a wrong type or a wrong combination."""
    hints = get_type_hints(wanted)
    known = {f.name: f for f in fields(wanted)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        path = f"{where}{key}"
        if key not in known:
            raise UnknownName(
                f"unknown key {path}{near_miss(key, list(known))}; {where.rstrip('.') or 'an experiment'} has: {', '.join(known)}"
            )
        if "registry" in known[key].metadata:
            values[key] = read_component(value, known[key].metadata["registry"], path, known[key].metadata["default"])
        else:
            values[key] = _read(value, hints[key], path)
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(f"{where}{name} is missing")
    return wanted(**values)


def _read(value: Any, hint: Any, path: str) -> Any:
    options = [h for h in get_args(hint) if h is not type(None)] if type(None) in get_args(hint) else []
    if options:
        return None if value is None else _read(value, options[0], path)
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{path} is {value!r}; a table is wanted")
        return load(value, hint, f"{path}.")  # type: ignore[arg-type]
    if get_origin(hint) is tuple and is_dataclass(get_args(hint)[0]):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{path} is {value!r}; a list of tables is wanted")
        return tuple(_read(item, get_args(hint)[0], path) for item in value)
    return checked(value, hint, path)


def as_table(experiment: Experiment) -> dict[str, Any]:
    """Nested tables of plain values: `load(as_table(e)) == e`, also after a trip through JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    def flatten(value: Any) -> Any:
        if isinstance(value, Component):
            return {"name": value.name, **plain(value.options)}
        if isinstance(value, tuple) and value and is_dataclass(value[0]):
            return [flatten(item) for item in value]
        if is_dataclass(value):
            return {f.name: flatten(getattr(value, f.name)) for f in fields(value) if getattr(value, f.name) is not None}
        return plain(value)

    return flatten(experiment)
