"""One image file as RGB pixels, whatever its format, colour mode or orientation.

An image may be a part of a photo: then its path is that of the photo with the corners of a box in
pixels behind it, e.g. shelf.jpg#10,20,110,220. What reads the file itself asks for `photo_file`.
"""

import errno
import hashlib
import io
import math
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = [
    "OF_THE_PROCESS",
    "Unreadable",
    "box_of",
    "boxed",
    "bytes_of",
    "decode",
    "decode_small",
    "photo_file",
    "shrunk",
    "size_of",
]

BOX = re.compile(r"#(\d+),(\d+),(\d+),(\d+)$")
"""What stands behind the path of a photo: left, top, right and bottom of a part of it."""
NO_BOX = "a box must be left, top, right, bottom in pixels, with left < right and top < bottom"

LIMIT = "DML_BENCH_MAX_MEGAPIXELS"
"""The environment variable that says how many megapixels an image may have: it depends on the
machine, so it is no setting of an experiment."""
MEGAPIXELS = 256.0
"""Its value where nobody says; phones take photos of 200."""
LARGE = 50e6
"""Pixels from which on images are decoded one at a time, whatever the number of threads: this many
take 150 MB, and as much again meanwhile."""
ONE_AT_A_TIME = threading.Lock()
FINER = 8
"""How many times its pixels a JPEG file is decoded for, where a small copy is made of it."""
# Pillow warns above its limit and refuses at twice as much. `opened` gives it our limit and refuses
# above that in words.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What each EXIF orientation needs; from 5 on, width and height are swapped."""


OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What can refuse any file at all, so that it says nothing about the one that was opened."""


def boxed(path: str, corners: Sequence[float]) -> str:
    """The path of the part of a photo between two corners, (left, top, right, bottom) in pixels,
    each rounded. Raises ValueError where nothing lies between them."""
    if len(corners) != 4 or not all(map(math.isfinite, corners)):
        raise ValueError(f"{NO_BOX}, got {list(corners)}: correct it")
    left, top, right, bottom = (max(nearest(value), 0) for value in corners)
    if left >= right or top >= bottom:
        raise ValueError(f"{NO_BOX}, got {list(corners)}: correct it")
    return f"{path}#{left},{top},{right},{bottom}"


def box_of(path: str | Path) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom) of a part of a photo; None for a whole one."""
    match = BOX.search(str(path))
    if match is None:
        return None
    left, top, right, bottom = map(int, match.groups())
    return left, top, right, bottom


def photo_file(path: Path) -> Path:
    """The file of a photo, or of the photo that an image is a part of."""
    return path if "#" not in path.name else path.with_name(BOX.sub("", path.name))


