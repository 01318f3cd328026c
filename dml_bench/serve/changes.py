"""Changes of a served gallery: one thread makes them in their order, and answers when they are on
the disk and in use.

Those that wait are made together. Enrolments are added to the gallery's journal, at the cost of
their images; a removal writes the gallery as a whole, which replaces the file before. A process
that is killed leaves the gallery before or after a change, never a part of one. Photos are on the
disk before the gallery names them, in <phase>.photos/ beside it, under the digests of their
bytes.
"""

import os
import queue
import threading
from collections import ChainMap
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dml_bench.gallery.enrol import (
    ImageKey,
    KnownOtherwise,
    image_key,
    images_by_key,
    new_images,
)
from dml_bench.gallery.index_store import step_between, update_indexes
from dml_bench.gallery.store import Gallery, GalleryFile, GalleryImage, Step
from dml_bench.registry.names import spelling
from dml_bench.serve.growing import GrowingVectors, extended
from dml_bench.serve.uploads import Photo
from dml_bench.system.callbacks import LOGGER
from dml_bench.system.files import flush_folder

QUIET_SECONDS = 2.0
"""Without a change, after which kept indexes follow."""
SMALLEST_JOURNAL = 1 << 22
"""Bytes of a journal that no smaller gallery file is written anew for."""

__all__ = ["Changed", "Changes", "Enrol", "Remove", "remove_unnamed_photos"]


@dataclass(frozen=True, slots=True)
class Changed:
    """What one change did."""

    class_name: str
    """The class, as the gallery spells it."""
    enrolled: int = 0
    """The number of images that were added."""
    already_there: int = 0
    """The number of images whose bytes the gallery has already, or that came twice."""
    removed: int = 0
    """The number of images that were removed."""
    is_new: bool = False
    """Whether the gallery did not have the class before."""


@dataclass(frozen=True, slots=True)
class Enrol:
    """A class and the photos that it gets."""

    class_name: str
    photos: Sequence[Photo]
    embeddings: np.ndarray
    """(photos, dim) unit vectors."""

    def apply(self, draft: "Draft") -> Changed:
        """Raises ValueError where the gallery has a photo under another class."""
        name = spelling(self.class_name, draft.class_names)
        entries = []
        for photo in self.photos:
            path = draft.folder / f"{photo.sha256}{photo.suffix}"
            entries.append(GalleryImage(name, str(path), photo.sha256, "enrolled"))
        try:
            fresh = new_images(draft.known, entries)
        except KnownOtherwise as problem:  # whose text says where files lie
            photo = self.photos[entries.index(problem.entry)]
            raise ValueError(
                f"{photo.name} (class {name}) has the same bytes as an image of class"
                f" {problem.same.class_name}, and an image has one class: leave it out, or remove"
                " that class first"
            ) from None
        rows = [entries.index(entry) for entry in fresh]
        is_new = name not in draft.class_names
        draft.join(fresh, self.embeddings[rows], [self.photos[row] for row in rows])
        return Changed(name, len(fresh), len(entries) - len(fresh), is_new=is_new and bool(fresh))


@dataclass(frozen=True, slots=True)
class Remove:
    """A class that goes."""

    class_name: str

    def apply(self, draft: "Draft") -> Changed:
        """Raises UnknownName where there is no such class, ValueError where it is the last one."""
        name = spelling(self.class_name, draft.class_names)
        return Changed(name, removed=draft.remove(name))


