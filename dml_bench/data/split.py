"""Who trains and who asks: one split per data set and seed, shared by all phases, and the classes
that a phase never sees."""

import csv
import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import cast

import numpy as np

from dml_bench.config import Data, Experiment
from dml_bench.data.datasets import Dataset
from dml_bench.data.grouped_split import by_groups, by_time, grouped_folds, not_validated
from dml_bench.data.grouping import days_of, groups_of
from dml_bench.data.label_sets import strata
from dml_bench.registry import UnknownName, near_miss, protocols
from dml_bench.registry.names import composed
from dml_bench.system.seeding import uniform

__all__ = [
    "Monitored",
    "Phase",
    "Split",
    "disjoint_phases",
    "fold_phases",
    "held_out_by",
    "holdouts",
    "is_rotated",
    "make_disjoint_split",
    "make_split",
    "phases",
    "split_by_label_sets",
    "split_of",
    "thinned",
    "unseen_classes",
]


def no_images() -> np.ndarray:
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Split:
    """Image indices, ascending. `train` and `test` are disjoint, and neither holds a `valid`
    image."""

    train: np.ndarray
    test: np.ndarray
    """The queries."""
    fingerprint: str
    """SHA-256 over the paths of all parts."""
    gallery: np.ndarray
    """`train` itself, or the images that the data set gives for it; where classes are disjoint,
    `test` itself (each query is then left out of its own search) or other images."""
    valid: np.ndarray
    """The validation images, perhaps none: of all classes, or, where classes are disjoint, of
    training classes of their own."""
    kind: str = "stratified"
    """How it was made: `data.split` of the experiment."""
    groups: np.ndarray | None = None
    """(images of the data set) the name of each image's group, or with `time` its day; None where
    images stand for themselves."""
    notes: tuple[str, ...] = ()
    """Sentences about what could not be divided as asked."""
    catalogue: np.ndarray = field(default_factory=no_images)
    """Studio photos of the classes, perhaps none: they never train, and neither ask nor answer in
    the run's own evaluation."""

    @property
    def has_own_gallery(self) -> bool:
        """Whether the gallery holds neither the training images nor the queries."""
        return self.gallery is not self.train and not self.leaves_one_out

    @property
    def leaves_one_out(self) -> bool:
        """Whether each query is looked up among the other queries."""
        return self.gallery is self.test


@dataclass(frozen=True, slots=True)
class Monitored:
    """What is measured while a phase trains, image indices."""

    gallery: np.ndarray
    queries: dict[str, np.ndarray]
    """By the name of the part; the gallery itself where each query is left out of its own search.
    """

    @property
    def num_images(self) -> int:
        """How many images are embedded to measure a phase once."""
        return len(self.gallery) + sum(
            len(images) for images in self.queries.values() if images is not self.gallery
        )


@dataclass(frozen=True, slots=True)
class Phase:
    """One training: its name and the class ids that it never sees."""

    name: str
    held_out_classes: tuple[int, ...] = ()
    suffix: str = ""
    """What the study appends to the names of this phase: train_loss2, test_accuracy2."""
    leaves_one_out: bool = False
    """Whether only validation images are monitored, each of which is looked up among the others."""
    fold_images: tuple[int, ...] = ()
    """Training images that this phase does not train on, but validates on: a fold."""

    def trains_on(self, dataset: Dataset, split: Split) -> np.ndarray:
        """(images) indices of the training images of this phase: the one split, less the held-out
        classes and the images of the fold."""
        images = self.of_trained_classes(dataset, split.train)
        return images[~np.isin(images, self.fold_images)] if self.fold_images else images

    def of_trained_classes(self, dataset: Dataset, images: np.ndarray) -> np.ndarray:
        """Those of `images` whose class this phase trains on."""
        return images[~np.isin(dataset.labels[images], self.held_out_classes)]

    def monitored_images(self, dataset: Dataset, split: Split) -> Monitored:
        """The images that are measured while this phase trains: of its own classes, or of
        validation classes."""
        if self.leaves_one_out:
            return Monitored(split.valid, {"valid": split.valid} if len(split.valid) else {})
        of_fold = np.array(self.fold_images, np.int64)
        queries = {
            "test": self.of_trained_classes(dataset, split.test),
            "valid": np.union1d(self.of_trained_classes(dataset, split.valid), of_fold),
        }
        return Monitored(
            self.trains_on(dataset, split),
            {name: images for name, images in queries.items() if len(images)},
        )


