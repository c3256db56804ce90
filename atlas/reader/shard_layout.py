"""`Layout`: where the samples of a family lie in its shards, checked against index.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import INDEX, METADATA, SUPERSEDED, address_column
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.table import Rows, Table
from gaussianverse.atlas.tar import END, header_nbytes


class Layout(NamedTuple):
    """Key and size of each shard of a family, and the first and last byte of each sample that counts, [N]."""

    files: dict[int, tuple[str, int]]
    starts: Rows
    ends: Rows


class _Places(NamedTuple):
    """Places of samples: shard, number in it, first byte and length of the main member, length of its header."""

    shards: Rows
    numbers: Rows
    offsets: Rows
    nbytes: Rows
    headers: Rows


def checked_layout(url: str, index: Mapping[str, Any], family: str, live: Table, lost: Table | None) -> Layout:
    """The layout of a family whose main member comes first in each sample.

    The tables give the address of that member; together they must cover every shard of the index to its end.

    Args:
        url: of the dataset, for errors.
        index: the content of index.json.
        family: of the shards.
        live: rows of the samples that count, in the order of the shards.
        lost: rows of the same shards that do not count any more; None = there are none.

    Raises:
        DatasetError: index and tables do not agree.
    """
    entries = {int(entry["shard"]): entry[family] for entry in index["shards"]}
    places = _places(live, family)
    _check_counts(url, entries, "samples" if lost is None else "live", places.shards, METADATA)
    if index["samples"] != len(live):
        raise DatasetError(f"{url}: {METADATA} has samples that {INDEX} does not count")
    order = np.arange(len(live))
    if lost is not None:
        places = _Places(*map(np.concatenate, zip(places, _places(lost, family), strict=True)))
        order = np.lexsort((places.numbers, places.shards))
        # rows that were quarantined have no sample; of those that count all have one
        order = order[(order < len(live)) | (places.numbers[order] >= 0)]
        places = _Places(*(column[order] for column in places))
        _check_counts(url, entries, "samples", places.shards, f"{METADATA} and {SUPERSEDED}")
    shards, numbers, offsets, nbytes, headers = places
    first = np.append(True, shards[1:] != shards[:-1])[: len(shards)]
    last = np.append(first[1:], True)[: len(shards)]
    known = sorted(entries)
    totals = np.array([int(entries[k]["nbytes"]) for k in known], np.int64)[np.searchsorted(known, shards)]
    starts = offsets - headers
    ends = np.where(last, totals - len(END), np.roll(starts, -1))
    counted = np.arange(len(shards))
    wrong = (starts != np.where(first, 0, starts)) | (offsets + nbytes > ends)
    wrong |= numbers != counted - np.maximum.accumulate(np.where(first, counted, 0))
    if wrong.any():
        row = int(order[wrong.argmax()])
        of, place = (live, row) if lost is None or row < len(live) else (lost, row - len(live))
        raise DatasetError(f"{url}: {METADATA} and {INDEX} do not agree on where {of.column('uid')[place]} lies")
    files = {k: (str(entry["key"]), int(entry["nbytes"])) for k, entry in entries.items()}
    return Layout(files, starts[order < len(live)], ends[order < len(live)])


def _places(table: Table, family: str) -> _Places:
    lengths, which = np.unique(np.asarray(pc.utf8_length(table.column("uid"))), return_inverse=True)
    suffix = len(dataset_format.main_member(family, ""))
    headers = np.array([header_nbytes(int(length) + suffix) for length in lengths], np.int64)
    number, offset, nbytes = (table.column(address_column(family, name)) for name in ("sample", "offset", "nbytes"))
    return _Places(table.column("shard"), number, offset, nbytes, headers[which])


def _check_counts(url: str, entries: Mapping[int, Mapping[str, Any]], name: str, shards: Rows, file: str) -> None:
    """Raise DatasetError unless a file has as many samples of each shard as index.json says."""
    counts = dict(zip(*(c.tolist() for c in np.unique(shards, return_counts=True)), strict=True))
    for number, entry in entries.items():
        listed, found = entry[name], counts.pop(number, 0)
        if listed != found:
            raise DatasetError(f"{url}: {entry['key']} has {listed} samples in {INDEX} and {found} in {file}")
    if counts:
        raise DatasetError(f"{url}: {file} has samples that {INDEX} does not count")
