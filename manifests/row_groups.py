"""Read and write Parquet files of very many row groups, a few groups at a time: see `footer`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from gaussianverse.manifests import footer
from gaussianverse.manifests.footer import MAGIC, BadFooter

WHOLE = 1 << 19
"""Bytes of a footer that Arrow parses whole: about 500 row groups, in 5 ms."""
_TOGETHER = 256  # groups that are read together
_BLOCK = 512  # groups that Arrow writes together
_TAIL = 8
_LARGE = 1 << 16  # rows of a group that is read in pieces
_PIECE = 1 << 20


class RowGroups:
    """A Parquet file of which row groups are read by their numbers.

    Args:
        file: open, seekable; it must stay open.

    Raises:
        ArrowInvalid, OSError: it is no Parquet file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._footer = file, None
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _TAIL))
        try:
            length = footer.length_of(file.read(_TAIL))
        except BadFooter:
            length = 0  # Arrow says what it is
        if length <= WHOLE or length > size - _TAIL:
            self._part = pq.ParquetFile(file, pre_buffer=False)
            self.rows, self._count = self._part.metadata.num_rows, self._part.num_row_groups
            return
        file.seek(size - _TAIL - length)
        try:
            found = footer.parse(file.read(length))
        except BadFooter as error:
            raise pa.ArrowInvalid(str(error)) from error
        self._at = size - _TAIL - length + len(found.before) + len(found.between) + _between(found)
        self.rows, self._count = found.rows, len(found)
        self._footer = replace(found, entries=b"")
        self._part = self._of(0, min(1, self._count))

    def __len__(self) -> int:
        return int(self._count)

    @property
    def is_large(self) -> bool:
        """Whether its footer was taken apart, which takes a second for 10,000 row groups."""
        return self._footer is not None

    @property
    def schema(self) -> pa.Schema:
        """Its columns, as Arrow has them."""
        return self._part.schema_arrow

    def rows_of(self, group: int) -> int:
        """Number of rows of a group."""
        part, first = self._holding(group, group + 1)
        return int(part.metadata.row_group(group - first).num_rows)

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read some groups, one after another."""
        part, first = self._holding(start, stop)
        chosen = None if columns is None else list(columns)
        # with Arrow's own threads, one may outlive the interpreter and then abort the process
        return part.read_row_groups(range(start - first, stop - first), columns=chosen, use_threads=False)

    def tables(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield all rows, at most `rows` at a time."""
        chosen = None if columns is None else list(columns)
        for start in range(0, len(self), _TOGETHER):
            stop = min(start + _TOGETHER, len(self))
            part, first = self._holding(start, stop)
            groups = range(start - first, stop - first)
            if max(part.metadata.row_group(k).num_rows for k in groups) > _LARGE:
                part = pq.ParquetFile(self._file, metadata=part.metadata, pre_buffer=False, buffer_size=_PIECE)
            for batch in part.iter_batches(rows, row_groups=list(groups), columns=chosen, use_threads=False):
                yield pa.Table.from_batches([batch])

    def sizes(self) -> Iterator[int]:
        """Yield the number of rows of each group."""
        for start in range(0, len(self), _TOGETHER):
            stop = min(start + _TOGETHER, len(self))
            part, first = self._holding(start, stop)
            yield from (part.metadata.row_group(k).num_rows for k in range(start - first, stop - first))

    def _holding(self, start: int, stop: int) -> tuple[pq.ParquetFile, int]:
        """A file that has these groups, and the number of its first one."""
        return (self._part, 0) if self._footer is None else (self._of(start, stop), start)

    def _of(self, start: int, stop: int) -> pq.ParquetFile:
        assert self._footer is not None
        ends = self._footer.ends
        self._file.seek(self._at + ends[start])
        entries = self._file.read(ends[stop] - ends[start])
        end = footer.joined(self._footer, 0, [entries], stop - start)
        metadata = pq.read_metadata(io.BytesIO(MAGIC + b"".join(end)))
        return pq.ParquetFile(self._file, metadata=metadata, pre_buffer=False)


def _between(found: footer.Footer) -> int:
    """Bytes of the number of rows and of the head of the list of groups."""
    head = footer.joined(replace(found, before=b"", between=b"", entries=b"", after=b""), found.rows, [], len(found))
    return sum(map(len, head)) - _TAIL


class GroupWriter:
    """Writes a Parquet file, one row group for each table, as one `pq.ParquetWriter` does, byte for byte.

    Args:
        out: where to write, from where it stands.
        schema: schema of the tables.
        options: of `pq.ParquetWriter`.
    """

    def __init__(self, out: IO[bytes], schema: pa.Schema, **options: Any) -> None:
        self._out, self._schema, self._options = out, schema, options
        self._waiting: list[pa.Table] = []
        self._entries: list[bytes] = []
        self._last: footer.Footer | None = None
        self._at = self._rows = self._count = 0

    def add(self, group: pa.Table) -> None:
        """Write a row group."""
        self._waiting.append(group)
        if len(self._waiting) == _BLOCK:
            self._write()

    def finish(self) -> None:
        """Write the rest and the footer."""
        if self._waiting or self._last is None:
            self._write()
        assert self._last is not None
        for piece in footer.joined(self._last, self._rows, self._entries, self._count):
            self._out.write(piece)

    def _write(self) -> None:
        sink = io.BytesIO()
        with pq.ParquetWriter(sink, self._schema, **self._options) as writer:
            for group in self._waiting:
                writer.write_table(group, row_group_size=max(1, len(group)))
        data = sink.getbuffer()
        length = footer.length_of(bytes(data[-_TAIL:]))
        found = footer.parse(bytes(data[-_TAIL - length : -_TAIL]))
        first = 0 if self._last is None else len(MAGIC)
        self._out.write(data[first : -_TAIL - length])
        by = self._at - first
        ends = found.ends
        moved = (
            footer.moved(found.entries[ends[k] : ends[k + 1]], by) if by else
            found.entries[ends[k] : ends[k + 1]]
            for k in range(len(found))
        )  # fmt: skip
        self._entries.append(b"".join(moved))
        self._at += len(data) - first - _TAIL - length
        self._rows, self._count, self._last = self._rows + found.rows, self._count + len(found), found
        self._waiting = []
