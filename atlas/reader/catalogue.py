"""`Catalogue`: the samples of a published dataset, from index.json and metadata.parquet, checked by their sums."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.arrays import read_npy
from gaussianverse.atlas.dataset_format import ATLAS, INDEX, METADATA, OK, SUCCESS, SUMS, VIEWS, address_column
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.selecting import Filters, check_columns, filtered, in_split
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Entry, Readable
from gaussianverse.atlas.tar import END, header_nbytes

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ByteRange:
    """`nbytes` bytes from `offset` of the shard `key`, which is `total` bytes long."""

    key: str
    offset: int
    nbytes: int
    total: int


@dataclass(frozen=True)
class _Layout:
    """Key and size of each shard of a family, and the first and last byte of each sample, [N]."""

    files: dict[int, tuple[str, int]]
    starts: Rows
    ends: Rows


class Catalogue:
    """The samples of a dataset, in the order in which they lie in its shards.

    Attributes:
        index: what index.json holds.
        digest: hex sha256 of index.json, which names the dataset.
        size: side of an atlas.
        n_views: reference views of each object; 0 if the dataset has none.

    Raises:
        DatasetError: the dataset is not finished, of an unknown schema version, or its index, table and sums
            disagree.
        StoreError: the store failed or refuses.
    """

    def __init__(self, store: Readable) -> None:
        self.url = store.url
        sums = _sums(store)
        index = self._read_verified(store, INDEX, sums)
        self.digest = hashlib.sha256(index).hexdigest()
        self.index: dict[str, Any] = json.loads(index)
        if error := dataset_format.version_error(self.index.get("schema_version")):
            raise DatasetError(f"{self.url}: {error}")
        self.size = int(self.index["size"])
        self.n_views = int(self.index.get("views", 0))
        # not pq.read_table, whose threads may outlive the interpreter and then abort the process
        table = pq.ParquetFile(io.BytesIO(self._read_verified(store, METADATA, sums))).read(use_threads=False)
        self._quarantined = table.filter(pc.not_equal(table["status"], OK)).select(["uid", "reason"])
        table = table.filter(pc.equal(table["status"], OK))
        self._table = table.take(
            pc.sort_indices(table, [("shard", "ascending"), (address_column(ATLAS, "sample"), "ascending")])
        )
        self._columns = {name: _column(self._table[name]) for name in self._table.column_names}
        self._layouts = {ATLAS: self._checked_layout(ATLAS)}
        if self.n_views:
            self._layouts[VIEWS] = self._checked_layout(VIEWS)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def shards(self) -> Rows:
        """The shard of each sample, [N], ascending."""
        return np.asarray(self._columns["shard"])

    def uids(self, rows: Iterable[int]) -> list[str]:
        """The uids of these samples."""
        column = self._columns["uid"]
        return [column[int(row)].as_py() for row in rows]

    def row(self, sample: int, names: Sequence[str] | None = None) -> dict[str, Any]:
        """A sample's row of metadata.parquet: all columns, or these."""
        found = {}
        for name in names if names is not None else self._columns:
            column = self._columns[name]
            found[name] = column.item(sample) if isinstance(column, np.ndarray) else column[sample].as_py()
        return found

    def has_column(self, name: str) -> bool:
        """Whether metadata.parquet has this column."""
        return name in self._columns

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
        lost = self._quarantined.filter(pc.equal(self._quarantined["uid"], uid)).to_pylist()
        why = f"it was quarantined: {lost[0]['reason']}" if lost else "no such object"
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
        offset, nbytes = (self._columns[address_column(ATLAS, name)].item(sample) for name in ("offset", "nbytes"))
        return ByteRange(key, offset, nbytes, total)

    def column(self, name: str) -> Any:
        """A column of metadata.parquet, in the order of the samples: a NumPy array of numbers, or an Arrow array."""
        return self._columns[name]

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
        return f"{self.url}/{METADATA}"

    def _checked_layout(self, family: str) -> _Layout:
        """The layout of a family whose main member comes first in each sample.

        The table gives the address of that member; the samples must cover every shard of the index to its end.
        """
        files = {int(s["shard"]): (s[family]["key"], int(s[family]["nbytes"])) for s in self.index["shards"]}
        counts = dict(zip(*(c.tolist() for c in np.unique(self.shards, return_counts=True)), strict=True))
        for entry in self.index["shards"]:
            listed, found = entry[family]["samples"], counts.pop(entry["shard"], 0)
            if listed != found:
                raise DatasetError(
                    f"{self.url}: {entry[family]['key']} has {listed} samples in {INDEX} and {found} in {METADATA}"
                )
        if counts or self.index["samples"] != len(self):
            raise DatasetError(f"{self.url}: {METADATA} has samples that {INDEX} does not count")
        offset, nbytes, place = (
            np.asarray(self._columns[address_column(family, n)]) for n in ("offset", "nbytes", "sample")
        )
        first = np.append(True, self.shards[1:] != self.shards[:-1])[: len(self)]
        last = np.append(first[1:], True)[: len(self)]
        totals = np.array([files[int(s)][1] for s in self.shards], np.int64)
        names = np.asarray(pc.utf8_length(self._table["uid"])) + len(dataset_format.main_member(family, ""))
        starts = offset - np.array([header_nbytes(n) for n in names.tolist()], np.int64)
        ends = np.where(last, totals - len(END), np.roll(starts, -1))
        wrong = (starts != np.where(first, 0, starts)) | (offset + nbytes > ends)
        wrong |= place != np.arange(len(self)) - np.maximum.accumulate(np.where(first, np.arange(len(self)), 0))
        if wrong.any():
            uid = self.uids([int(wrong.argmax())])[0]
            raise DatasetError(f"{self.url}: {METADATA} and {INDEX} do not agree on where {uid} lies")
        return _Layout(files, starts, ends)

    @cached_property
    def _by_uid(self) -> dict[str, int]:
        return {uid: sample for sample, uid in enumerate(self.uids(range(len(self))))}

    def _read_verified(self, store: Readable, key: str, sums: Mapping[str, str]) -> bytes:
        data = _get(store, key)
        if hashlib.sha256(data).hexdigest() != sums.get(key):
            raise DatasetError(f"{self.url}/{key} does not match {SUMS}; fetch it again")
        return data

    def array(self, store: Readable, key: str) -> npt.NDArray[np.float32]:
        """A statistics file, verified by its hash in the index; float32 [size, size, 16], or 3 for sphere points."""
        data = _get(store, key)
        if hashlib.sha256(data).hexdigest() != self.index["statistics"][key]["sha256"]:
            raise DatasetError(f"{self.url}/{key} does not match {INDEX}; fetch it again")
        return np.asarray(read_npy(data), np.float32)


