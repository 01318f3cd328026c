"""A gallery in LanceDB, an embedded store of columns, in a folder of this machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.gallery.store import Gallery
from dml_bench.gallery.stores.arrow import COLUMNS, image_of, schema_of, table_of
from dml_bench.gallery.stores.base import (
    TABLE,
    Hit,
    StoreRecord,
    VectorStore,
    batches_of,
    require_package,
)
from dml_bench.system.drafts import drafted

__all__ = ["LanceStore"]

RECORDS = f"{TABLE}_record"


class LanceStore(VectorStore):
    """The tables `gallery` and `gallery_record` of a LanceDB folder."""

    indexes = ("hnsw", "ivf", "ivfpq")

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
        """The index is LanceDB's own."""
        require_package("lancedb", "LanceDB")
        path = Path(self.location)
        path.parent.mkdir(parents=True, exist_ok=True)
        with drafted(path) as draft:
            table = None
            schema = schema_of(record).remove_metadata()
            for rows in batches_of(gallery, progress):
                part = table_of(gallery, rows, schema)
                if table is None:
                    table = connected(draft).create_table(TABLE, part)
                else:
                    table.add(part)
            if index:
                build_index(table, index, len(gallery.entries))
            connected(draft).create_table(RECORDS, rows_of(record))

    def write_record(self, record: StoreRecord) -> None:
        """The one row of the table `gallery_record`."""
        database = connected(Path(self.location))
        database.create_table(RECORDS, rows_of(record), mode="overwrite")

    def _table(self, name: str = TABLE) -> Any:
        require_package("lancedb", "LanceDB")
        if not Path(self.location).is_dir():
            raise ValueError(
                f"{self.location} is no folder of LanceDB: write it with `dml-bench export --to"
                " lancedb`"
            )
        try:
            return connected(Path(self.location)).open_table(name)
        except (ValueError, RuntimeError, OSError) as error:
            raise ValueError(
                f"{self.location} has no table {name} ({str(error).splitlines()[0]}): write it"
                " with `dml-bench export --to lancedb`"
            ) from None

    def record(self) -> StoreRecord:
        """The one row of the table `gallery_record`."""
        [row] = self._table(RECORDS).to_arrow().to_pylist()
        return StoreRecord.from_json(row["record"], self.place)

    def count(self) -> int:
        """The number of rows."""
        return int(self._table().count_rows())

    def search(self, query: np.ndarray, k: int, exact: bool) -> list[list[Hit]]:
        """Compares with every vector, or with those that the index names."""
        table, neighbours = self._table(), []
        for vector in query:
            search = table.search(vector, vector_column_name="vector").distance_type("dot")
            if exact:
                search = search.bypass_vector_index()
            hits = search.limit(k).select([*COLUMNS, "_distance"]).to_list()
            neighbours.append([(hit["row"], 1 - hit["_distance"], image_of(hit)) for hit in hits])
        return neighbours


def connected(folder: Path) -> Any:
    """The database in a folder."""
    import lancedb

    return lancedb.connect(str(folder))


def rows_of(record: StoreRecord) -> list[dict[str, str]]:
    """The rows of the table `gallery_record`."""
    return [{"record": record.as_json()}]


def build_index(table: Any, kind: str, images: int) -> None:
    """LanceDB's index of a kind, with a cell for about 1,000 images."""
    from lancedb import index

    cells = max(1, images // 1000)
    configs = {
        "ivf": index.IvfFlat(distance_type="dot", num_partitions=cells),
        "ivfpq": index.IvfPq(distance_type="dot", num_partitions=cells),
        "hnsw": index.HnswSq(distance_type="dot"),
    }
    table.create_index("vector", config=configs[kind])
