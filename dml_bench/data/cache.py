"""Images decoded once, into one memory-mapped file of uint8 pixels."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from dml_bench.data.datasets import Dataset
from dml_bench.data.images import Unreadable, decode
from dml_bench.files import write_json

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageCache", "UnreadableImages", "View", "open_cache"]

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


def open_cache(dataset: Dataset, view: View, cache_dir: Path, *, progress: Callable[[str, int, int], None] | None = None) -> ImageCache:
    """The cache of `dataset` under `view`, built if it is not there whole.

    `progress(message, done, total)` is called as images are decoded. Raises UnreadableImages before anything is kept,
    and ValueError where the disk has no room.
    """
    from PIL import __version__ as pillow

    key = {"format": FORMAT, "dataset": dataset.fingerprint, "fit": view.fit, "size": view.size, "pillow": pillow}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_dir / "images" / f"{dataset.name}-{view.fit}{view.size}-{name}"
    if not _is_whole(folder, key):
        _build(dataset, view, folder, key, progress or (lambda message, done, total: None))
    heights, widths = np.load(folder / "shapes.npy")
    offsets = np.concatenate([[0], np.cumsum(3 * heights * widths)])
    return ImageCache(np.memmap(folder / "pixels.u8", np.uint8, "r"), offsets[:-1], heights, widths)


def megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.0f} MB"


def _is_whole(folder: Path, key: dict[str, object]) -> bool:
    """Whether a finished cache of exactly this key lies here; the manifest is written last."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        return manifest["key"] == key and all((folder / name).stat().st_size == size for name, size in manifest["sizes"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _build(dataset: Dataset, view: View, folder: Path, key: dict[str, object], progress: Callable[[str, int, int], None]) -> None:
    images = range(len(dataset))
    building = folder.with_name(f".{folder.name}.{os.getpid()}.building")
    building.mkdir(parents=True, exist_ok=True)
    problems: dict[int, Unreadable] = {}
    try:
        with ThreadPoolExecutor() as pool:
            shapes = np.array(list(pool.map(lambda image: _shape(dataset, view, image), images)), dtype=np.int64).reshape(-1, 2)
            heights, widths = shapes.T
            offsets = np.concatenate([[0], np.cumsum(3 * heights * widths)])
            total_bytes = int(offsets[-1])
            message = f"decoding {len(dataset):,} images into {megabytes(total_bytes)} ({folder})"
            _reserve(building / "pixels.u8", max(total_bytes, 1), folder)
            pixels = np.memmap(building / "pixels.u8", np.uint8, "r+")

            def store(image: int) -> None:
                try:
                    decoded = view.apply(
                        decode(dataset.root / dataset.paths[image], None if dataset.boxes is None else dataset.boxes[image])
                    )
                    pixels[offsets[image] : offsets[image + 1]] = decoded.reshape(-1)
                except Unreadable as problem:
                    problems[image] = problem

            for done, _ in enumerate(pool.map(store, images), start=1):
                progress(message, done, len(dataset))
        if problems:
            raise UnreadableImages(dataset, problems)
        pixels.flush()
        np.save(building / "shapes.npy", np.stack([heights, widths]))
        sizes = {name: (building / name).stat().st_size for name in ("pixels.u8", "shapes.npy")}
        write_json(building / "manifest.json", {"key": key, "sizes": sizes})
        shutil.rmtree(folder, ignore_errors=True)
        try:
            building.rename(folder)
        except OSError:
            if not _is_whole(folder, key):  # else another process was faster
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


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
