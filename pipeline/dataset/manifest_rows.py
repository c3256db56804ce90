"""Read the manifest of a run from its store, one shard at a time."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.manifests import runform
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.parquet import UNREADABLE
from gaussianverse.manifests.row_groups import RowGroups
from gaussianverse.manifests.schema import extras_of
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.errors import NoObject, PipelineError, message

ORIGIN = "@origin"
"""Key of a task's row: the shard that the object's sample is taken over from; -1 = it is made of its views."""


def shard_rows(storage: Storage, run: Run, shard: int) -> list[dict[str, Any]]:
    """Rows of a run's manifest for one of its shards, as flat dicts.

    Raises:
        NotFound: the output has no manifest.
        PipelineError: the manifest is damaged, or has no such shard.
    """
    key = run.manifest_key
    try:
        with _opened(storage, key, str(run.identity["manifest_sha256"])) as file:
            return [runform.flat(row) for row in runform.rows_of(file, shard - run.first_shard, key)]
    except (ManifestError, pa.ArrowException, OSError, TypeError, ValueError) as error:
        raise PipelineError(f"{storage.url}/{key}: shard {shard}: {message(error)}") from error


def work_rows(storage: Storage, run: Run, shard: int) -> list[dict[str, Any]]:
    """`shard_rows` with what tasks need beside: the shard, and `ORIGIN`; raises the errors of `shard_rows`."""
    rows = shard_rows(storage, run, shard)
    origins = _origins(storage, run, shard) if run.number > 1 else {}
    return [{**row, "shard": shard, ORIGIN: origins.get(str(row["uid"]), -1)} for row in rows]


def count_taken(storage: Storage, run: Run, shards: Iterable[int]) -> int:
    """Number of objects in these shards that are taken over from other shards; raises the errors of `work_rows`."""
    if run.number == 1:
        return 0
    return sum(origin >= 0 for shard in shards for origin in _origins(storage, run, shard).values())


def _origins(storage: Storage, run: Run, shard: int) -> dict[str, int]:
    key = dataset_format.version_key(run.number, dataset_format.ORIGINS)
    try:
        with _opened(storage, key, str(run.identity["origins_sha256"])) as file:
            table = file.read(shard - run.first_shard, shard - run.first_shard + 1)
        return dict(zip(table["uid"].to_pylist(), table["shard"].to_pylist(), strict=True))
    except (*UNREADABLE, KeyError, IndexError, TypeError, ValueError) as error:
        raise PipelineError(f"{storage.url}/{key}: shard {shard}: {message(error)}") from error


_large: dict[tuple[str, str, str], RowGroups] = {}
"""Files of this process whose footers took long to read, the last few, by place, key and sha256."""
_MOST = 4
_OBJECTS = dataset_format.OBJECTS


@contextmanager
def _opened(storage: Storage, key: str, sha256: str) -> Iterator[RowGroups]:
    """A file whose row group k is shard k; one of very many shards stays open, and takes 8 bytes for each."""
    place = (storage.url, key, sha256)
    file = _large.pop(place, None)
    if file is None:
        file = RowGroups(io.BufferedReader(_Object(storage, key), buffer_size=1 << 18))
        if key.endswith(_OBJECTS) and extras_of(file.schema) is None:
            raise ManifestError("not a manifest in run form")
    yield file
    if file.is_large:
        while len(_large) >= _MOST:
            del _large[next(iter(_large))]
        _large[place] = file


def find_row(storage: Storage, run: Run, uid: str) -> tuple[dict[str, Any], int]:
    """The row and the shard of an object, by bisection over the shards, whose rows are sorted by uid.

    Raises:
        NoObject: the manifest has no such object.
        NotFound, PipelineError: as `shard_rows`.
    """
    low, high = run.first_shard, run.first_shard + run.n_shards - 1
    while low <= high:
        shard = (low + high) // 2
        rows = shard_rows(storage, run, shard)
        if uid < rows[0]["uid"]:
            high = shard - 1
        elif uid > rows[-1]["uid"]:
            low = shard + 1
        else:
            match = [r for r in rows if r["uid"] == uid]
            if match:
                return match[0], shard
            break
    raise NoObject(f"{storage.url}: no object {uid!r} in the manifest")


class _Object(io.RawIOBase):
    """A stored object as a seekable file, of which Parquet reads the footer and one row group."""

    def __init__(self, storage: Storage, key: str) -> None:
        head = storage.size(key)
        self._storage, self._key, self._size, self._at = storage, key, head, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        if count:
            buffer[:count] = self._storage.read(self._key, self._at, count, self._size)
            self._at += count
        return count
