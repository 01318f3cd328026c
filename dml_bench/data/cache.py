"""Images decoded once, into one memory-mapped file of uint8 pixels, each with a digest that it is
compared with when it is first read."""

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xxhash

from dml_bench.config import Images
from dml_bench.data.datasets import Dataset, Progress
from dml_bench.data.images import Unreadable, bytes_of, decode, size_of
from dml_bench.system.drafts import remove, scratch
from dml_bench.system.failures import named
from dml_bench.system.files import Damaged, read_json, write_json
from dml_bench.system.threaded import threaded_map

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["LONGEST", "ImageCache", "UnreadableImages", "View", "open_caches", "view_of"]

FORMAT = 2
LONGEST = 4
"""Times the shorter side: as much of an image's longer side is kept, in the middle. What is beyond
would let its shape decide memory."""
TOGETHER = 64
"""Images that a thread compares with their digests at a time."""
INDEX = np.dtype([("height", "<i8"), ("width", "<i8"), ("cut", "?"), ("digest", "u1", 16)])
"""What index.npy says of each image; `cut`: its ends beyond LONGEST are missing."""


class UnreadableImages(ValueError):
    """Some images can't be decoded; `images` holds their indices, `finding` says which and why."""

    def __init__(self, dataset: Dataset, problems: dict[int, Unreadable]):
        first = "; ".join(str(problems[image]) for image in sorted(problems)[:3])
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        self.finding = f"{len(problems)} of {len(dataset)} images can't be read: {first}{more}"
        super().__init__(f"{self.finding}. Repair or remove them, or add --skip-unreadable")
        self.images = set(problems)


