"""`LiveRows`: the rows that count in a version, as Arrow columns that are read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import OK
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.manifests.parquet import UNREADABLE
from gaussianverse.manifests.schema import FIELDS
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.versions import Version
from gaussianverse.pipeline.errors import PipelineError, message

_GROUPS = 128


class LiveRows:
    """Rows that count in a finished version, in the order of (shard, index).

    Attributes:
        shard, index: int64 [N].
    """

    def __init__(self, storage: Storage, version: Version) -> None:
        """Read where the rows lie.

        Raises:
            NotFound, PipelineError: a manifest or table is missing or damaged.
        """
        self._storage, self._version = storage, version
        self._manifests = [(run, _opened(storage, run, _manifest(storage, run))) for run in version.runs]
        lost = version.superseded.indices()
        self._masks: list[NDArray[np.bool_]] = []
        shards, indices = [], []
        for run, file in self._manifests:
            sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
            shard = np.repeat(np.asarray(run.shards, np.int64), sizes)
            index = self._read(run, file, "index").to_numpy()
            mask = np.isin(shard, version.shards)
            if len(lost):
                mask &= ~np.isin(index, lost)
            self._masks.append(mask)
            shards.append(shard[mask])
            indices.append(index[mask])
        self.shard, self.index = np.concatenate(shards), np.concatenate(indices)
        self.uid = self.column("uid")

    def __len__(self) -> int:
        return len(self.shard)

    @property
    def extras(self) -> list[tuple[str, str]]:
        """Names and kinds of the columns of the manifests' author."""
        return list(self._version.identity.get("extras", {}).items())

    def has(self, name: str) -> bool:
        """Whether the manifests have this column."""
        return name in FIELDS or name == "fault" or name in dict(self.extras)

    @cached_property
    def quarantined(self) -> NDArray[np.bool_]:
        """Which rows have no sample."""
        lost = pc.not_equal(self.known("status"), OK)
        return np.asarray(lost.combine_chunks().to_numpy(zero_copy_only=False), np.bool_)

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of the manifests."""
        parts = [
            self._read(run, file, name).filter(pa.array(mask))
            for (run, file), mask in zip(self._manifests, self._masks, strict=True)
        ]
        return pa.chunked_array([chunk for part in parts for chunk in part.chunks], type=parts[0].type)

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield these columns of metadata.parquet in pieces, in the order of the rows.

        Raises:
            PipelineError: it is damaged, or of other rows.
        """
        key = self._version.key(dataset_format.METADATA)
        where, count = f"{self._storage.url}/{key}", 0
        try:
            with pq.ParquetFile(pa.BufferReader(self._storage.get(key))) as file:
                for k in range(file.num_row_groups):
                    table = file.read_row_group(k, columns=["uid", *columns], use_threads=False)
                    if not table["uid"].equals(self.uid[count : count + len(table)]):
                        raise PipelineError(f"{where}: its rows are not those that count; it was damaged")
                    count += len(table)
                    yield table
        except UNREADABLE as error:
            raise PipelineError(f"{where}: not a readable Parquet file: {message(error)}") from error
        if count != len(self):
            raise PipelineError(f"{where}: {count} rows, {len(self)} count; it was damaged")

    def known(self, name: str) -> pa.ChunkedArray:
        """A column of metadata.parquet."""
        return pa.chunked_array([chunk for table in self.tables([name]) for chunk in table[name].chunks])

    def positions(self, uids: pa.ChunkedArray) -> NDArray[np.int64]:
        """The place of the row of each of these objects, -1 for those that have none."""
        found = pc.index_in(uids, value_set=self.uid.combine_chunks())
        return np.asarray(found.fill_null(-1).to_numpy(), np.int64)

    def _read(self, run: Run, file: pq.ParquetFile, name: str) -> pa.ChunkedArray:
        try:
            # many groups at once take far more memory than the column has
            parts = [
                file.read_row_groups(range(k, min(k + _GROUPS, file.num_row_groups)), [name], use_threads=False)[name]
                for k in range(0, file.num_row_groups, _GROUPS)
            ]
            kind = file.schema_arrow.field(name).type
            return pa.chunked_array([chunk for part in parts for chunk in part.chunks], type=kind)
        except (KeyError, *UNREADABLE) as error:
            raise PipelineError(f"{self._storage.url}/{run.manifest_key}: {message(error)}") from error


def _manifest(storage: Storage, run: Run) -> bytes:
    data = storage.get(run.manifest_key)
    if sha256_of(data) != run.identity["manifest_sha256"]:
        raise PipelineError(
            f"{storage.url}/{run.manifest_key}: not the manifest of {run.key}; it was damaged after it was written"
        )
    return data


def _opened(storage: Storage, run: Run, data: bytes) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
    except UNREADABLE as error:
        raise PipelineError(f"{storage.url}/{run.manifest_key}: {message(error)}") from error
