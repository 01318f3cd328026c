"""What cameras write into image files: when and with what a photo was taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dml_bench.data.images import photo_file
from dml_bench.system.threaded import threaded_map

__all__ = ["Capture", "captures_of"]

EXIF_IFD = 0x8769
TIME_TAGS = (36867, 36868)
"""DateTimeOriginal and DateTimeDigitized, in the EXIF part. DateTime, which programs change when
they save a photo again, isn't used."""
MAKE, MODEL, SERIAL_NUMBER = 271, 272, 42033


@dataclass(frozen=True, slots=True)
class Capture:
    """When and with what a photo was taken, as far as its file says it."""

    time: datetime | None = None
    """By the camera's clock, in its time zone."""
    camera: str = ""
    """Maker, model and serial number, as far as they are there."""


def captures_of(root: Path, paths: Sequence[str]) -> tuple[Capture, ...]:
    """(images) from the EXIF data; empty ones for files that have none or can't be read."""
    return tuple(threaded_map(lambda path: capture_of(root / path), paths))


def capture_of(path: Path) -> Capture:
    """Reads the file's head only."""
    from PIL import Image

    try:
        with Image.open(photo_file(path)) as image:
            exif = image.getexif()
            details = exif.get_ifd(EXIF_IFD)
    except Exception:  # whatever a damaged file raises: decoding it reports the problem
        return Capture()
    times = [time_of(details.get(tag)) for tag in TIME_TAGS]
    written = [time for time in times if time is not None]
    names = [plain(exif.get(MAKE)), plain(exif.get(MODEL)), plain(details.get(SERIAL_NUMBER))]
    return Capture(written[0] if written else None, " ".join(name for name in names if name))


def plain(value: object) -> str:
    """The text of a tag, without the zero bytes that some cameras append."""
    return " ".join(str(value or "").replace("\0", " ").split())


def time_of(value: object) -> datetime | None:
    """None where it is no date; cameras whose clock was never set write zeros."""
    try:
        return datetime.strptime(plain(value)[:19], "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