@dataclass(frozen=True, slots=True)
class View:
    """A deterministic resize. `crop`: shorter side to `crop_from`, or where that is 0 to `size`,
    then the centre cropped; `squash`: both sides to `size`; `shorter`: shorter side to `size`, the
    other in proportion; `detail`: the same, but nothing is enlarged. Of the longer side at most
    LONGEST times the shorter one is kept."""

    fit: Literal["crop", "squash", "shorter", "detail"]
    size: int
    crop_from: int = 0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after the resize, before any cut; as torchvision's Resize rounds them."""
        if self.fit == "squash":
            return self.size, self.size
        short, long = min(width, height), max(width, height)
        size = self.crop_from or self.size
        if self.fit == "detail":
            size = min(size, short)
        long = int(size * long / short)
        return (size, long) if width <= height else (long, size)

    def kept(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the middle that is left of it."""
        if self.fit == "crop":
            return self.size, self.size
        scaled = self.scaled(width, height)
        most = LONGEST * min(scaled)
        return min(scaled[0], most), min(scaled[1], most)

    def apply(self, image: "Image") -> np.ndarray:
        """(height, width, 3) uint8, with antialiasing.

        An image that is longer than LONGEST is cut before it is scaled, which is within a level of
        the other order and takes memory in proportion to what is kept. Others are scaled before
        they are cut, as torchvision does, and have its bits.
        """
        from PIL.Image import Resampling

        method = Resampling[self.interpolation.upper()]
        scaled, kept = self.scaled(*image.size), self.kept(*image.size)
        left, top = (
            round((resized - part) / 2) for resized, part in zip(scaled, kept, strict=True)
        )
        right, bottom = left + kept[0], top + kept[1]
        if max(scaled) <= LONGEST * min(scaled):
            resized = image.resize(scaled, method)
            return np.asarray(
                resized if scaled == kept else resized.crop((left, top, right, bottom))
            )
        across, down = image.width / scaled[0], image.height / scaled[1]
        box = (
            left * across,
            top * down,
            min(right * across, image.width),
            min(bottom * down, image.height),
        )
        return np.asarray(image.resize(kept, method, box))


def view_of(images: Images) -> View:
    """The view that gallery and query share."""
    return View(images.fit, images.size, images.crop_from, images.interpolation or "bilinear")


@dataclass(frozen=True, slots=True)
class ImageCache:
    """Decoded images of a data set under one view; the pixels stay on the disk until they are
    touched."""

    folder: Path
    """Where it lies; its name holds a digest of data set and view."""
    pixels: np.ndarray
    """Flat uint8, image after image, each (height, width, 3). Who reads them here asks for
    `checked` first."""
    offsets: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    cut: tuple[str, ...] = ()
    """Paths of the images of which only the middle is here, as they are longer than LONGEST."""
    guard: "Guard | None" = None

    @property
    def digests(self) -> tuple[str, ...]:
        """(images) digests of their pixels, as they were decoded."""
        assert self.guard is not None
        return tuple(row.tobytes().hex() for row in self.guard.digests)

    def __getitem__(self, image: int) -> np.ndarray:
        """(height, width, 3) uint8, a view of the file. Raises ValueError where its bytes are
        damaged and can't be made again."""
        height, width = int(self.heights[image]), int(self.widths[image])
        start = int(self.offsets[image])
        pixels = self.pixels[start : start + 3 * height * width].reshape(height, width, 3)
        if self.guard is not None:
            self.guard.check(image, pixels)
        return pixels

    def checked(self) -> np.ndarray:
        """The flat pixels, each image being as it was decoded; all of them are read. Raises
        ValueError as above."""

        def check(images: range) -> None:
            for image in images:
                self[image]

        count = len(self.offsets)
        with ThreadPoolExecutor() as pool:  # digests are computed without the interpreter's lock
            for _ in pool.map(
                check,
                (range(first, min(first + TOGETHER, count)) for first in range(0, count, TOGETHER)),
            ):
                pass
        return self.pixels


class Guard:
    """Compares each image with its digest when this process first reads it. What was damaged is
    decoded again from its file."""

    def __init__(
        self, place: "_Place", offsets: np.ndarray, digests: np.ndarray, warn: Callable[[str], None]
    ):
        self.place = place
        self.offsets = offsets
        self.digests = digests
        self.warn = warn
        self.unread = np.ones(len(digests), bool)

    def check(self, image: int, pixels: np.ndarray) -> None:
        """`pixels` are as the file has them now; they change with it where it is mended. Raises
        ValueError where it can't be."""
        if not self.unread[image]:
            return
        if digest_of(pixels) != self.digests[image].tobytes():
            self.mend(image)
            if digest_of(pixels) != self.digests[image].tobytes():
                raise ValueError(
                    f"{self.file} does not keep what is written into it: choose another disk with"
                    " --cache-dir"
                )
        self.unread[image] = False

    @property
    def file(self) -> Path:
        return self.place.folder / "pixels.u8"

    def mend(self, image: int) -> None:
        path = self.place.dataset.root / self.place.dataset.paths[image]
        try:
            pixels = self.place.view.apply(decoded(self.place.dataset, image))
        except ValueError as problem:
            raise ValueError(f"{self.file} is damaged and can't be mended: {problem}") from problem
        if digest_of(pixels) != self.digests[image].tobytes():
            raise ValueError(
                f"{self.file} is damaged, and {path} is decoded otherwise here: delete"
                f" {self.place.folder} and start again"
            )
        try:
            with open(self.file, "r+b") as file:
                file.seek(int(self.offsets[image]))
                file.write(pixels.tobytes())
        except OSError as problem:
            raise ValueError(
                f"{self.file} is damaged and can't be mended ({problem.strerror}): have it deleted,"
                " or choose another --cache-dir"
            ) from problem
        self.warn(f"{self.file} was damaged; {path} was decoded into it again")


def digest_of(pixels: np.ndarray) -> bytes:
    """16 bytes."""
    return xxhash.xxh3_128_digest(np.ascontiguousarray(pixels).data)


def decoded(dataset: Dataset, image: int) -> "Image":
    """The image that was fingerprinted. Raises Unreadable, and ValueError where the file holds
    other bytes now."""
    path, box = (
        dataset.root / dataset.paths[image],
        None if dataset.boxes is None else dataset.boxes[image],
    )
    return decode(path, box, bytes_of(path, dataset.digests[image]))


def open_caches(
    dataset: Dataset,
    *views: View,
    cache_dir: Path,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> tuple[ImageCache, ...]:
    """The caches of `dataset` under each of `views`; those that are not there whole are built,
    decoding each image once.

    `progress(message, done, total)` is called as images are decoded, `warn` when a damaged image
    was decoded again. Raises UnreadableImages before anything is kept, and ValueError where the
    disk has no room or a file changes meanwhile.
    """
    places = [_Place(dataset, view, cache_dir) for view in views]
    caches = [place.read(warn) for place in places]
    if None in caches:
        from filelock import FileLock

        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(
            cache_dir / f".images-{dataset.fingerprint[:16]}.lock"
        ):  # of two processes one decodes and the other waits
            if missing := [place for place in dict.fromkeys(places) if not place.is_whole()]:
                record = _UnreadableRecord(dataset, cache_dir)
                record.require_none()
                try:
                    _build(dataset, missing, progress or (lambda message, done, total: None))
                except UnreadableImages as problem:
                    record.keep(problem.images)
                    raise
        caches = [place.read(warn) for place in places]
    complete = [cache for cache in caches if cache is not None]
    if len(complete) < len(places):
        raise ValueError(
            f"the image cache in {cache_dir} vanished as soon as it was built: start again, or"
            " choose another --cache-dir"
        )
    return tuple(complete)


@dataclass(frozen=True)
class _UnreadableRecord:
    """Which images of a data set could not be decoded when all of them were tried: the next run
    tries these first, and the others only where these can be decoded by now."""

    dataset: Dataset
    cache_dir: Path

    @property
    def file(self) -> Path:
        return self.cache_dir / "digests" / f"{self.dataset.fingerprint[:32]}-unreadable.json"

    def require_none(self) -> None:
        """Raises UnreadableImages where they still can't be decoded."""
        try:
            images = read_json(self.file, {"images": list}, sealed=True)["images"]
        except (OSError, Damaged):
            return
        problems: dict[int, Unreadable] = {}
        for image in images:
            try:
                decoded(self.dataset, image)
            except Unreadable as problem:
                problems[image] = problem
            else:
                return  # e.g. as DML_BENCH_MAX_MEGAPIXELS was raised
        raise UnreadableImages(self.dataset, problems)

    def keep(self, images: set[int]) -> None:
        with suppress(OSError):  # without it, all are tried again
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.file, {"images": sorted(images)})


@dataclass(frozen=True)
class _Place:
    """Where the cache of a data set under a view lies, or will lie: a folder of its own, whose
    manifest is written last."""

    dataset: Dataset = field(compare=False)
    view: View
    cache_dir: Path

    @cached_property
    def key(self) -> dict[str, object]:
        from PIL import __version__ as pillow

        key: dict[str, object] = {
            "format": FORMAT,
            "dataset": self.dataset.fingerprint,
            "fit": self.view.fit,
            "size": self.view.size,
            "pillow": pillow,
        }
        # Caches from before there were such crops and resizing keep their keys.
        if self.view.crop_from:
            key["crop_from"] = self.view.crop_from
        if self.view.interpolation != "bilinear":
            key["interpolation"] = self.view.interpolation
        return key

    @cached_property
    def folder(self) -> Path:
        name = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:16]
        return (
            self.cache_dir
            / "images"
            / f"{self.dataset.name}-{self.view.fit}{self.view.size}-{name}"
        )

    def manifest(self, index: bytes, num_bytes: int) -> dict[str, Any]:
        """What manifest.json of a finished cache says, all of which is known here."""
        return {"key": self.key, "index": xxhash.xxh3_128_hexdigest(index), "bytes": num_bytes}

    def is_whole(self) -> bool:
        return self.read(lambda text: None) is not None

    def read(self, warn: Callable[[str], None]) -> ImageCache | None:
        """The finished cache of exactly this key that lies here, of which only manifest and index
        are read; None where there is none."""
        try:
            index = (self.folder / "index.npy").read_bytes()
            num_bytes = (self.folder / "pixels.u8").stat().st_size
            if read_json(self.folder / "manifest.json", sealed=True) != self.manifest(
                index, num_bytes
            ):
                return None
            pixels = np.memmap(self.folder / "pixels.u8", np.uint8, "r")
        except (OSError, ValueError):
            return None
        table = np.load(io.BytesIO(index))
        offsets = offsets_of(table["height"], table["width"])
        guard = Guard(self, offsets, table["digest"], warn)
        cut = tuple(self.dataset.paths[image] for image in np.flatnonzero(table["cut"]))
        return ImageCache(
            self.folder, pixels, offsets[:-1], table["height"], table["width"], cut, guard
        )


