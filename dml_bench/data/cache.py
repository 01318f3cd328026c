"""Images decoded once, into one memory-mapped file of uint8 pixels."""

import errno
import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from dml_bench.data.datasets import Dataset, Progress
from dml_bench.data.images import Unreadable, decode
from dml_bench.drafts import remove, scratch, sweep
from dml_bench.failures import named
from dml_bench.files import write_json

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageCache", "UnreadableImages", "View", "open_caches"]

FORMAT = 1


class UnreadableImages(ValueError):
    """Some images can't be decoded; `images` holds their indices."""

    def __init__(self, dataset: Dataset, problems: dict[int, Unreadable]):
        first = "; ".join(str(problems[image]) for image in sorted(problems)[:3])
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        super().__init__(
            f"{len(problems)} of {len(dataset)} images can't be read: {first}{more}. Repair or remove them, or add --skip-unreadable"
        )
        self.images = set(problems)


@dataclass(frozen=True, slots=True)
class View:
    """A deterministic resize. `crop`: shorter side to `size`, centre cropped; `squash`: both sides to `size`;
    `shorter`: shorter side to `size`, the other in proportion."""

    fit: Literal["crop", "squash", "shorter"]
    size: int

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after the resize, before any crop; as torchvision's Resize rounds them."""
        if self.fit == "squash":
            return self.size, self.size
        short, long = min(width, height), max(width, height)
        long = int(self.size * long / short)
        return (self.size, long) if width <= height else (long, self.size)

    def apply(self, image: "Image") -> np.ndarray:
        """(height, width, 3) uint8, bilinear with antialiasing."""
        from PIL.Image import Resampling

        width, height = self.scaled(*image.size)
        image = image.resize((width, height), Resampling.BILINEAR)
        if self.fit == "crop":
            left, top = round((width - self.size) / 2), round((height - self.size) / 2)
            image = image.crop((left, top, left + self.size, top + self.size))
        return np.asarray(image)


@dataclass(frozen=True, slots=True)
class ImageCache:
    """Decoded images of a data set under one view; the pixels stay on the disk until they are touched."""

    folder: Path
    """Where it lies; its name holds a digest of data set and view."""
    pixels: np.ndarray
    """Flat uint8, image after image, each (height, width, 3)."""
    offsets: np.ndarray
    heights: np.ndarray
    widths: np.ndarray

    def __getitem__(self, image: int) -> np.ndarray:
        """(height, width, 3) uint8, a view of the file."""
        height, width = int(self.heights[image]), int(self.widths[image])
        start = int(self.offsets[image])
        return self.pixels[start : start + 3 * height * width].reshape(height, width, 3)


def open_caches(dataset: Dataset, *views: View, cache_dir: Path, progress: Progress | None = None) -> tuple[ImageCache, ...]:
    """The caches of `dataset` under each of `views`; those that are not there whole are built, decoding each image once.

    `progress(message, done, total)` is called as images are decoded. Raises UnreadableImages before anything is kept,
    and ValueError where the disk has no room.
    """
    sweep(cache_dir / "images")
    places = [_Place(dataset, view, cache_dir) for view in views]
    if not all(place.is_whole() for place in places):
        from filelock import FileLock

        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / f".images-{dataset.fingerprint[:16]}.lock"):  # of two processes one decodes and the other waits
            if missing := [place for place in dict.fromkeys(places) if not place.is_whole()]:
                _build(dataset, missing, progress or (lambda message, done, total: None))
    return tuple(place.read() for place in places)


