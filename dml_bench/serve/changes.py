"""Changes of a served gallery: one thread makes them in their order, and answers when they are on
the disk and in use.

All that wait are written together, as a whole file that replaces the one before: a process that is
killed leaves the gallery before or after, never a part of a change. Photos are on the disk before
the gallery names them, in <phase>.photos/ beside it, under the digests of their bytes.
"""

import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dml_bench.gallery.enrol import ImageKey, image_key, images_by_key, new_images
from dml_bench.gallery.index_store import step_between, update_indexes
from dml_bench.gallery.store import Gallery, GalleryFile, GalleryImage
from dml_bench.registry.names import spelling
from dml_bench.serve.uploads import Photo
from dml_bench.system.files import flush_folder

__all__ = ["Changed", "Changes", "Enrol", "Remove", "photos_folder", "remove_unnamed_photos"]


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
        fresh = new_images(draft.known, entries)
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
        self.known = known
        self.folder = folder
        """Of photos."""
        self.class_names = set(gallery.class_names)
        self.rows_before = np.arange(len(gallery.entries))
        """(entries) the row of each image in the gallery before; -1 for a new one."""
        self.photos: dict[Path, bytes] = {}
        """Files to be written."""

    def join(
        self, entries: Sequence[GalleryImage], embeddings: np.ndarray, photos: Sequence[Photo]
    ) -> None:
        """Add images."""
        self.gallery = self.gallery.joined(tuple(entries), embeddings)
        self.rows_before = np.append(self.rows_before, np.full(len(entries), -1))
        for entry, photo in zip(entries, photos, strict=True):
            self.known[image_key(entry)] = entry
            self.class_names.add(entry.class_name)
            self.photos[Path(entry.path)] = photo.data

    def remove(self, name: str) -> int:
        """Take a class out, and return how many images that were."""
        stays = np.array([entry.class_name != name for entry in self.gallery.entries], bool)
        before = self.gallery.entries
        self.gallery = self.gallery.removed(name)
        self.rows_before = self.rows_before[stays]
        self.class_names.discard(name)
        for entry in before:
            if entry.class_name == name:
                self.known.pop(image_key(entry), None)
                self.photos.pop(Path(entry.path), None)
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
        self.publish = publish
        self.known = images_by_key(gallery)
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
        """Make the changes that wait, and end."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            group = [first]
            ended = False
            while not ended and not self._waiting.empty():
                following = self._waiting.get()
                ended = following is None
                if following is not None:
                    group.append(following)
            self._make(group)
            if ended:
                return

    def _make(self, group: list[WaitingChange]) -> None:
        results: list[tuple[WaitingChange, Changed]] = []
        draft = Draft(self.gallery, dict(self.known), photos_folder(self.file))
        for waiting in group:
            try:
                results.append((waiting, waiting.change.apply(draft)))
            except Exception as problem:
                waiting.answer.set_exception(problem)
        try:
            if draft.gallery is not self.gallery:
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
        before = self.gallery
        for path, data in draft.photos.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:  # nothing reads it before the gallery names it
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if draft.photos:
            flush_folder(draft.folder)
        stays = np.zeros(len(before.entries), bool)
        stays[draft.rows_before[draft.rows_before >= 0]] = True
        step = step_between(self.file, before, stays, draft.gallery)
        self.file.write(draft.gallery, step)
        flush_folder(self.file.path.parent)
        self.gallery, self.known = draft.gallery, draft.known
        self.publish(draft.gallery)
        if step is not None:
            update_indexes(self.file, step, draft.gallery)
        if not stays.all():
            remove_unnamed_photos(self.file, draft.gallery)


def photos_folder(gallery_file: GalleryFile) -> Path:
    """Where photos lie that came over HTTP."""
    return gallery_file.path.with_suffix(".photos").absolute()


def remove_unnamed_photos(gallery_file: GalleryFile, gallery: Gallery) -> None:
    """Delete photos of removed classes, and of changes that a crash cut off before they were
    acknowledged."""
    named = {entry.path for entry in gallery.entries}
    for path in photos_folder(gallery_file).glob("*.*"):
        if str(path) not in named and path.is_file():
            path.unlink()
