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
    split: Literal["stratified", "half", "given"] = "stratified"
    """`stratified`: drawn per class from the seed; `half`: the first half of the classes against the second; `given`: the data
    set's own parts."""
    test_fraction: float = 0.2
    """Part of each class's images that become queries (only for the stratified split)."""
    valid_fraction: float = 0.1
    """Part of the training classes that only watch (only for the protocol `class_disjoint`)."""
    skip_unreadable: bool = False
    """Leave out images that can't be decoded, and record which, instead of stopping."""

    def __post_init__(self) -> None:
        require(0 < self.test_fraction < 1, f"data.test_fraction is {self.test_fraction}; wanted between 0 and 1")
        require(0 <= self.valid_fraction < 1, f"data.valid_fraction is {self.valid_fraction}; wanted from 0 to less than 1")


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
    resized_crop: float = 0.0
    """Crop a random rectangle of at least this part of the image's area and resize it to `images.size`; 0 is off."""
    color_jitter: float = 0.0
    """Strength of random changes of brightness, contrast, saturation and hue, from 0 (off) to 1 (SimCLR's)."""
    grayscale: float = 0.0
    """Probability of taking an image's colours away."""
    gaussian_blur: float = 0.0
    """Probability of blurring an image."""

    def __post_init__(self) -> None:
        for name in ("horizontal_flip", "resized_crop", "color_jitter", "grayscale", "gaussian_blur"):
            require(0 <= getattr(self, name) <= 1, f"augment.{name} is {getattr(self, name)}; a number from 0 to 1 is wanted")

    @property
    def active(self) -> bool:
        return self != Augment()


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Backbone, head, and where the weights come from."""

    backbone: Component = component(registry.backbones, "resnet18")
    weights: str = "imagenet"
    """`imagenet`, `none` (random), `source` (pretrained on drawn species, see `pretrain`), or the path of a state dict."""
    trainable: Literal["all", "head"] = "all"
    """`head` freezes the backbone, computes its features once and trains on those."""
    pooling: Component = component(registry.poolings, "own")
    head: Component = component(registry.heads, "linear")
    batch_norm: Literal["train", "frozen"] = "train"
    """`frozen` keeps the statistics and the affine parameters of the backbone's BatchNorm layers as they were loaded."""


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
    proxy_lr_factor: float = 1.0
    """The loss's own parameters (proxies, class weights) learn at this multiple of `optimizer.lr`."""
    views: int = 1
    """Augmented views of each image in a batch."""
    labels: Literal["class", "image"] = "class"
    """What makes two embeddings positives: the class, or (self-supervised) being views of one image."""

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"train.epochs is {self.epochs}; at least 1 is wanted")
        require(self.batch_size >= 2, f"train.batch_size is {self.batch_size}; at least 2 is wanted")
        require(self.proxy_lr_factor > 0, f"train.proxy_lr_factor is {self.proxy_lr_factor}; a positive number is wanted")
        require(self.views >= 1, f"train.views is {self.views}; at least 1 is wanted")
        require(self.labels == "class" or self.views > 1, "train.labels = image needs train.views of at least 2")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate:
    every: int = 1
    """Epochs between two measurements of P@1; the last epoch is always measured."""
    vote_k: tuple[int, ...] = (1, 3, 5, 10)
    """Numbers of neighbours that vote on the class of a query."""
    recall_k: tuple[int, ...] = (1, 2, 4, 8)
    """The k of R@k (only for the protocol `class_disjoint`)."""

    def __post_init__(self) -> None:
        require(self.every >= 1, f"evaluate.every is {self.every}; at least 1 is wanted")
        require(bool(self.vote_k) and min(self.vote_k) >= 1, f"evaluate.vote_k is {list(self.vote_k)}; positive numbers are wanted")
        require(bool(self.recall_k) and min(self.recall_k) >= 1, f"evaluate.recall_k is {list(self.recall_k)}; positive numbers are wanted")


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
    note: str = ""
    """The protocol of the claim where it is not ours."""

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
    protocol: Literal["precision_drop", "class_disjoint"] = "precision_drop"
    """`precision_drop`: a model of all classes and one without the unseen. `class_disjoint`: train on the first half of the classes,
    leave-one-out retrieval among the second half, as most papers do."""
    unseen: str = "last:20"
    """Classes that phase `limited` never sees: `last:N`, `random:N:SEED`, or class names joined by commas; `random:N:SEED x R` is R
    rotated hold-outs, each with a phase of its own."""
    data: Data = field(default_factory=Data)
    images: Images = field(default_factory=Images)
    augment: Augment = field(default_factory=Augment)
    model: Model = field(default_factory=Model)
    pretrain: Pretrain | None = None
    loss: Component = component(registry.losses)
    miner: Component = component(registry.miners, "none")
    sampler: Component = component(registry.samplers, "shuffled")
    start: Component = component(registry.starts, "none")
    """A stage of each phase that trains the backbone before the phase itself begins."""
    optimizer: Component = component(registry.optimizers)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)
    expects: tuple[Expectation, ...] = ()

    def __post_init__(self) -> None:
        if self.model.weights == "source" and self.pretrain is None:
            object.__setattr__(self, "pretrain", Pretrain())
        wanted = ("half", "given") if self.protocol == "class_disjoint" else ("stratified", "given")
        require(self.data.split in wanted, f"data.split is {self.data.split}; protocol {self.protocol} takes {' or '.join(wanted)}")
        check_objective(self)
        check_images(self)
        check_model(self)


