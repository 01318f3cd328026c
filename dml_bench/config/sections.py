"""The sections of an experiment: frozen values, each checked by itself as it is made."""

import math
import re
from dataclasses import dataclass, fields
from typing import Literal

from dml_bench import registry
from dml_bench.config.component import Component, component
from dml_bench.registry.plugins import PLUGGABLE, PluginRecord

__all__ = [
    "Augment",
    "Data",
    "Evaluate",
    "Expectation",
    "Images",
    "Mixing",
    "Model",
    "Plugins",
    "Pretrain",
    "Train",
    "Tuned",
    "require",
]


def require(condition: bool, problem: str) -> None:
    """Raises ValueError, which says what is wrong, unless the condition holds."""
    if not condition:
        raise ValueError(problem)


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Which images, and how they are divided."""

    dataset: Component = component(registry.datasets, "cub")
    split: Literal["stratified", "half", "given", "grouped", "time"] = "stratified"
    """`stratified`: drawn per class from the seed; `half`: the first half of the classes against
    the second; `given`: the data set's own parts; `grouped`: drawn from the seed, and no group of
    `group` is on both sides; `time`: in each class the newest images are the queries."""
    group: str = ""
    """Which images belong together: a column of the table, `parent` (the name of the folder that
    holds an image), `photo` (parts of one photo), `regex:PATTERN` (what its groups match in the
    path), `numbers` (photos with consecutive numbers in their names), `runs` (the same, of one
    class), `series` (names that differ only in their last number, e.g. `track15_07`), `exif:day`,
    `exif:hour` (a pause of an hour begins a new group) or `exif:camera`. Only for the grouped
    split, and for folds of a given one.
    """
    time: str = ""
    """When images were taken, for the split `time`: a column of the table, or `exif`. Images of one
    class and one day stay together; in a column, numbers order images too."""
    test_fraction: float = 0.2
    """Part of each class's images that become queries (not for `half` and `given`). With groups it
    is met as nearly as they allow."""
    valid_fraction: float = 0.0
    """Part of each class's training images that are set aside for validation. They choose the epoch
    (`train.checkpoint`) and thresholds, and neither train nor are searched. Where the protocol
    divides by class, it is a part of the training classes; a `given` split has its own."""
    per_class: int = 0
    """At most so many training images in each class, drawn by the seed; 0 is all. Those of a
    smaller number are among those of a larger one. What is left out is in no part; the gallery has
    the training images, as always."""
    label_noise: float = 0.0
    """Part of the training and of the validation images of each phase that training, samplers and
    validation are told under a wrong class, drawn once from the seed; queries and gallery are
    evaluated under the true ones."""
    skip_unreadable: bool = False
    """Leave out images that can't be decoded, and record which, instead of stopping."""

    def __post_init__(self) -> None:
        require(
            0 < self.test_fraction < 1,
            f"data.test_fraction must be between 0 and 1, got {self.test_fraction}",
        )
        self._check_groups()
        require(
            self.per_class >= 0,
            f"data.per_class must be at least 0, got {self.per_class}: 0 takes all",
        )
        require(
            0 <= self.valid_fraction < 1,
            f"data.valid_fraction must be from 0 to less than 1, got {self.valid_fraction}",
        )
        require(
            0 <= self.label_noise < 1,
            f"data.label_noise must be from 0 to less than 1, got {self.label_noise}",
        )

    @property
    def described_split(self) -> str:
        """The kind of split with its rule for groups or times: numbers of two kinds can't be
        compared."""
        rule = self.time or (self.group if self.split == "grouped" else "")
        return f"{self.split} by {rule}" if rule else self.split

    @property
    def has_groups(self) -> bool:
        """Whether images belong to groups, or to days, which the split keeps whole."""
        return bool(self.group or self.time)

    def _check_groups(self) -> None:
        require(
            bool(self.group) or self.split != "grouped",
            "data.split = grouped needs data.group: set it to a column of the table, parent, photo,"
            " numbers, series, regex:PATTERN, exif:day, exif:hour or exif:camera",
        )
        require(
            not self.group or self.split in ("grouped", "given"),
            f"data.group has no effect with data.split = {self.split}; --set data.split=grouped",
        )
        require(
            bool(self.time) == (self.split == "time"),
            "data.time goes with data.split = time, and must then be exif or a column, got"
            f" {self.time!r} with {self.split}: set both or none",
        )
        kind, _, rest = self.group.partition(":")
        require(
            kind != "exif" or rest in ("day", "hour", "camera"),
            f"data.group must be exif:day, exif:hour or exif:camera, got {self.group!r}:"
            " choose one",
        )
        if kind == "regex":
            try:
                re.compile(rest)
            except re.error as problem:
                raise ValueError(
                    f"data.group must be regex: and a regular expression, got {rest!r}, which is"
                    f" none ({problem}): correct it"
                ) from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """The deterministic view of an image that gallery and query share."""

    size: int = 224
    """Side in pixels of the square that the network sees."""
    fit: Literal["crop", "squash"] = "crop"
    """`crop`: resize the shorter side to `size`, crop the centre; `squash`: resize both sides to
    `size`."""
    crop_from: int = 0
    """Resize the shorter side to this many pixels before the centre is cropped, as papers do with
    256 for 224; 0 is `size`, which sees all of the shorter side. Only with `fit` = crop."""
    interpolation: Literal["bilinear", "bicubic"] | None = None
    """How images are resized, with antialiasing; None is bilinear. Encoders of other libraries are
    mostly made with `bicubic`: a run says so."""
    normalization: Literal["backbone", "train"] = "backbone"
    """Channel means and deviations: those of the backbone's weights, or of the phase's training
    images."""
    mean: tuple[float, ...] = ()
    """Means of red, green and blue, 0-1, in place of the backbone's. `dml-bench data statistics`
    computes them."""
    std: tuple[float, ...] = ()
    """Standard deviations of red, green and blue. They are given together with the means."""
    progressive: tuple[int, ...] = ()
    """Sides of the training images as the epochs go by, an equal share of the epochs each, e.g.
    [112, 168, 224]; empty: always `size`. Gallery and query are always seen at `size`."""

    def __post_init__(self) -> None:
        require(self.size >= 8, f"images.size must be at least 8 pixels, got {self.size}")
        require(
            self.crop_from == 0 or (self.fit == "crop" and self.crop_from >= self.size),
            f"images.crop_from must be at least images.size ({self.size}), with images.fit = crop,"
            f" got {self.crop_from} with {self.fit}: 0 turns it off",
        )
        self._check_statistics()
        sizes = list(self.progressive)
        if sizes:
            require(min(sizes) >= 8, f"images.progressive must be at least 8 pixels, got {sizes}")
            require(
                sizes == sorted(set(sizes)) and sizes[-1] == self.size,
                "images.progressive must be growing sizes that end with images.size"
                f" ({self.size}), got {sizes}",
            )

    def _check_statistics(self) -> None:
        mean, std = self.mean, self.std
        if not (mean or std):
            return
        require(
            len(mean) == len(std) == 3,
            "images.mean and images.std must be three numbers each, 0-1, got"
            f" {list(mean)} and {list(std)}",
        )
        require(
            min(mean) >= 0 and max(mean) <= 1,
            f"images.mean must be three numbers from 0 to 1, got {list(mean)}",
        )
        require(
            min(std) > 0 and max(std) <= 1,
            f"images.std must be three numbers above 0 and up to 1, got {list(std)}",
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
    padding: Literal["reflection", "border", "zeros"] = "reflection"
    """What is seen beyond an image's borders, where `rotate` or `warp` look there: the image
    mirrored, its last pixels, or black."""
    lighting: float = 0.0
    """Strength of random changes of brightness and contrast that keep black and white, from 0 (off)
    to less than 1."""
    lighting_probability: float = 0.75
    """Probability of each of the two."""

    def __post_init__(self) -> None:
        limits = {"rotate": (0, 180), "zoom": (1, 10), "warp": (0, 0.5), "lighting": (0, 0.99)}
        for name in (f.name for f in fields(self) if isinstance(f.default, float)):
            low, high = limits.get(name, (0, 1))
            require(
                low <= getattr(self, name) <= high,
                f"augment.{name} must be a number from {low} to {high}, got {getattr(self, name)}",
            )
        moves = self.rotate or self.warp or self.zoom > 1
        require(
            bool(moves) or self.geometry_probability == 0.75,
            "augment.geometry_probability has no effect without augment.rotate, augment.zoom or"
            " augment.warp",
        )
        require(
            bool(self.rotate or self.warp) or self.padding == "reflection",
            "augment.padding has no effect without augment.rotate or augment.warp",
        )
        require(
            bool(self.lighting) or self.lighting_probability == 0.75,
            "augment.lighting_probability has no effect without augment.lighting",
        )

    @property
    def active(self) -> bool:
        """Whether any augmentation is on."""
        return self != Augment()

    def changed(self) -> list[tuple[str, float | str]]:
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
    pair_weight: Literal["anchor", "all"] = "anchor"
    """How a pair or a triplet of mixed images counts, under each labelling: by the share that the
    label of its anchor has, or by the product of the shares of all its images. Both are this
    project's own; no paper defines mixed labels for pair losses."""
    start_from: int = 0
    """Epochs at the beginning that go without."""
    on: int = 1
    """Epochs with mixing, before `off` epochs without it, in turn."""
    off: int = 0
    """Epochs without mixing, before `on` epochs with it, in turn."""
    finetuning_epoch: int = 0
    """What follows this epoch goes without; 0 is never."""

    def __post_init__(self) -> None:
        for name, least in (("start_from", 0), ("on", 1), ("off", 0), ("finetuning_epoch", 0)):
            require(
                getattr(self, name) >= least,
                f"mixing.{name} must be at least {least}, got {getattr(self, name)}",
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
    trainable: str = "all"
    """`all`; `head` freezes the backbone, computes its features once and trains on those; `last:N`
    does so with all but its last N stages, which are trained with the head."""
    pooling: Component = component(registry.poolings, "own")
    head: Component = component(registry.heads, "linear")
    batch_norm: Literal["train", "frozen", "frozen_statistics"] = "train"
    """`frozen` keeps the statistics and the affine parameters of the backbone's BatchNorm layers as
    they were loaded; `frozen_statistics` keeps the statistics, and the affine parameters learn."""

    lora_rank: int = 0
    """Rank of the adapters beside the backbone's linear layers (LoRA), which then learn in place of
    the backbone; 0 is none. Needs peft."""
    lora_alpha: float = 16.0
    """What the adapters add counts `lora_alpha` / `lora_rank` times."""

    def __post_init__(self) -> None:
        require(
            self.lora_rank >= 0 and self.lora_alpha > 0,
            "model.lora_rank must be at least 0 and model.lora_alpha above 0, got"
            f" {self.lora_rank} and {self.lora_alpha:g}: 8 and 16 are usual",
        )
        require(
            self.lora_rank == 0 or self.trainable == "all",
            f"model.lora_rank needs model.trainable = all, got {self.trainable}: the adapters learn"
            " inside the backbone",
        )
        require(
            self.lora_rank > 0 or self.lora_alpha == 16,
            "model.lora_alpha has no effect without model.lora_rank: set it to 8, or leave it out",
        )
        require(
            bool(re.fullmatch(r"all|head|last:[1-9]\d*", self.trainable)),
            "model.trainable must be all, head or last:N with N from 1, e.g. last:2, got"
            f" {self.trainable!r}",
        )

    @property
    def last_stages(self) -> int:
        """How many stages of the backbone are trained on features of the rest; 0 where none is
        computed, or where only the head is trained."""
        return int(self.trainable.partition(":")[2] or 0)


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
    schedule: Component = component(registry.schedules, "constant")
    """How that rate changes from step to step."""
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("classes", "per_class", "batch_size"):
            require(
                getattr(self, name) >= 2,
                f"pretrain.{name} must be at least 2, got {getattr(self, name)}",
            )
        require(
            self.epochs >= 1 and self.lr > 0,
            "pretrain.epochs must be at least 1 and pretrain.lr positive",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """How long, in what batches and with what weights a phase is trained."""

    epochs: int = 100
    """0 where nothing is trained in steps, as with optimizers `class_means` and `linear_probe`."""
    batch_size: int = 128
    precision: Literal["auto", "float32", "tf32", "bfloat16", "bfloat16_dense"] = "auto"
    """`auto`: bfloat16 where the device has units for it, float32 elsewhere. `tf32`: on a GPU,
    float32 whose convolutions see 10 bits of each factor, which PyTorch does unless it is told not
    to; `float32` tells it. `bfloat16_dense`: depthwise convolutions in float32, the rest in
    bfloat16; `auto` takes it on a CPU for networks that have some. What embeds with folded
    BatchNorm is in float32 then. The loss is always in float32.
    """
    proxy_lr_factor: float = 1.0
    """The loss's own parameters (proxies, class weights) learn at this multiple of `optimizer.lr`.
    """
    head_lr_factor: float = 1.0
    """The head learns at this multiple of `optimizer.lr`."""
    layer_lr_decay: float = 1.0
    """Layer-wise decay of the rate: the last stage of the backbone learns at this multiple of
    `optimizer.lr`, each stage before it at this multiple of the stage after it. 1 is off."""
    head_epochs: int = 0
    """Epochs at the beginning in which only the head and the loss's own parameters learn; then the
    backbone learns too."""
    weight_decay_on: Literal["all", "kernels"] = "all"
    """`kernels`: only matrices and convolution kernels of the network decay. Biases, parameters of
    normalisation, GeM's p, positions and class tokens, and the loss's own parameters don't."""
    clip_value: float = 0.0
    """Each number of a gradient is cut to plus or minus this; 0 is off."""
    clip_norm: float = 0.0
    """Gradients of the network and of the loss, taken together, are shortened to this length; 0 is
    off."""
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
    """Stratified parts of the training images. Each phase trains one model without each part, and
    the models are an ensemble. 0 trains one model on all images."""

    def __post_init__(self) -> None:
        require(self.epochs >= 0, f"train.epochs must be at least 0, got {self.epochs}")
        require(self.batch_size >= 2, f"train.batch_size must be at least 2, got {self.batch_size}")
        for name in ("proxy_lr_factor", "head_lr_factor"):
            factor = getattr(self, name)
            require(factor > 0, f"train.{name} must be a positive number, got {factor}")
        require(
            0 < self.layer_lr_decay <= 1,
            f"train.layer_lr_decay must be above 0 and up to 1, got {self.layer_lr_decay}:"
            " 0.65 to 0.9 are usual, 1 turns it off",
        )
        require(
            0 <= self.head_epochs <= self.epochs,
            f"train.head_epochs must be from 0 to train.epochs ({self.epochs}), got"
            f" {self.head_epochs}: lower it",
        )
        for name in ("clip_value", "clip_norm"):
            limit = getattr(self, name)
            require(limit >= 0, f"train.{name} must be at least 0, got {limit}: 0 turns it off")
        require(self.views >= 1, f"train.views must be at least 1, got {self.views}")
        require(
            self.labels == "class" or self.views > 1,
            "train.labels = image needs train.views of at least 2",
        )
        require(
            self.folds == 0 or self.folds >= 2,
            f"train.folds must be 0 (off) or at least 2, got {self.folds}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate:
    """What is measured of a phase, and when."""

    every: int = 1
    """Epochs between two measurements of P@1; the last epoch is always measured."""
    vote_k: tuple[int, ...] = (1, 3, 5, 10)
    """Numbers of neighbours that vote on the class of a query."""
    recall_k: tuple[int, ...] = (1, 2, 4, 8)
    """The k of R@k (only for protocols that report it)."""
    nmi: bool = False
    """Also cluster the test images and report NMI (only for protocols that divide by class), as
    papers before 2020 do."""
    tta: Literal["none", "mirror", "crops", "random"] = "none"
    """Test-time augmentation of the final evaluation, gallery and queries alike. `mirror`: each
    image as it is and mirrored; `crops`: four corners and the centre of the image at
    `augment.random_crop_from`, each also mirrored; `random`: the image as it is, and `tta_draws`
    times as training could see it. Validation during training has one view."""
    tta_by: Literal["mean", "max"] = "mean"
    """`mean`: an image's embedding is the mean of its views' unit vectors, at unit length again;
    its class probabilities are their mean. `max`: a query is as similar to a gallery image (which
    stays the mean of its views) as the most similar of its views is."""
    tta_draws: int = 4
    """How often `tta` = random changes each image; the same way in every phase."""
    tta_plain_weight: float = 0.25
    """With `tta` = random and `tta_by` = mean, the part of the image as it is in the mean; its
    changed views share the rest. 0.25 is fastai's."""
    attack_epsilon: float = 0.0
    """Where the loss has logits: their accuracy on test images that were changed against the
    model, by up to so many of 255 levels in each pixel, by one step (FGSM, Goodfellow et al. 2015)
    and by `attack_steps` (PGD, Madry et al. 2018). 0 is off."""
    attack_steps: int = 10
    """Steps of PGD, each of 2.5 / `attack_steps` of `attack_epsilon`."""
    batch_size: int | None = None
    """Images that are embedded at a time. Where it is left out: `train.batch_size`, on a GPU at
    least 512, which take less memory than training 128 does."""

    def __post_init__(self) -> None:
        require(self.every >= 1, f"evaluate.every must be at least 1, got {self.every}")
        require(
            self.batch_size is None or self.batch_size >= 1,
            f"evaluate.batch_size must be at least 1, got {self.batch_size}",
        )
        require(
            bool(self.vote_k) and min(self.vote_k) >= 1,
            f"evaluate.vote_k must be positive numbers, got {list(self.vote_k)}",
        )
        require(
            self.tta_by == "mean" or self.tta != "none",
            "evaluate.tta_by has no effect without evaluate.tta",
        )
        self._check_draws()
        require(
            0 <= self.attack_epsilon <= 255 and self.attack_steps >= 1,
            "evaluate.attack_epsilon must be from 0 to 255 levels, with at least 1 step, got"
            f" {self.attack_epsilon:g} and {self.attack_steps}: 4 or 8 levels are usual",
        )
        require(
            self.attack_epsilon > 0 or self.attack_steps == 10,
            "evaluate.attack_steps has no effect without evaluate.attack_epsilon: set it to 8",
        )
        require(
            bool(self.recall_k) and min(self.recall_k) >= 1,
            f"evaluate.recall_k must be positive numbers, got {list(self.recall_k)}",
        )

    def _check_draws(self) -> None:
        require(
            self.tta == "random" or (self.tta_draws, self.tta_plain_weight) == (4, 0.25),
            "evaluate.tta_draws and evaluate.tta_plain_weight go with evaluate.tta = random",
        )
        require(
            self.tta_draws >= 1 and 0 <= self.tta_plain_weight <= 1,
            "evaluate.tta_draws must be at least 1 and evaluate.tta_plain_weight from 0 to 1, got"
            f" {self.tta_draws} and {self.tta_plain_weight:g}: correct them",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectation:
    """A claim about the result, with its source, for a report to test: a `value`, a `change` from
    another experiment, an upper bound (`below`), or an order (`above`)."""

    metric: str
    """The quantity that the source measured."""
    source: str
    value: float | None = None
    """The claimed value itself."""
    change: float | None = None
    """The claimed difference from the experiment `versus`; 0 claims that nothing changes."""
    versus: str = ""
    tolerance: float | None = None
    """A measured size this close to the claimed one counts as the same. None is 0.02, or half of a
    change that is below 0.04: what is near the claim is then not near zero as well."""
    below: float | None = None
    """The claim is that the value lies below this."""
    above: tuple[str, ...] = ()
    """The claim is that the value lies above those of all these experiments."""
    note: str = ""
    """The protocol of the claim where it is not ours."""

    def __post_init__(self) -> None:
        claims = (self.value, self.change, self.below, self.above or None)
        require(
            sum(claim is not None for claim in claims) == 1,
            f"an expectation of {self.metric} needs one of value, change, below or above",
        )
        require(
            (self.change is None) == (not self.versus),
            f"an expectation of {self.metric}: change and versus go together",
        )
        self._check_tolerance()

    def _check_tolerance(self) -> None:
        if self.tolerance is None:
            return
        require(
            self.value is not None or self.change is not None,
            f"an expectation of {self.metric}: a tolerance goes with a value or a change",
        )
        require(
            self.tolerance > 0,
            f"an expectation of {self.metric}: tolerance must be above 0, got {self.tolerance}",
        )
        most = abs(self.change) / 2 if self.change else math.inf
        require(
            self.tolerance <= most,
            f"an expectation of {self.metric}: tolerance must be at most {most:g}, half of the"
            f" change, got {self.tolerance}: leave it out, or claim a change of 0",
        )

    @property
    def margin(self) -> float:
        """The tolerance, also where none is written."""
        if self.tolerance is not None:
            return self.tolerance
        return min(0.02, abs(self.change) / 2) if self.change else 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Plugins:
    """Components that this program does not bring."""

    imports: tuple[str, ...] = ()
    """Modules that register some, or paths of .py files, which are relative to the experiment's
    file."""
    components: tuple[PluginRecord, ...] = ()
    """The plug-ins that the experiment uses, filled in as it is resolved: a run's record."""

    def __post_init__(self) -> None:
        for record in self.components:
            require(
                record.kind in PLUGGABLE,
                f"plugins.components: kind is {record.kind!r}; choose one of"
                f" {', '.join(PLUGGABLE)}",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """The search that chose some of an experiment's settings. A run has it beside its results, so
    that it is never taken for one with the settings of the experiment's file."""

    space: str
    """The name of the space: `experiments/tuning/NAME.toml`."""
    by: str
    """The experiment whose search it was: the run's own, or one that it extends."""
    trials: int
    """How many settings were tried."""
    settings: tuple[str, ...]
    """The keys that the search chose."""
    score: float
    """MAP@R on the validation classes, 0-1, with the chosen settings."""
    own_score: float
    """The same with the settings of the experiment's file."""
    unseen: str
    """The classes that the search never saw, as `unseen` says it. A run may hold out no others."""
    split: str
    """SHA-256 of the split whose training images the search used."""
    study: str
    """SHA-256 of all that was tried."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(
                f"tuned.trials must be at least 1, got {self.trials}: dml-bench tune fills it in"
            )
