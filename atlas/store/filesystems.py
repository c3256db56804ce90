"""`FilesystemStorage`: Azure, Google Cloud Storage and the Hugging Face Hub through fsspec, for reading only.

Each of these file systems is kept by those who keep the store, finds its own credentials, tries again by itself, and
may be used in forked processes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NoReturn

from fsspec.core import url_to_fs

from gaussianverse.atlas.store.errors import NotFound, StoreError, StoreRefused
from gaussianverse.atlas.store.options import READ_ONLY
from gaussianverse.atlas.store.storage import Entry, Head, Storage, fresh, wrong_size

_PIECE = 1 << 24


class FilesystemStorage(Storage):
    """Keys below an address of one of the schemes of `READ_ONLY`. Each process asks for an object's length once."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._scheme = url.partition("://")[0]
        self._sizes: dict[str, int] = {}
        try:
            _filesystem(self.url, os.getpid())
        except ImportError as error:
            extra = READ_ONLY[self._scheme]
            raise StoreRefused(
                f"{url}: needs another library: pip install 'gaussianverse[{extra}]' ({error})"
            ) from error
        except Exception as error:
            raise self._error(error, "") from error

    def get(self, key: str) -> bytes:
        """See `Storage`."""
        return bytes(self._cat(key))

    def read(self, key: str, offset: int, nbytes: int, total: int | None = None) -> memoryview:
        """See `Storage`."""
        where, found = f"{self.url}/{key}", self._sizes.get(key)
        if found is None:
            found = self._sizes[key] = self.size(key)
        if found != total and (total is not None or found < offset + nbytes):
            raise wrong_size(where, found, offset + nbytes if total is None else total)
        data = fresh(nbytes)
        if nbytes:
            # the Hub's file system would otherwise read ahead by megabytes
            exact = {"cache_type": "none"} if self._scheme == "hf" else {}
            received = self._cat(key, start=offset, end=offset + nbytes, **exact)
            if len(received) != nbytes:
                raise wrong_size(f"{where}, bytes from {offset}", len(received), nbytes)
            data[:] = received
        return data

    def size(self, key: str) -> int:
        """See `Storage`."""
        filesystem, root = _filesystem(self.url, os.getpid())
        try:
            found = filesystem.info(f"{root}/{key}")
        except Exception as error:
            raise self._error(error, key) from error
        if found["type"] != "file":
            raise NotFound(f"{self.url}/{key}: no such object")
        return int(found["size"])

    def head(self, key: str) -> Head | None:
        """See `Storage`. The sha256 is computed from the object, which is therefore read."""
        try:
            nbytes = self.size(key)
        except NotFound:
            return None
        digest = hashlib.sha256()
        for start in range(0, nbytes, _PIECE):
            digest.update(self.read(key, start, min(_PIECE, nbytes - start), nbytes))
        return Head(nbytes, digest.hexdigest())

    def list(self, prefix: str) -> Iterator[Entry]:
        """See `Storage`."""
        filesystem, root = _filesystem(self.url, os.getpid())
        folder = f"{root}/{prefix}".rpartition("/")[0]
        try:
            found = filesystem.find(folder, detail=True)
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._error(error, prefix) from error
        for path, details in found.items():
            key = path.removeprefix(f"{root}/")
            if key.startswith(prefix) and details["type"] == "file":
                yield Entry(key, int(details["size"]))

    def put_if_absent(self, key: str, data: bytes | bytearray) -> bool:
        """Refused: only folders and S3 are written to."""
        self._refuse()

    def delete(self, key: str) -> None:
        """Refused: only folders and S3 are written to."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise StoreRefused(
            f"{self.url}: {self._scheme}:// is for reading only, since its conditional writes are not relied on; "
            "build into a folder or s3://bucket/prefix, and copy what is finished"
        )

    def _cat(self, key: str, **span: Any) -> bytes:
        filesystem, root = _filesystem(self.url, os.getpid())
        try:
            data: bytes = filesystem.cat_file(f"{root}/{key}", **span)
        except Exception as error:
            raise self._error(error, key) from error
        return data

    def _error(self, error: Exception, key: str) -> Exception:
        """The error of ours that another library's error means."""
        where = f"{self.url}/{key}" if key else self.url
        if isinstance(error, MemoryError):
            return error
        if isinstance(error, FileNotFoundError | IsADirectoryError):
            return NotFound(f"{where}: no such object")
        # the error's own text may quote headers, so only its kind is passed on
        what = f"{type(error).__name__} {_status_of(error) or ''}".rstrip()
        if isinstance(error, PermissionError) or _status_of(error) in (401, 403):
            return StoreRefused(f"{where}: the store refuses ({what}); check address, credentials and permissions")
        if isinstance(error, ValueError | TypeError):
            return StoreRefused(f"{where}: {what}: {error}")
        return StoreError(f"{where}: no success ({what})")


def _status_of(error: Exception) -> int | None:
    """The HTTP status that an error tells, wherever its library keeps it."""
    for place in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            if isinstance(status := getattr(place, name, None), int):
                return status
    return None


@lru_cache(maxsize=32)
def _filesystem(url: str, process: int) -> tuple[Any, str]:
    """This process's file system for an address, and the path there; what it was forked from has its own."""
    filesystem, path = url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    return filesystem, path.rstrip("/")
