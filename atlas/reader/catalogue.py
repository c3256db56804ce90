"""`Catalogue`: the samples of a published dataset, from index.json and metadata.parquet, checked by their sums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.arrays import read_npy
from gaussianverse.atlas.dataset_format import (
    ATLAS,
    INDEX,
    METADATA,
    OK,
    SUMS,
    SUPERSEDED,
    VIEWS,
    address_column,
    version_key,
)
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.selecting import Filters, check_columns, filtered, in_split
from gaussianverse.atlas.reader.shard_layout import checked_layout
from gaussianverse.atlas.reader.table import Rows, Table
from gaussianverse.atlas.reader.versions import verified_sums
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Entry, Readable, Storage


@dataclass(frozen=True)
class ByteRange:
    """`nbytes` bytes from `offset` of the shard `key`, which is `total` bytes long."""

    key: str
    offset: int
    nbytes: int
    total: int


class Catalogue:
    """The samples of a version of a dataset, in the order in which they lie in its shards.

    Args:
        store: of the dataset.
        version: number of the version; None = the newest.

    Attributes:
        version: number of the version.
        index: what its index.json holds.
        digest: hex sha256 of its index.json, which names the version.
        size: side of an atlas.
        n_views: reference views of each object; 0 if the dataset has none.
        stretches: number of the stretch of each sample, [N]: samples of one lie side by side in a shard.

    Raises:
        DatasetError: the dataset is not finished, has no such version, is of an unknown schema version, or its
            index, table and sums disagree.
        StoreError: the store failed or refuses.
    """

    def __init__(self, store: Storage, version: int | None = None) -> None:
        self.url = store.url
        self.version, sums = verified_sums(store, version)
        index = self._read_verified(store, INDEX, sums)
        self.digest = hashlib.sha256(index).hexdigest()
        self.index: dict[str, Any] = json.loads(index)
        if error := dataset_format.version_error(self.index.get("schema_version")):
            raise DatasetError(f"{self.url}: {error}")
        self.size = int(self.index["size"])
        self.n_views = int(self.index.get("views", 0))
        self._table, self._quarantined = _samples_of(Table(self._read_verified(store, METADATA, sums)))
        lost = Table(self._read_verified(store, SUPERSEDED, sums)) if self.version > 1 else None
        families = [ATLAS, VIEWS] if self.n_views else [ATLAS]
        self._layouts = {f: checked_layout(self.url, self.index, f, self._table, lost) for f in families}
        breaks = self.shards[1:] != self.shards[:-1]
        for layout in self._layouts.values():
            breaks |= layout.starts[1:] != layout.ends[:-1]
        self.stretches: Rows = np.append(0, np.cumsum(breaks))[: len(self)]

    def __len__(self) -> int:
        return len(self._table)

    @property
    def shards(self) -> Rows:
        """The shard of each sample, [N], ascending."""
        return np.asarray(self._table.column("shard"))

    def uids(self, rows: Iterable[int]) -> list[str]:
        """The uids of these samples."""
        column = self._table.column("uid")
        return [column[int(row)].as_py() for row in rows]

    def row(self, sample: int, names: Sequence[str] | None = None) -> dict[str, Any]:
        """A sample's row of metadata.parquet: all columns, or these."""
        return {
            name: column.item(sample) if isinstance(column, np.ndarray) else column[sample].as_py()
            for name, column in self._table.columns(names).items()
        }

    def has_column(self, name: str) -> bool:
        """Whether metadata.parquet has this column."""
        return name in self._table.column_names

    def check_columns(self, names: Iterable[str]) -> None:
        """Raise DatasetError for names that are no column of metadata.parquet."""
        check_columns(self._table, names, self._file)

    def find(self, uid: str) -> int:
        """The sample with this uid.

        Raises:
            DatasetError: there is none; the message gives the reason if the object was quarantined.
        """
        if uid in self._by_uid:
            return self._by_uid[uid]
        why = f"it was quarantined: {self._quarantined[uid]}" if uid in self._quarantined else "no such object"
        raise DatasetError(f"{self.url}: {uid}: {why}")

    def byte_range(self, sample: int, family: str = ATLAS) -> ByteRange:
        """A sample's bytes in its shard, from its first tar header to that of the next sample."""
        layout = self._layouts[family]
        key, total = layout.files[int(self.shards[sample])]
        start, end = int(layout.starts[sample]), int(layout.ends[sample])
        return ByteRange(key, start, end - start, total)

    def atlas_member(self, sample: int) -> ByteRange:
        """The bytes of a sample's .npy file in its shard."""
        key, total = self._layouts[ATLAS].files[int(self.shards[sample])]
        names = (address_column(ATLAS, name) for name in ("offset", "nbytes"))
        offset, nbytes = (self._table.column(name).item(sample) for name in names)
        return ByteRange(key, offset, nbytes, total)

    def column(self, name: str) -> Any:
        """A column of metadata.parquet, in the order of the samples: a NumPy array of numbers, or an Arrow array."""
        return self._table.column(name)

    def tars(self, family: str) -> tuple[list[Entry], Rows]:
        """Key and length of each shard of a family, and which of them each sample is in, [N]."""
        numbers = sorted(self.index["shards"], key=lambda entry: int(entry["shard"]))
        tars = [Entry(entry[family]["key"], int(entry[family]["nbytes"])) for entry in numbers]
        return tars, np.searchsorted([int(entry["shard"]) for entry in numbers], self.shards)

    def select(
        self, filters: Filters = (), split: str = "all", heldout: float | None = None,
        uids: Iterable[str] | None = None,
    ) -> Rows:  # fmt: skip
        """Select the samples that pass filters and belong to a split, in ascending order.

        Args:
            filters: see `selecting.Filters`.
            split, heldout: see `selecting.in_split`.
            uids: only these objects; None = any.

        Raises:
            DatasetError: an unknown column, operator, split or uid, or no sample passes.
        """
        keep = filtered(self._table, filters, self._file) & in_split(self._table, split, heldout, self._file)
        if uids is not None:
            wanted = np.zeros(len(self), np.bool_)
            wanted[[self.find(uid) for uid in uids]] = True
            keep &= wanted
        if not keep.any():
            raise DatasetError(
                f"{self.url}: none of {len(self)} samples passes (filters {list(filters)}, split {split!r})"
            )
        return np.flatnonzero(keep)

    @property
    def _file(self) -> str:
        return f"{self.url}/{version_key(self.version, METADATA)}"

    @cached_property
    def _by_uid(self) -> dict[str, int]:
        return {uid: sample for sample, uid in enumerate(self._table.column("uid").to_pylist())}

    def expect(self, names: Sequence[str] | None = None) -> None:
        """Read these columns of metadata.parquet, or all, before this process is forked, if not when asked for."""
        self._table.expect(names)

    def array(self, store: Readable, name: str) -> npt.NDArray[np.float32]:
        """A statistics file, verified by its hash in the index; float32 [size, size, 16], or 3 for sphere points."""
        key = version_key(self.version, name)
        data = _get(store, key)
        if hashlib.sha256(data).hexdigest() != self.index["statistics"][name]["sha256"]:
            raise DatasetError(f"{self.url}/{key} does not match {INDEX}; fetch it again")
        return np.asarray(read_npy(data), np.float32)

    def _read_verified(self, store: Readable, name: str, sums: Mapping[str, str]) -> bytes:
        key = version_key(self.version, name)
        data = _get(store, key)
        if hashlib.sha256(data).hexdigest() != sums.get(key):
            raise DatasetError(f"{self.url}/{key} does not match {version_key(self.version, SUMS)}; fetch it again")
        return data


