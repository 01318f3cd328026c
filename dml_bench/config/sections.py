"""The shape of an experiment: frozen values, checked as they are made, equal after a round trip
through a file."""

import math
import unicodedata
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from dml_bench import registry
from dml_bench.registry import UnknownName, checked, near_miss

__all__ = [
    "Augment",
    "Component",
    "Data",
    "Evaluate",
    "Expectation",
    "Experiment",
    "Images",
    "Mixing",
    "Model",
    "Pretrain",
    "Train",
    "as_table",
    "load",
]


@dataclass(frozen=True, slots=True)
class Component:
    """A registered name with all of its options."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


def component(kind: registry.Registry, default: str | None = None) -> Any:
    """A field that holds a Component of `kind`; in a file it is a name, or a table of `name` and
    options."""
    metadata = {"registry": kind, "default": default}
    if default is None:
        return field(metadata=metadata)
    return field(
        default_factory=lambda: read_component(default, kind, kind.kind), metadata=metadata
    )


def require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


LONGEST_NAME = 150
"""Bytes: with what is appended to a name, file systems take 255."""


def require_name(text: str, key: str) -> None:
    """Raises ValueError unless `text` is one component of a path on any system, not hidden and no
    option of a command."""
    plain = all(
        unicodedata.category(character)[0] in "LMN" or character in "._+- " for character in text
    )
    if (
        not (plain and text[:1].isalnum() and text == text.strip())
        or len(text.encode()) > LONGEST_NAME
    ):
        shown = repr(text if len(text) <= 60 else f"{text[:60]}...")
        raise ValueError(
            f"{key} is {shown}; a letter or digit, then letters, digits, spaces and . _ + - are"
            f" wanted, at most {LONGEST_NAME} bytes"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Which images, and how they are divided."""

    dataset: Component = component(registry.datasets, "cub")
    split: Literal["stratified", "half", "given"] = "stratified"
    """`stratified`: drawn per class from the seed; `half`: the first half of the classes against
    the second; `given`: the data set's own parts."""
    test_fraction: float = 0.2
    """Part of each class's images that become queries (only for the stratified split)."""
    valid_fraction: float = 0.0
    """Part of the training images of each class that only watch: they choose the epoch
    (`train.checkpoint`) and thresholds, and neither train nor are looked up. Under the protocol
    `class_disjoint`, part of the training classes; a `given` split has its own."""
    label_noise: float = 0.0
    """Part of the training and of the validation images of each phase that training, samplers and
    validation are told under a wrong class, drawn once from the seed; queries and gallery are
    evaluated under the true ones."""
    skip_unreadable: bool = False
    """Leave out images that can't be decoded, and record which, instead of stopping."""

    def __post_init__(self) -> None:
        require(
            0 < self.test_fraction < 1,
            f"data.test_fraction is {self.test_fraction}; wanted between 0 and 1",
        )
        require(
            0 <= self.valid_fraction < 1,
            f"data.valid_fraction is {self.valid_fraction}; wanted from 0 to less than 1",
        )
        require(
            0 <= self.label_noise < 1,
            f"data.label_noise is {self.label_noise}; wanted from 0 to less than 1",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """The deterministic view of an image that gallery and query share."""

    size: int = 224
    """Side in pixels of the square that the network sees."""
    fit: Literal["crop", "squash"] = "crop"
    """`crop`: resize the shorter side to `size`, crop the centre; `squash`: resize both sides to
    `size`."""
    normalization: Literal["backbone", "train"] = "backbone"
    """Channel means and deviations: those of the backbone's weights, or of the phase's training
    images."""
    mean: tuple[float, ...] = ()
    """Means of red, green and blue, 0-1, in place of the backbone's; together with"""
    std: tuple[float, ...] = ()
    """their deviations. `dml-bench data statistics` computes both."""
    progressive: tuple[int, ...] = ()
    """Sides of the training images as the epochs go by, an equal share of the epochs each, e.g.
    [112, 168, 224]; empty: always `size`. Gallery and query are always seen at `size`."""

    def __post_init__(self) -> None:
        require(self.size >= 8, f"images.size is {self.size}; at least 8 pixels are wanted")
        self._check_statistics()
        sizes = list(self.progressive)
        if sizes:
            require(min(sizes) >= 8, f"images.progressive is {sizes}; at least 8 pixels are wanted")
            require(
                sizes == sorted(set(sizes)) and sizes[-1] == self.size,
                f"images.progressive is {sizes}; growing sizes that end with images.size"
                f" ({self.size}) are wanted",
            )

    def _check_statistics(self) -> None:
        mean, std = self.mean, self.std
        if not (mean or std):
            return
        require(
            len(mean) == len(std) == 3,
            f"images.mean is {list(mean)} and images.std {list(std)}; three numbers each, 0-1, are"
            " wanted",
        )
        require(
            min(mean) >= 0 and max(mean) <= 1,
            f"images.mean is {list(mean)}; three numbers from 0 to 1 are wanted",
        )
        require(
            min(std) > 0 and max(std) <= 1,
            f"images.std is {list(std)}; three numbers above 0 and up to 1 are wanted",
        )
        require(
            self.normalization == "backbone",
            "images.mean has no effect with images.normalization = train; choose one of them",
        )

    def training_size(self, epoch: int, epochs: int) -> int:
        """Side of the training images in this epoch, counted from 1."""
        sizes = self.progressive or (self.size,)
        return sizes[min(len(sizes) * (epoch - 1) // epochs, len(sizes) - 1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Augment:
    """Random changes of training images. All off by default."""

    random_crop_from: int = 0
    """Resize the shorter side to this many pixels, then crop `images.size` at random; 0 is off.
    With `resized_crop`, which crops from the file, only the views of `evaluate.tta = crops` are cut
    there. Of images longer than 4:1 training sees the middle."""
    horizontal_flip: float = 0.0
    """Probability of mirroring an image."""
    resized_crop: float = 0.0
    """Crop a random rectangle of at least this part of the file's area and resize it to
    `images.size`; 0 is off. The cache then holds images large enough that no crop down to a
    sixteenth of the area is enlarged unless the file is that small."""
    color_jitter: float = 0.0
    """Strength of random changes of brightness, contrast, saturation and hue, from 0 (off) to 1
    (SimCLR's)."""
    grayscale: float = 0.0
    """Probability of taking an image's colours away."""
    gaussian_blur: float = 0.0
    """Probability of blurring an image."""
    dihedral: float = 0.0
    """Probability of drawing one of the eight symmetries of the square (turns by 90 degrees,
    mirrored or not; one changes nothing)."""
    rotate: float = 0.0
    """Largest angle in degrees, either way; 0 is off."""
    zoom: float = 1.0
    """Largest factor by which a random part of an image is magnified; 1 is off."""
    warp: float = 0.0
    """Largest tilt of the point of view, by which one side of an image shrinks and the opposite one
    grows; 0 is off."""
    geometry_probability: float = 0.75
    """Probability of each of `rotate`, `zoom` and `warp`."""
    lighting: float = 0.0
    """Strength of random changes of brightness and contrast that keep black and white, from 0 (off)
    to less than 1."""
    lighting_probability: float = 0.75
    """Probability of each of the two."""

    def __post_init__(self) -> None:
        limits = {"rotate": (0, 180), "zoom": (1, 10), "warp": (0, 0.5), "lighting": (0, 0.99)}
        for name in (f.name for f in fields(self) if f.name != "random_crop_from"):
            low, high = limits.get(name, (0, 1))
            require(
                low <= getattr(self, name) <= high,
                f"augment.{name} is {getattr(self, name)}; a number from {low} to {high} is wanted",
            )
        moves = self.rotate or self.warp or self.zoom > 1
        require(
            bool(moves) or self.geometry_probability == 0.75,
            "augment.geometry_probability has no effect without augment.rotate, augment.zoom or"
            " augment.warp",
        )
        require(
            bool(self.lighting) or self.lighting_probability == 0.75,
            "augment.lighting_probability has no effect without augment.lighting",
        )

    @property
    def active(self) -> bool:
        return self != Augment()

    def changed(self) -> list[tuple[str, float]]:
        """What is not as by default, with its default."""
        default = Augment()
        return [
            (f.name, getattr(default, f.name))
            for f in fields(self)
            if getattr(self, f.name) != getattr(default, f.name)
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixing:
    """Training images mixed with others, and in which epochs. Off by default."""

    technique: Component = component(registry.mixings, "none")
    start_from: int = 0
    """Epochs at the beginning that go without."""
    on: int = 1
    """Epochs with, and"""
    off: int = 0
    """epochs without, in turn."""
    finetuning_epoch: int = 0
    """What follows this epoch goes without; 0 is never."""

    def __post_init__(self) -> None:
        for name, least in (("start_from", 0), ("on", 1), ("off", 0), ("finetuning_epoch", 0)):
            require(
                getattr(self, name) >= least,
                f"mixing.{name} is {getattr(self, name)}; at least {least} is wanted",
            )
        end = self.finetuning_epoch
        require(
            end == 0 or end > self.start_from,
            f"mixing.finetuning_epoch is {end}, not after mixing.start_from ({self.start_from})",
        )

    def active(self, epoch: int) -> bool:
        """Whether images are mixed in this epoch, counted from 1."""
        place = epoch - 1 - self.start_from
        ended = bool(self.finetuning_epoch) and epoch > self.finetuning_epoch
        return (
            self.technique.name != "none"
            and not ended
            and place >= 0
            and place % (self.on + self.off) < self.on
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Backbone, head, and where the weights come from."""

    backbone: Component = component(registry.backbones, "resnet18")
    weights: str = "imagenet"
    """`imagenet`, `none` (random), `source` (pretrained on drawn species, see `pretrain`), or the
    path of a state dict."""
    trainable: Literal["all", "head"] = "all"
    """`head` freezes the backbone, computes its features once and trains on those."""
    pooling: Component = component(registry.poolings, "own")
    head: Component = component(registry.heads, "linear")
    batch_norm: Literal["train", "frozen"] = "train"
    """`frozen` keeps the statistics and the affine parameters of the backbone's BatchNorm layers as
    they were loaded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrain:
    """The source domain of `model.weights = "source"`: a softmax classifier on drawn species that
    no benchmark uses."""

    classes: int = 48
    per_class: int = 24
    epochs: int = 6
    batch_size: int = 32
    lr: float = 0.02
    """Of SGD with momentum 0.9 and weight decay 5e-4."""
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("classes", "per_class", "batch_size"):
            require(
                getattr(self, name) >= 2,
                f"pretrain.{name} is {getattr(self, name)}; at least 2 is wanted",
            )
        require(
            self.epochs >= 1 and self.lr > 0,
            "pretrain.epochs must be at least 1 and pretrain.lr positive",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    epochs: int = 100
    batch_size: int = 128
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the device has units for it, float32 elsewhere. The loss is always in
    float32."""
    proxy_lr_factor: float = 1.0
    """The loss's own parameters (proxies, class weights) learn at this multiple of `optimizer.lr`.
    """
    views: int = 1
    """Augmented views of each image in a batch."""
    labels: Literal["class", "image"] = "class"
    """What makes two embeddings positives: the class, or (self-supervised) being views of one
    image."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: images count in inverse proportion to the training images of their class; their
    mean weight is 1."""
    checkpoint: Literal["last", "valid_accuracy", "valid_loss"] = "last"
    """Whose weights are kept: those of the last epoch, or of the one with the highest P@1 or the
    lowest loss on the validation images, among the epochs that `evaluate.every` measures."""
    sync_bn: bool = False
    """Where several processes train together: BatchNorm takes its statistics over the joint batch
    instead of each process's part of it."""
    folds: int = 0
    """Stratified parts of the training images; each phase trains one model without each of them,
    and they answer together. 0 is one model of all."""

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"train.epochs is {self.epochs}; at least 1 is wanted")
        require(
            self.batch_size >= 2, f"train.batch_size is {self.batch_size}; at least 2 is wanted"
        )
        require(
            self.proxy_lr_factor > 0,
            f"train.proxy_lr_factor is {self.proxy_lr_factor}; a positive number is wanted",
        )
        require(self.views >= 1, f"train.views is {self.views}; at least 1 is wanted")
        require(
            self.labels == "class" or self.views > 1,
            "train.labels = image needs train.views of at least 2",
        )
        require(
            self.folds == 0 or self.folds >= 2,
            f"train.folds is {self.folds}; 0 (off) or at least 2 is wanted",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate:
    every: int = 1
    """Epochs between two measurements of P@1; the last epoch is always measured."""
    vote_k: tuple[int, ...] = (1, 3, 5, 10)
    """Numbers of neighbours that vote on the class of a query."""
    recall_k: tuple[int, ...] = (1, 2, 4, 8)
    """The k of R@k (only for the protocol `class_disjoint`)."""
    nmi: bool = False
    """Also cluster the test images and report NMI (only for the protocol `class_disjoint`), as
    papers before 2020 do."""
    tta: Literal["none", "mirror", "crops"] = "none"
    """Test-time augmentation of the final evaluation, gallery and queries alike. `mirror`: each
    image as it is and mirrored; `crops`: four corners and the centre of the image at
    `augment.random_crop_from`, each also mirrored. What is watched during training has one view."""
    tta_by: Literal["mean", "max"] = "mean"
    """`mean`: an image's embedding is the mean of its views' unit vectors, at unit length again;
    its class probabilities are their mean. `max`: a query is as similar to a gallery image (which
    stays the mean of its views) as the most similar of its views is."""

    def __post_init__(self) -> None:
        require(self.every >= 1, f"evaluate.every is {self.every}; at least 1 is wanted")
        require(
            bool(self.vote_k) and min(self.vote_k) >= 1,
            f"evaluate.vote_k is {list(self.vote_k)}; positive numbers are wanted",
        )
        require(
            self.tta_by == "mean" or self.tta != "none",
            "evaluate.tta_by has no effect without evaluate.tta",
        )
        require(
            bool(self.recall_k) and min(self.recall_k) >= 1,
            f"evaluate.recall_k is {list(self.recall_k)}; positive numbers are wanted",
        )


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
        require(
            (self.value is None) != (self.change is None),
            f"an expectation of {self.metric} needs either value or change",
        )
        require(
            (self.change is None) == (not self.versus),
            f"an expectation of {self.metric}: change and versus go together",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """One row of the table, resolved: everything that decides its numbers, and what is expected of
    them."""

    name: str
    """Also the name of its folder: letters, digits, spaces and . _ + -."""
    summary: str = ""
    profile: str = ""
    """Name of the profile that changed the experiment (`demo`), or empty."""
    seed: int = 42
    protocol: Literal["precision_drop", "class_disjoint"] = "precision_drop"
    """`precision_drop`: a model of all classes and one without the unseen. `class_disjoint`: train
    on the first half of the classes, leave-one-out retrieval among the second half, as most papers
    do."""
    unseen: str = "last:20"
    """Classes that phase `limited` never sees: `last:N`, `random:N:SEED`, or class names joined by
    commas; `random:N:SEED x R` is R rotated hold-outs, each with a phase of its own."""
    data: Data = field(default_factory=Data)
    images: Images = field(default_factory=Images)
    augment: Augment = field(default_factory=Augment)
    mixing: Mixing = field(default_factory=Mixing)
    model: Model = field(default_factory=Model)
    pretrain: Pretrain | None = None
    loss: Component = component(registry.losses)
    miner: Component = component(registry.miners, "none")
    sampler: Component = component(registry.samplers, "shuffled")
    labelling: Component = component(registry.labellings, "given")
    """Whose labels are trained on."""
    start: Component = component(registry.starts, "none")
    """A stage of each phase that trains the backbone before the phase itself begins."""
    optimizer: Component = component(registry.optimizers)
    schedule: Component = component(registry.schedules, "constant")
    """How the rates change from step to step, below `optimizer.lr`."""
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)
    expects: tuple[Expectation, ...] = ()

    def __post_init__(self) -> None:
        require_name(self.name, "name")
        if self.profile:
            require_name(self.profile, "profile")
        if self.model.weights == "source" and self.pretrain is None:
            object.__setattr__(self, "pretrain", Pretrain())
        wanted = ("half", "given") if self.protocol == "class_disjoint" else ("stratified", "given")
        require(
            self.data.split in wanted,
            f"data.split is {self.data.split}; protocol {self.protocol} takes"
            f" {' or '.join(wanted)}",
        )
        check_objective(self)
        check_images(self)
        check_model(self)
        check_mixing(self)
        check_labels(self)
        check_start(self)


def check_objective(experiment: Experiment) -> None:
    """Raises ValueError where loss, miner, sampler and labels contradict each other."""
    loss, train = registry.losses[experiment.loss.name], experiment.train
    if experiment.miner.name != "none" and not loss.facts["takes_miner"]:
        raise ValueError(
            f"miner {experiment.miner.name} has no effect: loss {loss.name} takes no miner; --set"
            " miner=none"
        )
    if train.proxy_lr_factor != 1 and not loss.facts["trains_proxies"]:
        raise ValueError(
            f"train.proxy_lr_factor has no effect: loss {loss.name} has no parameters of its own"
        )
    if train.labels == "image" and loss.facts["trains_proxies"]:
        raise ValueError(
            f"train.labels = image gives each image a class of its own: loss {loss.name} can't have"
            " parameters for each"
        )


def check_mixing(experiment: Experiment) -> None:
    """Raises ValueError where images can't be mixed as asked, or never would be."""
    mixing, loss = experiment.mixing, registry.losses[experiment.loss.name]
    name, options = mixing.technique.name, mixing.technique.options
    if name == "none":
        require(
            mixing == Mixing(),
            "mixing has a schedule and no technique; --set mixing.technique=mixup, or leave the"
            " schedule out",
        )
        return
    entry = registry.mixings[name]
    epochs = experiment.train.epochs
    if not any(mixing.active(epoch) for epoch in range(1, epochs + 1)):
        raise ValueError(
            f"mixing.start_from is {mixing.start_from}, but there are {epochs} epochs: {name} would"
            " never be on"
        )
    if experiment.model.trainable == "head":
        raise ValueError(
            f"{name} mixes images, and model.trainable = head trains on features computed once;"
            " --set model.trainable=all"
        )
    if experiment.train.views > 1:
        raise ValueError(
            f"{name} mixes images of a batch, and train.views = {experiment.train.views} has"
            " several views of each; choose one"
        )
    if entry.facts["where"] == "embeddings":
        if not loss.facts["interpolates"]:
            able = ", ".join(each.name for each in registry.losses if each.facts["interpolates"])
            raise ValueError(
                f"{name} is not defined for loss {loss.name}, only for {able}; mixup works with all"
                " losses"
            )
    elif entry.facts["two_labels"] and loss.facts["one_number"] and options["share"] == "image":
        raise ValueError(
            f"loss {loss.name} is one number for a whole batch, so images can't have a lambda of"
            " their own in it; --set mixing.technique.share=batch"
        )


def check_labels(experiment: Experiment) -> None:
    """Raises ValueError where the labels, their weights or the validation images don't fit the
    rest."""
    labelling, train, loss = (
        registry.labellings[experiment.labelling.name],
        experiment.train,
        registry.losses[experiment.loss.name],
    )
    if labelling.facts["classifies"] and not loss.facts["classifies"]:
        raise ValueError(
            f"labelling {labelling.name} asks the loss for the class of an image, and {loss.name}"
            " can't say it"
        )
    weighted = (
        "train.class_weights"
        if train.class_weights != "none"
        else "labelling softlabels"
        if labelling.name == "softlabels"
        else ""
    )
    if weighted and loss.facts["one_number"]:
        raise ValueError(
            f"{weighted} has no effect: loss {loss.name} is one number for a whole batch, in which"
            " all images count the same"
        )
    by_image = train.labels == "image"
    if by_image and (weighted or labelling.name != "given" or experiment.data.label_noise):
        raise ValueError(
            "train.labels = image looks at no class: leave out labelling, train.class_weights and"
            " data.label_noise"
        )
    if labelling.facts["classifies"]:
        check_correctable(experiment)
    sampler = registry.samplers[experiment.sampler.name]
    if train.class_weights == "balanced" and sampler.facts["balances_classes"]:
        raise ValueError(
            f"sampler {sampler.name} draws all classes equally often, and train.class_weights ="
            " balanced would correct for their sizes again; choose one"
        )
    if labelling.facts["classifies"] and experiment.mixing.technique.name not in ("none", "metrix"):
        mixed = experiment.mixing.technique.name
        raise ValueError(
            f"labelling {labelling.name} asks what an image is, and {mixed} mixes it with others;"
            " choose one"
        )
    require(
        not (labelling.name == "softlabels" and train.folds),
        "labelling softlabels trains folds of its own; --set train.folds=0",
    )
    disjoint = experiment.protocol == "class_disjoint"
    require(not (disjoint and train.folds), "train.folds needs the protocol precision_drop")
    require(
        disjoint or not experiment.evaluate.nmi,
        "evaluate.nmi needs the protocol class_disjoint; leave it out",
    )
    require(
        not (disjoint and train.checkpoint == "valid_loss"),
        "validation classes have no loss; --set train.checkpoint=valid_accuracy",
    )
    watching = experiment.data.valid_fraction or train.folds or experiment.data.split == "given"
    if train.checkpoint != "last" and not watching:
        raise ValueError(
            f"train.checkpoint = {train.checkpoint} needs validation images; --set"
            " data.valid_fraction=0.1"
        )


MANY_CLASSES = 200
"""As CUB-200-2011 has."""


def check_correctable(experiment: Experiment) -> None:
    """Raises ValueError where the logits are so close together that their softmax never contradicts
    a label by `labelling.theta_end`.

    Of classes at right angles, the likeliest and the label at the ends of the logits' range L: (1 -
    e^-L) / (1 + (C - 2) e^(-L/2) + e^-L).
    """
    loss, theta = experiment.loss, experiment.labelling.options["theta_end"]
    logit_range = registry.losses[loss.name].facts["logit_range"]
    if logit_range is None:
        return
    apart = logit_range(**loss.options)
    largest = (1 - math.exp(-apart)) / (
        1 + (MANY_CLASSES - 2) * math.exp(-apart / 2) + math.exp(-apart)
    )
    if largest < theta:
        raise ValueError(
            f"labelling.theta_end is {theta}, and loss {loss.name} never contradicts a label by"
            f" more than {largest:.2g} among {MANY_CLASSES} classes: choose another loss, or"
            " sharper logits"
        )


def check_start(experiment: Experiment) -> None:
    """Raises ValueError where the stage that the backbone is trained in first can't be made."""
    start = experiment.start
    try:
        registry.starts[start.name].build(experiment, **start.options)
    except ValueError as problem:
        raise ValueError(
            f"start {start.name} can't train on this experiment's data: {problem}"
        ) from None


def check_images(experiment: Experiment) -> None:
    """Raises ValueError where the views of an image can't be made."""
    augment, images = experiment.augment, experiment.images
    crop = augment.random_crop_from
    if images.fit == "squash" and (crop or augment.resized_crop):
        raise ValueError(
            f"augment.{'random_crop_from' if crop else 'resized_crop'} needs images.fit = crop: a"
            " squashed image has nothing left to crop"
        )
    require(
        crop == 0 or crop >= images.size,
        f"augment.random_crop_from is {crop}, smaller than images.size ({images.size})",
    )
    if experiment.evaluate.tta == "crops" and crop <= images.size:
        raise ValueError(
            "evaluate.tta = crops needs augment.random_crop_from above images.size"
            f" ({images.size}): there is nothing to crop"
        )
    require(
        experiment.train.views == 1 or augment.active,
        "train.views of more than 1 are all the same without augment",
    )
    sizes, epochs = len(images.progressive), experiment.train.epochs
    require(
        sizes <= epochs,
        f"images.progressive has {sizes} sizes for train.epochs = {epochs}; at most one size an"
        " epoch is wanted",
    )


def check_model(experiment: Experiment) -> None:
    """Raises ValueError where a setting of the model has no effect or would leak."""
    model = experiment.model
    if experiment.pretrain is not None and model.weights != "source":
        raise ValueError(
            f"pretrain has no effect with model.weights = {model.weights}; it belongs to"
            " model.weights = source"
        )
    if model.pooling.name != "own" and registry.heads[model.head.name].facts["takes_map"]:
        raise ValueError(
            f"model.pooling has no effect: head {model.head.name} takes the whole map; --set"
            " model.pooling=own"
        )
    if experiment.train.sync_bn and (model.batch_norm == "frozen" or model.trainable == "head"):
        frozen = (
            "model.batch_norm = frozen"
            if model.batch_norm == "frozen"
            else "model.trainable = head"
        )
        raise ValueError(
            f"train.sync_bn has no effect with {frozen}, whose statistics stay as they are; leave"
            " it out"
        )
    if model.trainable != "head":
        return
    if experiment.augment.active:
        raise ValueError(
            "model.trainable = head trains on features computed once, so augmentation has no"
            " effect: "
            + " ".join(
                f"--set augment.{name}={default:g}"
                for name, default in experiment.augment.changed()
            )
        )
    if experiment.evaluate.tta != "none":
        raise ValueError(
            "model.trainable = head has the features of one view of each image: --set"
            " evaluate.tta=none"
        )
    if experiment.images.progressive:
        raise ValueError(
            "model.trainable = head trains on features computed once, so images.progressive has no"
            " effect: --set images.progressive=[]"
        )
    if experiment.images.normalization == "train":
        raise ValueError(
            "images.normalization = train would give each phase other frozen features: use backbone"
            " with model.trainable = head"
        )
    require(
        model.batch_norm == "train",
        "model.batch_norm = frozen has no effect with model.trainable = head, which freezes the"
        " whole backbone",
    )


def read_component(
    value: Any, kind: registry.Registry, where: str, default: str | None = None
) -> Component:
    """A Component from a name or a table with `name` and options; all options filled in and
    checked."""
    table = {"name": value} if isinstance(value, str) else value
    if isinstance(table, dict) and "name" not in table and default is not None:
        table = {"name": default, **table}
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise ValueError(
            f"{where} is {value!r}; a {kind.kind}'s name, or a table with a name and options, is"
            " wanted"
        )
    name = table["name"]
    given = {key: option for key, option in table.items() if key != "name"}
    return Component(name, kind[name].resolve(given, where))


def load(table: dict[str, Any], wanted: type[Any] = Experiment, where: str = "") -> Any:
    """Build `wanted` from nested tables. Raises ValueError on an unknown key, a wrong type or a
    wrong combination."""
    hints = get_type_hints(wanted)
    known = {f.name: f for f in fields(wanted)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        path = f"{where}{key}"
        if key not in known:
            raise UnknownName(
                f"unknown key {path}{near_miss(key, list(known))};"
                f" {where.rstrip('.') or 'an experiment'} has: {', '.join(known)}"
            )
        if "registry" in known[key].metadata:
            values[key] = read_component(
                value, known[key].metadata["registry"], path, known[key].metadata["default"]
            )
        else:
            values[key] = _read(value, hints[key], path)
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(f"{where}{name} is missing")
    return wanted(**values)


def _read(value: Any, hint: Any, path: str) -> Any:
    options = (
        [h for h in get_args(hint) if h is not type(None)] if type(None) in get_args(hint) else []
    )
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
            return {
                f.name: flatten(getattr(value, f.name))
                for f in fields(value)
                if getattr(value, f.name) is not None
            }
        return plain(value)

    return flatten(experiment)
