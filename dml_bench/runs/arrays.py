"""The arrays of a run folder: embeddings, neighbours and logits, as they are written and read."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np

from dml_bench.evaluation.search import Neighbours
from dml_bench.system.files import write_atomically
from dml_bench.system.shapes import Float, Int, shaped

__all__ = [
    "Embeddings",
    "Logits",
    "Part",
    "embeddings_digest",
    "mapped",
    "read_array",
    "read_arrays",
    "read_neighbours",
    "write_arrays",
    "write_embeddings",
    "write_logits",
    "write_neighbours",
]

Part = Literal["gallery", "query", "valid", "catalogue"]
"""The images that were embedded: those that are searched, those that are looked up, and, where a
run has them, the validation images and the studio photos of a catalogue."""


HASHED_AT_ONCE = 10_000
"""Embeddings that are in memory together while a digest is made of a file's."""


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of one phase. Each array is read from the file when it is first asked for."""

    path: Path

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The parts whose embeddings were kept."""
        from safetensors import safe_open

        with safe_open(self.path, "numpy") as file:
            names = set(file.keys())
        return tuple(part for part in get_args(Part) if part in names)

    @shaped
    def vectors(self, part: Part) -> Annotated[np.ndarray, Float("images dim")]:
        """(images, dim) float32 unit vectors."""
        return self._read(part)

    @shaped
    def images(self, part: Part) -> Annotated[np.ndarray, Int("images")]:
        """(images) their indices in the data set."""
        return self._read(f"{part}_images")

    @cached_property
    def gallery(self) -> np.ndarray:
        """(gallery, dim) float32 unit vectors."""
        return self.vectors("gallery")

    @cached_property
    def query(self) -> np.ndarray:
        """(query, dim) float32 unit vectors."""
        return self.vectors("query")

    @cached_property
    def gallery_images(self) -> np.ndarray:
        """(gallery) indices in the data set."""
        return self.images("gallery")

    @cached_property
    def query_images(self) -> np.ndarray:
        """(query) indices in the data set."""
        return self.images("query")

    @shaped
    def mapped_gallery(self) -> Annotated[np.ndarray, Float("gallery dim")]:
        """(gallery, dim), read only, which stays in the file until it is looked at."""
        return mapped(self.path, "gallery")

    def _read(self, name: str) -> np.ndarray:
        return read_array(self.path, name)


@dataclass(frozen=True)
class Logits:
    """What the loss's own logits say of the queries of one phase. Each array is read from the file
    when it is first asked for."""

    path: Path

    @cached_property
    @shaped
    def predicted(self) -> Annotated[np.ndarray, Int("query")]:
        """(query) the likeliest class id."""
        return read_array(self.path, "predicted")

    @cached_property
    @shaped
    def probabilities(self) -> Annotated[np.ndarray, Float("query classes")]:
        """(query, trained classes), of which each row sums to 1; of images with several labels
        (query, labels), each by itself."""
        return read_array(self.path, "probabilities")

    @cached_property
    @shaped
    def classes(self) -> Annotated[np.ndarray, Int("classes")]:
        """(trained classes) class ids."""
        return read_array(self.path, "classes")


def write_embeddings(
    path: Path, vectors: Mapping[str, np.ndarray], images: Mapping[Part, np.ndarray]
) -> None:
    """`vectors` are (images, dim) by part, and `query_views` where each view counts by itself."""
    indices = {f"{part}_images": array for part, array in images.items()}
    write_arrays(path, {**vectors, **indices})


@shaped
def write_logits(
    path: Path,
    classes: Annotated[np.ndarray, Int("classes")],
    probabilities: Annotated[np.ndarray, Float("query classes")],
) -> None:
    """(trained classes) class ids and (query, trained classes) their probabilities. Raises
    ValueError where these are not finite: the first class would be the likeliest."""
    undefined = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if undefined:
        raise ValueError(
            f"logits of {undefined:,} of {len(probabilities):,} queries are not finite: mend the"
            " loss's logits, or try a smaller optimizer.lr"
        )
    predicted = classes[probabilities.argmax(axis=1)]
    arrays = {"predicted": predicted, "probabilities": probabilities, "classes": classes}
    write_arrays(path, arrays)


def write_neighbours(path: Path, neighbours: Neighbours) -> None:
    arrays = {field.name: getattr(neighbours, field.name) for field in fields(neighbours)}
    write_arrays(
        path, {name: np.asarray(array) for name, array in arrays.items() if array is not None}
    )


def read_neighbours(path: Path) -> Neighbours:
    arrays = read_arrays(path)
    leaves_one_out = bool(arrays.pop("leaves_one_out"))
    return Neighbours(**arrays, leaves_one_out=leaves_one_out)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    from safetensors.numpy import save

    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    write_atomically(path, lambda file: file.write(data))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path)


def read_array(path: Path, name: str) -> np.ndarray:
    """One array of a file that may hold many."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        array: np.ndarray = file.get_tensor(name)
    return array


def embeddings_digest(embeddings: np.ndarray) -> str:
    """SHA-256 of (images, dim) embeddings as float32, with their shape; read in parts, as they may
    be mapped from a file."""
    digest = hashlib.sha256(repr(embeddings.shape).encode())
    for first in range(0, len(embeddings), HASHED_AT_ONCE):
        part = embeddings[first : first + HASHED_AT_ONCE]
        digest.update(np.ascontiguousarray(part, np.float32).data)
    return digest.hexdigest()


def mapped(path: Path, name: str) -> np.ndarray:
    """A float32 array of a safetensors file, read only, which stays in the file until it is looked
    at."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        about = json.loads(file.read(length))[name]
    assert about["dtype"] == "F32"
    shape, start = tuple(about["shape"]), 8 + length + about["data_offsets"][0]
    return (
        np.asarray(np.memmap(path, np.float32, "r", start, shape))
        if all(shape)
        else np.empty(shape, np.float32)
    )
