"""Sessions of photos that nobody has named: estimated from what cameras write, or from the
numbers in file names, and set against chance. No image is decoded."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dml_bench.config import Data
from dml_bench.data.datasets import Dataset
from dml_bench.data.grouping import groups_of, runs_of_names, series_of_names
from dml_bench.data.images import box_of
from dml_bench.system.files import Damaged, read_json, write_json

__all__ = ["Sessions", "estimate_sessions", "session_warning", "share_beside"]

NUM_SHUFFLES = 10
NUMBERED = re.compile(r"[^0-9]*[0-9]+")
"""A name that a camera may have given: a text, then a number."""
LEAST_BESIDE = 0.1
"""A smaller share of test photos beside their own session is not worth a line."""
LEAST_RATIO = 2.0
"""So many times chance makes sessions."""
DEVIATIONS = 3
"""So many standard deviations from chance make neighbours in a numbering say something."""
ESTIMATE = 5
"""Goes up where the estimate changes: what is remembered of an earlier one is not used."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """What a random split would do to sessions that nobody has named."""

    rule: str
    """The `data.group` that keeps them whole; empty where none of the data set does."""
    beside: float
    """The expected part of the test photos with a training photo of their own class and session."""
    chance: float
    """The same of photos without sessions."""

    @property
    def effect(self) -> str:
        """What would happen, in words."""
        return (
            f"a random split would put {self.beside:.0%} of test photos beside one of their own"
            f" session (chance {self.chance:.0%})"
        )

    @property
    def advice(self) -> str:
        """One line: what would happen, and the settings that prevent it."""
        return f"{self.effect}: use {self.settings}"

    @property
    def divides(self) -> bool:
        """Whether so many photos are beside their own session that it is worth a line."""
        return self.beside >= max(LEAST_BESIDE, LEAST_RATIO * self.chance)

    @property
    def settings(self) -> str:
        """The settings that keep sessions on one side."""
        if not self.rule:
            return "--set data.split=grouped with a data.group that names the sessions"
        return f"--set data.split=grouped --set data.group={self.rule}"


def session_warning(dataset: Dataset, data: Data) -> str:
    """What is wrong with a run's numbers where a random split divides sessions, which command shows
    more, and which setting mends it; empty where nothing is wrong."""
    if data.split != "stratified":
        return ""
    sessions = estimate_sessions(dataset, data.test_fraction)
    if sessions is None:
        return ""
    return (
        f"the random split puts {sessions.beside:.0%} of test photos beside their own session"
        f" (chance {sessions.chance:.0%}), so P@1 is too high. `dml-bench data check"
        f" {data.dataset.name}` shows more; {sessions.settings} keeps sessions apart"
    )


def estimate_sessions(dataset: Dataset, test_fraction: float) -> Sessions | None:
    """By times, else by cameras, else by file names; None where none of them shows sessions that
    a grouped split could divide. Where the data set has a folder to remember in, the files are read
    once for the same fingerprint."""
    if dataset.cache_dir is None:
        return estimated_now(dataset, test_fraction)
    place = dataset.cache_dir / "sessions" / f"{dataset.fingerprint[:16]}.json"
    known = read(place)
    key = f"{ESTIMATE}, test fraction {test_fraction:g}"
    if key in known:
        return Sessions(**known[key]) if known[key] else None
    sessions = estimated_now(dataset, test_fraction)
    with suppress(OSError):  # a cache that can't be written to only costs time
        place.parent.mkdir(parents=True, exist_ok=True)
        of_key = asdict(sessions) if sessions else {}
        write_json(place, {"estimates": known | {key: of_key}})
    return sessions


def read(place: Path) -> dict[str, dict]:
    """The remembered estimates; nothing where the file is not whole."""
    try:
        estimates: dict[str, dict] = read_json(place, {"estimates": {...: dict}}, sealed=True)[
            "estimates"
        ]
    except (OSError, Damaged):
        return {}
    return estimates


def estimated_now(dataset: Dataset, test_fraction: float) -> Sessions | None:
    for rule in rules_for(dataset):
        sessions = estimated(dataset, rule, test_fraction)
        if sessions is not None:
            return sessions
    return None


def rules_for(dataset: Dataset) -> list[str]:
    """The rules that give all photos a group."""
    rules = []
    if all(capture.time is not None for capture in dataset.captures):
        rules.append("exif:hour")
    if all(capture.camera for capture in dataset.captures):
        rules.append("exif:camera")
    if is_numbered_by_cameras(dataset.paths, dataset.labels) and not lacks_photos_at_random(
        dataset.paths, dataset.labels
    ):
        rules += ["numbers", "runs"]
    if are_series(dataset):
        rules.append("series")
    if any(box_of(path) for path in dataset.paths):
        rules.append("photo")
    return rules


def estimated(dataset: Dataset, rule: str, test_fraction: float) -> Sessions | None:
    if rule == "numbers" and not know_of_classes(dataset.paths, dataset.labels):
        return None
    if rule == "runs":
        sessions = np.array(runs_of_names(dataset.paths, dataset.labels))
    else:
        sessions = np.unique(groups_of(dataset, rule).astype(str), return_inverse=True)[1]
    if not mostly_divisible(dataset.labels, sessions):
        return None
    rng = np.random.default_rng(0)
    by_chance = []
    for _ in range(NUM_SHUFFLES):
        labels, alone = without_sessions(dataset, rule, sessions, rng)
        by_chance.append(share_beside(labels, alone, test_fraction))
    estimate = Sessions(
        rule, share_beside(dataset.labels, sessions, test_fraction), float(np.mean(by_chance))
    )
    return estimate if estimate.divides else None


def without_sessions(
    dataset: Dataset, rule: str, sessions: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(images) class ids and (images) groups of as many photos without sessions.

    A session may hold photos of many classes, as one shopping trip does, so that classes and
    sessions have nothing to do with each other. Times, and the numbers of a camera, are therefore
    set against photos that were taken one by one. Of runs, which are of one class, and of cameras,
    which are no sessions where all classes share them, the classes are dealt anew.
    """
    labels = rng.permutation(dataset.labels)
    if rule == "runs":
        return labels, np.array(runs_of_names(dataset.paths, labels))
    if rule == "exif:camera":
        return labels, sessions
    if rule == "numbers":
        return labels, np.array(runs_of_names(renumbered(dataset.paths, rng)))
    return labels, rng.integers(0, len(labels), len(labels))