class Unreadable(ValueError):
    """An image file that can't be decoded; the message names the file and the reason."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def decode(
    path: Path,
    box: Sequence[float] | np.ndarray | None = None,
    data: bytes | None = None,
    formats: tuple[str, ...] | None = None,
) -> Image.Image:
    """The image in RGB, turned upright by its EXIF orientation, then cut to `box` (x, y, width,
    height in pixels) or to the box in its path. `data` are the file's bytes where they have been
    read already, `formats` those that it may have, by Pillow's names; None allows all.

    Transparency is laid over white, 16 bits of grey are scaled to 8, of several frames the first is
    taken. The box is rounded to whole pixels and clipped to the image. Raises Unreadable on a file
    that is missing, forbidden, truncated, of unknown format or far too large, or where the disk
    fails to read it, and on a box outside of the image; OSError and MemoryError where this process
    or machine has no room.
    """
    with (
        opened(path, data, formats) as image,
        ONE_AT_A_TIME if math.prod(image.size) > LARGE else nullcontext(),
    ):
        image.load()
        turn = UPRIGHT.get(orientation(image))
        pixels = rgb(image if turn is None else image.transpose(turn))
    box = sides_of(path) if box is None else box
    return pixels if box is None else pixels.crop(clipped(path, box, *pixels.size))


def decode_small(
    path: Path, side: int, box: Sequence[float] | np.ndarray | None = None
) -> Image.Image:
    """The image of `decode`, stretched to (side, side) pixels; of a whole JPEG file several times
    as fast, which is decoded at down to an eighth of its size. Raises as `decode` does."""
    if box is not None or box_of(path) is not None:
        return shrunk(decode(path, box), side)
    with opened(path) as image:
        scaled = image.draft(None, (FINER * side, FINER * side))
        with ONE_AT_A_TIME if math.prod(image.size) > LARGE else nullcontext():
            image.load()
        turn = UPRIGHT.get(orientation(image))
        small = shrunk(rgb(image), side, None if scaled is None else scaled[1])
    return small if turn is None else small.transpose(turn)


def shrunk(
    picture: Image.Image, side: int, box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """(side, side) pixels of a picture, or of the part (left, top, right, bottom) of it. By the
    mean of near pixels, not of a block: blocks lie elsewhere in a picture of another size."""
    return picture.resize((side, side), Image.Resampling.BILINEAR, box)


def size_of(path: Path, box: Sequence[float] | np.ndarray | None = None) -> tuple[int, int]:
    """(width, height) of what `decode` would return, mostly from the header alone. Raises as
    `decode` does, as far as it reads."""
    with opened(path) as image:
        # Pillow turns TIFF files itself while it loads them, so their headers would be read as
        # turned twice.
        if image.format == "TIFF":
            return decode(path, box).size
        width, height = image.size
        if 5 <= orientation(image) <= 8:
            width, height = height, width
    box = sides_of(path) if box is None else box
    if box is None:
        return width, height
    left, top, right, bottom = clipped(path, box, width, height)
    return right - left, bottom - top


def bytes_of(path: Path, sha256: str) -> bytes:
    """The whole file, whose digest was taken before; none is compared where that is empty. Raises
    Unreadable as `decode` does, and ValueError where the file holds other bytes by now."""
    with blaming(path):
        data = photo_file(path).read_bytes()
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(
            f"{path} changed after its fingerprint was taken: put it back, or `touch` it and start"
            " again"
        )
    return data


@contextmanager
def opened(
    path: Path, data: bytes | None = None, formats: tuple[str, ...] | None = None
) -> Iterator[Image.Image]:
    """An image whose pixels are not decoded yet; whatever a decoder raises inside the block becomes
    Unreadable."""
    megapixels = most_megapixels()
    Image.MAX_IMAGE_PIXELS = int(
        megapixels * 1e6
    )  # also for images inside of files, which no header of theirs tells
    source = photo_file(path) if data is None else io.BytesIO(data)
    with blaming(path), Image.open(source, formats=formats) as image:
        if math.prod(image.size) > megapixels * 1e6:
            raise Image.DecompressionBombError
        yield image


def most_megapixels() -> float:
    """Raises ValueError where the environment does not say a number above 0."""
    text = os.environ.get(LIMIT, str(MEGAPIXELS))
    try:
        megapixels = float(text)
    except ValueError:
        megapixels = 0.0
    if not 0 < megapixels < math.inf:
        raise ValueError(
            f"{LIMIT} must be a number above 0, got {text}: set it to what your memory holds, or"
            " unset it"
        )
    return megapixels


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """What goes wrong inside the block because of the file becomes Unreadable."""
    try:
        yield
    except Unreadable:
        raise
    except Image.UnidentifiedImageError as error:
        raise Unreadable(path, "not an image, or of a format that is not read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable(
            path,
            f"more than {most_megapixels():g} megapixels: scale it down, or raise the limit with"
            f" {LIMIT}",
        ) from error
    except Exception as error:
        # Trouble of this process says nothing about the image; damaged files raise almost anything
        # else.
        if isinstance(error, MemoryError) or (
            isinstance(error, OSError) and error.errno in OF_THE_PROCESS
        ):
            raise
        if isinstance(error, OSError) and error.strerror:
            raise Unreadable(path, error.strerror) from error
        raise Unreadable(
            path, f"can't be decoded ({' '.join(str(error).split()) or type(error).__name__})"
        ) from error


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or it can't be read: damaged metadata is no
    reason to lose an image."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return 1


def rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        grey = np.asarray(image)
        # Pillow clips 16 bits to 8 where a grey level is transparent, so that is laid over white
        # here.
        seen = np.where(grey == image.info.get("transparency", -1), 65535, grey)
        return Image.fromarray(np.rint(seen / 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(
            f"pixels of mode {image.mode} have no fixed range: convert it to 8 or 16 bits"
        )
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def sides_of(path: Path) -> tuple[int, int, int, int] | None:
    """(x, y, width, height) of the box in a path; None where there is none."""
    corners = box_of(path)
    if corners is None:
        return None
    left, top, right, bottom = corners
    return left, top, right - left, bottom - top


def clipped(
    path: Path, box: Sequence[float] | np.ndarray, width: int, height: int
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the box in whole pixels inside the image. Raises Unreadable
    where nothing is left."""
    x, y, box_width, box_height = (float(value) for value in box)
    left, right = max(nearest(x), 0), min(nearest(x + box_width), width)
    top, bottom = max(nearest(y), 0), min(nearest(y + box_height), height)
    if left >= right or top >= bottom:
        raise Unreadable(
            path,
            f"its box {x:g}, {y:g}, {box_width:g}, {box_height:g} is outside of the image of"
            f" {width} x {height} pixels",
        )
    return left, top, right, bottom


def nearest(value: float) -> int:
    return math.floor(value + 0.5)
