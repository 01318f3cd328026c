"""A gallery as one Parquet file, which pandas, DuckDB, Spark and BigQuery read. A search reads it
a part at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.gallery.store import Gallery
from dml_bench.gallery.stores.arrow import COLUMNS, image_of, record_key, schema_of, table_of
from dml_bench.gallery.stores.base import (
    Hit,
    StoreRecord,
    VectorStore,
    batches_of,
    require_package,
)
from dml_bench.system.drafts import drafted

__all__ = ["ParquetStore"]


class ParquetStore(VectorStore):
    """A Parquet file."""

    @property
    def place(self) -> str:
        """The file."""
        return self.location

    def write(
        self,
        gallery: Gallery,
        record: StoreRecord,
        index: str,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """A row group for each batch."""
        require_package("pyarrow", "a Parquet file")
        from pyarrow import parquet

        path = Path(self.location)
        path.parent.mkdir(parents=True, exist_ok=True)
        schema = schema_of(record)
        with drafted(path) as draft, parquet.ParquetWriter(str(draft), schema) as writer:
            for rows in batches_of(gallery, progress):
                writer.write_table(table_of(gallery, rows, schema))

    def write_record(self, record: StoreRecord) -> None:
        """Never needed: it has no approximate index."""
        raise NotImplementedError

    def _file(self) -> Any:
        require_package("pyarrow", "a Parquet file")
        import pyarrow
        from pyarrow import parquet

        try:
            return parquet.ParquetFile(self.location)
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise ValueError(
                f"{self.location} can't be read as a Parquet file ({error}): write it with"
                " `dml-bench export --to parquet`"
            ) from None

    def record(self) -> StoreRecord:
        """From the metadata of the file's schema."""
        with self._file() as file:
            metadata = file.schema_arrow.metadata or {}
        return StoreRecord.from_json(metadata.get(record_key), self.place)

    def count(self) -> int:
        """The number of rows."""
        with self._file() as file:
            return int(file.metadata.num_rows)

    def search(self, query: np.ndarray, k: int, exact: bool) -> list[list[Hit]]:
        """Compares with every vector, a row group at a time."""
        import faiss

        best = np.empty((len(query), 0), np.float32)
        rows = np.empty((len(query), 0), np.int64)
        with self._file() as file:
            first = 0
            for group in range(file.num_row_groups):
                vectors = vectors_of(file.read_row_group(group, columns=["vector"]))
                near, places = faiss.knn(
                    query, vectors, min(k, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT
                )
                best = np.concatenate([best, near], 1)
                rows = np.concatenate([rows, places + first], 1)
                order = np.argsort(-best, axis=1, kind="stable")[:, :k]
                best = np.take_along_axis(best, order, 1)
                rows = np.take_along_axis(rows, order, 1)
                first += len(vectors)
            table = file.read(columns=list(COLUMNS)).take(np.unique(rows))
        images = {values["row"]: image_of(values) for values in table.to_pylist()}
        hits = []
        for similarities, nearest_rows in zip(best.tolist(), rows.tolist(), strict=True):
            pairs = zip(nearest_rows, similarities, strict=True)
            hits.append([(row, similarity, images[row]) for row, similarity in pairs])
        return hits


def vectors_of(table: Any) -> np.ndarray:
    """(rows, dim) float32."""
    column = table.column("vector").combine_chunks()
    return np.asarray(column.flatten(), np.float32).reshape(len(column), -1)