@dataclass(frozen=True)
class _Place:
    """Where the cache of a data set under a view lies, or will lie: a folder of its own, whose manifest is written last."""

    dataset: Dataset = field(compare=False)
    view: View
    cache_dir: Path

    @cached_property
    def key(self) -> dict[str, object]:
        from PIL import __version__ as pillow

        return {"format": FORMAT, "dataset": self.dataset.fingerprint, "fit": self.view.fit, "size": self.view.size, "pillow": pillow}

    @cached_property
    def folder(self) -> Path:
        name = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:16]
        return self.cache_dir / "images" / f"{self.dataset.name}-{self.view.fit}{self.view.size}-{name}"

    def is_whole(self) -> bool:
        """Whether a finished cache of exactly this key lies here."""
        try:
            manifest = json.loads((self.folder / "manifest.json").read_text())
            return manifest["key"] == self.key and all(
                (self.folder / name).stat().st_size == size for name, size in manifest["sizes"].items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def read(self) -> ImageCache:
        heights, widths = np.load(self.folder / "shapes.npy")
        return ImageCache(
            self.folder, np.memmap(self.folder / "pixels.u8", np.uint8, "r"), offsets_of(heights, widths)[:-1], heights, widths
        )


class _Draft:
    """A cache that is being filled, in a folder beside its place; `keep` moves it there, `discard` leaves no trace."""

    def __init__(self, place: _Place, shapes: np.ndarray):
        self.place = place
        self.heights, self.widths = shapes.T
        self.offsets = offsets_of(self.heights, self.widths)
        self.num_bytes = max(int(self.offsets[-1]), 1)
        place.folder.parent.mkdir(parents=True, exist_ok=True)
        self.opened = ExitStack()
        self.folder = self.opened.enter_context(scratch(place.folder.parent)) / place.folder.name
        self.folder.mkdir()

    def reserve(self) -> None:
        _reserve(self.folder / "pixels.u8", self.num_bytes, self.place.folder)
        self.pixels = np.memmap(self.folder / "pixels.u8", np.uint8, "r+")

    def store(self, image: int, decoded: "Image") -> None:
        self.pixels[self.offsets[image] : self.offsets[image + 1]] = self.place.view.apply(decoded).reshape(-1)

    def keep(self) -> None:
        self.pixels.flush()
        np.save(self.folder / "shapes.npy", np.stack([self.heights, self.widths]))
        sizes = {name: (self.folder / name).stat().st_size for name in ("pixels.u8", "shapes.npy")}
        write_json(self.folder / "manifest.json", {"key": self.place.key, "sizes": sizes})
        remove(self.place.folder)
        self.folder.rename(self.place.folder)

    def discard(self) -> None:
        self.opened.close()


def _build(dataset: Dataset, places: list[_Place], progress: Progress) -> None:
    problems: dict[int, Unreadable] = {}
    drafts: list[_Draft] = []
    with ThreadPoolExecutor() as pool:
        try:
            for place in places:
                shapes = list(pool.map(partial(_shape, dataset, place.view), range(len(dataset))))
                drafts.append(_Draft(place, np.array(shapes, dtype=np.int64).reshape(-1, 2)))
            for draft in drafts:
                draft.reserve()

            def store(image: int) -> None:
                try:
                    decoded = decode(dataset.root / dataset.paths[image], None if dataset.boxes is None else dataset.boxes[image])
                    for draft in drafts:
                        draft.store(image, decoded)
                except Unreadable as problem:
                    problems[image] = problem

            total = megabytes(sum(draft.num_bytes for draft in drafts))
            message = f"decoding {len(dataset):,} images into {total} ({places[0].folder.parent})"
            for done, _ in enumerate(pool.map(store, range(len(dataset))), start=1):
                progress(message, done, len(dataset))
            if problems:
                raise UnreadableImages(dataset, problems)
            for draft in drafts:
                with named(draft.place.folder):
                    draft.keep()
        finally:
            for draft in drafts:
                draft.discard()


def offsets_of(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """(images + 1) where each image's pixels begin, and where the last one's end."""
    return np.concatenate([[0], np.cumsum(3 * heights * widths)])


def megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.0f} MB"


def _shape(dataset: Dataset, view: View, image: int) -> tuple[int, int]:
    """(height, width) that the view will have; only the `shorter` view depends on the file, whose header is read.
    An unreadable file gets a placeholder: decoding it reports the problem."""
    if view.fit != "shorter":
        return view.size, view.size
    from dml_bench.data.images import size_of

    try:
        width, height = view.scaled(*size_of(dataset.root / dataset.paths[image], None if dataset.boxes is None else dataset.boxes[image]))
    except Unreadable:
        return view.size, view.size
    return height, width


def _reserve(path: Path, num_bytes: int, folder: Path) -> None:
    """Make a file of that size, with its blocks allocated, so that a full disk is met now and not in the middle."""
    try:
        with open(path, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            else:
                file.truncate(num_bytes)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        free = shutil.disk_usage(path.parent).free
        raise ValueError(
            f"the image cache needs {megabytes(num_bytes)} in {folder.parent}, where {megabytes(free)} are free; "
            "make room, or choose another disk with --cache-dir"
        ) from None
