"""Manifests in run form: one Parquet file, sorted by uid, whose row group k is shard k.

A job reads its shard with the footer and one range request. Equal rows give equal bytes.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from gaussianverse import foreign
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.files import write_whole
from gaussianverse.manifests.parquet import UNREADABLE
from gaussianverse.manifests.row_groups import GroupWriter, RowGroups
from gaussianverse.manifests.schema import (
    FIELDS,
    LISTS,
    RESERVED,
    TEXTS,
    IndexedRow,
    Row,
    arrow_schema,
    completed,
    extras_of,
    faults_of,
)
from gaussianverse.manifests.table import kinds_of

SHARD_SIZE = 256

Source = str | Path | bytes | IO[bytes]


def encode(rows: Sequence[Row], *, shard_size: int = SHARD_SIZE) -> bytes:
    """Encode rows, in any order, as the bytes of objects.parquet.

    Raises:
        ManifestError: there are no rows, rows have faults, or two have the same uid.
        ValueError: `shard_size` < 1.
    """
    if shard_size < 1:
        raise ValueError(f"shard_size = {shard_size}: expected at least 1")
    if not rows:
        raise ManifestError("the manifest is empty; there is nothing to build")
    ordered = sorted((completed(row) for row in rows), key=lambda row: row.uid)
    kinds = kinds_of(ordered)
    faults = [f"{row.uid}: {fault}" for row in ordered for fault in _faults_of(row, kinds)]
    faults += [f"duplicate uid {a.uid!r}" for a, b in pairwise(ordered) if a.uid == b.uid]
    if faults:
        raise ManifestError(faults)
    schema = arrow_schema(kinds)
    records = [{**flat(row), "index": index} for index, row in enumerate(ordered)]
    groups = (records[start : start + shard_size] for start in range(0, len(records), shard_size))
    return _written(schema, (pa.Table.from_pylist(group, schema=schema) for group in groups))


def encode_table(rows: pa.Table, *, shard_size: int = SHARD_SIZE) -> bytes:
    """Encode checked rows of a schema of `arrow_schema`, sorted by uid, as `encode` does; there may be none."""
    groups = (rows[start : start + shard_size] for start in range(0, len(rows), shard_size))
    return _written(rows.schema, (group.combine_chunks() for group in groups))


def _written(schema: pa.Schema, groups: Iterable[pa.Table]) -> bytes:
    out = io.BytesIO()
    writer = writer_to(out, schema)
    for group in groups:
        writer.add(group)
    writer.finish()
    return out.getvalue()


def writer_to(out: IO[bytes], schema: pa.Schema) -> GroupWriter:
    """A writer of objects.parquet to an empty file, a shard at a time."""
    return GroupWriter(
        out,
        schema,
        version="2.6",
        compression="zstd",
        compression_level=9,
        use_dictionary=["format", "category", "license", "caption_source"],
        write_statistics=["index", "uid"],  # the footer is read by every job
    )


def _faults_of(row: Row, kinds: Mapping[str, str]) -> list[str]:
    faults = faults_of(replace(row, views="none") if row.fault else row)
    return faults + [f"no {name!r}, which other rows have" for name in kinds if name not in row.extras]


def flat(row: Row, *, authored: bool = False) -> dict[str, Any]:
    """A row as one flat dict, the columns of the author last; with `authored` only what an author writes."""
    own = {name: getattr(row, name) for name in FIELDS}
    own |= {name: list(own[name]) for name in LISTS}
    if authored:
        return {**own, **row.extras}
    index = {"index": row.index} if isinstance(row, IndexedRow) else {}
    return {**index, **own, "fault": row.fault, **row.extras}


def row_of(values: Mapping[str, Any]) -> Row:
    """The row whose `flat` form has these values; others, such as its shard, are left out."""
    own: dict[str, Any] = {name: values[name] for name in (*TEXTS, "fault") if name in values}
    own |= {name: tuple(values[name]) for name in LISTS if name in values}
    own["extras"] = {name: value for name, value in values.items() if name not in (*FIELDS, *RESERVED)}
    return Row(**own)


def write(path: Path, rows: Sequence[Row], *, shard_size: int = SHARD_SIZE) -> int:
    """Write objects.parquet atomically; returns the number of shards.

    Raises:
        ManifestError: as `encode` raises.
        OSError: the folder cannot be written.
    """
    write_whole(path, encode(rows, shard_size=shard_size))
    return -(-len(rows) // shard_size)


@dataclass(frozen=True)
class Extent:
    """Size of a manifest in run form.

    Attributes:
        objects: number of its rows.
        shards: number of its shards.
        shard_size: number of rows of its first shard; 0 if there is none.
        kinds: {column of its author: its kind}.
    """

    objects: int
    shards: int
    shard_size: int
    kinds: dict[str, str]


def extent_of(source: Source) -> Extent:
    """Size of a manifest, from its footer. Raises ManifestError."""
    with opened(source) as file:
        size = file.rows_of(0) if len(file) else 0
        return Extent(file.rows, len(file), size, extras_of(file.schema) or {})


def read_shard(source: Source, shard: int) -> list[IndexedRow]:
    """Read the rows of one shard, in uid order.

    Args:
        source: bytes, a path, or an open, seekable file.
        shard: number of the shard, from 0.

    Raises:
        ManifestError: `source` is not a manifest in run form, or has no such shard.
    """
    with opened(source) as file:
        return rows_of(file, shard, _name(source))


def rows_of(file: RowGroups, shard: int, name: str) -> list[IndexedRow]:
    """`read_shard` of an open manifest of this name."""
    if not 0 <= shard < len(file):
        raise ManifestError(f"{name}: no shard {shard}; it has 0 to {len(file) - 1}")
    records = file.read(shard, shard + 1).to_pylist()
    # those of the first edition lack lists of captions
    return [IndexedRow(**vars(completed(row_of(record))), index=record["index"]) for record in records]


def is_run_form(data: bytes) -> bool:
    """Whether a file says that it is a manifest in run form."""
    try:
        return says_run_form(RowGroups(io.BytesIO(data)).schema)
    except UNREADABLE:
        return False


def says_run_form(schema: pa.Schema) -> bool:
    """Whether a file of these columns says that it is a manifest in run form."""
    return b"gaussianverse.manifest" in (schema.metadata or {})


@contextmanager
def opened(source: Source) -> Iterator[RowGroups]:
    """Open a manifest in run form, whose row group k is shard k. Raises ManifestError."""
    with ExitStack() as stack:
        try:
            if isinstance(source, bytes):
                source = io.BytesIO(source)
            elif isinstance(source, str | Path):
                source = stack.enter_context(foreign.opened(source))
            file = RowGroups(source)
        except UNREADABLE as error:
            raise ManifestError(f"{_name(source)}: cannot be read as Parquet: {error}") from error
        if extras_of(file.schema) is None:
            raise ManifestError(f"{_name(source)}: not a manifest in run form; make it with 'manifest shard'")
        yield file


def _name(source: Source) -> str:
    return str(source) if isinstance(source, str | Path) else str(getattr(source, "name", "manifest"))
