"""Small copies of the images behind the predictions."""

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from dml_bench.data.digests import digest_of
from dml_bench.data.images import Unreadable, decode
from dml_bench.system.files import short_name

__all__ = ["Thumbnails", "file_name", "is_file_name"]

SIDE = 112
"""Longest side of a small copy in pixels."""


class Thumbnails:
    """Makes small copies of a data set's files, each once; knows those that can't be read."""

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
            copy = self._copy(path)
            if copy is None:
                self.gone.append(path)
            else:
                self.copies[path] = copy
        return self.copies.get(path)

    def _copy(self, path: str) -> bytes | None:
        if self.root is None:
            return None
        file, digest = self.root / path, self.digests.get(path)
        if digest and digest_of(file) != digest:
            return None
        return small_copy(file)


def file_name(path: str) -> str:
    """File name of the copy: that of the image, distinct from others of the same name."""
    digest = hashlib.sha256(path.encode()).hexdigest()
    return f"{short_name(Path(path).stem, 60)}-{digest[:8]}.jpg"


def is_file_name(name: str) -> bool:
    """Whether a file is called as `file_name` calls copies."""
    return re.search(r"-[0-9a-f]{8}\.jpg$", name) is not None


def small_copy(path: Path) -> bytes | None:
    try:
        upright = decode(path)
    except Unreadable:
        return None
    upright.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    upright.save(file, "JPEG", quality=82)
    return file.getvalue()