class _Draft:
    """A cache that is being filled, in a folder beside its place; `keep` moves it there, `discard`
    leaves no trace."""

    def __init__(self, place: _Place, shapes: list[tuple[int, int, bool]]):
        self.place = place
        self.index = np.zeros(len(shapes), INDEX)
        self.index["height"], self.index["width"], self.index["cut"] = (
            np.array(shapes, np.int64).reshape(-1, 3).T
        )
        self.offsets = offsets_of(self.index["height"], self.index["width"])
        self.num_bytes = max(int(self.offsets[-1]), 1)
        place.folder.parent.mkdir(parents=True, exist_ok=True)
        self.opened = ExitStack()
        self.folder = self.opened.enter_context(scratch(place.folder.parent)) / place.folder.name
        self.folder.mkdir()

    def reserve(self) -> None:
        _reserve(self.folder / "pixels.u8", self.num_bytes, self.place.folder)
        self.pixels = np.memmap(self.folder / "pixels.u8", np.uint8, "r+")

    def store(self, image: int, decoded: "Image") -> None:
        pixels = self.place.view.apply(decoded).reshape(-1)
        self.index["digest"][image] = np.frombuffer(digest_of(pixels), np.uint8)
        self.pixels[self.offsets[image] : self.offsets[image + 1]] = pixels

    def keep(self) -> None:
        self.pixels.flush()
        np.save(self.folder / "index.npy", self.index)
        index = (self.folder / "index.npy").read_bytes()
        write_json(self.folder / "manifest.json", self.place.manifest(index, self.num_bytes))
        remove(self.place.folder)
        self.folder.rename(self.place.folder)

    def discard(self) -> None:
        self.opened.close()


