"""Which files below a folder are images: what Pillow decodes, whatever their names end in."""

import functools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageFile

from dml_bench.data.csv_table import IMAGE_SUFFIXES, fault, visible

__all__ = [
    "FilesByKind",
    "describe_left_out",
    "files_below",
    "is_image",
    "sorted_out",
    "unread_faults",
]

UNREAD_SUFFIXES = {
    ".heic",
    ".heif",
    ".jxl",
    ".svg",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".orf",
    ".raf",
    ".rw2",
}
"""Photographs that Pillow can't decode. Of raw ones it would take the thumbnail, as they look like
TIFF."""
NOT_DECODED = {"EPS", "MPEG"}
"""What Pillow recognises and then needs another program for, or can't show at all."""


@dataclass(frozen=True, slots=True)
class FilesByKind:
    """Files, sorted out. Each list is in the order in which the files were met."""

    images: list[Path]
    unread: list[Path]
    """Images of a format that is not read."""
    others: list[Path]
    """What is no image."""


def sorted_out(files: Iterable[Path]) -> FilesByKind:
    """The files by whether they are images that are read, images that are not, or others."""
    by_kind = FilesByKind([], [], [])
    for file in files:
        suffix = file.suffix.lower()
        if suffix in UNREAD_SUFFIXES:
            by_kind.unread.append(file)
        elif is_image(file):
            by_kind.images.append(file)
        else:
            by_kind.others.append(file)
    return by_kind


def is_image(file: Path) -> bool:
    """By the ending where that is an image's, so that a damaged one is met where it is decoded;
    else by the file's first bytes."""
    ends_so = file.suffix.lower() in IMAGE_SUFFIXES
    # A pipe or a device would be waited for; a link that leads nowhere is met where it is decoded.
    if not file.is_file():
        return ends_so and not file.exists()
    if ends_so:
        return True
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(file, formats=recognised_formats()),
        ):
            return True
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return True
    # Whatever a decoder raises about the header of a file that was made for something else.
    except Exception:
        return False


@functools.cache
def recognised_formats() -> tuple[str, ...]:
    """What Pillow recognises by a signature and decodes; formats without one would be seen in files
    of any kind."""
    Image.init()
    return tuple(
        name
        for name, (factory, accept) in Image.OPEN.items()
        if accept is not None
        and name not in NOT_DECODED
        and not (isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile))
    )


def files_below(place: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All visible files at any depth, through links too. Raises ValueError on a link to a folder
    that it lies in."""
    real = place.resolve()
    if real in above:
        raise ValueError(f"{place} links to a folder that it lies in: remove the link")
    for entry in visible(place):
        if entry.is_dir():
            yield from files_below(entry, (*above, real))
        else:
            yield entry


def unread_faults(files: Sequence[Path], folder: Path) -> list[str]:
    """A fault where there are images of a format that is not read."""
    return fault(
        [str(file) for file in files],
        f"images in {folder} of a format that is not read",
        "convert them to JPEG or PNG",
    )


def describe_left_out(files: Sequence[Path], folder: Path) -> list[str]:
    """A sentence about files of `folder` that are no images; none where there are none."""
    if not files:
        return []
    first = files[0].relative_to(folder).as_posix()
    what = (
        "1 file is no image and is"
        if len(files) == 1
        else f"{len(files):,} files are no images and are"
    )
    return [f"{folder}: {what} left out (first: {first})"]
