"""`Storage`: the few operations that runs and readers need of a store."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from gaussianverse.atlas.store.errors import Altered

_PIECE = 1 << 24


@dataclass(frozen=True)
class Head:
    """Size and sha256 of an object, known without reading it."""

    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One key of a listing."""

    key: str
    nbytes: int


class Readable(Protocol):
    """The operations that reading a dataset takes; see `Storage`."""

    url: str

    def get(self, key: str) -> bytes:
        """All bytes under a key."""

    def read(self, key: str, offset: int, nbytes: int, total: int | None = None) -> memoryview:
        """`nbytes` bytes from `offset`."""


class Storage(ABC):
    """Keys to bytes. Nothing that exists is ever replaced: the one way to write is `put_if_absent`.

    Every method raises StoreError where trying again may help, StoreRefused where it won't.
    May be pickled and forked.
    """

    url: str

    @abstractmethod
    def get(self, key: str) -> bytes:
        """The bytes under `key`. Raises NotFound."""

    def get_into(self, key: str, room: Callable[[int], memoryview]) -> None:
        """Fill the memory that `room` makes for so many bytes with those under `key`, as one stream.

        `room` may be called again, where the object must be read from its beginning. What it raises is raised, if it
        is no OSError, which would be taken for one of the connection. Raises NotFound.
        """
        data = self.get(key)
        room(len(data))[:] = data

    @abstractmethod
    def read(self, key: str, offset: int, nbytes: int, total: int | None = None) -> memoryview:
        """`nbytes` bytes from `offset`, in memory that may be written to.

        Raises:
            NotFound: no such key.
            Altered: the object is shorter, or not `total` bytes long, where that is given.
        """

    @abstractmethod
    def put_if_absent(self, key: str, data: bytes | bytearray) -> bool:
        """Write `data` durably and all at once; False when the key exists, whatever it holds.

        A StoreError leaves open whether the write happened: `pipeline.store.publish` finds out.
        """

    def put_unsynced(self, key: str, data: bytes | bytearray) -> bool:
        """As `put_if_absent`, for what may be lost or damaged by a loss of power, though not by a kill.

        Costs less where durability has a price of its own: on local disks, most of the time of a small write.
        """
        return self.put_if_absent(key, data)

    def put_file(self, key: str, path: Path) -> bool:
        """As `put_if_absent`, of the bytes of a file, which need not be in memory at once."""
        return self.put_if_absent(key, path.read_bytes())

    @abstractmethod
    def head(self, key: str) -> Head | None:
        """Size and sha256, or None when there is no such key."""

    @abstractmethod
    def size(self, key: str) -> int:
        """Bytes under `key`, which are not read. Raises NotFound."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[Entry]:
        """Keys that begin with `prefix`, in no particular order."""

    def clock(self) -> float | None:
        """Seconds since 1970 by the clock of the store, to the second; None if it has none that is told."""
        return None

    def folders(self, prefix: str) -> Iterator[str]:
        """What follows `prefix`, up to the next '/', in the keys that begin with it and have one there; each once."""
        found = set()
        for entry in self.list(prefix):
            name, slash, _ = entry.key.removeprefix(prefix).partition("/")
            if slash and name not in found:
                found.add(name)
                yield name

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a key; a missing one is no error. Only probes and scratch are ever removed."""

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove many keys; missing ones are no error."""
        for key in keys:
            self.delete(key)

    def remove_abandoned(self, older_s: float) -> None:  # noqa: B027
        """Remove what writers that were killed left behind `older_s` seconds ago or longer."""


def sha256_of(data: bytes | bytearray | memoryview) -> str:
    """Hex sha256."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hex sha256 of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pieces_of(storage: Readable, key: str, nbytes: int) -> Iterator[memoryview]:
    """Yield the bytes under a key, `nbytes` of them, of which a piece is in memory at a time. Raises NotFound."""
    for start in range(0, nbytes, _PIECE):
        yield storage.read(key, start, min(_PIECE, nbytes - start), nbytes)


def sha256_at(storage: Readable, key: str, nbytes: int) -> str:
    """Hex sha256 of the bytes under a key, `nbytes` of them, which are read in pieces. Raises NotFound."""
    digest = hashlib.sha256()
    for piece in pieces_of(storage, key, nbytes):
        digest.update(piece)
    return digest.hexdigest()


def fresh(nbytes: int) -> memoryview:
    """Writable memory that is not set to 0 first, as a bytearray's would be."""
    return np.empty(nbytes, np.uint8).data


def wrong_size(where: str, found: int, expected: int) -> Altered:
    """The error for an object of `found` bytes that must have `expected`."""
    what = f"truncated, {expected - found} bytes are missing" if found < expected else "longer than it was"
    return Altered(f"{where}: {found} bytes, expected {expected}: {what}")