def _sums(store: Readable) -> dict[str, str]:
    """{key: sha256} of SHA256SUMS, verified by `_SUCCESS`."""
    success = _get(store, SUCCESS, "not a finished dataset, or not its root")
    data = _get(store, SUMS)
    if success != dataset_format.sums_file({SUMS: hashlib.sha256(data).hexdigest()}):
        raise DatasetError(f"{store.url}/{SUMS} does not match {SUCCESS}; fetch both again")
    return dataset_format.read_sums(data)


def _get(store: Readable, key: str, advice: str = "fetch it again") -> bytes:
    """All bytes under a key that a finished dataset must have."""
    try:
        return store.get(key)
    except NotFound as error:
        raise DatasetError(f"{error}; {advice}") from error


def read(store: Readable, part: ByteRange) -> memoryview:
    """Read a byte range of a shard.

    Raises:
        DatasetError: the shard is missing, or of another length than index.json says.
    """
    try:
        return store.read(part.key, part.offset, part.nbytes, part.total)
    except NotFound as error:
        raise DatasetError(f"{error}; fetch it again") from error


def _column(column: pa.ChunkedArray) -> Any:
    """Numbers as NumPy, which returns a value ten times as fast as Arrow; others as Arrow, which is compact."""
    whole = column.combine_chunks()
    is_number = pa.types.is_integer(whole.type) or pa.types.is_floating(whole.type)
    return whole.to_numpy(zero_copy_only=False) if is_number else whole