def _build(dataset: Dataset, places: list[_Place], progress: Progress) -> None:
    problems: dict[int, Unreadable] = {}
    drafts: list[_Draft] = []
    images = range(len(dataset))
    try:
        for place in places:
            shapes = threaded_map(partial(_shape, dataset, place.view), images)
            drafts.append(_Draft(place, list(shapes)))
        for draft in drafts:
            draft.reserve()

        def store(image: int) -> None:
            try:
                pixels = decoded(dataset, image)
                for draft in drafts:
                    draft.store(image, pixels)
            except Unreadable as problem:
                problems[image] = problem

        total = megabytes(sum(draft.num_bytes for draft in drafts))
        message = f"decoding {len(dataset):,} images into {total} ({places[0].folder.parent})"
        with closing(threaded_map(store, images)) as stored:
            for done, _ in enumerate(stored, start=1):
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


def _shape(dataset: Dataset, view: View, image: int) -> tuple[int, int, bool]:
    """(height, width) that the view will have, and whether ends are cut off; only views that keep
    proportions depend on the file, whose header is read. An unreadable file gets a placeholder:
    decoding it reports the problem."""
    if view.fit in ("crop", "squash"):
        return view.size, view.size, False
    try:
        size = size_of(
            dataset.root / dataset.paths[image],
            None if dataset.boxes is None else dataset.boxes[image],
        )
    except Unreadable:
        return view.size, view.size, False
    width, height = view.kept(*size)
    return height, width, (width, height) != view.scaled(*size)


def _reserve(path: Path, num_bytes: int, folder: Path) -> None:
    """Make a file of that size, with its blocks allocated, so that a full disk is met now and not
    in the middle."""
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
            f"the image cache needs {megabytes(num_bytes)} in {folder.parent}, where"
            f" {megabytes(free)} are free; make room, or choose another disk with --cache-dir"
        ) from None