class Draft:
    """The next gallery while it is made of the one before."""

    def __init__(self, gallery: Gallery, known: dict[ImageKey, GalleryImage], folder: Path):
        self.gallery = gallery
        """What stays of the one before."""
        self.rows: np.ndarray | None = None
        """(entries) the row of each of its images in the one before; None where all stay."""
        self.entries: list[GalleryImage] = []
        """New ones, which come behind it."""
        self.vectors: list[np.ndarray] = []
        self.known: ChainMap[ImageKey, GalleryImage] = ChainMap({}, known)
        self.folder = folder
        """Of photos."""
        self.class_names = set(gallery.class_names)
        self.photos: dict[Path, bytes] = {}
        """Files to be written."""

    @property
    def changes_anything(self) -> bool:
        """Whether it is another gallery than the one before."""
        return bool(self.entries) or self.rows is not None

    @property
    def embeddings(self) -> np.ndarray:
        """(new entries, dim)"""
        return np.array(self.vectors, np.float32).reshape(len(self.vectors), -1)

    def joined(self) -> Gallery:
        """What stays, and what is new."""
        if not self.entries:
            return self.gallery
        return self.gallery.joined(tuple(self.entries), self.embeddings)

    def join(
        self, entries: Sequence[GalleryImage], embeddings: np.ndarray, photos: Sequence[Photo]
    ) -> None:
        """Add images."""
        self.entries += entries
        self.vectors += list(embeddings)
        for entry, photo in zip(entries, photos, strict=True):
            self.known[image_key(entry)] = entry
            self.class_names.add(entry.class_name)
            self.photos[Path(entry.path)] = photo.data

    def remove(self, name: str) -> int:
        """Take a class out, and return how many images that were."""
        before = self.joined()
        after = before.removed(name)
        stays = np.array([entry.class_name != name for entry in before.entries], bool)
        old = len(self.gallery.entries)
        rows = np.arange(old) if self.rows is None else self.rows
        self.rows = rows[stays[:old]]
        count = len(self.rows)
        self.gallery = Gallery(after.entries[:count], after.embeddings[:count])
        self.entries, self.vectors = list(after.entries[count:]), list(after.embeddings[count:])
        self.class_names.discard(name)
        known = dict(self.known)
        for entry in before.entries:
            if entry.class_name == name:
                known.pop(image_key(entry), None)
                self.photos.pop(Path(entry.path), None)
        self.known = ChainMap(known)
        return int((~stays).sum())


@dataclass(frozen=True, slots=True)
class WaitingChange:
    """A change that somebody waits for."""

    change: Enrol | Remove
    answer: "Future[Changed]" = field(default_factory=Future)


