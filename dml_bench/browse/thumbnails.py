"""Small copies of photos, each made once, when it is first looked at, and kept in the cache."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dml_bench.data.images import box_of, decode, photo_file
from dml_bench.system.files import write_atomically

__all__ = ["ThumbnailFolder", "make_thumbnail", "needs_copy"]

SIDE = 320
"""The longest side of a copy in pixels."""
LARGE_BYTES = 40_000
"""Files up to this size are shown themselves."""
SHOWN = {"", ".jpg", ".jpeg", ".jfif", ".png", ".gif", ".webp", ".avif", ".bmp"}
"""Endings of files that browsers show."""


@dataclass(frozen=True, slots=True)
class ThumbnailFolder:
    """Where the copies of the images below one folder are kept."""

    folder: Path

    @classmethod
    def of(cls, cache_dir: Path, root: Path) -> "ThumbnailFolder":
        """The one for images below `root`."""
        digest = hashlib.sha256(str(root).encode()).hexdigest()[:6]
        return cls(cache_dir / "thumbnails" / f"{root.name or 'images'}-{digest}")

    def path_of(self, image: str) -> Path | None:
        """Where the copy of an image is, or will be; None where the image itself is small, or is
        gone. An image that changes has another copy."""
        try:
            about = photo_file(Path(image)).stat()
        except OSError:
            return None
        if about.st_size <= LARGE_BYTES and not needs_copy(image):
            return None
        key = f"{image}\n{about.st_size}\n{about.st_mtime_ns}\n{SIDE}"
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.jpg"

    def small(self, image: str) -> Any:
        """A Pillow image of at most SIDE pixels, or the image itself where it is small. Raises
        Unreadable where it can't be read."""
        copy = self.path_of(image)
        if copy is None:
            return decode(Path(image))
        return decode(copy) if copy.exists() else make_thumbnail(Path(image), copy)


def needs_copy(image: str) -> bool:
    """Whether a browser can't show the image itself: a part of a photo is no file, and some formats
    are for other programs, as TIFF is."""
    return box_of(image) is not None or Path(image).suffix.lower() not in SHOWN


def make_thumbnail(image: Path, copy: Path) -> Any:
    """Make the copy, and return it as a Pillow image. Raises Unreadable where the image can't be
    read; a folder that can't be written to keeps none."""
    from PIL import ImageOps

    small = ImageOps.contain(decode(image), (SIDE, SIDE))
    with suppress(OSError):
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(copy, lambda file: small.save(file, "JPEG", quality=85))
    return small