def know_of_classes(paths: Sequence[str], labels: np.ndarray) -> bool:
    """Whether numbers that follow each other are of one class more often, or less often, than if
    classes were dealt to them at random. A camera takes a product several times in a row, or each
    product once; of a list that was shuffled before it was numbered, neighbours have nothing in
    common, however long its runs are."""
    pairs = same = 0
    for (text, number, label), (*after, next_label) in itertools.pairwise(by_number(paths, labels)):
        if after == [text, number + 1]:
            pairs += 1
            same += label == next_label
    if not pairs:
        return False
    sizes = np.bincount(labels)
    expected = pairs * float(np.sum(sizes * (sizes - 1))) / (len(labels) * (len(labels) - 1))
    return abs(same - expected) > DEVIATIONS * math.sqrt(expected)


def lacks_photos_at_random(paths: Sequence[str], labels: np.ndarray) -> bool:
    """Whether the numbers go through most classes once, with gaps as if photos had been taken out
    at random: those of a validation part, say, or blurred ones. No session ends at such a gap.
    Between sessions gaps are few and long, or come after much the same number of photos."""
    sizes: list[int] = []
    """Photos of each visit to a class."""
    visited: list[int] = []
    lengths: list[int] = []
    """Of the runs without a gap."""
    expected = 0.0
    photos = by_number(paths, labels)
    for (_, label), visit in itertools.groupby(photos, key=lambda photo: (photo[0], photo[2])):
        numbers = np.array([number for _, number, _ in visit])
        sizes.append(len(numbers))
        visited.append(label)
        ends = np.flatnonzero(np.diff(numbers, append=np.inf) > 1)
        lengths += np.diff(ends, prepend=-1).tolist()
        expected += expected_gaps(len(numbers), int(numbers[-1] - numbers[0]) + 1)
    if mostly_divisible(np.repeat(visited, sizes), np.repeat(np.arange(len(sizes)), sizes)):
        return False
    gaps, mean = len(lengths) - len(sizes), float(np.mean(lengths))
    geometric = mean * (mean - 1)
    return gaps > expected / LEAST_RATIO and float(np.var(lengths)) > geometric / LEAST_RATIO


