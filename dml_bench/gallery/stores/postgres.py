"""A gallery in PostgreSQL with the extension pgvector: a table beside those of an application."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import finalize

import numpy as np

from dml_bench.gallery.store import Gallery, GalleryImage
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

__all__ = ["PostgresStore"]

INDEXES = {"hnsw": "hnsw (vector vector_ip_ops)", "ivf": "ivfflat (vector vector_ip_ops)"}
MOST_INDEXED = 2000
"""The most dimensions that pgvector indexes."""


class PostgresStore(VectorStore):
    """The tables NAME and NAME_record of a database: `postgresql://HOST/DATABASE#NAME`, where NAME
    is `gallery` unless it is named. The URI may hold a password, so no message shows it."""

    indexes = tuple(INDEXES)
    on_disk = False
    _open: Any = None

    @property
    def _name(self) -> str:
        name = self.location.partition("#")[2] or TABLE
        if not name.isidentifier() or not name.isascii():
            raise ValueError(
                f"a table's name must be ASCII letters, digits and _, got {name!r}: correct what"
                " stands behind # in the address"
            )
        return name

    @property
    def place(self) -> str:
        """The table."""
        return f"PostgreSQL table {self._name}"

    def write(
        self,
        gallery: Gallery,
        record: StoreRecord,
        index: str,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """In one transaction."""
        if index and record.dim > MOST_INDEXED:
            raise ValueError(
                f"pgvector indexes at most {MOST_INDEXED:,} dimensions, got {record.dim:,}: leave"
                " --index out, or export --to lancedb"
            )
        from psycopg import errors, sql

        table, records = sql.Identifier(self._name), sql.Identifier(f"{self._name}_record")
        with self._connection(extension=True) as connection:
            create = sql.SQL(
                "CREATE TABLE {} (row bigint PRIMARY KEY, class text NOT NULL, path text NOT NULL,"
                " sha256 text NOT NULL, origin text NOT NULL, vector vector({}) NOT NULL)"
            )
            try:
                connection.execute(create.format(table, sql.Literal(record.dim)))
                connection.execute(sql.SQL("CREATE TABLE {} (record jsonb)").format(records))
            except errors.DuplicateTable:
                raise ValueError(
                    f"{self.place} exists already: name another behind # in the address, or drop it"
                ) from None
            copy_rows(connection, table, gallery, progress)
            if index:
                using = sql.SQL(INDEXES[index])
                connection.execute(sql.SQL("CREATE INDEX ON {} USING {}").format(table, using))
            insert = sql.SQL("INSERT INTO {} VALUES (%s)").format(records)
            connection.execute(insert, (record.as_json(),))

    def write_record(self, record: StoreRecord) -> None:
        """The one row of NAME_record."""
        from psycopg import sql

        update = sql.SQL("UPDATE {} SET record = %s")
        with self._connection() as connection:
            table = sql.Identifier(f"{self._name}_record")
            connection.execute(update.format(table), (record.as_json(),))

    @contextmanager
    def _connection(self, extension: bool = False) -> Iterator[Any]:
        """One transaction of the connection, which is kept while the store is in use."""
        require_package("psycopg", "PostgreSQL")
        require_package("pgvector", "PostgreSQL")
        import psycopg

        try:
            if self._open is None or self._open.closed:
                self._open = connected(self.location.partition("#")[0], extension)
                finalize(self, self._open.close)
            with self._open.transaction():
                yield self._open
        except psycopg.Error as error:
            raise ValueError(
                f"{self.place}: {' '.join(str(error).split())}: correct the address"
                " postgresql://USER@HOST/DATABASE#TABLE, or the database"
            ) from None

    def record(self) -> StoreRecord:
        """The one row of NAME_record."""
        require_package("psycopg", "PostgreSQL")
        from psycopg import errors, sql

        with self._connection() as connection:
            table = sql.Identifier(f"{self._name}_record")
            try:
                row = connection.execute(
                    sql.SQL("SELECT record::text FROM {}").format(table)
                ).fetchone()
            except errors.UndefinedTable:
                row = None
        return StoreRecord.from_json(row[0] if row else None, self.place)

    def count(self) -> int:
        """The number of rows."""
        from psycopg import sql

        with self._connection() as connection:
            select = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(self._name))
            return int(connection.execute(select).fetchone()[0])

    def search(self, query: np.ndarray, k: int, exact: bool) -> list[list[Hit]]:
        """Compares with every vector, or with those that the index names."""
        from psycopg import sql

        select = sql.SQL(
            "SELECT row, -(vector <#> %(query)s), class, path, sha256, origin FROM {}"
            " ORDER BY vector <#> %(query)s LIMIT %(k)s"
        ).format(sql.Identifier(self._name))
        neighbours = []
        with self._connection() as connection:
            connection.execute(
                sql.SQL("SET LOCAL enable_indexscan = {}").format(sql.Literal(not exact))
            )
            connection.execute(sql.SQL("SET LOCAL enable_seqscan = {}").format(sql.Literal(exact)))
            for vector in query:
                hits = connection.execute(select, {"query": vector, "k": k}).fetchall()
                neighbours.append(
                    [(row, nearness, GalleryImage(*image)) for row, nearness, *image in hits]
                )
        return neighbours


def connected(address: str, extension: bool) -> Any:
    """A connection that knows vectors; with `extension`, the database is made to know them."""
    import psycopg
    from pgvector.psycopg import register_vector

    connection = psycopg.connect(address, autocommit=True)
    try:
        if extension:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(connection)
    except psycopg.Error:
        connection.close()
        raise
    return connection


def copy_rows(
    connection: Any, table: Any, gallery: Gallery, progress: Callable[[int, int], None]
) -> None:
    """Copy a gallery into a table, in PostgreSQL's binary format."""
    from psycopg import sql

    copy = sql.SQL(
        "COPY {} (row, class, path, sha256, origin, vector) FROM STDIN WITH (FORMAT BINARY)"
    )
    with connection.cursor() as cursor, cursor.copy(copy.format(table)) as writer:
        writer.set_types(["int8", "text", "text", "text", "text", "vector"])
        for rows in batches_of(gallery, progress, SMALL_BATCH):
            parts = columns(gallery, rows)
            vectors = np.asarray(gallery.embeddings[rows], np.float32)
            for values in zip(*parts.values(), vectors, strict=True):
                writer.write_row(values)
