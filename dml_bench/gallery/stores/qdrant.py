"""A gallery in Qdrant's local mode: a folder that one process opens, and exact searches. It is
meant for some 20,000 images; a server takes the same calls."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.gallery.store import Gallery
from dml_bench.gallery.stores.arrow import image_of
from dml_bench.gallery.stores.base import (
    TABLE,
    Hit,
    StoreRecord,
    VectorStore,
    batches_of,
    columns,
    require_package,
)
from dml_bench.system.drafts import drafted

__all__ = ["QdrantStore"]

RECORD = "dml_bench"
"""Where the record stands in the metadata of the collection."""


class QdrantStore(VectorStore):
    """The collection `gallery` in a folder."""

    @property
    def place(self) -> str:
        """The folder."""
        return self.location

    def write(self, gallery: Gallery, record: StoreRecord, index: str) -> None:
        """A point for each image, whose number is the row."""
        require_package("qdrant_client", "Qdrant")
        from qdrant_client import models

        path = Path(self.location)
        path.parent.mkdir(parents=True, exist_ok=True)
        vectors = models.VectorParams(size=record.dim, distance=models.Distance.DOT)
        with drafted(path) as draft, opened(draft) as client:
            metadata = {RECORD: record.as_json()}
            client.create_collection(TABLE, vectors_config=vectors, metadata=metadata)
            for rows in batches_of(gallery):
                parts = columns(gallery, rows)
                names = list(parts)
                payloads = [
                    dict(zip(names, values, strict=True))
                    for values in zip(*parts.values(), strict=True)
                ]
                client.upload_collection(
                    TABLE,
                    vectors=np.asarray(gallery.embeddings[rows], np.float32),
                    payload=payloads,
                    ids=parts["row"],
                )

    def write_record(self, record: StoreRecord) -> None:
        """Never needed: local mode has no approximate index."""
        raise NotImplementedError

    @contextmanager
    def _client(self) -> Iterator[Any]:
        require_package("qdrant_client", "Qdrant")
        if not (Path(self.location) / "meta.json").is_file():
            raise ValueError(
                f"{self.location} is no folder of Qdrant: write it with `dml-bench export --to"
                " qdrant`"
            )
        try:
            with opened(Path(self.location)) as client:
                yield client
        except RuntimeError as error:
            if "already accessed" not in str(error):
                raise
            raise ValueError(
                f"{self.location} is open in another process: wait for it, or use a server"
            ) from None

    def record(self) -> StoreRecord:
        """From the metadata of the collection."""
        with self._client() as client:
            text = None
            if client.collection_exists(TABLE):
                text = (client.get_collection(TABLE).config.metadata or {}).get(RECORD)
        return StoreRecord.from_json(text, self.place)

    def count(self) -> int:
        """The number of points."""
        with self._client() as client:
            return int(client.count(TABLE).count)

    def search(self, query: np.ndarray, k: int, exact: bool) -> list[list[Hit]]:
        """Compares with every vector, as local mode always does."""
        neighbours = []
        with self._client() as client:
            for vector in query:
                points = client.query_points(TABLE, query=vector, limit=k, with_payload=True).points
                neighbours.append(
                    [(int(point.id), point.score, image_of(point.payload)) for point in points]
                )
        return neighbours


@contextmanager
def opened(folder: Path) -> Iterator[Any]:
    """A client of a folder, which is closed at the end."""
    from qdrant_client import QdrantClient

    client = QdrantClient(path=str(folder))
    try:
        yield client
    finally:
        client.close()