def expected_gaps(count: int, span: int) -> float:
    """How many of `count` numbers have no follower, where the first and the last of `span` numbers
    are among them and the others are drawn at random."""
    return (count - 1) * (1 - (count - 2) / (span - 2)) if span > max(count, 2) else 0.0


def renumbered(paths: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Names with as many numbers from the same ranges, drawn at random."""
    numbers: dict[str, list[int]] = {}
    for path in paths:
        text, number = numbered(path)
        numbers.setdefault(text, []).append(number)
    names = []
    for text, used in numbers.items():
        # Identifiers of twenty digits may lie farther apart than NumPy's numbers reach.
        first, count = min(used), min(max(used) - min(used) + 1, 2**62)
        drawn = rng.choice(count, len(used), replace=False)
        names += [f"{text}{first + number}" for number in drawn.tolist()]
    return names


def share_beside(labels: np.ndarray, sessions: np.ndarray, test_fraction: float) -> float:
    """The expected part of the test photos of a split drawn per class that have a training photo of
    their own class and session."""
    pairs = zip(labels.tolist(), sessions.tolist(), strict=True)
    class_sizes = Counter(labels.tolist())
    num_tested = 0.0
    num_beside = 0.0
    for (label, _), size in Counter(pairs).items():
        in_class = class_sizes[label]
        tested = min(max(1, round(test_fraction * in_class)), in_class - 1)
        if tested == 0:
            continue
        # A test photo is alone if all others of its session are drawn as test photos too.
        others = np.arange(1, size)
        alone = float(np.prod(np.maximum(tested - others, 0) / (in_class - others)))
        num_tested += size * tested / in_class
        num_beside += size * tested / in_class * (1 - alone)
    return num_beside / num_tested if num_tested else 0.0


def mostly_divisible(labels: np.ndarray, sessions: np.ndarray) -> bool:
    """Whether half of the photos are of classes with two sessions: a single one is on one side,
    however groups are divided."""
    pairs = set(zip(labels.tolist(), sessions.tolist(), strict=True))
    num_sessions = Counter(label for label, _ in pairs)
    several = [num_sessions[label] > 1 for label in labels.tolist()]
    return bool(np.mean(several) >= 0.5)


def is_numbered_by_cameras(paths: Sequence[str], labels: np.ndarray) -> bool:
    """Whether the numbers in file names count photos of all classes. Numbers that begin anew in
    each class, or follow its name, were given afterwards and say nothing about sessions."""
    names = [PurePosixPath(path).stem for path in paths]
    if len(set(names)) < len(names) or not all(map(NUMBERED.fullmatch, names)):
        return False
    classes_of: dict[str, set[int]] = {}
    for path, label in zip(paths, labels.tolist(), strict=True):
        classes_of.setdefault(numbered(path)[0], set()).add(label)
    return all(len(classes) > 1 for classes in classes_of.values())


def are_series(dataset: Dataset) -> bool:
    """Whether all file names say a series, as of a video's frames or of a day. What most classes
    have in common is the number of a camera, or a year, and shows no sessions."""
    series = series_of_names(dataset.paths)
    if not all(series):
        return False
    pairs = set(zip(series, dataset.labels.tolist(), strict=True))
    num_classes = Counter(name for name, _ in pairs)
    shared = np.median([num_classes[name] for name in series])
    return bool(shared <= max(1, dataset.num_classes / 2))


def by_number(paths: Sequence[str], labels: np.ndarray) -> list[tuple[str, int, int]]:
    """Of each photo what stands before its number, the number and the class, in this order."""
    return sorted(
        (*numbered(path), label) for path, label in zip(paths, labels.tolist(), strict=True)
    )


def numbered(path: str) -> tuple[str, int]:
    """What stands before the number of a file's name, and the number."""
    name = PurePosixPath(path).stem
    text = name.rstrip("0123456789")
    return text, int(name[len(text) :])
