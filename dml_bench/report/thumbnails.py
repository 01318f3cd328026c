"""Small copies of the images behind the answers."""

import base64
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from dml_bench.data.digests import digest_of
from dml_bench.system.failures import named
from dml_bench.system.files import short_name

__all__ = ["Pictures"]

SIDE = 112
"""Longest side of a small copy in pixels."""


class Pictures:
    """Makes small copies of a data set's files, each once, and counts those that are not there any
    more."""

    def __init__(self, root: Path | None, digests: Mapping[str, str] = MappingProxyType({})):
        """`root` is None where there are no images; `digests` are the SHA-256, by path, of the
        files that are meant, where known."""
        self.root = root
        self.digests = digests
        self.copies: dict[str, bytes] = {}
        """By path."""
        self.gone: list[str] = []

    def get(self, path: str) -> bytes | None:
        """The copy as JPEG, or None where the file can't be read."""
        if path not in self.copies and path not in self.gone:
            copy = (
                small_copy(self.root / path)
                if self.root and self.is_meant(self.root / path, path)
                else None
            )
            if copy is None:
                self.gone.append(path)
            else:
                self.copies[path] = copy
        return self.copies.get(path)

    def is_meant(self, file: Path, path: str) -> bool:
        wanted = self.digests.get(path)
        return not wanted or digest_of(file) == wanted

    def data_uri(self, path: str) -> str:
        """For the page; empty where the file can't be read."""
        copy = self.get(path)
        return f"data:image/jpeg;base64,{base64.b64encode(copy).decode()}" if copy else ""

    def write(self, folder: Path) -> None:
        for path, copy in self.copies.items():
            with named(file := folder / self.name(path)):
                file.write_bytes(copy)

    @staticmethod
    def name(path: str) -> str:
        """File name of the copy: that of the image, told apart from others of the same name."""
        return (
            f"{short_name(Path(path).stem, 60)}-{hashlib.sha256(path.encode()).hexdigest()[:8]}.jpg"
        )


def small_copy(path: Path) -> bytes | None:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except OSError:
        return None
    upright.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    upright.save(file, "JPEG", quality=82)
    return file.getvalue()
