"""diff: says what changed between two versions of a dataset, by object and column."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import ADDRESS, FAMILIES, address_column
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.escape import one_line
from gaussianverse.manifests.parquet import UNREADABLE
from gaussianverse.pipeline.arguments import add_overrides, config_of
from gaussianverse.pipeline.dataset.versions import Version, finished_versions, open_version
from gaussianverse.pipeline.errors import PipelineError, UsageError, message
from gaussianverse.terminal import columns, folded

_PLACES = {"index", "shard", *(address_column(family, name) for family in FAMILIES for name in ADDRESS)}
"""Columns of where a sample lies, which differ whenever it was taken over."""
_MOST_TEXT = 80


@dataclass(frozen=True)
class Changed:
    """An object in both versions, and its columns that differ, each with its values before and after."""

    uid: str
    columns: dict[str, tuple[Any, Any]]


@dataclass
class Diff:
    """Differences of two versions.

    Attributes:
        added, removed: uids of objects that only the later or only the earlier one has.
        columns: {column: number of objects in which it differs}; of a column that one of them lacks, all in both.
        changed: number of objects in both of which a column differs.
        first: the first of these.
    """

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    columns: dict[str, int] = field(default_factory=dict)
    changed: int = 0
    first: list[Changed] = field(default_factory=list)


def diff(storage: Storage, earlier: Version, later: Version, *, most: int = 20) -> Diff:
    """Compare the metadata of two versions, which has their quarantined objects too.

    Columns are read one at a time. Where a sample lies is no difference.

    Args:
        storage: store of the output.
        earlier: a finished version.
        later: another.
        most: number of changed objects whose values are kept.

    Raises:
        NotFound, PipelineError: a table is missing or damaged.
    """
    one, other = _Table(storage, earlier), _Table(storage, later)
    uids = one.column("uid"), other.column("uid")
    place = pc.index_in(uids[1], value_set=uids[0].combine_chunks()).fill_null(-1)
    places = np.asarray(place.to_numpy(), np.int64)
    both = places >= 0
    gone = np.ones(len(uids[0]), np.bool_)
    gone[places[both]] = False
    found = Diff(
        added=uids[1].filter(pa.array(~both)).to_pylist(), removed=uids[0].filter(pa.array(gone)).to_pylist()
    )
    masks: dict[str, NDArray[np.bool_]] = {}
    for name in dict.fromkeys([*other.names, *one.names]):
        if name not in _PLACES:
            mask = _unequal(one, other, name, places[both], both)
            if mask.any():
                masks[name] = mask
                found.columns[name] = int(mask.sum())
    if masks:
        rows = np.flatnonzero(np.any(list(masks.values()), axis=0))
        found.changed = len(rows)
        found.first = list(_values(one, other, masks, rows[:most], places[both], np.flatnonzero(both)))
    return found


class _Table:
    """The metadata of a version, of which a column is read when it is asked for."""

    def __init__(self, storage: Storage, version: Version) -> None:
        key = version.key(dataset_format.METADATA)
        self._where, self._data = f"{storage.url}/{key}", storage.get(key)
        try:
            with pq.ParquetFile(io.BytesIO(self._data)) as file:
                self.names: list[str] = file.schema_arrow.names
        except UNREADABLE as error:
            raise PipelineError(f"{self._where}: not a readable Parquet file: {message(error)}") from error

    def column(self, name: str) -> pa.ChunkedArray:
        try:
            with pq.ParquetFile(io.BytesIO(self._data)) as file:
                return file.read(columns=[name], use_threads=False)[name]
        except (KeyError, *UNREADABLE) as error:
            raise PipelineError(f"{self._where}: column {name}: {message(error)}") from error


def _unequal(
    one: _Table, other: _Table, name: str, places: NDArray[np.int64], both: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Of the objects in both, in the order of the later version: those whose values differ."""
    if name not in one.names or name not in other.names:
        return np.ones(len(places), np.bool_)
    before, after = one.column(name).take(pa.array(places)), other.column(name).filter(pa.array(both))
    if before.type != after.type:
        return np.ones(len(places), np.bool_)
    if not pa.types.is_list(before.type):
        return _truths(pc.not_equal(before, after))
    lengths = [pc.list_value_length(column) for column in (before, after)]  # of none, and of one empty text
    texts = [pc.binary_join(column, "\x1f") for column in (before, after)]
    return _truths(pc.or_(pc.not_equal(*lengths), pc.not_equal(*texts)))


