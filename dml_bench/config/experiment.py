"""A whole experiment, and which of its values contradict each other."""

import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from dml_bench import registry
from dml_bench.config.component import Component, component
from dml_bench.config.sections import (
    Augment,
    Data,
    Evaluate,
    Expectation,
    Images,
    Mixing,
    Model,
    Plugins,
    Pretrain,
    Train,
    Tuned,
    require,
)
from dml_bench.registry.plugins import PluginRecord, record_of

__all__ = ["FIRST_SEED", "Experiment", "components_of", "follows_validation"]

FIRST_SEED = 42
"""Of an experiment that names none, and of every row of a table; others follow one by one."""

LONGEST_NAME = 150
"""Bytes: with what is appended to a name, file systems take 255."""


def require_name(text: str, key: str) -> None:
    """Raises ValueError unless `text` is one component of a path on any system, not hidden and no
    option of a command."""
    # A variant's name goes on with its settings, see dml_bench.config.variants.
    plain = all(
        unicodedata.category(character)[0] in "LMN" or character in "._+- ~=," for character in text
    )
    if (
        not (plain and text[:1].isalnum() and text == text.strip())
        or len(text.encode()) > LONGEST_NAME
    ):
        shown = repr(text if len(text) <= 60 else f"{text[:60]}...")
        raise ValueError(
            f"{key} must be a letter or digit, then letters, digits, spaces and . _ + -, at most"
            f" {LONGEST_NAME} bytes, got {shown}"
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
    seed: int = FIRST_SEED
    protocol: str = "precision_drop"
    """What is trained on and what is asked: a name of `registry.protocols`. By default a model of
    all classes is compared with one without the unseen."""
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
    plugins: Plugins | None = None
    tuned: Tuned | None = None
    """The search that chose some of the settings, filled in by `suite --tuned`; None where they are
    those of the experiment's file."""

    def __post_init__(self) -> None:
        self._record_plugins()
        require_name(self.name, "name")
        if self.profile:
            require_name(self.profile, "profile")
        if self.model.weights == "source" and self.pretrain is None:
            object.__setattr__(self, "pretrain", Pretrain())
        check_protocol(self)
        check_at_once(self)
        check_objective(self)
        check_images(self)
        check_model(self)
        check_rates(self)
        check_mixing(self)
        check_labels(self)
        check_label_sets(self)
        check_start(self)
        check_attack(self)

    @property
    def no_drop_because(self) -> str:
        """Why its features can't differ between phases, in a few words; empty where they are
        trained."""
        return str(registry.optimizers.of(self.optimizer).facts["no_drop_because"])

    @property
    def plugin_records(self) -> tuple[PluginRecord, ...]:
        """The components that it uses and that this program does not bring."""
        return self.plugins.components if self.plugins else ()

    @property
    def mixes_pairs(self) -> bool:
        """Whether images of two labels train a loss of pairs, for which no paper has a rule."""
        classifies = registry.losses.of(self.loss).facts["classifies"]
        return has_shares(self.mixing) and not classifies

    def _record_plugins(self) -> None:
        """Fill in the plug-ins that are used, whoever made this value."""
        records = []
        for kind, used in components_of(self):
            entry = used.stand_in or kind.registered(used.name)
            if entry is not None and entry.origin is not None:
                records.append(record_of(kind, entry))
        imports = self.plugins.imports if self.plugins else ()
        plugins = Plugins(imports=imports, components=tuple(records))
        object.__setattr__(self, "plugins", plugins if records or imports else None)


def components_of(section: Any) -> Iterator[tuple[registry.Registry, Component]]:
    """The components of an experiment, those of its sections included, each with its registry."""
    for part in fields(section):
        value = getattr(section, part.name)
        if isinstance(value, Component):
            yield part.metadata["registry"], value
        elif is_dataclass(value):
            yield from components_of(value)


def check_protocol(experiment: Experiment) -> None:
    """Raises ValueError where a setting asks for what the protocol does not do. Raises UnknownName
    where there is no such protocol."""
    protocol, train = registry.protocols[experiment.protocol], experiment.train
    splits = protocol.facts["splits"]
    require(
        experiment.data.split in splits,
        f"data.split must be {' or '.join(splits)} with protocol {protocol.name}, got"
        f" {experiment.data.split}",
    )
    if train.folds and not protocol.facts["takes_folds"]:
        raise ValueError(f"train.folds needs the protocol {protocols_with('takes_folds')}")
    if experiment.evaluate.nmi and not protocol.facts["clusters"]:
        able = protocols_with("clusters")
        raise ValueError(f"evaluate.nmi needs the protocol {able}; leave it out")
    if train.checkpoint == "valid_loss" and protocol.facts["validates_by_class"]:
        raise ValueError("validation classes have no loss; --set train.checkpoint=valid_accuracy")


def protocols_with(fact: str) -> str:
    """The names of the protocols of which a fact holds."""
    return " or ".join(entry.name for entry in registry.protocols if entry.facts[fact])


def check_at_once(experiment: Experiment) -> None:
    """Raises ValueError where epochs and optimizer contradict each other, or where a setting would
    have no effect as nothing is trained in steps."""
    name, train, model = experiment.optimizer.name, experiment.train, experiment.model
    if not registry.optimizers.of(experiment.optimizer).facts["at_once"]:
        require(
            train.epochs >= 1,
            f"train.epochs must be at least 1 with optimizer {name}, got {train.epochs}: the"
            " experiments frozen_* train nothing, linearprobe_* fit a classifier at once",
        )
        return
    wanted: dict[str, tuple[object, object]] = {
        "train.epochs": (train.epochs, 0),
        "loss": (experiment.loss.name, "crossentropy"),
        "loss.label_smoothing": (experiment.loss.options.get("label_smoothing"), 0.0),
        "model.head": (model.head.name, "identity"),
        "model.trainable": (model.trainable, "head"),
        "sampler": (experiment.sampler.name, "shuffled"),
        "labelling": (experiment.labelling.name, "given"),
        "start": (experiment.start.name, "none"),
        "schedule": (experiment.schedule.name, "constant"),
        "train.proxy_lr_factor": (train.proxy_lr_factor, 1.0),
        "train.head_lr_factor": (train.head_lr_factor, 1.0),
        "train.weight_decay_on": (train.weight_decay_on, "all"),
        "train.clip_value": (train.clip_value, 0.0),
        "train.clip_norm": (train.clip_norm, 0.0),
        "train.class_weights": (train.class_weights, "none"),
        "train.checkpoint": (train.checkpoint, "last"),
        "train.views": (train.views, 1),
        "train.folds": (train.folds, 0),
    }
    for key, (value, only) in wanted.items():
        require(
            value == only,
            f"{key} must be {only} with optimizer {name}, which makes no steps, got {value}:"
            f" --set {key}={only}",
        )


def check_objective(experiment: Experiment) -> None:
    """Raises ValueError where loss, miner, sampler and labels contradict each other."""
    loss, train = registry.losses.of(experiment.loss), experiment.train
    if experiment.miner.name != "none" and not loss.facts["takes_miner"]:
        raise ValueError(
            f"miner {experiment.miner.name} has no effect: loss {loss.name} takes no miner; --set"
            " miner=none"
        )
    if train.proxy_lr_factor != 1 and not loss.facts["trains_proxies"]:
        raise ValueError(
            f"train.proxy_lr_factor has no effect: loss {loss.name} has no parameters of its own"
        )
    simix = experiment.loss.options.get("simix", 0)
    if simix and experiment.sampler.options.get("m") != simix:
        raise ValueError(
            f"loss.simix is {simix}, so as many images of a class must stand together in a batch:"
            f" --set sampler=m_per_class --set sampler.m={simix}"
        )
    if train.labels == "image" and loss.facts["remembers"]:
        raise ValueError(
            f"train.labels = image counts the images of a batch from 0, and loss {loss.name} looks"
            " at earlier batches: choose another loss"
        )
    if train.labels == "image" and loss.facts["trains_proxies"]:
        raise ValueError(
            f"train.labels = image gives each image a class of its own: loss {loss.name} can't have"
            " parameters for each"
        )


def check_mixing(experiment: Experiment) -> None:
    """Raises ValueError where images can't be mixed as asked, or never would be."""
    mixing, loss = experiment.mixing, registry.losses.of(experiment.loss)
    name, options = mixing.technique.name, mixing.technique.options
    if name == "none":
        require(
            mixing == Mixing(),
            "mixing has a schedule and no technique; --set mixing.technique=mixup, or leave the"
            " schedule out",
        )
        return
    entry = registry.mixings[name]
    check_pair_weight(mixing, loss)
    epochs = experiment.train.epochs
    if not any(mixing.active(epoch) for epoch in range(1, epochs + 1)):
        raise ValueError(
            f"mixing.start_from is {mixing.start_from}, but there are {epochs} epochs: {name} would"
            " never be on"
        )
    level = options.get("level", "input")
    mixes_features = entry.facts["where"] == "layer" and options["layers"] == ("input",)
    if experiment.model.trainable != "all" and not mixes_features and level != "embeddings":
        raise ValueError(
            f"{name} mixes images, and model.trainable = {experiment.model.trainable} trains on"
            " features computed once; --set model.trainable=all, or mix the features:"
            " mixing.technique=manifoldmixup with layers=['input'], or metrix"
        )
    if experiment.train.views > 1:
        raise ValueError(
            f"{name} mixes images of a batch, and train.views = {experiment.train.views} has"
            " several views of each; choose one"
        )
    if entry.facts["where"] == "embeddings":
        check_metrix(mixing.technique, loss)
    elif entry.facts["two_labels"] and loss.facts["remembers"]:
        raise ValueError(
            f"{name} gives an image two labels, and loss {loss.name} remembers it under one: choose"
            " another loss, or --set mixing.technique=samplepairing"
        )
    elif entry.facts["two_labels"] and loss.facts["one_number"] and options["share"] == "image":
        raise ValueError(
            f"loss {loss.name} is one number for a whole batch, so images can't have a lambda of"
            " their own in it; --set mixing.technique.share=batch"
        )


def check_pair_weight(mixing: Mixing, loss: registry.Entry) -> None:
    """Raises ValueError where no term of the loss is of a pair of images with two labels."""
    able = ", ".join(entry.name for entry in registry.losses if entry.facts["adds_tuples"])
    require(
        mixing.pair_weight == "anchor" or (has_shares(mixing) and loss.facts["adds_tuples"]),
        f"mixing.pair_weight has no effect with {mixing.technique.name} and loss {loss.name}: it is"
        f" for losses that add up pairs or triplets ({able}) of images with two labels; leave it"
        " out",
    )


def has_shares(mixing: Mixing) -> bool:
    """Whether an image that is trained on has two labels, with a share each."""
    facts = registry.mixings.of(mixing.technique).facts
    return bool(facts["two_labels"] and facts["where"] in ("pixels", "layer"))


def check_metrix(technique: Component, loss: registry.Entry) -> None:
    """Raises ValueError where a loss has no term of mixtures, its anchors can't be mixed, or a
    setting has no effect."""
    if not loss.facts["interpolates"]:
        able = ", ".join(entry.name for entry in registry.losses if entry.facts["interpolates"])
        raise ValueError(
            f"{technique.name} is not defined for loss {loss.name}, only for {able}; mixup works"
            " with all losses"
        )
    options = technique.options
    mixes_images = options["level"] != "embeddings" and options["pairs"] != "positive_negative"
    require(
        not (mixes_images and loss.facts["trains_proxies"]),
        f"the anchors of loss {loss.name} are no images that {technique.name} could mix; --set"
        " mixing.technique.pairs=positive_negative, or mixing.technique.level=embeddings",
    )
    require(
        options["level"] != "embeddings" or options["hardest"] == 1,
        "mixing.technique.hardest has no effect with level = embeddings, where all are mixed: --set"
        " mixing.technique.hardest=1",
    )


def check_attack(experiment: Experiment) -> None:
    """Raises ValueError where no logits can be attacked through the network."""
    if not experiment.evaluate.attack_epsilon:
        return
    loss, protocol = registry.losses.of(experiment.loss), registry.protocols[experiment.protocol]
    require(
        loss.facts["classifies"] and protocol.facts["has_drop"],
        "evaluate.attack_epsilon asks for logits of the test images' classes, and loss"
        f" {loss.name} under {protocol.name} has none; --set evaluate.attack_epsilon=0",
    )
    require(
        experiment.model.trainable == "all" and not experiment.train.folds,
        "evaluate.attack_epsilon needs gradients of the pixels through one network; --set"
        " model.trainable=all and train.folds=0",
    )


def check_labels(experiment: Experiment) -> None:
    """Raises ValueError where the labels, their weights or the validation images don't fit the
    rest."""
    labelling, train, loss = (
        registry.labellings[experiment.labelling.name],
        experiment.train,
        registry.losses.of(experiment.loss),
    )
    if labelling.facts["classifies"] and not loss.facts["classifies"]:
        raise ValueError(
            f"labelling {labelling.name} asks the loss for the class of an image, and {loss.name}"
            " can't say it"
        )
    weighted = ""
    if train.class_weights != "none":
        weighted = "train.class_weights"
    elif labelling.name == "softlabels":
        weighted = "labelling softlabels"
    if weighted and loss.facts["one_number"]:
        raise ValueError(
            f"{weighted} has no effect: loss {loss.name} is one number for a whole batch, in which"
            " all images count the same"
        )
    require(
        not weighted or experiment.mixing.technique.name != "metrix",
        f"{weighted} has no effect on the mixtures of metrix, in which all images count the same:"
        " choose one of them",
    )
    by_image = train.labels == "image"
    if by_image and (weighted or labelling.name != "given" or experiment.data.label_noise):
        raise ValueError(
            "train.labels = image looks at no class: leave out labelling, train.class_weights and"
            " data.label_noise"
        )
    if labelling.facts["classifies"]:
        check_correctable(experiment)
    sampler = registry.samplers.of(experiment.sampler)
    by_class = sampler.facts["balances_classes"] or sampler.name == "repeated_class"
    require(
        not (by_image and by_class),
        f"train.labels = image looks at no class, and sampler {sampler.name} does: --set"
        " sampler=shuffled",
    )
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
    if train.checkpoint != "last" and not has_validation(experiment):
        raise ValueError(
            f"train.checkpoint = {train.checkpoint} needs validation images; --set"
            " data.valid_fraction=0.1"
        )


def check_label_sets(experiment: Experiment) -> None:
    """Raises ValueError for what needs one class for each image, where images have several
    labels."""
    if not registry.protocols[experiment.protocol].facts["label_sets"]:
        return
    loss, train = registry.losses.of(experiment.loss), experiment.train
    takes_pairs = loss.facts["takes_miner"] and not loss.facts["trains_proxies"]
    able = [entry.name for entry in registry.losses if entry.facts["label_sets"]]
    require(
        loss.facts["label_sets"] or takes_pairs,
        f"loss {loss.name} needs one class for each image, and images have several labels: --set"
        f" loss={able[0]}, or a loss of pairs such as NTXent or MultiSimilarity",
    )
    wanted: dict[str, tuple[object, object]] = {
        "miner": (experiment.miner.name, "none"),
        "sampler": (experiment.sampler.name, "shuffled"),
        "labelling": (experiment.labelling.name, "given"),
        "start": (experiment.start.name, "none"),
        "data.label_noise": (experiment.data.label_noise, 0.0),
        "data.per_class": (experiment.data.per_class, 0),
        "train.labels": (train.labels, "class"),
        "train.class_weights": (train.class_weights, "none"),
    }
    for key, (value, only) in wanted.items():
        require(
            value == only,
            f"{key} must be {only} where images have several labels, as it needs one class for"
            f" each, got {value}: --set {key}={only}",
        )
    require(
        experiment.mixing.technique.name != "metrix",
        "metrix needs one class for each image, and images have several labels: --set"
        " mixing.technique=mixup",
    )


MANY_CLASSES = 200
"""As CUB-200-2011 has."""


def check_correctable(experiment: Experiment) -> None:
    """Raises ValueError where the logits are so close together that their softmax never contradicts
    a label by `labelling.theta_end`.

    Of classes at right angles, the likeliest and the label at the ends of the logits' range L: (1 -
    e^-L) / (1 + (C - 2) e^(-L/2) + e^-L).
    """
    loss, options = experiment.loss, experiment.labelling.options
    if options["listen_from"] and not has_validation(experiment):
        raise ValueError(
            "labelling.listen_from waits for validation images, and there are none; --set"
            " data.valid_fraction=0.1"
        )
    protocol = registry.protocols[experiment.protocol]
    if options["listen_from"] and protocol.facts["validates_by_class"]:
        raise ValueError(
            "labelling.listen_from asks the logits, which don't know validation classes: --set"
            " labelling.listen_from=0"
        )
    theta = options.get("theta_end")
    if theta is None:
        return
    logit_range = registry.losses.of(loss).facts["logit_range"]
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
    if experiment.evaluate.tta == "random" and not experiment.augment.active:
        raise ValueError(
            "evaluate.tta = random has no effect without [augment]: turn an augmentation on, or"
            " --set evaluate.tta=none"
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
        f"images.progressive must have at most one size an epoch, got {sizes} sizes for"
        f" train.epochs = {epochs}",
    )


def check_model(experiment: Experiment) -> None:
    """Raises ValueError where a setting of the model has no effect or would leak."""
    model = experiment.model
    if experiment.pretrain is not None and model.weights != "source":
        raise ValueError(
            f"pretrain has no effect with model.weights = {model.weights}; it belongs to"
            " model.weights = source"
        )
    check_source_species(experiment)
    if model.pooling.name != "own" and registry.heads.of(model.head).facts["takes_map"]:
        raise ValueError(
            f"model.pooling has no effect: head {model.head.name} takes the whole map; --set"
            " model.pooling=own"
        )
    if experiment.train.sync_bn and (model.batch_norm != "train" or model.trainable != "all"):
        frozen = (
            f"model.batch_norm = {model.batch_norm}"
            if model.batch_norm != "train"
            else f"model.trainable = {model.trainable}"
        )
        reason = (
            "which trains a part of the network by itself"
            if model.last_stages and model.batch_norm == "train"
            else "whose statistics stay as they are"
        )
        raise ValueError(f"train.sync_bn has no effect with {frozen}, {reason}; leave it out")
    if model.trainable == "all":
        return
    setting = f"model.trainable = {model.trainable}"
    if experiment.augment.active:
        raise ValueError(
            f"{setting} trains on features computed once, so augmentation has no"
            " effect: "
            + " ".join(
                f"--set augment.{name}={plain_text(default)}"
                for name, default in experiment.augment.changed()
            )
        )
    if experiment.evaluate.tta != "none":
        raise ValueError(
            f"{setting} has the features of one view of each image: --set evaluate.tta=none"
        )
    if experiment.images.progressive:
        raise ValueError(
            f"{setting} trains on features computed once, so images.progressive has no"
            " effect: --set images.progressive=[]"
        )
    if experiment.images.normalization == "train":
        raise ValueError(
            "images.normalization = train would give each phase other frozen features: use backbone"
            f" with {setting}"
        )
    require(
        model.batch_norm == "train" or model.trainable != "head",
        f"model.batch_norm = {model.batch_norm} has no effect with model.trainable = head, which"
        " freezes the whole backbone",
    )


def check_source_species(experiment: Experiment) -> None:
    """Raises ValueError where a backbone was trained on the species, held-out ones among them, that
    it is tested on."""
    dataset, pretrain = experiment.data.dataset, experiment.pretrain
    if dataset.name != "source_species" or pretrain is None:
        return
    seed = dataset.options.get("seed")
    require(
        seed != pretrain.seed,
        f"data.dataset = source_species with seed {seed} has the species that model.weights ="
        f" source was trained on, also those held out: --set data.dataset.seed={pretrain.seed + 1}",
    )


def check_rates(experiment: Experiment) -> None:
    """Raises ValueError where a part of the network has a rate, or a time to learn, of its own, and
    there is no such part."""
    train, model = experiment.train, experiment.model
    of_head = {"head_lr_factor": 1.0, "head_epochs": 0}
    of_backbone = {"layer_lr_decay": 1.0, "head_epochs": 0}
    changed = [name for name in of_head if getattr(train, name) != of_head[name]]
    learns = model.head.name != "identity"
    if changed == ["head_epochs"]:
        learns = learns or registry.losses.of(experiment.loss).facts["trains_proxies"]
    if changed and not learns:
        raise ValueError(
            f"train.{changed[0]} has no effect with model.head = identity, which learns nothing:"
            " --set model.head=linear"
        )
    for name, default in of_backbone.items():
        if getattr(train, name) != default and model.trainable == "head":
            raise ValueError(
                f"train.{name} has no effect with model.trainable = head, which freezes the"
                f" backbone: --set train.{name}={default:g}"
            )
    require(
        train.weight_decay_on == "all" or bool(experiment.optimizer.options.get("weight_decay", 1)),
        f"train.weight_decay_on = {train.weight_decay_on} has no effect without weight decay: --set"
        " optimizer.weight_decay=0.0001",
    )
    schedule = registry.schedules.of(experiment.schedule)
    if schedule.facts["needs_validation"] and not has_validation(experiment):
        raise ValueError(
            f"schedule {schedule.name} needs validation images; --set data.valid_fraction=0.1"
        )
    check_measured_early(experiment)


def check_measured_early(experiment: Experiment) -> None:
    """Raises ValueError where something waits for a measurement, and the first is at the end."""
    train, every = experiment.train, experiment.evaluate.every
    for name in follows_validation(experiment):
        require(
            train.epochs <= 1 or every < train.epochs,
            f"evaluate.every must be less than train.epochs ({train.epochs}), as {name} follows"
            f" what is measured, got {every}: --set evaluate.every=1",
        )


def follows_validation(experiment: Experiment) -> list[str]:
    """The settings by which an experiment follows what is measured on validation images."""
    schedule = experiment.schedule
    follows = {
        "train.checkpoint": experiment.train.checkpoint != "last",
        "labelling.listen_from": bool(experiment.labelling.options.get("listen_from")),
        f"schedule {schedule.name}": registry.schedules.of(schedule).facts["needs_validation"],
    }
    return [name for name, does in follows.items() if does]


def has_validation(experiment: Experiment) -> bool:
    """Whether each phase has validation images, as far as the experiment alone can say."""
    data, protocol = experiment.data, registry.protocols[experiment.protocol]
    may_be_given = data.split == "given" and not protocol.facts["validates_by_class"]
    return bool(data.valid_fraction or experiment.train.folds or may_be_given)


def plain_text(value: float | str) -> str:
    """As a person types it: 0, not 0.0."""
    return value if isinstance(value, str) else f"{value:g}"
