"""Short names of experiments, for tables, figures and sentences: `EPSHN, resnet50` where the
experiment's own name is EPSHN_cosine_resnet50_sgd_aug."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from dml_bench.config import Experiment, as_table, experiments
from dml_bench.config.variants import base_name, is_named, settings_in_short, tuned_name
from dml_bench.registry import losses
from dml_bench.runs.folder import differing

__all__ = [
    "LONGEST",
    "is_classifier",
    "is_linear_probe",
    "is_untrained",
    "method_of",
    "short_names",
]

SIZE = re.compile(r"(patch)?\d+")
LONGEST = 32
"""Letters of a short name before the settings of a variant, where that is possible."""
SHORTER = {
    "either": "both",
    "featuremixup": "mixup",
    "labelnoise": "noise",
    "labelnoise40": "noise40",
    "randomsamplepairing": "random pairs",
}
"""Additions to a name, in a name that is too long otherwise."""


def short_names(rows: Sequence[Experiment]) -> dict[str, str]:
    """By the names of experiments that stand in one table: the method, how it differs from most of
    the others, and what the name adds with `+`. No two are the same: settings distinguish variants.

    An experiment that a person named keeps its name if that is short enough. A row with the
    settings of a search has the name of the row beside it, and `tuned`.
    """
    by_name = {experiment.name: experiment for experiment in rows}
    tuned = {tuned_name(name): name for name in by_name if tuned_name(name) in by_name}
    others = {name: by_name[name] for name in by_name if name not in tuned}
    short = names_beside(others)
    return {name: short.get(name) or f"{short[tuned[name]]}, tuned" for name in by_name}


def names_beside(by_name: Mapping[str, Experiment]) -> dict[str, str]:
    """The short names of experiments of which none is another one tuned."""
    usual = {}
    for difference in DIFFERENCES:
        usual[difference] = most_frequent(list(map(difference, by_name.values())))
    names: dict[str, str] = {}
    for name, experiment in by_name.items():
        is_own = base_name(name) not in experiments.names()
        if is_own and len(name) <= LONGEST:
            names[name] = name
        else:
            names[name] = composed(experiment, differences(experiment, usual))
    shortened: dict[str, str] = {}
    for name, experiment in by_name.items():
        parts = differences(experiment, usual)
        while parts and len(names[name]) > LONGEST and names[name] != name:
            parts.pop()
            shorter = composed(experiment, parts)
            if shorter in names.values():
                break
            names[name] = shorter
        if len(names[name]) > LONGEST and names[name] != name:
            long = names[name]
            shorter = " + ".join(SHORTER.get(part, part) for part in long.split(" + "))
            if long not in shortened:  # variants of one experiment have the same until `distinct`
                shortened[long] = long if shorter in names.values() else shorter
            names[name] = shortened[long]
    return distinct(names, by_name)


def most_frequent(values: Sequence[str]) -> str:
    """Of equally frequent ones the first."""
    return Counter(values).most_common(1)[0][0]


def differences(experiment: Experiment, usual: "dict[Difference, str]") -> list[str]:
    """The words in which it differs from what is usual in its table."""
    added = [addition.lower() for addition in additions(experiment)]
    parts = []
    for of, word in usual.items():
        own = of(experiment)
        is_said = own.lower() in added or (of is head and bool(added))
        if own and own != word and not is_said:
            parts.append(own)
    return parts


def composed(experiment: Experiment, parts: Sequence[str]) -> str:
    """`EPSHN, resnet50 + mixup`"""
    method = ", ".join([method_of(experiment), *parts])
    return " + ".join([method, *additions(experiment)])


def additions(experiment: Experiment) -> list[str]:
    """What stands after each `+` of the name: of A+mixup_sgd_aug that is mixup."""
    parts = [part.partition("_")[0] for part in base_name(experiment.name).split("+")[1:]]
    return [part for part in parts if part]


def is_classifier(experiment: Experiment) -> bool:
    """Whether its loss has logits and does not work on unit vectors."""
    facts = losses.of(experiment.loss).facts
    return bool(facts["classifies"] and not facts["unit_vectors"])


def is_linear_probe(experiment: Experiment) -> bool:
    """Whether a classifier is fitted on features that stay as they are."""
    return bool(experiment.no_drop_because) and not is_untrained(experiment)


def is_untrained(experiment: Experiment) -> bool:
    """Whether nothing is trained."""
    return experiment.no_drop_because == "no training"


def method_of(experiment: Experiment) -> str:
    """The miner where it says more than the loss."""
    if experiment.no_drop_because:
        return "no training" if is_untrained(experiment) else "linear probe"
    if is_classifier(experiment):
        return "classifier"
    has_miner = experiment.miner.name != "none"
    return experiment.miner.name if has_miner else experiment.loss.name


# How experiments differ. Each is a word, or nothing where there is nothing to be said.


def distance(experiment: Experiment) -> str:
    is_euclidean = experiment.loss.options.get("distance") == "euclidean"
    return "Euclidean" if is_euclidean else ""


def backbone(experiment: Experiment) -> str:
    """`lite0` of an EfficientNet-Lite0. Of a model of timm without its patch size, its image size
    and its weights; of other libraries without its owner or folder, and its weights."""
    name = experiment.model.backbone.name
    prefix, _, of_library = name.partition(":")
    if prefix == "openclip" and ":" not in of_library:
        return of_library.partition("/")[0]
    if prefix in ("hf", "openclip", "st"):
        return of_library.rstrip("/").rpartition("/")[2]
    if not name.startswith("timm:"):
        return name.removeprefix("efficientnet_")
    parts = name.removeprefix("timm:").partition(".")[0].split("_")
    return "_".join(part for part in parts if not SIZE.fullmatch(part))


def start(experiment: Experiment) -> str:
    named = {"none": "", "classifier": "classifier first", "simclr": "SimCLR first"}
    return named.get(experiment.start.name, f"{experiment.start.name} first")


def weights(experiment: Experiment) -> str:
    """Nothing after a stage that trains the backbone, which is said by itself."""
    if start(experiment):
        return ""
    value = experiment.model.weights
    return "from scratch" if value == "none" else f"{value.rpartition('/')[2]} weights"


def trainable(experiment: Experiment) -> str:
    if experiment.no_drop_because:
        return ""
    model = experiment.model
    if model.last_stages:
        return "last stage" if model.last_stages == 1 else f"last {model.last_stages} stages"
    return "frozen backbone" if model.trainable == "head" else "all layers"


def head(experiment: Experiment) -> str:
    used = experiment.model.head
    if used.name == "identity":
        return ""
    dim = used.options.get("dim", "")
    return f"{dim}-d" if used.name == "linear" else f"{used.name} head"


def batch_norm(experiment: Experiment) -> str:
    return f"{experiment.model.batch_norm} BN"


def optimizer(experiment: Experiment) -> str:
    if experiment.no_drop_because:
        return ""
    name = experiment.optimizer.name
    return name.upper() if len(name) <= 3 else name.capitalize()


def augmentation(experiment: Experiment) -> str:
    if experiment.no_drop_because:
        return ""
    augment = experiment.augment
    is_plain = not (augment.random_crop_from or augment.resized_crop or augment.horizontal_flip)
    return "no aug." if is_plain else ""


Difference = Callable[[Experiment], str]
DIFFERENCES: tuple[Difference, ...] = (
    distance,
    backbone,
    start,
    weights,
    trainable,
    head,
    batch_norm,
    optimizer,
    augmentation,
)


def distinct(names: dict[str, str], by_name: Mapping[str, Experiment]) -> dict[str, str]:
    """The same, where two are alike with the settings that distinguish them, or else in full."""
    counts = Counter(names.values())
    result = {}
    for name, short in names.items():
        result[name] = short
        if counts[short] > 1:
            others = [by_name[other] for other in names if names[other] == short and other != name]
            settings = settings_in_short(name) or own_settings(by_name[name], others)
            result[name] = ", ".join([short, *settings])
    counts = Counter(result.values())
    return {name: short if counts[short] == 1 else name for name, short in result.items()}


def own_settings(experiment: Experiment, others: Sequence[Experiment]) -> list[str]:
    """`lr=0.1`: the first setting in which it differs from one of the others."""
    for other in others:
        for key in differing(as_table(other), as_table(experiment)):
            value = value_in(as_table(experiment), key)
            if is_named(key) and not isinstance(value, dict | list):
                return [f"{key.rpartition('.')[2]}={value}"]
    return []


def value_in(table: object, key: str) -> object:
    for part in key.split("."):
        table = table.get(part) if isinstance(table, dict) else None
    return table