def phases(holdouts: tuple[tuple[int, ...], ...]) -> tuple[Phase, ...]:
    """The phase that sees everything, and one for each set of classes that are held out: `limited`,
    or `limited-1`, `limited-2`, ..."""
    names = (
        ["limited"]
        if len(holdouts) == 1
        else [f"limited-{number}" for number in range(1, len(holdouts) + 1)]
    )
    limited = (
        Phase(name, unseen, suffix=str(number))
        for number, (name, unseen) in enumerate(zip(names, holdouts, strict=True), start=2)
    )
    return (Phase("all"), *limited)


def disjoint_phases(dataset: Dataset, split: Split) -> tuple[Phase, ...]:
    """The one phase where classes are divided, which sees neither the classes of the test nor those
    of the validation images."""
    held_out = np.setdiff1d(np.arange(dataset.num_classes), dataset.labels[split.train])
    return (Phase("disjoint", tuple(held_out.tolist()), leaves_one_out=True),)


def fold_phases(
    phase: Phase,
    dataset: Dataset,
    split: Split,
    labels: np.ndarray,
    count: int,
    seed: int,
    name: str = "fold",
) -> tuple[Phase, ...]:
    """`count` phases like `phase`; each withholds another part of its training images. The parts
    are stratified by (images) class ids, and an image is in the same part in every phase. They are
    equal in size give or take one, or, where the split has groups, as far as these allow. Raises
    ValueError where a class has fewer images than parts, or only one group.
    """
    images = split.train
    if split.groups is None or split.kind == "time":
        part = stratified_folds(dataset, images, labels, count, seed)
    else:
        part = grouped_folds(dataset, images, labels, split.groups, count, seed)
    known = ~np.isin(dataset.labels[images], phase.held_out_classes)
    return tuple(
        replace(
            phase,
            name=f"{phase.name}-{name}-{number + 1}",
            suffix=f"{phase.suffix}_{name}_{number + 1}",
            fold_images=tuple(images[(part == number) & known].tolist()),
        )
        for number in range(count)
    )


