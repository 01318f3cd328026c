"""How photos are divided before anything is trained: a final test part that no row ever sees, and
the photos on which rows are trained and compared. Photos of one session are never on both sides of
a comparison, where sessions are known or can be seen."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dml_bench.config.component import Component
from dml_bench.config.experiments import resolve
from dml_bench.data.csv_table import PARTS, require_none, visible
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.grouped_split import by_groups
from dml_bench.data.images import boxed
from dml_bench.data.same_picture import first_of_picture, small_copies
from dml_bench.data.split import catalogue_images, make_split
from dml_bench.decision.session_rule import SessionRule, session_rules
from dml_bench.gallery.enrol import photos_by_class
from dml_bench.registry import datasets
from dml_bench.registry.names import spelling
from dml_bench.system.callbacks import Callback
from dml_bench.system.counted import counted
from dml_bench.system.files import read_csv, read_json, write_csv, write_json

__all__ = [
    "PHOTOS",
    "SEEDS",
    "Parts",
    "divide",
    "remove_old_catalogue",
    "without_data_settings",
]

SEEDS = (42, 43, 44)
FINAL_FRACTION, TEST_FRACTION, VALID_FRACTION = 0.2, 0.2, 0.15
ASKED_FRACTION = 0.45
"""Of the photos whose sessions are never trained on, where a class has two sessions only: a third
of them each is the final part, test photos and validation photos."""
FEWEST_PHOTOS = 5
"""A class needs one final photo, one test photo, one validation photo and two to train on."""
FEWEST_CLASSES = 4
DIVISION_SEED = 42
MOST_LEFT_OUT = 0.1
"""Classes with two sessions are left out where they have at most this share of the photos; else all
classes are divided as these allow."""
DEVELOPMENT, FINAL, FACTS = "development", "final.csv", "parts.json"
CATALOGUE = "studio_photos.csv"
OLD_CATALOGUE = "catalogue.csv"
"""Its name in earlier versions, which a table of the page has too."""
PHOTOS = "images"
"""The link to the photos in the folder of the development part."""
SESSION = "session"
"""The column that names the session of a photo."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The photos of one decision."""

    photos: Path
    out: Path
    class_names: tuple[str, ...]
    """Those that have photos and sessions enough."""
    left_out: tuple[str, ...] = ()
    """Classes with too few photos or sessions."""
    num_photos: int
    """Of the classes that have photos enough."""
    copies: int = 0
    """Photos that were left out, as another of their class shows the same picture."""
    in_two_classes: int = 0
    """Pictures that lie in several classes, of which at most one is right."""
    split: Literal["stratified", "grouped", "given"] = "stratified"
    """How rows divide the photos that they train on and those that they are compared by: drawn
    anew for each seed, or `given` by the division."""
    rule: str = ""
    """What makes a session, as `data.group` says it; empty where each photo stands for itself."""
    reason: str = ""
    """Why they are divided like this: a sentence."""

    @property
    def development(self) -> Path:
        """The folder of a data set without any final photo: rows are trained and compared on it."""
        return self.out / DEVELOPMENT

    @property
    def holdouts(self) -> str:
        """The rotated hold-outs: a fifth of the classes at a time."""
        count = max(1, len(self.class_names) // 5)
        return f"random:{count}:0 x {min(4, len(self.class_names) // count)}"

    @property
    def settings(self) -> tuple[str, ...]:
        """What an experiment on the development photos needs to be set to."""
        settings = [f"data.split={self.split}", "data.dataset=csv", f"unseen={self.holdouts}"]
        if self.split == "grouped":
            settings.append(f"data.group={SESSION}")
        if self.split != "given":
            settings.append(f"data.test_fraction={TEST_FRACTION}")
            settings.append(f"data.valid_fraction={VALID_FRACTION}")
        return tuple(settings)

    @property
    def kind(self) -> str:
        """The kind of split, for people."""
        return f"grouped by {self.rule}" if self.rule else "random by class"

    def development_photos(self) -> list[Path]:
        """The files of the photos that rows are trained and compared on."""
        rows = read_csv(self.development / "train.csv")
        return [self.photos / row["path"] for row in rows]

    def final(self) -> tuple[list[Path], list[str]]:
        """The files of the final part and their classes. To be opened once, after the choice."""
        rows = read_csv(self.out / FINAL)
        return [self.photos / row["path"] for row in rows], [row["class"] for row in rows]

    def catalogue(self) -> tuple[list[Path], list[str]]:
        """The files of studio photos and their classes; none where there is no catalogue."""
        if not (self.out / CATALOGUE).exists():
            return [], []
        rows = read_csv(self.out / CATALOGUE)
        return [self.photos / row["path"] for row in rows], [row["class"] for row in rows]


def divide(  # noqa: PLR0913 - what a person can choose, and the time
    photos: Path,
    out: Path,
    cache_dir: Path,
    callback: Callback,
    *,
    group: str = "",
    overrides: Sequence[str] = (),
    catalogue: Path | None = None,
    seconds: float = math.inf,
    device: str = "auto",
) -> Parts:
    """Divide the photos of a folder with one folder for each class, or of a table, or read how they
    were divided. `group` says which photos belong together, as `data.group` does; without it,
    sessions are estimated, of the `seconds` in a part by a look at the photos. Studio photos, from
    the folder or table `catalogue` or of the part `catalogue`, are in none of the parts.

    Raises ValueError where there are too few photos, or these have several labels, or where they,
    or `group`, changed since they were divided.
    """
    dataset = open_dataset(
        dataset_component(photos, overrides), photos, cache_dir, callback.progress, tolerant=True
    ).sound(or_empty=True)
    if dataset.label_sets is not None:
        raise ValueError(
            f"a decision needs one class for each photo, and those of {photos} have several labels:"
            " leave data.dataset.separator out"
        )
    dataset = named_by_box(dataset)
    listed = catalogue_rows(dataset, catalogue)
    studio = catalogue_images(dataset)
    if len(studio):
        dataset = replace(dataset.without(set(studio.tolist())), left_out=dataset.left_out)
    request = {
        "photos": digest_of_names(dataset),
        "contents": digest_of_lines(dataset.digests),
        "group": group,
    }
    file = out / FACTS
    if file.exists():
        facts = read_json(file)
        # An earlier version kept nothing of the contents.
        if any(facts.get(key, value) != value for key, value in request.items()):
            raise ValueError(
                f"{out} holds a decision about other photos, about these before some were changed,"
                f" or another --group than {group!r}: choose another folder with --out"
            )
        if "copies" not in facts["parts"]:
            warn_of_copies(dataset, out, callback)
        write_catalogue(listed, out)
        parts = parts_of(facts["parts"], dataset.root, out)
        link_photos(parts)
        return parts
    first = first_photos(dataset, callback)
    contradictory = in_two_classes(first, dataset.labels)
    if contradictory:
        callback.warn(contradiction(dataset, first, contradictory))
    copies = copies_in(first, dataset.labels)
    if copies:
        callback.note(f"left out, as {named_copies(dataset, copies)}")
        dataset = replace(dataset.without(copies), left_out=dataset.left_out)
    require_photos(dataset, photos)
    write_catalogue(listed, out)
    rules = session_rules(dataset, group, FINAL_FRACTION, seconds, device, callback)
    parts, usable, sessions, roles = divided(dataset, rules, photos, out, is_named=bool(group))
    parts = replace(parts, copies=len(copies), in_two_classes=len(contradictory))
    write_parts(parts, usable, sessions, roles)
    require_kept_names(parts, usable, cache_dir)
    kept: dict[str, Any] = asdict(parts)
    del kept["photos"], kept["out"]
    write_json(file, {**request, "parts": kept})
    return parts


def named_by_box(dataset: Dataset) -> Dataset:
    """The same with the box of each photo in its path, as the tables of the parts list paths."""
    if dataset.boxes is None:
        return dataset
    paths = []
    for path, (left, top, width, height) in zip(dataset.paths, dataset.boxes, strict=True):
        paths.append(boxed(path, (left, top, left + width, top + height)))
    return replace(dataset, paths=tuple(paths), boxes=None)


def catalogue_rows(dataset: Dataset, catalogue: Path | None) -> list[tuple[str, str]]:
    """The studio photos and their classes. Raises ValueError where none of the folder or table
    `catalogue` is of a class of the photos."""
    names = dataset.class_names
    studio = catalogue_images(dataset)
    rows = [(dataset.paths[image], names[dataset.labels[image]]) for image in studio]
    if catalogue is None:
        return rows
    listed = [(path, spelling(name, names)) for path, name in photos_by_class(catalogue)]
    known = [(str(path.absolute()), name) for path, name in listed if name in names]
    if not known:
        raise ValueError(
            f"--catalogue {catalogue} must have classes of the photos, got {listed[0][1]!r} and no"
            " other that they have: name its folders as the classes"
        )
    return rows + known


def write_catalogue(rows: Sequence[tuple[str, str]], out: Path) -> None:
    """The list of the studio photos, anew each time: no row sees them, so they may come later."""
    if rows:
        out.mkdir(parents=True, exist_ok=True)
        write_csv(out / CATALOGUE, ("path", "class"), rows)
    else:
        (out / CATALOGUE).unlink(missing_ok=True)


def remove_old_catalogue(out: Path) -> None:
    """The list of studio photos of an earlier version, in a folder of a decision: it is written
    anew under another name."""
    file = out / OLD_CATALOGUE
    if (out / FACTS).exists() and file.exists() and file.read_text().startswith("path,class"):
        file.unlink()


def dataset_component(photos: Path, overrides: Sequence[str]) -> Component:
    """A table where the folder has one, else class folders. What lies inside these doesn't
    matter."""
    settings = [setting for setting in overrides if is_data_setting(setting)]
    if not any(setting.startswith("data.dataset=") for setting in settings):
        settings.insert(0, f"data.dataset={kind_of_folder(photos)}")
    return resolve("frozen_efficientnet_lite0", overrides=settings).data.dataset


def kind_of_folder(photos: Path) -> str:
    """The name of the reader, with its option."""
    entries = visible(photos) if photos.is_dir() else []
    folders = [entry.name.lower() for entry in entries if entry.is_dir()]
    if len(folders) < 2 and any(entry.suffix.lower() in (".csv", ".tsv") for entry in entries):
        return "csv"
    if folders and all(name in PARTS for name in folders):
        return "folder"
    return '{ name = "folder", parts = "none" }'


def is_data_setting(setting: str) -> bool:
    return setting.strip().startswith("data.dataset")


def without_data_settings(overrides: Sequence[str]) -> tuple[str, ...]:
    """The settings that rows take: what reads the photos has done its work before."""
    return tuple(setting for setting in overrides if not is_data_setting(setting))


def parts_of(facts: dict[str, Any], photos: Path, out: Path) -> Parts:
    """As they were written."""
    names = {key: tuple(facts[key]) for key in ("class_names", "left_out")}
    return Parts(**{**facts, **names}, photos=photos.resolve(), out=out)


def require_photos(dataset: Dataset, photos: Path) -> None:
    """Raises ValueError where too few classes have photos enough."""
    counts = np.bincount(dataset.labels, minlength=dataset.num_classes)
    enough = int((counts >= FEWEST_PHOTOS).sum())
    if enough >= FEWEST_CLASSES:
        return
    needed = max(FEWEST_CLASSES, dataset.num_classes) * FEWEST_PHOTOS
    raise ValueError(
        f"no answer: {photos} must have at least {FEWEST_CLASSES} classes of {FEWEST_PHOTOS}"
        f" photos, got {enough} such classes: you need about {needed:,} photos,"
        f" {FEWEST_PHOTOS} of each class, and have {len(dataset):,}; better 30 of each class"
    )


def first_photos(dataset: Dataset, callback: Callback) -> np.ndarray:
    """(photos) the first one that shows the same picture."""
    files = [dataset.root / path for path in dataset.paths]
    small = small_copies(files, progress=partial(callback.progress, "looking for copies"))
    return first_of_picture(dataset.image_digests, small)


def copies_in(first: np.ndarray, labels: np.ndarray) -> set[int]:
    """All photos but one of each picture, in a class: a copy in another part would be a right
    answer to itself."""
    _, kept = np.unique(np.stack([first, labels]), axis=1, return_index=True)
    return set(range(len(first))) - set(kept.tolist())


def named_copies(dataset: Dataset, copies: set[int]) -> str:
    first = dataset.paths[min(copies)]
    return f"copies of others in their class: {len(copies):,} (first: {first})"


def warn_of_copies(dataset: Dataset, out: Path, callback: Callback) -> None:
    """Of photos that a version without this look at pictures has divided."""
    if copies := copies_in(first_photos(dataset, callback), dataset.labels):
        callback.note(named_copies(dataset, copies))
        callback.warn(
            f"an older version divided {out} with these copies in it, which answer for each"
            " other: --out another folder divides anew"
        )


def in_two_classes(first: np.ndarray, labels: np.ndarray) -> list[int]:
    """The first photos of the pictures that have several classes."""
    pictures = np.unique(np.stack([first, labels]), axis=1)[0]
    photos: list[int] = pictures[1:][pictures[1:] == pictures[:-1]].tolist()
    return sorted(set(photos))


def contradiction(dataset: Dataset, first: np.ndarray, pictures: Sequence[int]) -> str:
    photo = pictures[0]
    is_other = (first == photo) & (dataset.labels != dataset.labels[photo])
    other = dataset.paths[int(np.flatnonzero(is_other)[0])]
    return (
        f"{counted(len(pictures), 'picture')} in two classes, of which at most one is right (first:"
        f" {dataset.paths[photo]} and {other}): remove the wrong ones; `dml-bench data check` lists"
        " them"
    )


def divided(
    dataset: Dataset, rules: Iterable[SessionRule], photos: Path, out: Path, *, is_named: bool
) -> tuple[Parts, Dataset, np.ndarray, np.ndarray]:
    """The parts, the photos of classes that have enough, and of each its session and its role:
    `final`, or for rows `train`, `valid`, `test`, or `` where each seed draws that. By the first of
    the `rules` whose sessions can be kept apart. Raises ValueError where it can't be done by the
    one that a person named."""
    reason = ""
    for rule in rules:
        if not rule.name:
            reason = reason or rule.reason
            break
        try:
            return by_sessions(dataset, rule, photos, out)
        except ValueError as problem:
            if is_named:
                raise ValueError(f"no answer: {problem}") from None
        reason = reason or f"{rule.reason}, but sessions are too few to be kept apart"
    names, usable, left_out = with_enough(dataset, np.arange(len(dataset)), 1)
    chosen = make_split(
        usable, method="stratified", test_fraction=FINAL_FRACTION, seed=DIVISION_SEED
    )
    roles = np.full(len(usable), "", object)
    roles[chosen.test] = "final"
    parts = Parts(
        photos=dataset.root.resolve(),
        out=out,
        class_names=names,
        left_out=left_out,
        num_photos=len(usable),
        reason=reason,
    )
    return parts, usable, np.full(len(usable), "", object), roles


def by_sessions(
    dataset: Dataset, rule: SessionRule, photos: Path, out: Path
) -> tuple[Parts, Dataset, np.ndarray, np.ndarray]:
    """Three sessions of a class are enough for three parts that share none. Two are enough for
    training photos that share none with the others. Raises ValueError where there are too few."""
    sessions = rule.sessions
    parts = Parts(
        photos=dataset.root.resolve(),
        out=out,
        class_names=(),
        num_photos=0,
        rule=rule.name,
        reason=rule.reason,
    )
    names, usable, left_out = with_enough(dataset, sessions, 3)
    if len(names) >= FEWEST_CLASSES and len(usable) >= (1 - MOST_LEFT_OUT) * len(dataset):
        named = sessions[np.isin(dataset.paths, usable.paths)]
        try:
            roles = three_sided(usable, named)
        except ValueError:
            pass  # then each class is divided as one with two sessions is
        else:
            return (
                replace(
                    parts,
                    class_names=names,
                    left_out=left_out,
                    num_photos=len(usable),
                    split="grouped",
                ),
                usable,
                named,
                roles,
            )
    names, usable, left_out = with_enough(dataset, sessions, 2)
    if len(names) < FEWEST_CLASSES:
        raise ValueError(
            f"by {rule.name}, {photos} must have at least {FEWEST_CLASSES} classes of"
            f" {FEWEST_PHOTOS} photos in 2 sessions, got {len(names)}: add photos of other"
            " sessions, or choose another --group"
        )
    named = sessions[np.isin(dataset.paths, usable.paths)]
    roles = two_sided(usable, named)
    few = [
        label
        for label in range(usable.num_classes)
        if not {"test", "final"} <= set(roles[usable.labels == label].tolist())
    ]
    if few:
        kept = ~np.isin(usable.labels, few)
        left_out = (*left_out, *(usable.class_names[label] for label in few))
        usable = compact(usable, kept)
        named, roles, names = named[kept], roles[kept], usable.class_names
    parts = replace(
        parts, class_names=names, left_out=left_out, num_photos=len(usable), split="given"
    )
    return parts, usable, named, roles


def with_enough(
    dataset: Dataset, sessions: np.ndarray, fewest: int
) -> tuple[tuple[str, ...], Dataset, tuple[str, ...]]:
    """The names of the classes with photos and sessions enough, their photos, and the names of the
    others."""
    counts = np.bincount(dataset.labels, minlength=dataset.num_classes)
    numbers = np.unique(sessions.astype(str), return_inverse=True)[1]
    pairs = np.unique(np.stack([dataset.labels, numbers]), axis=1)
    num_sessions = np.bincount(pairs[0], minlength=dataset.num_classes)
    enough = (counts >= FEWEST_PHOTOS) & (num_sessions >= fewest)
    names = np.array(dataset.class_names, object)
    usable = compact(dataset, enough[dataset.labels]) if enough.any() else dataset
    return tuple(names[enough].tolist()), usable, tuple(names[~enough].tolist())


def three_sided(dataset: Dataset, sessions: np.ndarray) -> np.ndarray:
    """(photos) `final`, or `` for those that seeds divide. Raises ValueError where some seed could
    not keep sessions apart among the latter."""
    final, _ = by_groups(dataset, sessions, FINAL_FRACTION, 0.0, DIVISION_SEED)
    rest = compact(dataset, ~final)
    if rest.num_classes < dataset.num_classes:
        raise ValueError("a class has no photo beside the final part")
    for seed in SEEDS:
        by_groups(rest, sessions[~final], TEST_FRACTION, VALID_FRACTION, seed)
    return np.where(final, "final", "").astype(object)


def two_sided(dataset: Dataset, sessions: np.ndarray) -> np.ndarray:
    """(photos) `train`, or, of sessions that are never trained on, `final`, `test` and `valid` in
    turn, in an order that depends on the paths alone."""
    is_query, _ = by_groups(dataset, sessions, ASKED_FRACTION, 0.0, DIVISION_SEED)
    digests = [
        hashlib.sha256(f"{DIVISION_SEED} {path}".encode()).hexdigest() for path in dataset.paths
    ]
    roles = np.full(len(dataset), "train", object)
    for label in range(dataset.num_classes):
        photos = np.flatnonzero(is_query & (dataset.labels == label))
        for place, photo in enumerate(sorted(photos, key=lambda photo: digests[photo])):
            roles[photo] = ("final", "test", "valid")[place % 3]
    return roles


def digest_of_names(dataset: Dataset) -> str:
    """SHA-256 over the paths of the photos and their classes."""
    lines = []
    for path, label in zip(dataset.paths, dataset.labels, strict=True):
        lines.append(f"{path}\t{dataset.class_names[label]}")
    return digest_of_lines(lines)


def digest_of_lines(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def compact(dataset: Dataset, kept: np.ndarray) -> Dataset:
    """The data set with only the photos (photos, bool), and their classes numbered from 0."""
    rest = dataset.without(set(np.flatnonzero(~kept).tolist()))
    classes, labels = np.unique(rest.labels, return_inverse=True)
    names = tuple(dataset.class_names[label] for label in classes)
    return replace(rest, labels=labels, class_names=names, left_out=dataset.left_out)


def write_parts(parts: Parts, dataset: Dataset, sessions: np.ndarray, roles: np.ndarray) -> None:
    """The final part goes into a list of its own, and all others into a data set of their own."""
    link_photos(parts)
    names = dataset.class_names
    lines: list[tuple[str, ...]] = []
    final: list[tuple[str, str]] = []
    listed = zip(dataset.paths, dataset.labels, sessions.tolist(), roles.tolist(), strict=True)
    for path, label, session, role in listed:
        if role == "final":
            final.append((path, names[label]))
        elif parts.split == "given":
            lines.append((path, names[label], session, role))
        else:
            lines.append((path, names[label], session))
    heads = ("path", "class", SESSION, "split")[: len(lines[0])]
    write_csv(parts.development / "train.csv", heads, lines)
    write_csv(parts.out / FINAL, ("path", "class"), final)


def link_photos(parts: Parts) -> None:
    """Let the development part have its photos, which may have been moved since."""
    parts.development.mkdir(parents=True, exist_ok=True)
    images = parts.development / PHOTOS
    if images.is_symlink():
        if images.readlink() == parts.photos:
            return
        images.unlink()
    images.symlink_to(parts.photos, target_is_directory=True)


def require_kept_names(parts: Parts, dataset: Dataset, cache_dir: Path) -> None:
    """Raises ValueError where the table of the development part is read with other names than those
    of folders and files: it takes spaces at their ends for none, and nan for no class."""
    reader = Component("csv", datasets["csv"].resolve({}, "data.dataset"))
    listed = open_dataset(reader, parts.development, cache_dir, tolerant=True)
    classes, paths = set(listed.class_names), set(listed.paths)
    lost = [name for name in dataset.class_names if name not in classes]
    for photo in parts.development_photos():
        path = photo.relative_to(parts.photos).as_posix()
        if f"{PHOTOS}/{path}" not in paths:
            lost.append(path)
    require_none(
        lost,
        f"names in {parts.photos} that a table can't keep (a space at an end, a backslash, nan, 1.0"
        " beside 1)",
        "rename them",
    )
