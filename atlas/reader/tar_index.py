"""Index of the members of other people's tars, made once, from the headers, and kept if asked."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Entry, Storage
from gaussianverse.atlas.tar import BLOCK

SCHEMA = pa.schema(
    [
        ("tar", pa.int32()),
        ("uid", pa.string()),
        ("suffix", pa.string()),
        ("offset", pa.int64()),
        ("nbytes", pa.int64()),
    ]
)
"""A row per member: number of its tar, its name up to the first dot and behind it, and the place of its data."""
_TARS = b"tars"
_PIECE = 1 << 18
_THREADS = 8
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


class TarIndex(NamedTuple):
    """The members of some tars.

    Attributes:
        tars: key and length of each tar.
        members: a table of `SCHEMA`.
    """

    tars: list[Entry]
    members: pa.Table


def tar_index(store: Storage, only: str = "", kept: str | Path | None = None) -> TarIndex:
    """The index of all tars in a store, made from their headers, which takes reads of 256 KiB.

    Args:
        store: where the tars lie.
        only: key of the one tar that counts; "" = all keys that end in .tar.
        kept: Parquet file of the index: read if it is there, else written.

    Raises:
        DatasetError: no tar, one that cannot be read, or a kept index of other tars.
        StoreError: the store failed.
    """
    tars = _tars_of(store, only)
    if kept is not None and Path(kept).exists():
        return TarIndex(tars, _loaded(Path(kept), tars))
    with ThreadPoolExecutor(_THREADS, "tar-index") as pool:
        found = list(pool.map(lambda numbered: list(_members_of(store, *numbered)), enumerate(tars)))
    rows = list(chain.from_iterable(found))
    members = pa.table([pa.array([row[i] for row in rows], f.type) for i, f in enumerate(SCHEMA)], SCHEMA)
    if kept is not None:
        _keep(Path(kept), tars, members)
    return TarIndex(tars, members)


def _tars_of(store: Storage, only: str) -> list[Entry]:
    try:
        tars = (
            [Entry(only, store.size(only))]
            if only
            else sorted((e for e in store.list("") if e.key.endswith(".tar")), key=lambda e: e.key)
        )
    except NotFound as error:
        raise DatasetError(f"{error}; expected a tar, or a folder of tars") from error
    if not tars:
        raise DatasetError(f"{store.url}: no .tar there; expected a tar, or a folder of tars")
    return tars


def _members_of(store: Storage, number: int, tar: Entry) -> Iterator[tuple[int, str, str, int, int]]:
    """The rows of one tar's members."""
    where, end = f"{store.url}/{tar.key}", 0
    try:
        source = io.BufferedReader(_Remote(store, tar), _PIECE)
        with tarfile.open(fileobj=source, mode="r:") as archive:
            for member in archive:
                end = member.offset_data
                if member.isdir():
                    continue
                if member.type not in _PLAIN or member.sparse is not None:
                    raise DatasetError(f"{where}: {member.name} is no plain file; pack the files themselves")
                end += -(-member.size // BLOCK) * BLOCK
                uid, _, suffix = member.name.rpartition("/")[2].partition(".")
                if not uid.isascii():
                    continue  # of no object of a dataset, whose uids are; it may not be UTF-8
                suffix.encode()  # which fails unless it is text
                yield number, uid, suffix, member.offset_data, member.size
            # tarfile takes any damaged header for the end
            source.seek(end)
            if source.read(BLOCK) != bytes(BLOCK):
                raise tarfile.ReadError(f"neither a header nor the end of the archive at byte {end}")
    except tarfile.TarError as error:
        raise DatasetError(f"{where} is damaged, or no tar: {error}; fetch it again") from error
    except UnicodeEncodeError as error:
        raise DatasetError(
            f"{where}: {error.object!a}, the end of a member's name, is not UTF-8; rename it"
        ) from error
    except NotFound as error:
        raise DatasetError(f"{error}; it was there a moment ago") from error


class _Remote(io.RawIOBase):
    """A key of a store as a file."""

    def __init__(self, store: Storage, entry: Entry) -> None:
        self._store, self._entry, self._place = store, entry, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._entry.nbytes}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = max(0, min(len(buffer), self._entry.nbytes - self._place))
        buffer[:count] = self._store.read(self._entry.key, self._place, count, self._entry.nbytes)
        self._place += count
        return count


def _listed(tars: list[Entry]) -> bytes:
    return json.dumps([[tar.key, tar.nbytes] for tar in tars]).encode()


def _keep(path: Path, tars: list[Entry], members: pa.Table) -> None:
    """Write an index all at once: others may be about to read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        pq.write_table(members.replace_schema_metadata({_TARS: _listed(tars)}), file)
    os.replace(file.name, path)


def _loaded(path: Path, tars: list[Entry]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:  # whose threads, as in `Catalogue`, are not used
            members = file.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path}: not an index of tars: {error}; delete it, and it is made again") from error
    if (members.schema.metadata or {}).get(_TARS) != _listed(tars) or not members.schema.equals(SCHEMA):
        raise DatasetError(f"{path}: an index of other tars, or of these before they changed; delete it")
    return members
