"""`Storage`: the few operations that a run needs of a store, and the local folder that offers them."""

from __future__ import annotations

import errno
import hashlib
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gaussianverse.pipeline.errors import NotFound, PipelineError, StorageError, StoreRefused

_TEMPORARY = ".incoming"
_HOPELESS = PermissionError | NotADirectoryError | IsADirectoryError | FileExistsError


@dataclass(frozen=True)
class Head:
    """What a store knows of an object without handing it out."""

    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One key of a listing."""

    key: str
    nbytes: int


@dataclass(frozen=True)
class StoreConfig:
    """How to reach an S3 store; credentials come from the usual chain and are never part of it."""

    endpoint_url: str = ""
    """"" = the chain's own (environment, profile, AWS)."""
    region: str = ""
    max_attempts: int = 5
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0


def sha256_of(data: bytes | bytearray) -> str:
    """Hex sha256."""
    return hashlib.sha256(data).hexdigest()


class Storage(ABC):
    """Keys to bytes. Nothing that exists is ever replaced: the one way to write is `put_if_absent`.

    Every method raises StorageError where trying again may help, StoreRefused where it won't.
    """

    url: str

    @abstractmethod
    def get(self, key: str) -> bytes:
        """The bytes under `key`. Raises NotFound."""

    @abstractmethod
    def get_range(self, key: str, offset: int, nbytes: int) -> bytes:
        """`nbytes` bytes from `offset`. Raises NotFound, and StorageError when there are fewer."""

    @abstractmethod
    def put_if_absent(self, key: str, data: bytes | bytearray) -> bool:
        """Write `data` durably and all at once; False when the key exists, whatever it holds.

        A StorageError leaves open whether the write happened: `pipeline.store.publish` finds out.
        """

    def put_unsynced(self, key: str, data: bytes | bytearray) -> bool:
        """As `put_if_absent`, for what may be lost or damaged by a loss of power, though not by a kill.

        Costs less where durability has a price of its own: on local disks, most of the time of a small write.
        """
        return self.put_if_absent(key, data)

    @abstractmethod
    def head(self, key: str) -> Head | None:
        """Size and sha256, or None when there is no such key."""

    @abstractmethod
    def size(self, key: str) -> int:
        """Bytes under `key`, which are not read. Raises NotFound."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[Entry]:
        """Keys that begin with `prefix`, in no particular order."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a key; a missing one is no error. Only probes and scratch are ever removed."""

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove many keys; missing ones are no error."""
        for key in keys:
            self.delete(key)

    def remove_abandoned(self, older_s: float) -> None:  # noqa: B027
        """Remove what writers that were killed left behind `older_s` seconds ago or longer."""


class LocalStorage(Storage):
    """A folder. A write is a temporary file, fsync, a hard link (which fails if the name exists), fsync."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()
        self.url = str(self.root)

    def get(self, key: str) -> bytes:
        """See `Storage`."""
        try:
            return self._path(key).read_bytes()
        except OSError as fault:
            raise self._fault(fault, key) from fault

    def get_range(self, key: str, offset: int, nbytes: int) -> bytes:
        """See `Storage`."""
        try:
            with self._path(key).open("rb") as file:
                file.seek(offset)
                data = file.read(nbytes)
        except OSError as fault:
            raise self._fault(fault, key) from fault
        if len(data) != nbytes:
            raise StorageError(f"{self.url}/{key}: {len(data)} bytes at {offset}, expected {nbytes}")
        return data

    def put_if_absent(self, key: str, data: bytes | bytearray) -> bool:
        """See `Storage`."""
        return self._put(key, data, _sync)

    def put_unsynced(self, key: str, data: bytes | bytearray) -> bool:
        """See `Storage`."""
        return self._put(key, data, lambda handle: None)

    def _put(self, key: str, data: bytes | bytearray, sync: Callable[[int], None]) -> bool:
        path = self._path(key)
        temporary = self.root / _TEMPORARY / uuid.uuid4().hex
        try:
            self._make_folder(path.parent)
            self._make_folder(temporary.parent)
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                sync(file.fileno())
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            _sync_folder(path.parent, sync)
        except OSError as fault:
            raise self._fault(fault, key) from fault
        finally:
            with suppress(OSError):
                temporary.unlink()
        return True

    def head(self, key: str) -> Head | None:
        """See `Storage`. The sha256 is computed from the file, which is therefore read."""
        digest, nbytes = hashlib.sha256(), 0
        try:
            with self._path(key).open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
                    nbytes += len(block)
        except (FileNotFoundError, IsADirectoryError):
            return None
        except OSError as fault:
            raise self._fault(fault, key) from fault
        return Head(nbytes, digest.hexdigest())

    def size(self, key: str) -> int:
        """See `Storage`."""
        try:
            return self._path(key).stat().st_size
        except OSError as fault:
            raise self._fault(fault, key) from fault

    def list(self, prefix: str) -> Iterator[Entry]:
        """See `Storage`."""
        start = self._path(prefix.rpartition("/")[0]) if "/" in prefix else self.root
        for folder, names, files in os.walk(start):
            if Path(folder) == self.root and _TEMPORARY in names:
                names.remove(_TEMPORARY)
            for name in files:
                path = Path(folder, name)
                key = path.relative_to(self.root).as_posix()
                if key.startswith(prefix):
                    with suppress(FileNotFoundError):  # deleted meanwhile
                        yield Entry(key, path.stat().st_size)

    def delete(self, key: str) -> None:
        """See `Storage`."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as fault:
            raise self._fault(fault, key) from fault

    def remove_abandoned(self, older_s: float) -> None:
        """See `Storage`: temporary files that were never linked."""
        for path in (self.root / _TEMPORARY).glob("*"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime >= older_s:
                    path.unlink()

    def _path(self, key: str) -> Path:
        path = self.root / key
        if key.startswith("/") or ".." in Path(key).parts:
            raise ValueError(f"key {key!r} leaves {self.root}")
        return path

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)

    def _fault(self, fault: OSError, key: str) -> PipelineError:
        where = f"{self.url}/{key}"
        if isinstance(fault, FileNotFoundError):
            return NotFound(f"{where}: no such file")
        if isinstance(fault, _HOPELESS) or fault.errno == errno.EROFS:
            return StoreRefused(
                f"{where}: {fault.strerror}; choose an output that can be written to and read"
            )
        return StorageError(f"{where}: {fault.strerror or fault}")


def _sync(handle: int) -> None:
    os.fsync(handle)


def _sync_folder(folder: Path, sync: Callable[[int], None] = _sync) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(handle)
    finally:
        os.close(handle)


def is_s3(url: str) -> bool:
    """Whether this is an s3:// address rather than a path."""
    return url.startswith("s3://")


def open_storage(url: str, config: StoreConfig | None = None) -> Storage:
    """The store at `url`: s3://bucket/prefix, or a local folder.

    Raises:
        StoreRefused: another scheme, or no bucket.
    """
    if is_s3(url):
        from gaussianverse.pipeline.store.s3 import (
            S3Storage,  # boto3 takes half a second, and local runs don't need it
        )

        return S3Storage(url, config or StoreConfig())
    if "://" in url:
        raise StoreRefused(f"{url}: only s3://bucket/prefix and local folders are supported")
    return LocalStorage(url)
