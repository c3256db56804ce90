"""`Table`: metadata.parquet, of which columns are read when they are asked for.

As a whole a table of a million rows takes seconds and gigabytes to read, and few of its columns say what lies where.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

Rows = npt.NDArray[np.int64]
_reading = threading.Lock()
"""Held while columns are read, by one of the threads that fetch samples."""
_expected: weakref.WeakSet[Table] = weakref.WeakSet()
"""Tables of which columns are expected to be asked for."""


class Table:
    """Rows of a Parquet file in memory.

    Attributes:
        column_names: names of the columns, in their order.
    """

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data
        with self._file() as file:
            self.column_names: list[str] = file.schema_arrow.names
            self._length = int(file.metadata.num_rows)
        self._rows: Rows | None = None
        self._arrays: dict[str, pa.Array] = {}
        self._columns: dict[str, Any] = {}
        self._later: list[str] = []

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        """A column as Arrow has it."""
        self.columns([name])
        return pa.chunked_array([self._arrays[name]])

    def column(self, name: str) -> Any:
        """A column: numbers as NumPy, which returns a value ten times as fast as Arrow; others as an Arrow array,
        which is compact."""
        return self.columns([name])[name]

    def columns(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """These columns, or all in their order."""
        chosen = self.column_names if names is None else names
        if self._data is not None and not all(name in self._columns for name in chosen):
            with _reading:
                self._read(chosen)
        return self._columns if names is None else {name: self._columns[name] for name in names}

    def expect(self, names: Sequence[str] | None = None) -> None:
        """Read these columns, or all, before this process is forked: its children then share their memory."""
        self._later = list(self.column_names if names is None else names)
        _expected.add(self)

    def keep(self, rows: Rows) -> None:
        """Keep these rows, in this order."""
        self._length, self._rows = len(rows), rows if self._rows is None else self._rows[rows]
        for name, array in self._arrays.items():
            self._set(name, array.take(pa.array(rows)))

    def _read(self, names: Iterable[str]) -> None:
        missing = [name for name in names if name not in self._columns]
        if not missing:
            return
        with self._file() as file:
            for name in missing:
                # not pq.read_table, whose threads may outlive the interpreter and then abort the process
                whole = file.read(columns=[name], use_threads=False)[name].combine_chunks()
                self._set(name, whole if self._rows is None else whole.take(pa.array(self._rows)))
        if len(self._columns) == len(self.column_names):
            self._columns = {name: self._columns[name] for name in self.column_names}
            self._data = None

    def _set(self, name: str, array: pa.Array) -> None:
        is_number = pa.types.is_integer(array.type) or pa.types.is_floating(array.type)
        self._arrays[name] = array
        self._columns[name] = array.to_numpy(zero_copy_only=False) if is_number else array

    def _file(self) -> pq.ParquetFile:
        return pq.ParquetFile(pa.BufferReader(self._data))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._later:
            _expected.add(self)


def _before_fork() -> None:
    _reading.acquire()
    for table in list(_expected):
        table._read(table._later)
    _expected.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_reading.release, after_in_child=_reading.release)
