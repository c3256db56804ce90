"""Reads a manifest of any form in parts of some thousand rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gaussianverse import foreign
from gaussianverse.manifests import jsonl, parquet, runform
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.row_groups import RowGroups
from gaussianverse.manifests.schema import arrow_schema, completed, extras_of
from gaussianverse.manifests.table import Entry

_ROWS = 1 << 15
MAX_LINE = 64 << 20
"""Bytes of a line of JSON Lines."""
_SHOWN = 20


@dataclass(frozen=True)
class Part:
    """Some rows of a manifest.

    Attributes:
        lines: their lines.
        table: as a table, if they have the types of one; a null is a value that is not there.
        entries: the same as entries.
        kept: rows of a run form that have a fault already, which are not among the others.
    """

    lines: NDArray[np.int64]
    table: pa.Table | None
    entries: Callable[[], Iterable[Entry]]
    kept: pa.Table | None = None


@dataclass(frozen=True)
class Parts:
    """A manifest.

    Attributes:
        rows: its rows.
        shard_size: objects per shard that the run form has; 0 for the other forms.
    """

    rows: Iterator[Part]
    shard_size: int = 0


@contextmanager
def parts_of(path: Path) -> Iterator[Parts]:
    """Open a manifest.

    Raises:
        ManifestError: it cannot be read; also while it is read.
    """
    try:
        with foreign.opened(path) as file:
            if path.suffix != ".parquet":
                yield Parts(_of_lines(file))
                return
            try:
                groups = RowGroups(file)
                if runform.says_run_form(groups.schema):
                    yield _of_run_form(groups, path.name)
                else:
                    yield Parts(_of_parquet(groups))
            except parquet.UNREADABLE as error:
                text = " ".join(str(error).split())
                raise ManifestError(f"{path.name}: cannot be read as Parquet: {text}") from error
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error


def _of_lines(file: IO[bytes]) -> Iterator[Part]:
    lines, found, number = list[int](), list[Entry](), 0
    while raw := file.readline(MAX_LINE + 1):
        number += 1
        if len(raw) > MAX_LINE:
            raise ManifestError(f"line {number} has more than {MAX_LINE >> 20} MiB; JSON Lines has one object a line")
        if not raw.strip():
            continue
        lines.append(number)
        found.append((number, jsonl.entry(raw.removesuffix(b"\n"))))
        if len(lines) == _ROWS:
            yield _of_entries(lines, found)
            lines, found = [], []
    if lines:
        yield _of_entries(lines, found)


def _of_entries(lines: list[int], entries: list[Entry]) -> Part:
    return Part(np.array(lines, np.int64), _table_of([entry for _, entry in entries]), lambda: entries)


def _table_of(records: list[Any]) -> pa.Table | None:
    """Objects of JSON as a table; None where they are none, or have nulls or several types in a column."""
    if any(isinstance(record, ManifestError) or None in record.values() for record in records):
        return None
    names = dict.fromkeys(name for record in records for name in record)
    try:
        return pa.table({name: pa.array([record.get(name) for record in records]) for name in names})
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return None


def _of_parquet(groups: RowGroups) -> Iterator[Part]:
    names, done = parquet.columns_of(groups.schema), 0
    for table in groups.tables(_ROWS, names):
        lines = np.arange(done + 1, done + 1 + len(table))
        yield Part(lines, table, partial(_entries_of, table, lines, parquet.entry))
        done += len(table)


def _entries_of(
    table: pa.Table, lines: NDArray[np.int64], entry: Callable[[dict[str, Any]], dict[str, Any]]
) -> Iterator[Entry]:
    for number, values in zip(lines.tolist(), table.to_pylist(), strict=True):
        yield number, entry(values)


def _of_run_form(groups: RowGroups, name: str) -> Parts:
    """A run form, whose order and shards must be what they claim."""
    sizes = list(groups.sizes())
    if not sizes:
        raise ManifestError(f"{name}: the manifest is empty; there is nothing to build")
    kinds = extras_of(groups.schema)
    if kinds is None:
        raise ManifestError(f"{name}: damaged, or no manifest in run form: its columns are others")
    wrong = []
    if len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0] or 0 in sizes:
        wrong.append("its shards are not of one size")
    return Parts(_of_shards(groups, kinds, name, wrong), sizes[0])


def _of_shards(groups: RowGroups, kinds: dict[str, str], name: str, wrong: list[str]) -> Iterator[Part]:
    last, done, counts = "", 0, True
    for table in groups.tables(_ROWS):
        uid = table["uid"].combine_chunks()
        before = pa.concat_arrays([pa.array([last]), uid[:-1]])
        for k in np.flatnonzero(pc.greater_equal(before, uid))[: _SHOWN - len(wrong)].tolist():
            wrong.append(f"rows {before[k].as_py()!r} and {uid[k].as_py()!r} are not sorted by uid")
        counts = counts and bool((table["index"].to_numpy() == np.arange(done, done + len(table))).all())
        lines = np.arange(done + 1, done + 1 + len(table))
        last, done = uid[-1].as_py(), done + len(table)
        lost = pc.not_equal(table["fault"], "") if "fault" in table.column_names else None
        kept = None
        if lost is not None and pc.any(lost).as_py():
            kept = _whole(table.filter(lost), kinds)
            lines = lines[~np.asarray(lost)]
            table = table.filter(pc.invert(lost))
        if not wrong:
            yield Part(lines, table, partial(_entries_of, table, lines, _authored), kept)
    if not counts:
        wrong.append("its column 'index' does not count the rows")
    if wrong:
        raise ManifestError(f"{name}: {message}; make it again with 'manifest shard'" for message in wrong)


def _whole(table: pa.Table, kinds: dict[str, str]) -> pa.Table:
    """Rows with all columns of the run form but the index."""
    schema = pa.schema(list(arrow_schema(kinds))[1:])
    rows = [runform.flat(completed(runform.row_of(values))) for values in table.to_pylist()]
    return pa.Table.from_pylist(rows, schema=schema)


def _authored(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a row of the run form that its author gave."""
    return runform.flat(completed(runform.row_of(values)), authored=True)