class Changes:
    """Makes changes of a gallery in a thread of its own.

    Args: gallery_file: where it is kept; this process holds its lock. gallery: as it is now, with
    digests. publish: is called with each next gallery, and returns when it is the one that answers.
    """

    def __init__(
        self, gallery_file: GalleryFile, gallery: Gallery, publish: Callable[[Gallery], None]
    ):
        self.file = gallery_file
        self.gallery = gallery
        self.written = gallery
        """As its file has it; what follows in `gallery` is in the journal."""
        self.publish = publish
        self.known = images_by_key(gallery)
        self._vectors = GrowingVectors(gallery.embeddings)
        self._journal_bytes = 0
        self._waiting: queue.Queue[WaitingChange | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="changes", daemon=True)
        self._thread.start()

    def put(self, change: Enrol | Remove) -> "Future[Changed]":
        """Queue a change, and return what will hold its result when it is durable and in use, or
        the ValueError for which nothing was changed."""
        waiting = WaitingChange(change)
        self._waiting.put(waiting)
        return waiting.answer

    def close(self) -> None:
        """Make the changes that wait, write the gallery as a whole, and end."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        ends = False
        while not ends:
            group = self._next_group()
            ends = group[-1] is None
            # A change that was given up while it waited is not made; one that begins is.
            self._make([one for one in group if one and one.answer.set_running_or_notify_cancel()])
            large = self._journal_bytes > SMALLEST_JOURNAL
            if ends or (large and self._journal_bytes > self.file.path.stat().st_size):
                self._empty_journal()

    def _next_group(self) -> list[WaitingChange | None]:
        """All changes that wait, at least one; None stands for the end. After a moment without a
        change, the gallery's file and kept indexes follow where there are indexes."""
        try:
            group = [self._waiting.get(timeout=QUIET_SECONDS)]
        except queue.Empty:
            if self._step(self.gallery) is not None:
                self._empty_journal()
            group = [self._waiting.get()]
        while group[-1] is not None and not self._waiting.empty():
            group.append(self._waiting.get())
        return group

    def _make(self, group: list[WaitingChange]) -> None:
        results: list[tuple[WaitingChange, Changed]] = []
        draft = Draft(self.gallery, self.known, self.file.photos_folder)
        for waiting in group:
            try:
                results.append((waiting, waiting.change.apply(draft)))
            except Exception as problem:
                waiting.answer.set_exception(problem)
        try:
            if draft.changes_anything:
                self._write(draft)
        except Exception as problem:  # as where the disk is full; the gallery stays as it was
            for waiting, _ in results:
                waiting.answer.set_exception(problem)
            return
        for waiting, result in results:
            waiting.answer.set_result(result)

    def _write(self, draft: Draft) -> None:
        """Photos first, then the gallery that names them; at last those go that it names no
        more."""
        for path, data in draft.photos.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            # It is there where the gallery on the disk still has it in a class that goes.
            if path.is_file() and path.read_bytes() == data:
                continue
            with open(path, "wb") as file:  # nothing reads it before the gallery names it
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if draft.photos:
            flush_folder(draft.folder)
        if draft.rows is None and self.file.path.exists():
            self._add(draft)
        else:
            self._replace(draft)

    def _add(self, draft: Draft) -> None:
        """Enrol at the cost of the images."""
        entries = tuple(draft.entries)
        self._journal_bytes = self.file.append(entries, draft.embeddings)
        self.gallery = extended(self.gallery, entries, self._vectors.with_more(draft.embeddings))
        self.known.update(draft.known.maps[0])
        self.publish(self.gallery)

    def _replace(self, draft: Draft) -> None:
        """Write the gallery as a whole."""
        gallery = draft.joined()
        rows = np.arange(len(self.gallery.entries)) if draft.rows is None else draft.rows
        stays = np.zeros(len(self.gallery.entries), bool)
        stays[rows] = True
        self._write_whole(gallery, stays[: len(self.written.entries)])
        self.gallery, self.known = gallery, dict(draft.known)
        self._vectors = GrowingVectors(gallery.embeddings)
        self.publish(gallery)
        if not stays.all():
            remove_unnamed_photos(self.file, gallery)

    def _empty_journal(self) -> None:
        """Write what is in the journal into the gallery's file. Where that fails, nothing is lost:
        the journal stays."""
        if self.written is self.gallery:
            return
        try:
            self._write_whole(self.gallery)
        except OSError as problem:
            LOGGER.warning("%s stays beside its file: %s", self.file.journal_path, problem)

    def _write_whole(self, gallery: Gallery, stays: np.ndarray | None = None) -> None:
        """Write a gallery as a whole, and let kept indexes follow. `stays` (entries of the one that
        was written last) bool."""
        step = self._step(gallery, stays)
        self.file.write(gallery, step)
        flush_folder(self.file.path.parent)
        self.written, self._journal_bytes = gallery, 0
        if step is None:
            return
        try:
            update_indexes(self.file, step, gallery)
        except OSError as problem:  # the change is made; the file says how they follow it
            LOGGER.warning("indexes of %s follow when they are used: %s", self.file.path, problem)

    def _step(self, gallery: Gallery, stays: np.ndarray | None = None) -> Step | None:
        kept = np.ones(len(self.written.entries), bool) if stays is None else stays
        return step_between(self.file, self.written, kept, gallery)


def remove_unnamed_photos(gallery_file: GalleryFile, gallery: Gallery) -> None:
    """Delete photos of removed classes, and of changes that a crash cut off before they were
    acknowledged."""
    named = {entry.path for entry in gallery.entries}
    for path in gallery_file.photos_folder.glob("*.*"):
        if str(path) not in named and path.is_file():
            path.unlink()
