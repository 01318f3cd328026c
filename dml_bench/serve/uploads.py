"""Images that a stranger sent: read within limits, and refused before they are decoded where they
can't be what they claim."""

import base64
import binascii
import hashlib
import io
from dataclasses import dataclass
from functools import cache
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dml_bench.data.cache import View
from dml_bench.data.csv_table import speakable
from dml_bench.data.images import Unreadable, decode

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = [
    "MOST_MEGABYTES",
    "Photo",
    "RefusedRequest",
    "SentImage",
    "UploadLimits",
    "formats",
    "read_photo",
    "read_request",
]

SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tiff",
    "PPM": ".ppm",
}
"""The formats that are read, by Pillow's names, and how their files end. Pillow knows forty more:
each decoder is code that a stranger's bytes would run."""
LONGEST_NAME = 200
"""Characters of the name of a class."""
MOST_MEGABYTES = 512.0
"""Of a body, and of all that arrive at a time together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadLimits:
    """What one request may bring."""

    megabytes: float = 32.0
    """The size of its body."""
    images: int = 64
    """The number of its images."""
    megapixels: float = 50.0
    """The size of each, when it is decoded."""
    seconds: float = 60.0
    """The time that it may take to arrive."""

    def __post_init__(self) -> None:
        size: object = self.megabytes
        if not (isinstance(size, Real) and 0 < float(size) <= MOST_MEGABYTES):
            raise ValueError(
                f"max_megabytes must be above 0 and at most {MOST_MEGABYTES:g}, got"
                f" {size!r}: give another number"
            )

    @property
    def num_bytes(self) -> int:
        """The size of its body."""
        return int(self.megabytes * 1e6)


class RefusedRequest(ValueError):
    """A request that is not carried out, with its HTTP status and the next step."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class SentImage:
    """An image as it was sent."""

    name: str
    """What the sender calls it, for the answer alone."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Photo:
    """An image that was decoded."""

    name: str
    data: bytes
    sha256: str
    suffix: str
    """How its file ends, by its content."""
    pixels: np.ndarray
    """(size, size, 3) uint8, as the network sees it."""


async def read_request(
    request: "Request", limits: UploadLimits, *, with_class: bool = False
) -> tuple[str, list[SentImage]]:
    """The class, where one is wanted, and the images of a request: a form with the fields `class`
    and `images`, or JSON with the same keys and base64. Raises RefusedRequest."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        name, images = await read_form(request, limits)
    elif kind == "application/json":
        name, images = read_json(await request.body(), limits)
    else:
        raise RefusedRequest(
            415,
            f"the body must be multipart/form-data or application/json, got {kind or 'neither'}:"
            " send a form with the field images",
        )
    if not images:
        raise RefusedRequest(422, "there is no image: send at least one in the field images")
    return (class_name(name) if with_class else ""), images


def too_many(limits: UploadLimits) -> RefusedRequest:
    """Why a request with more images is refused."""
    return RefusedRequest(
        413, f"a request may bring {limits.images} images, and this has more: send several requests"
    )


async def read_form(request: "Request", limits: UploadLimits) -> tuple[object, list[SentImage]]:
    """The fields of a form; images are those that are files."""
    from starlette.datastructures import UploadFile

    from dml_bench.serve.forms import MultiPartException, parse_form

    try:
        form = await parse_form(request, max_files=limits.images, max_fields=8)
    except MultiPartException as problem:
        if problem.message.startswith("Too many files"):
            raise too_many(limits) from None
        raise RefusedRequest(400, f"the form can't be read: {problem.message}") from None
    except ValueError as problem:  # of its parser, or of a charset that its header names
        text = " ".join(str(problem).split())
        raise RefusedRequest(400, f"the form can't be read ({text}): correct it") from None
    images = []
    for value in form.getlist("images"):
        if not isinstance(value, UploadFile):
            raise RefusedRequest(
                422, "images must be files of the form: with curl, -F images=@photo.jpg"
            )
        images.append(SentImage(value.filename or "photo", await value.read()))
    name = form.get("class")
    await form.close()
    return name, images


def read_json(body: bytes, limits: UploadLimits) -> tuple[object, list[SentImage]]:
    """{"class": "pigeon", "images": ["<base64>", {"name": "a.jpg", "data": "<base64>"}]}. Images
    are counted before they are looked at: millions of empty ones fit into a body."""
    import json

    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedRequest(400, "the body is no JSON: correct it, or send a form") from None
    if not isinstance(value, dict) or not isinstance(value.get("images"), list):
        raise RefusedRequest(422, 'the body must be {"images": ["<base64>", ...]}: correct it')
    if len(value["images"]) > limits.images:
        raise too_many(limits)
    images = [sent_image(image, place) for place, image in enumerate(value["images"])]
    return value.get("class"), images


def sent_image(image: Any, place: int) -> SentImage:
    """One image of JSON."""
    name, text = f"image {place + 1}", image
    if isinstance(image, dict):
        name, text = str(image.get("name", name)), image.get("data")
    try:
        return SentImage(name, base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, TypeError):
        raise RefusedRequest(422, f"{name} is no base64: encode the bytes of its file") from None


def class_name(value: object) -> str:
    """The name of a class, as a person wrote it. Raises RefusedRequest."""
    name = value.strip() if isinstance(value, str) else ""
    if not name:
        raise RefusedRequest(422, "there is no class: send its name in the field class")
    if name in (".", ".."):  # clients resolve it in DELETE /classes/NAME
        raise RefusedRequest(422, f"a class can't be called {name}: choose another name")
    if len(name) > LONGEST_NAME or not speakable(name):
        raise RefusedRequest(
            422,
            "the name of a class must be one line of at most"
            f" {LONGEST_NAME} characters, got {len(name)}: correct it",
        )
    return name


@cache
def formats() -> tuple[str, ...]:
    """The formats that are read; their decoders are loaded."""
    Image.init()
    return tuple(SUFFIXES)


def read_photo(image: SentImage, view: View, limits: UploadLimits) -> Photo:
    """The image as the network sees it. Raises Unreadable, whose reason a stranger may read: its
    header is looked at before anything is decoded."""
    path = Path("photo")  # a name that somebody sent could hold a box, and never becomes a path
    try:
        with Image.open(io.BytesIO(image.data), formats=formats()) as header:
            suffix = SUFFIXES.get(str(header.format), ".jpg")  # some JPEGs are MPO to Pillow
            megapixels = header.width * header.height / 1e6
    except Image.DecompressionBombError:
        megapixels, suffix = np.inf, ""
    except Exception as problem:  # a decoder may raise anything about a header
        raise Unreadable(path, f"must be an image: {', '.join(sorted(SUFFIXES))}") from problem
    if megapixels > limits.megapixels:
        raise Unreadable(path, f"must have at most {limits.megapixels:g} megapixels: scale it down")
    # A file can be of two formats: what is decoded has to be what was looked at.
    pixels = view.apply(decode(path, data=image.data, formats=formats()))
    digest = hashlib.sha256(image.data).hexdigest()
    return Photo(image.name, image.data, digest, suffix, pixels)
