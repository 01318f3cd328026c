"""A gallery as Arrow tables, which Parquet and LanceDB keep."""

from typing import Any

import numpy as np

from dml_bench.gallery.store import Gallery, GalleryImage
from dml_bench.gallery.stores.base import StoreRecord, columns

__all__ = ["COLUMNS", "image_of", "record_key", "schema_of", "table_of"]

COLUMNS = ("row", "class", "path", "sha256", "origin")
"""All but the vectors."""
record_key = b"dml_bench"
"""Where the record stands in the metadata of the schema."""


def schema_of(record: StoreRecord) -> Any:
    """The columns of a gallery, with its record as metadata."""
    import pyarrow

    texts = [(name, pyarrow.string()) for name in COLUMNS[1:]]
    vectors = ("vector", pyarrow.list_(pyarrow.float32(), record.dim))
    fields = [("row", pyarrow.int64()), *texts, vectors]
    return pyarrow.schema(fields, metadata={record_key: record.as_json().encode()})


def table_of(gallery: Gallery, rows: slice, schema: Any) -> Any:
    """Some rows of a gallery."""
    import pyarrow

    vectors = np.ascontiguousarray(gallery.embeddings[rows], np.float32)
    arrays = dict(columns(gallery, rows))
    arrays["vector"] = pyarrow.FixedSizeListArray.from_arrays(
        pyarrow.array(vectors.ravel()), vectors.shape[1]
    )
    return pyarrow.table(arrays, schema=schema)


def image_of(values: dict[str, Any]) -> GalleryImage:
    """The image in a row."""
    return GalleryImage(values["class"], values["path"], values["sha256"], values["origin"])
