"""What makes a session of photos: what a person says, what cameras write, or what photos show."""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from dml_bench.analysis.sessions import chained_sessions, embeddings_of_backbone
from dml_bench.data.datasets import Dataset
from dml_bench.data.grouping import groups_of
from dml_bench.data.sessions import Sessions, estimate_sessions
from dml_bench.system.callbacks import Callback

__all__ = ["ALIKE", "SessionRule", "session_rules"]

OWN_PARTS = "the data set's own parts"
"""The rule by which train and test, as folders or a column name them, are sessions."""
ALIKE = "near-identical photos"
"""The rule by which photos of a class that are nearer than chance are of one session."""
BACKBONE = "efficientnet_lite0"
SETTINGS = ("images.size=112",)
"""Half of the usual size is enough to see what is near-identical, in a quarter of the time."""
SHARE = 0.1
"""Of the time, to look for sessions in the photos."""


class SessionRule(NamedTuple):
    """Which photos were taken together, and how that is known."""

    name: str
    """As `data.group` says it, or `OWN_PARTS`, or `ALIKE`; empty where nothing shows sessions."""
    reason: str
    """A sentence."""
    sessions: np.ndarray
    """(photos) the names of their sessions."""


class NoTime(Exception):
    """Looking at the photos takes too long."""


def session_rules(
    dataset: Dataset,
    group: str,
    test_fraction: float,
    seconds: float,
    device: str,
    callback: Callback,
) -> Iterator[SessionRule]:
    """`group` alone where a person gives it. Else what is tried in turn until one can be kept: the
    parts of the data set, what EXIF data or file names show, what photos show, a look at which may
    take a part of the `seconds`, and nothing. Estimates are of a random split with this part of
    test photos. Raises ValueError where `group` is no rule for these photos."""
    if group:
        reason = f"`--group {group}` says which photos belong together"
        yield SessionRule(group, reason, groups_of(dataset, group))
        return
    if {"train", "test"} <= set(dataset.parts or ()):
        assert dataset.parts is not None
        own = ["test" if part == "test" else "train" for part in dataset.parts]
        reason = "somebody divided them into train and test before"
        yield SessionRule(OWN_PARTS, reason, np.array(own, object))
    estimate = estimate_sessions(dataset, test_fraction)
    if estimate is not None:
        yield SessionRule(estimate.rule, estimate.effect, groups_of(dataset, estimate.rule))
    try:
        progress = until(SHARE * seconds, callback)
        estimate, alike = looked_at(dataset, test_fraction, device, progress)
    except NoTime:
        callback.note("no time to look for sessions in the photos: more --minutes, or --group")
        reason = "neither file names nor EXIF data show which photos were taken together"
    else:
        if estimate.divides:
            yield SessionRule(ALIKE, f"{estimate.effect}, by their embeddings", alike)
        reason = "file names, EXIF data and embeddings don't show which photos were taken together"
    yield SessionRule("", reason, np.full(len(dataset), "", object))


def until(seconds: float, callback: Callback) -> Callable[[str, int, int], None]:
    """Progress that raises NoTime where work goes on after so many seconds."""
    end = time.monotonic() + seconds

    def progress(message: str, done: int, total: int) -> None:
        if done < total and time.monotonic() > end:
            raise NoTime
        callback.progress(message, done, total)

    return progress


def looked_at(
    dataset: Dataset, test_fraction: float, device: str, progress: Callable[[str, int, int], None]
) -> tuple[Sessions, np.ndarray]:
    """What a random split would do to chains of near-identical photos, and (photos) the names of
    these; a photo that can't be read is alone."""
    vectors, readable = embeddings_of_backbone(BACKBONE, dataset, progress, SETTINGS, device)
    labels = dataset.labels[readable]
    estimate, linked = chained_sessions(vectors, labels, test_fraction)
    ids = np.arange(len(dataset))
    ids[readable] = readable[linked]
    names = np.array([f"chain {number}" for number in ids.tolist()], object)
    return estimate, names
