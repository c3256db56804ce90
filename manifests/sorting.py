"""Rows in files of their own, and in the order of their uids, of which few are in memory at a time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

_RUN_BYTES = 64 << 20
"""Bytes of rows that are sorted at a time."""
_BATCH = 2048
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


class Spool:
    """Tables of one schema that are appended to a file and read back from it.

    Attributes:
        is_sorted: whether the uids ascend over all rows.
        lines: for whoever uses it: lines of rows that do not count any more.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._count, self._last = path, 0, ""
        self._writer: pa.RecordBatchFileWriter | None = None
        self.is_sorted, self.lines = True, set[int]()

    def __len__(self) -> int:
        return self._count

    def add(self, rows: pa.Table) -> None:
        """Append rows."""
        if self._writer is None:
            self._writer = pa.ipc.new_file(str(self._path), rows.schema, options=_OPTIONS)
        uid = rows["uid"].combine_chunks()
        ascending = self._last < uid[0].as_py() and pc.all(pc.less(uid[:-1], uid[1:]), min_count=0).as_py()
        self.is_sorted, self._last = self.is_sorted and ascending, uid[-1].as_py()
        self._count += len(rows)
        self._writer.write_table(rows.combine_chunks())

    def close(self) -> None:
        """End the writing."""
        if self._writer is not None:
            self._writer.close()

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows as they were appended."""
        if self._writer is not None:
            yield from _tables(self._path, columns)


class SortedRows:
    """Rows sorted by uid: they are sorted in runs that fit into memory, and the runs are merged.

    Args:
        tables: the rows, in any order.
        path: file for the runs.
    """

    def __init__(self, tables: Iterable[pa.Table], path: Path) -> None:
        self._path = path
        self._firsts: list[list[str]] = []
        """First uid of each batch, by run."""
        self._begins: list[int] = []
        """Number of the first batch of each run."""
        batches, waiting, nbytes = 0, list[pa.Table](), 0
        writer: pa.RecordBatchFileWriter | None = None
        for table in _ended(tables):
            if table is not None and len(table):
                waiting.append(table)
                nbytes += table.nbytes
            if waiting and (table is None or nbytes >= _RUN_BYTES):
                run = pa.concat_tables(waiting)
                run = run.take(pc.sort_indices(run["uid"])).combine_chunks()
                if writer is None:
                    writer = pa.ipc.new_file(str(path), run.schema, options=_OPTIONS)
                pieces = run.to_batches(max_chunksize=_BATCH)
                for piece in pieces:
                    writer.write_batch(piece)
                self._begins.append(batches)
                self._firsts.append([piece["uid"][0].as_py() for piece in pieces])
                batches, waiting, nbytes = batches + len(pieces), [], 0
        if writer is not None:
            writer.close()

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows, sorted."""
        firsts = sorted(uid for run in self._firsts for uid in run)
        if not firsts:
            return
        # as many batches begin between two bounds as a run has
        step = max(1, len(firsts) // len(self._firsts))
        bounds = ["", *dict.fromkeys(firsts[step::step])]
        with pa.OSFile(str(self._path)) as source:
            file = pa.ipc.open_file(source)
            for low, high in zip(bounds, [*bounds[1:], None], strict=True):
                found = []
                for begin, uids in zip(self._begins, self._firsts, strict=True):
                    first = max(0, bisect_right(uids, low) - 1)
                    last = len(uids) if high is None else bisect_left(uids, high)
                    for k in range(begin + first, begin + last):
                        batch = file.get_batch(k)
                        inside = pc.greater_equal(batch["uid"], low)
                        if high is not None:
                            inside = pc.and_(inside, pc.less(batch["uid"], high))
                        found.append(batch.filter(inside))
                rows = pa.Table.from_batches(found, schema=file.schema)
                yield rows.take(pc.sort_indices(rows["uid"]))


def _ended(tables: Iterable[pa.Table]) -> Iterator[pa.Table | None]:
    yield from tables
    yield None


def _tables(path: Path, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    with pa.OSFile(str(path)) as source:
        file = pa.ipc.open_file(source)
        for k in range(file.num_record_batches):
            table = pa.Table.from_batches([file.get_batch(k)])
            yield table if columns is None else table.select(list(columns))