def stratified_folds(
    dataset: Dataset, images: np.ndarray, labels: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """(images) the part of each."""
    classes, sizes = np.unique(labels[images], return_counts=True)
    if sizes.min() < count:
        few = dataset.class_names[classes[sizes.argmin()]]
        raise ValueError(
            f"{count} folds, but class {few} has {sizes.min()} training images: at most"
            f" {sizes.min()} folds are possible"
        )
    order = np.lexsort(
        [uniform(seed, "folds", rows=len(dataset), columns=1)[images, 0], labels[images]]
    )
    part = np.empty(len(images), int)
    part[order] = np.arange(len(images)) % count
    return part


def split_of(experiment: Experiment, dataset: Dataset) -> Split:
    """Who trains and who asks, by the experiment's protocol."""
    # By the registry, as the protocols stand above the data.
    protocol = protocols[experiment.protocol].build()
    require_right_labels(experiment, dataset)
    require_repeated_class(experiment, dataset)
    split = cast(Split, protocol.split(experiment, dataset))
    unused = without_effect(experiment, takes_unseen=protocol.takes_unseen)
    split = replace(split, notes=(*split.notes, *unused))
    if not experiment.data.per_class:
        return split
    return thinned(split, dataset, experiment.data.per_class, experiment.seed)


def without_effect(experiment: Experiment, *, takes_unseen: bool) -> list[str]:
    """Sentences about settings that change nothing of the split or of what is held out. A profile
    has such settings for all experiments, so nothing is said there."""
    if experiment.profile:
        return []
    data, notes = experiment.data, []
    divides = {"given": "is the data set's own parts", "half": "divides by class"}
    if data.split in divides and data.test_fraction != Data().test_fraction:
        notes.append(
            f"data.test_fraction has no effect with data.split = {data.split}, which"
            f" {divides[data.split]}"
        )
    default = {part.name: part.default for part in fields(Experiment)}["unseen"]
    if not takes_unseen and experiment.unseen != default:
        notes.append(
            f"unseen has no effect with protocol {experiment.protocol}, which does not ask which"
            " classes are held out"
        )
    return notes


def require_right_labels(experiment: Experiment, dataset: Dataset) -> None:
    """Raises ValueError where images have several labels and the protocol asks for one, or the
    other way round."""
    several = [entry.name for entry in protocols if entry.facts["label_sets"]]
    if (dataset.label_sets is not None) == (experiment.protocol in several):
        return
    if dataset.label_sets is None:
        raise ValueError(
            f"images of {dataset.name} have one class, and protocol {experiment.protocol} asks for"
            " several labels: name what stands between them in a table, e.g. --set"
            " data.dataset=csv --set 'data.dataset.separator=;'"
        )
    raise ValueError(
        f"images of {dataset.name} have several labels, and protocol {experiment.protocol} asks for"
        f" one class: use an experiment with --set protocol={several[0]}, or leave"
        " data.dataset.separator out"
    )


def require_repeated_class(experiment: Experiment, dataset: Dataset) -> None:
    """Raises ValueError where a sampler repeats a class that the data lack: it would only
    shuffle."""
    label, last = experiment.sampler.options.get("label", 0), dataset.num_classes - 1
    if experiment.sampler.name == "repeated_class" and label > last:
        raise ValueError(
            f"sampler.label must be at most {last}, the last class of {dataset.name}, got {label}:"
            " classes count from 0, in the order of their names"
        )


def thinned(split: Split, dataset: Dataset, per_class: int, seed: int) -> Split:
    """The split with at most so many training images in each class: those with the smallest SHA-256
    of (seed, path) under another key than the queries have, so that those of a smaller number are
    among those of a larger one. Queries and validation images stay."""
    kept = []
    for label in np.unique(dataset.labels[split.train]):
        images = split.train[dataset.labels[split.train] == label]
        ranks = [
            hashlib.sha256(f"{seed}\0per_class\0{dataset.paths[image]}".encode()).digest()
            for image in images
        ]
        order = sorted(range(len(images)), key=ranks.__getitem__)
        kept.append(images[order[:per_class]])
    train = np.sort(np.concatenate(kept))
    parts = {"train": train, "valid": split.valid, "test": split.test, "gallery": train[:0]}
    if split.has_own_gallery:
        parts["gallery"] = split.gallery
    if len(split.catalogue):
        parts["catalogue"] = split.catalogue
    masks = {name: np.isin(np.arange(len(dataset)), images) for name, images in parts.items()}
    return replace(
        split,
        train=train,
        gallery=train if split.gallery is split.train else split.gallery,
        fingerprint=fingerprint(dataset, **masks),
    )


def held_out_by(phases: Sequence[Phase]) -> set[int]:
    """Ids of the classes that any of the phases never sees."""
    held_out: set[int] = set()
    for phase in phases:
        held_out.update(phase.held_out_classes)
    return held_out


def make_split(
    dataset: Dataset,
    *,
    method: str,
    test_fraction: float,
    valid_fraction: float = 0.0,
    seed: int,
    group: str = "",
    time: str = "",
) -> Split:
    """Divide the images. `stratified`: in each class the images with the smallest SHA-256 of (seed,
    path) become queries, so the split does not depend on the platform, on library versions or on
    the order in which files were found.

    ceil(test_fraction * images) queries in all, shared among the classes in proportion (largest
    remainders first), but at least one query and one gallery image in each, which can make more
    where classes are tiny. Of the rest, `valid_fraction` become validation images in the same way;
    the queries are the same whatever it is.

    `given`: the data set's own parts; its images of the part `gallery`, where it has some, are the
    gallery in place of the training images. Images of the part `catalogue` are left out of every
    division.

    `grouped`: no group of the rule `group` has images in two parts, and each class has about these
    fractions; `time`: in each class the newest images by the rule `time` become queries, the newest
    of the rest validation images, and none of one day are parted. Raises ValueError where a class
    has too few images, groups or days.
    """
    catalogue = catalogue_images(dataset)
    if len(catalogue):
        split = make_split(
            dataset.without(set(catalogue.tolist())),
            method=method,
            test_fraction=test_fraction,
            valid_fraction=valid_fraction,
            seed=seed,
            group=group,
            time=time,
        )
        return beside_catalogue(split, dataset, catalogue)
    groups = groups_of(dataset, group) if group else None
    notes: tuple[str, ...] = ()
    if method == "given":
        train, valid, test = given_parts(dataset)
        if valid_fraction:
            notes = (
                f"data.valid_fraction has no effect with data.split = given: {dataset.name} has"
                f" {valid.sum()} validation images in its own parts",
            )
    else:
        if method == "grouped":
            assert groups is not None, "a grouped split has a rule of groups"
            test, valid = by_groups(dataset, groups, test_fraction, valid_fraction, seed)
        elif method == "time":
            days = days_of(dataset, time)
            test, valid = by_time(dataset, days, test_fraction, valid_fraction)
            groups = days.astype(str).astype(object)
        else:
            test, valid = by_class(dataset, test_fraction, valid_fraction, seed)
        train = ~(test | valid)
        if method in ("grouped", "time"):
            notes = not_validated(dataset, valid, "group" if method == "grouped" else "day")
    require_all_classes(dataset, train, test)
    training = np.flatnonzero(train)
    enrolled = own_gallery(dataset, method)
    notes += unused_parts(dataset, train | valid | test | enrolled)
    return Split(
        training,
        np.flatnonzero(test),
        fingerprint(dataset, train=train, valid=valid, test=test, gallery=enrolled),
        np.flatnonzero(enrolled) if enrolled.any() else training,
        np.flatnonzero(valid),
        kind=method,
        groups=groups,
        notes=notes,
    )


def split_by_label_sets(
    dataset: Dataset, *, method: str, test_fraction: float, valid_fraction: float, seed: int
) -> Split:
    """The split of images that have several labels each: by the rarest label of each image, or
    `given` by the data set's own parts."""
    assert dataset.label_sets is not None
    rarest = strata(dataset.labels, dataset.label_sets)
    used, labels = np.unique(
        np.zeros_like(rarest) if method == "given" else rarest, return_inverse=True
    )
    names = tuple(dataset.label_sets.names[label] for label in used)
    return make_split(
        replace(dataset, labels=labels, class_names=names),
        method=method,
        test_fraction=test_fraction,
        valid_fraction=valid_fraction,
        seed=seed,
    )


def catalogue_images(dataset: Dataset) -> np.ndarray:
    """The images whose part is `catalogue`."""
    if dataset.parts is None:
        return no_images()
    return np.flatnonzero(np.array(dataset.parts) == "catalogue")


def beside_catalogue(split: Split, dataset: Dataset, catalogue: np.ndarray) -> Split:
    """The split of a data set from that of all its images but those of its catalogue."""
    others = np.setdiff1d(np.arange(len(dataset)), catalogue)
    train, test = others[split.train], others[split.test]
    gallery = others[split.gallery]
    if split.leaves_one_out:
        gallery = test
    elif not split.has_own_gallery:
        gallery = train
    groups = None
    if split.groups is not None:
        groups = np.full(len(dataset), "", object)
        groups[others] = split.groups
    listed = "\n".join([split.fingerprint, *(dataset.paths[image] for image in catalogue)])
    return replace(
        split,
        train=train,
        test=test,
        gallery=gallery,
        valid=others[split.valid],
        groups=groups,
        catalogue=catalogue,
        fingerprint=hashlib.sha256(listed.encode()).hexdigest(),
    )


def given_parts(dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(images) those that train, validate and ask, by the data set's own parts. Raises ValueError
    where it has none."""
    if dataset.parts is None or "test" not in dataset.parts or "train" not in dataset.parts:
        raise ValueError(
            f"data.split = given, but {dataset.name} has no train and test parts of its own;"
            " --set data.split=stratified"
        )
    parts = np.array(dataset.parts)
    return parts == "train", parts == "valid", parts == "test"


def by_class(
    dataset: Dataset, test_fraction: float, valid_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(images) those that ask and those that validate, drawn in each class."""
    test = _stratified(dataset, np.ones(len(dataset), bool), test_fraction, seed)
    if not valid_fraction:
        return test, np.zeros(len(dataset), bool)
    return test, _stratified(dataset, ~test, valid_fraction, seed)


def require_all_classes(dataset: Dataset, train: np.ndarray, test: np.ndarray) -> None:
    """Raises ValueError where a class has no image that trains, or none that asks."""
    for what, part in (("training", train), ("test", test)):
        empty = np.setdiff1d(np.arange(dataset.num_classes), dataset.labels[part])
        if len(empty):
            names = ", ".join(dataset.class_names[i] for i in empty[:5])
            raise ValueError(
                f"{len(empty)} classes have no {what} image ({names}); add images or remove these"
                " classes"
            )


def own_gallery(dataset: Dataset, method: str) -> np.ndarray:
    """(images) which of them the data set gives as the gallery of its test images; none where it
    gives none. Raises ValueError where they would be mixed with others, or lack a class."""
    parts = np.array(dataset.parts or ("",) * len(dataset))
    enrolled = (parts == "gallery") & ("test" in parts)
    if not enrolled.any():
        return enrolled
    if method != "given":
        raise ValueError(
            f"data.split must be given where {dataset.name} has a gallery of its own, got {method}:"
            " --set data.split=given"
        )
    empty = np.setdiff1d(np.arange(dataset.num_classes), dataset.labels[enrolled])
    if len(empty):
        raise ValueError(
            f"{len(empty)} classes have no gallery image ({dataset.class_names[empty[0]]}, ...);"
            " add images or remove these classes"
        )
    return enrolled


def unused_parts(dataset: Dataset, used: np.ndarray) -> tuple[str, ...]:
    """A sentence about images of the data set's own parts that a split has no use for; `used`
    (images, bool) are the others."""
    if used.all():
        return ()
    names = sorted(set(np.array(dataset.parts)[~used].tolist()))
    remedy = ""
    if "valid" in names:
        remedy = ": data.valid_fraction sets training classes aside for validation"
    return (
        f"{(~used).sum()} images of the part {' and '.join(names)} of {dataset.name} are not used"
        f" with this protocol{remedy}",
    )


def fingerprint(dataset: Dataset, **parts: np.ndarray) -> str:
    """SHA-256 over the paths of all images in one of the parts (images, bool), with the part's
    name."""
    part = np.full(len(dataset), "", dtype=object)
    for name, images in parts.items():
        part[images] = name
    return hashlib.sha256(
        "\n".join(
            f"{path}\t{name}" for path, name in zip(dataset.paths, part, strict=True) if name
        ).encode()
    ).hexdigest()


def make_disjoint_split(dataset: Dataset, *, method: str, valid_fraction: float) -> Split:
    """Divide the classes, as papers on metric learning do: no class of the queries is trained on.

    `half`: the first half of the class ids (rounded down) trains, the second half is asked, each
    image among all others; `given`: the parts of the data set say so. The last `valid_fraction` of
    the training classes (at least 2, unless it is 0) are validation classes. Raises ValueError
    where the data set's own parts share classes, or too few are left.
    """
    catalogue = catalogue_images(dataset)
    if len(catalogue):
        others = dataset.without(set(catalogue.tolist()))
        split = make_disjoint_split(others, method=method, valid_fraction=valid_fraction)
        return beside_catalogue(split, dataset, catalogue)
    if method == "half":
        train = dataset.labels < dataset.num_classes // 2
        test = gallery = ~train
    else:
        train, test, gallery = (
            _given(dataset, names) for names in (("train",), ("test", "query"), ("test", "gallery"))
        )
    classes = np.unique(dataset.labels[train])
    shared = np.intersect1d(classes, dataset.labels[test | gallery])
    if len(shared):
        raise ValueError(
            f"{len(shared)} classes of {dataset.name} have both training and test images"
            f" ({dataset.class_names[shared[0]]}, ...); --set data.split=half divides by class"
        )
    num_valid = max(2, math.ceil(valid_fraction * len(classes))) if valid_fraction else 0
    if len(classes) - num_valid < 2 or not test.any():
        raise ValueError(
            f"{dataset.name} must leave at least 2 classes to train on and 1 test class, got"
            f" {len(classes)} training classes with {num_valid} for validation: add classes, or"
            " lower data.valid_fraction"
        )
    valid = train & np.isin(dataset.labels, classes[len(classes) - num_valid :])
    train = train & ~valid
    queries = np.flatnonzero(test)
    enrolled = queries if np.array_equal(test, gallery) else np.flatnonzero(gallery)
    parts = fingerprint(dataset, train=train, valid=valid, test=test, gallery=gallery & ~test)
    return Split(
        np.flatnonzero(train),
        queries,
        parts,
        enrolled,
        np.flatnonzero(valid),
        kind=method,
        notes=unused_parts(dataset, train | valid | test | gallery),
    )


def _given(dataset: Dataset, names: tuple[str, ...]) -> np.ndarray:
    if dataset.parts is None:
        raise ValueError(
            f"data.split = given, but {dataset.name} has no parts of its own; --set data.split=half"
        )
    return np.isin(dataset.parts, names)


def _stratified(dataset: Dataset, among: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """(images) which of `among` (images, bool) are taken: about `fraction` of them, at least one of
    each class, at least one left."""
    counts = np.bincount(dataset.labels[among], minlength=dataset.num_classes)
    if counts.min() < 2:
        few = [dataset.class_names[i] for i in np.flatnonzero(counts < 2)]
        purpose = (
            "one for the gallery and one query"
            if among.all()
            else "one for validation and one for the gallery, besides the queries,"
        )
        raise ValueError(
            f"{len(few)} classes have fewer than 2 images"
            f" {'' if among.all() else 'left '}({', '.join(few[:5])}): {purpose} are the least; add"
            " images or remove these classes"
        )
    wanted = counts * fraction
    take = np.clip(np.floor(wanted).astype(int), 1, counts - 1)
    missing = math.ceil(round(fraction * int(among.sum()), 6)) - take.sum()
    for label in np.argsort(-(wanted - np.floor(wanted)), kind="stable"):
        if missing > 0 and take[label] < counts[label] - 1 and wanted[label] > take[label]:
            take[label] += 1
            missing -= 1
    while missing > 0 and (room := counts - 1 - take).max() > 0:
        take[np.argmax(room)] += 1
        missing -= 1
    ranks = [hashlib.sha256(f"{seed}\0{path}".encode()).digest() for path in dataset.paths]
    taken = np.zeros(len(dataset), dtype=bool)
    # Sorted once: a look through all labels for each class would take the square of the images.
    in_classes = np.flatnonzero(among)[np.argsort(dataset.labels[among], kind="stable")]
    for images, count in zip(np.split(in_classes, np.cumsum(counts)[:-1]), take, strict=True):
        taken[sorted(images, key=ranks.__getitem__)[:count]] = True
    return taken


def holdouts(rule: str, dataset: Dataset) -> tuple[tuple[int, ...], ...]:
    """The sets of class ids that `unseen` means: one, or R of them for `random:N:SEED x R`.

    Rotated hold-outs cut a random order of the classes into sets of N, so that no class is held out
    twice before all but the remainder were; where R needs more, another order follows. The first is
    that of `random:N:SEED`.
    """
    if not is_rotated(rule):
        return (unseen_classes(rule, dataset),)
    base, _, count = rule.partition(" x ")
    if not base.startswith("random:") or not count.isdecimal() or int(count) < 2:
        raise ValueError(
            f"unseen is {rule!r}; hold-outs are rotated by random:N:SEED x R with R of at least 2,"
            " e.g. random:20 x 5"
        )
    size, seed = len(unseen_classes(base, dataset)), [*base.split(":"), "0"][2]
    per_order = dataset.num_classes // size
    sets = []
    for number in range(int(count)):
        turn, place = divmod(number, per_order)
        order = random_order(dataset.num_classes, seed, *([turn] if turn else []))
        sets.append(tuple(sorted(int(label) for label in order[place * size : (place + 1) * size])))
    return tuple(sets)


def is_rotated(rule: str) -> bool:
    """Whether `unseen` means several sets of classes, each of which one model never sees."""
    # The name of a class may hold " x " too.
    return " x " in rule and rule.partition(":")[0] in ("last", "random")


def random_order(num_classes: int, *key: object) -> np.ndarray:
    return np.argsort(uniform("unseen", *key, rows=num_classes, columns=1)[:, 0], kind="stable")


def unseen_classes(rule: str, dataset: Dataset) -> tuple[int, ...]:
    """Ascending class ids that `last:N`, `random:N:SEED` (seed 0 if left out) or `name,name,...`
    means.

    Raises ValueError unless 1 <= N <= classes - 2.
    """
    kind, _, rest = rule.partition(":")
    if kind in ("last", "random"):
        number, *seed = rest.split(":")
        is_rule = number.isdecimal() and all(part.removeprefix("-").isdecimal() for part in seed)
        if not is_rule or len(seed) > (0 if kind == "last" else 1):
            raise ValueError(
                f"unseen is {rule!r}; write last:N, random:N, random:N:SEED, or class names joined"
                " by commas"
            )
        count = int(number)
        if not 1 <= count <= dataset.num_classes - 2:
            raise ValueError(
                f"unseen is {rule!r}, but {dataset.name} has {dataset.num_classes} classes: hold"
                f" out 1 to {dataset.num_classes - 2}, e.g. --set"
                f" unseen=last:{max(1, dataset.num_classes // 10)}"
            )
        if kind == "last":
            return tuple(range(dataset.num_classes - count, dataset.num_classes))
        return tuple(
            sorted(
                int(label) for label in random_order(dataset.num_classes, *(seed or ["0"]))[:count]
            )
        )
    ids = {composed(name): label for label, name in enumerate(dataset.class_names)}
    chosen = tuple(sorted({ids[name] for name in named_classes(composed(rule), ids, dataset.name)}))
    if len(chosen) > dataset.num_classes - 2:
        raise ValueError(
            f"unseen names {len(chosen)} of {dataset.num_classes} classes: at least 2 must stay to"
            " train on"
        )
    return chosen


def named_classes(rule: str, known: Collection[str], dataset: str) -> list[str]:
    """The classes that names joined by commas mean. Names may hold commas themselves, and may stand
    between double quotes as in CSV; so may all of them together, as in TOML.

    Raises UnknownName where a part is the name of no class, ValueError where the rule can be read
    in two ways.
    """
    quoted = next(csv.reader([rule]), [""])
    ways = ways_to_read(rule.split(","), known)
    if not ways and len(quoted) == 1 and quoted[0] not in known:
        ways = ways_to_read(quoted[0].split(","), known)
    if len(ways) > 1:
        one, other = (" and ".join(map(repr, names)) for names in ways)
        raise ValueError(
            f"unseen is {rule!r}, which may mean {one}, or {other}: put each name between double"
            " quotes"
        )
    if ways:
        return ways[0]
    if unknown := [name for name in quoted if name not in known]:
        raise UnknownName(
            f"unseen names the class {unknown[0]!r}, which {dataset} has"
            f" not{near_miss(unknown[0], list(known))}"
        )
    return quoted


def ways_to_read(parts: Sequence[str], known: Collection[str]) -> list[list[str]]:
    """The ways in which parts that stood between commas, some of them joined again, are all names
    that are known; two at most."""
    ways: list[list[list[str]]] = [[[]]]
    for end in range(1, len(parts) + 1):
        readings = [
            [*before, name]
            for start in range(end)
            if (name := ",".join(parts[start:end])) in known
            for before in ways[start]
        ]
        ways.append(readings[:2])
    return ways[-1]