def _truths(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(column.combine_chunks().to_numpy(zero_copy_only=False), np.bool_)


def _values(
    one: _Table, other: _Table, masks: dict[str, NDArray[np.bool_]], rows: NDArray[np.int64],
    places: NDArray[np.int64], there: NDArray[np.int64],
) -> Iterator[Changed]:  # fmt: skip
    uids = other.column("uid").take(pa.array(there[rows])).to_pylist()
    columns: list[dict[str, tuple[Any, Any]]] = [{} for _ in uids]
    for name, mask in masks.items():
        before, after = _taken(one, name, places[rows]), _taken(other, name, there[rows])
        for k, row in enumerate(rows):
            if mask[row]:
                columns[k][name] = (before[k], after[k])
    yield from (Changed(uid, found) for uid, found in zip(uids, columns, strict=True))


def _taken(table: _Table, name: str, rows: NDArray[np.int64]) -> list[Any]:
    if name not in table.names:
        return [None] * len(rows)
    values: list[Any] = table.column(name).take(pa.array(rows)).to_pylist()
    return values


def lines(found: Diff, most: int) -> Iterator[str]:
    """The differences for people."""
    yield f"{len(found.added)} added, {len(found.removed)} removed, {found.changed} changed"
    if found.columns:
        yield f"columns: {', '.join(f'{name} in {count}' for name, count in found.columns.items())}"
    for name, uids in (("added", found.added), ("removed", found.removed)):
        yield from (f"  {name:8} {uid}" for uid in uids[:most])
        if len(uids) > most:
            yield f"  {name:8} and {len(uids) - most} more"
    for changed in found.first:
        values = "; ".join(f"{name}: {_text(a)} -> {_text(b)}" for name, (a, b) in changed.columns.items())
        yield f"  changed  {changed.uid}: {values}"
    if found.changed > len(found.first):
        yield f"  changed  and {found.changed - len(found.first)} more"


def _text(value: Any) -> str:
    text = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return one_line(text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 2]}..")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse diff`."""
    parser.add_argument("out", help="folder or s3://bucket/prefix of the dataset")
    parser.add_argument("--from", type=int, dest="earlier", metavar="N", help="version; default: the parent of --to")
    parser.add_argument("--to", type=int, dest="later", metavar="N", help="version; default: the newest")
    parser.add_argument("--most", type=int, default=20, metavar="N", help="objects to name; default: 20")
    add_overrides(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, with the uids of all added and removed")


def run(args: argparse.Namespace) -> int:
    """Print the differences; returns the exit code."""
    from gaussianverse.atlas.store import open_storage

    storage = open_storage(args.out, config_of(args).store)
    later = open_version(storage, args.later)
    if args.earlier is None and not later.parent:
        raise UsageError(f"version {later.number} is the first, and has no parent to compare with; name two versions")
    earlier = open_version(storage, later.parent if args.earlier is None else args.earlier)
    finished = finished_versions(storage)
    for version in (earlier, later):
        if version.number not in finished:
            raise UsageError(f"version {version.number} is not finished; finished: {', '.join(map(str, finished))}")
    found = diff(storage, earlier, later, most=max(0, args.most))
    if args.json:
        first = [{"uid": c.uid, "columns": {n: list(v) for n, v in c.columns.items()}} for c in found.first]
        about = {"from": earlier.number, "to": later.number, "changed": found.changed, "columns": found.columns}
        print(json.dumps({**about, "added": found.added, "removed": found.removed, "first": first}))
        return 0
    text = "\n".join(lines(found, max(0, args.most)))
    print(folded(f"version {earlier.number} to {later.number}: {text}", columns()))
    return 0
