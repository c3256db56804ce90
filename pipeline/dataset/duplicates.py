"""Groups of objects that are the same: by the files that were read, and by what their views look like."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gaussianverse.pipeline.dataset.near import Pairs, pairs_within

KEPT, EXACT, NEAR = "kept", "exact", "near"
"""Kinds of rows: the object that stays, one of the same files, one whose view hash is near to it."""
COLUMNS = ("uid", "input_sha256", "view_hash", "atlas_heldout_psnr", "atlas_psnr")
"""Columns of metadata.parquet that groups are made of; `view_hash` and `atlas_heldout_psnr` may be missing."""
SCHEMA = pa.schema(
    [
        ("uid", pa.string()), ("group", pa.int64()), ("kind", pa.string()), ("drop", pa.bool_()),
        ("kept", pa.string()), ("distance", pa.int64()), ("psnr", pa.float64()),
    ]
)  # fmt: skip
"""Columns of the list; `drop` is what `--remove` and `--drop` take."""

Rows = NDArray[np.int64]


def duplicates(objects: pa.Table, distance: int) -> pa.Table:
    """List the groups of objects that are the same.

    The better object, by `atlas_heldout_psnr`, then `atlas_psnr`, then uid, takes all objects that have the same
    `input_sha256`, and then those not yet taken whose `view_hash` differs from its own in at most `distance` bits. So
    everything that is dropped is near to what is kept, and no chain of similar objects becomes a group.

    Args:
        objects: the columns `COLUMNS` of objects that have an atlas.
        distance: bits, 0 to `near.MOST`.

    Returns:
        Rows of `SCHEMA`, by group, the kept object first, then by uid; groups are numbered by the uid of the kept.
        `distance` is -1 where one of both has no hash.

    Raises:
        PipelineError: see `pairs_within`.
    """
    for name, unknown in (("view_hash", ""), ("atlas_heldout_psnr", -1.0)):
        if name not in objects.column_names:
            objects = objects.append_column(name, pa.array([unknown] * len(objects)))
    best = [("atlas_heldout_psnr", "descending"), ("atlas_psnr", "descending"), ("uid", "ascending")]
    objects = objects.take(pc.sort_indices(objects, best))
    same = _first_of_equals(objects["input_sha256"])
    hashes = np.array([int(text, 16) if text else 0 for text in objects["view_hash"].to_pylist()], np.uint64)
    hashed = np.asarray(pc.not_equal(objects["view_hash"], ""))
    kept = _leaders(same, hashes, hashed, distance)
    members = np.bincount(kept, minlength=len(kept)) > 1
    return _table(objects, kept, same, hashes, hashed, np.flatnonzero(members[kept]))


def _first_of_equals(column: pa.ChunkedArray) -> Rows:
    """For each row the first row with the same text; itself where it is empty."""
    codes = np.asarray(pc.dictionary_encode(column).combine_chunks().indices)
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    same: Rows = np.where(np.asarray(pc.equal(column, "")), np.arange(len(codes)), first[inverse])
    return same


def _leaders(same: Rows, hashes: NDArray[np.uint64], hashed: NDArray[np.bool_], distance: int) -> Rows:
    """For each row, the best first, the row that is kept in its place."""
    alone = np.flatnonzero((same == np.arange(len(same))) & hashed)
    _, first, inverse = np.unique(hashes[alone], return_index=True, return_inverse=True)
    by_rank = np.argsort(first)  # each hash stands for the best row that has it
    rank = np.empty(len(by_rank), np.int64)
    rank[by_rank] = np.arange(len(by_rank))
    rows = alone[first[by_rank]]
    taken = _taken(pairs_within(hashes[rows], distance), len(rows))
    leader = np.arange(len(same))
    leader[alone] = rows[taken[rank[inverse]]]
    kept: Rows = leader[same]
    return kept


def _taken(pairs: Pairs, count: int) -> Rows:
    """For each of `count` items, the best first, the one that takes it; pairs are sorted, the better one first."""
    by = np.arange(count)
    better, starts = np.unique(pairs[:, 0], return_index=True)
    for one, start, stop in zip(better, starts, [*starts, len(pairs)][1:], strict=True):
        if by[one] == one:
            others = pairs[start:stop, 1]
            by[others[by[others] == others]] = one
    return by


def _table(
    objects: pa.Table, kept: Rows, same: Rows, hashes: NDArray[np.uint64], hashed: NDArray[np.bool_], rows: Rows
) -> pa.Table:
    """The list of these rows."""
    leaders = kept[rows]
    uids = objects["uid"].combine_chunks()
    names, kept_names = uids.take(pa.array(rows)), uids.take(pa.array(leaders))
    numbers = pc.rank(kept_names, tiebreaker="dense")
    drop = rows != leaders
    kind = np.where(~drop, KEPT, np.where(same[rows] == same[leaders], EXACT, NEAR))
    known = hashed[rows] & hashed[leaders]
    distance = np.where(known, np.bitwise_count(hashes[rows] ^ hashes[leaders]).astype(np.int64), -1)
    psnr = objects["atlas_heldout_psnr"].combine_chunks().take(pa.array(rows))
    columns = [
        names, pc.subtract(numbers.cast(pa.int64()), 1), pa.array(kind.tolist(), pa.string()), pa.array(drop),
        kept_names, pa.array(distance), psnr,
    ]  # fmt: skip
    table = pa.table(columns, schema=SCHEMA)
    order = [("group", "ascending"), ("drop", "ascending"), ("uid", "ascending")]
    return table.take(pc.sort_indices(table, order))
