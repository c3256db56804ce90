"""Write and read Parquet files of known columns; the same rows always give the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gaussianverse.manifests.parquet import UNREADABLE
from gaussianverse.pipeline.errors import PipelineError, message

_WRITER = re.compile(r"parquet-cpp-arrow version \d+\.\d+\.\d+(-SNAPSHOT)?")


def to_parquet(schema: pa.Schema, rows: Iterable[Mapping[str, Any]], *, checksums: bool = False) -> bytes:
    """Write rows to a Parquet file.

    Args:
        schema: schema of the table.
        rows: complete rows, as from `row`.
        checksums: add a checksum per page, for files that SHA256SUMS does not list.
    """
    table = pa.Table.from_pylist(list(rows), schema=exact(schema))
    return table_to_parquet(table, checksums=checksums)


def exact(schema: pa.Schema) -> pa.Schema:
    """The schema with all columns declared non-nullable."""
    return pa.schema([pa.field(f.name, f.type, nullable=False) for f in schema])


def table_to_parquet(table: pa.Table, *, checksums: bool = False) -> bytes:
    """Write a table to a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=checksums)
    return sink.getvalue()


class ParquetSink:
    """A Parquet file that is written in pieces of any size.

    Row groups have `ROW_GROUP` rows regardless of the pieces, so that the same rows always give the same bytes; a
    file of one group has the bytes of `table_to_parquet`.

    Args:
        schema: schema of the table.
        path: file to write; None = `finish` returns its bytes.
    """

    ROW_GROUP = 1 << 16

    def __init__(self, schema: pa.Schema, path: Path | None = None) -> None:
        self._schema, self._sink = exact(schema), io.BytesIO()
        self._writer = pq.ParquetWriter(path or self._sink, self._schema, compression="zstd")
        self._waiting: list[pa.Table] = []
        self._written = False

    def add(self, rows: pa.Table) -> None:
        """Append rows of the schema."""
        self._waiting.append(pa.Table.from_arrays(rows.columns, schema=self._schema))
        while sum(map(len, self._waiting)) >= self.ROW_GROUP:
            whole = pa.concat_tables(self._waiting)
            self._write(whole[: self.ROW_GROUP])
            self._waiting = [whole[self.ROW_GROUP :]]

    def finish(self) -> bytes:
        """Write the remaining rows and return the file; b"" if it has a path."""
        rest = pa.concat_tables([self._schema.empty_table(), *self._waiting])
        if len(rest) or not self._written:
            self._write(rest)
        self._writer.close()
        return self._sink.getvalue()

    def _write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows.combine_chunks(), row_group_size=self.ROW_GROUP)
        self._written = True


def same_rows(schema: pa.Schema, data: bytes, expected: bytes | Path) -> bool:
    """Whether two files of a `ParquetSink` hold the same rows; compares one row group at a time.

    Raises:
        PipelineError: `data` is damaged or not a Parquet file.
    """
    files = [_opened(one) for one in (data, expected)]
    if files[0].schema_arrow.names != schema.names or files[0].num_row_groups != files[1].num_row_groups:
        return False
    try:
        for k in range(files[1].num_row_groups):
            there, here = (file.read_row_group(k, use_threads=False) for file in files)
            if not there.equals(here):
                return False
    except UNREADABLE as error:
        raise PipelineError(f"not a readable Parquet file: {message(error)}") from error
    return True


def _opened(data: bytes | Path) -> pq.ParquetFile:
    try:
        source = data if isinstance(data, Path) else pa.BufferReader(data)
        return pq.ParquetFile(source, page_checksum_verification=True)
    except UNREADABLE as error:
        raise PipelineError(f"not a readable Parquet file: {message(error)}") from error


def from_parquet(schema: pa.Schema, data: bytes) -> pa.Table:
    """Read a file of `to_parquet`; verifies page checksums if the file has them.

    Raises:
        PipelineError: damaged, not a Parquet file, or of another schema.
    """
    table = read_table(data)
    if [(f.name, f.type) for f in table.schema] != [(f.name, f.type) for f in schema]:
        raise other_columns(table)
    return table


def read_table(data: bytes) -> pa.Table:
    """Read a file of any columns. Raises PipelineError if it is damaged or not a Parquet file."""
    try:
        # not pq.read_table, whose threads may outlive the interpreter and then abort the process
        return _opened(data).read(use_threads=False)
    except UNREADABLE as error:
        raise PipelineError(f"not a readable Parquet file: {message(error)}") from error


def is_as_written(data: bytes) -> bool:
    """Whether the bytes of a file of `to_parquet` with checksums are those that its rows give.

    Of a file that says it is another pyarrow's, whose bytes may differ, only the pages are known to be whole.
    """
    try:
        file = _opened(data)
        written = table_to_parquet(file.read(use_threads=False), checksums=True)
        there, here = (f.metadata.created_by for f in (file, _opened(written)))
    except (PipelineError, *UNREADABLE):
        return False
    return written == data or (here != there and _WRITER.fullmatch(there) is not None)


def other_columns(table: pa.Table) -> PipelineError:
    """The error of a table that has other columns than it should."""
    names = ", ".join(table.schema.names[-3:])
    count = len(table.schema.names)
    return PipelineError(
        f"its {count} columns (the last: {names}) are not those of a schema version that is read; read it with the "
        "gaussianverse that wrote it"
    )