def check_objective(experiment: Experiment) -> None:
    """Raises ValueError where loss, miner, sampler and labels contradict each other."""
    loss, train = registry.losses[experiment.loss.name], experiment.train
    if experiment.miner.name != "none" and not loss.facts["takes_miner"]:
        raise ValueError(f"miner {experiment.miner.name} has no effect: loss {loss.name} takes no miner; --set miner=none")
    if train.proxy_lr_factor != 1 and not loss.facts["trains_proxies"]:
        raise ValueError(f"train.proxy_lr_factor has no effect: loss {loss.name} has no parameters of its own")
    if train.labels == "image" and loss.facts["trains_proxies"]:
        raise ValueError(f"train.labels = image gives each image a class of its own: loss {loss.name} can't have parameters for each")


def check_images(experiment: Experiment) -> None:
    """Raises ValueError where the views of an image can't be made."""
    augment, images = experiment.augment, experiment.images
    crop = augment.random_crop_from
    if images.fit == "squash" and (crop or augment.resized_crop):
        raise ValueError(
            f"augment.{'random_crop_from' if crop else 'resized_crop'} needs images.fit = crop: a squashed image has nothing left to crop"
        )
    require(crop == 0 or crop >= images.size, f"augment.random_crop_from is {crop}, smaller than images.size ({images.size})")
    require(experiment.train.views == 1 or augment.active, "train.views of more than 1 are all the same without augment")


def check_model(experiment: Experiment) -> None:
    """Raises ValueError where a setting of the model has no effect or would leak."""
    model = experiment.model
    if experiment.pretrain is not None and model.weights != "source":
        raise ValueError(f"pretrain has no effect with model.weights = {model.weights}; it belongs to model.weights = source")
    if model.trainable != "head":
        return
    if experiment.augment.active:
        raise ValueError(
            "model.trainable = head trains on features computed once, so augmentation has no effect: "
            "--set augment.random_crop_from=0 --set augment.horizontal_flip=0"
        )
    if experiment.images.normalization == "train":
        raise ValueError(
            "images.normalization = train would give each phase other frozen features: use backbone with model.trainable = head"
        )
    require(
        model.batch_norm == "train", "model.batch_norm = frozen has no effect with model.trainable = head, which freezes the whole backbone"
    )


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