def _samples_of(table: Table) -> tuple[Table, dict[str, str]]:
    """The rows of samples in the order of the shards, and the reason why each other object was quarantined."""
    is_sample = np.asarray(pc.equal(table.column("status"), OK))
    lost = np.flatnonzero(~is_sample)
    quarantined = {}
    if len(lost):
        quarantined = dict(zip(*(table[name].take(lost).to_pylist() for name in ("uid", "reason")), strict=True))
    rows = np.flatnonzero(is_sample)
    shards, places = (np.asarray(table.column(n))[rows] for n in ("shard", address_column(ATLAS, "sample")))
    is_sorted = bool(np.all((np.diff(shards) > 0) | ((np.diff(shards) == 0) & (np.diff(places) > 0))))
    if len(lost) or not is_sorted:
        table.keep(rows if is_sorted else rows[np.lexsort((places, shards))])
    return table, quarantined


def _get(store: Readable, key: str) -> bytes:
    """All bytes under a key that a finished dataset must have."""
    try:
        return store.get(key)
    except NotFound as error:
        raise DatasetError(f"{error}; fetch it again") from error


def read(store: Readable, part: ByteRange) -> memoryview:
    """Read a byte range of a shard.

    Raises:
        DatasetError: the shard is missing, or of another length than index.json says.
    """
    try:
        return store.read(part.key, part.offset, part.nbytes, part.total)
    except NotFound as error:
        raise DatasetError(f"{error}; fetch it again") from error
