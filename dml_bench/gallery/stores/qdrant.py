"""A gallery in Qdrant's local mode: a folder that one process opens, and exact searches. It is
meant for some 20,000 images; a server takes the same calls. Opening reads all vectors, so that a
folder stays open as long as a store of it is in use."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary, finalize

import numpy as np

from dml_bench.gallery.store import Gallery
from dml_bench.gallery.stores.arrow import image_of
from dml_bench.gallery.stores.base import (
    SMALL_BATCH,
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


class OpenFolder:
    """A client of a folder, which is closed when nobody uses it any more."""

    def __init__(self, folder: Path):
        from qdrant_client import QdrantClient

        self.client: Any = QdrantClient(path=str(folder))
        self.close = finalize(self, self.client.close)


OPEN: WeakValueDictionary[Path, OpenFolder] = WeakValueDictionary()
"""The folders that this process has open: local mode opens none twice."""


class QdrantStore(VectorStore):
    """The collection `gallery` in a folder."""

    _open: OpenFolder | None = None

    @property
    def place(self) -> str:
        """The folder."""
        return self.location

    def write(
        self,
        gallery: Gallery,
        record: StoreRecord,
        index: str,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """A point for each image, whose number is the row."""
        require_package("qdrant_client", "Qdrant")
        from qdrant_client import models

        path = Path(self.location)
        path.parent.mkdir(parents=True, exist_ok=True)
        vectors = models.VectorParams(size=record.dim, distance=models.Distance.DOT)
        with drafted(path) as draft, closing(OpenFolder(draft)) as folder:
            client = folder.client
            metadata = {RECORD: record.as_json()}
            client.create_collection(TABLE, vectors_config=vectors, metadata=metadata)
            for rows in batches_of(gallery, progress, SMALL_BATCH):
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

    @property
    def _client(self) -> Any:
        if self._open is not None:
            return self._open.client
        require_package("qdrant_client", "Qdrant")
        folder = Path(self.location).resolve()
        if not (folder / "meta.json").is_file():
            raise ValueError(
                f"{self.location} is no folder of Qdrant: write it with `dml-bench export --to"
                " qdrant`"
            )
        try:
            self._open = OPEN.get(folder) or OpenFolder(folder)
        except RuntimeError as error:
            if "already accessed" not in str(error):
                raise
            raise ValueError(
                f"{self.location} is open in another process: wait for it, or use a server"
            ) from None
        OPEN[folder] = self._open
        return self._open.client

    def record(self) -> StoreRecord:
        """From the metadata of the collection."""
        text = None
        if self._client.collection_exists(TABLE):
            text = (self._client.get_collection(TABLE).config.metadata or {}).get(RECORD)
        return StoreRecord.from_json(text, self.place)

    def count(self) -> int:
        """The number of points."""
        return int(self._client.count(TABLE).count)

    def search(self, query: np.ndarray, k: int, exact: bool) -> list[list[Hit]]:
        """Compares with every vector, as local mode always does."""
        neighbours = []
        for vector in query:
            answer = self._client.query_points(TABLE, query=vector, limit=k, with_payload=True)
            neighbours.append(
                [(int(point.id), point.score, image_of(point.payload)) for point in answer.points]
            )
        return neighbours
