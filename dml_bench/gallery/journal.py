"""Images that joined a gallery since its file was written as a whole: a file beside it that only
grows, so that keeping an image costs what the image costs.

<gallery>/<phase>.journal holds a line for each addition, a digest and JSON: the seal of the gallery
file that it extends, the entries, and their embeddings in base64. A line that a crash has cut off
was never acknowledged, and is passed over.
"""

import base64
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from dml_bench.system.files import Damaged, flush_folder

__all__ = ["Addition", "append", "read"]

Addition = tuple[str, list[list[Any]], np.ndarray]
"""The seal of a gallery file, entries as lists of texts, and their (entries, dim) float32
embeddings."""


def append(path: Path, seal: str, entries: Sequence[Sequence[str]], embeddings: np.ndarray) -> int:
    """Add images, durable when this returns; the size of the file then. Raises OSError, with
    nothing added."""
    vectors = np.ascontiguousarray(embeddings, "<f4")
    values = {
        "seal": seal,
        "entries": [list(entry) for entry in entries],
        "embeddings": base64.b64encode(vectors.tobytes()).decode(),
    }
    text = json.dumps(values).encode()
    line = memoryview(digest(text) + b" " + text + b"\n")
    is_new = not path.exists()
    # Without a buffer, which would write the rest of a refused line when the file is closed.
    with open(path, "ab", buffering=0) as file:
        before = file.tell()
        try:
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except OSError:  # as where the disk is full: a part of a line would hide the next one
            os.truncate(path, before)
            raise
        size = file.tell()
    if is_new:
        flush_folder(path.parent)
    return size


def read(path: Path) -> list[Addition]:
    """All additions in their order; none where there is no file. Raises Damaged."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [parsed(path, line) for line in lines[:-1]]


def parsed(path: Path, line: bytes) -> Addition:
    """The addition in a line."""
    wanted, _, text = line.partition(b" ")
    if wanted != digest(text):
        raise Damaged(path, "it was changed after it was written")
    values: dict[str, Any] = json.loads(text)
    vectors = np.frombuffer(base64.b64decode(values["embeddings"]), "<f4")
    entries: list[list[Any]] = values["entries"]
    return values["seal"], entries, vectors.reshape(len(entries), -1)


def digest(text: bytes) -> bytes:
    """XXH3, as the seals of other files."""
    return xxhash.xxh3_128_hexdigest(text).encode()
