"""`LocalStorage`: a folder as a store."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

from gaussianverse import foreign
from gaussianverse.atlas.os_errors import FULL, describe, mend_of
from gaussianverse.atlas.store.errors import NotFound, StoreError, StoreRefused
from gaussianverse.atlas.store.storage import Entry, Head, Storage, fresh, wrong_size

_TEMPORARY = ".incoming"
_PIECE = 1 << 20
_HOPELESS = PermissionError | NotADirectoryError | IsADirectoryError | FileExistsError


class LocalStorage(Storage):
    """A folder. A write is a temporary file, fsync, a hard link (which fails if the name exists), fsync."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()
        self.url = str(self.root)

    def get(self, key: str) -> bytes:
        """See `Storage`."""
        try:
            return foreign.read_bytes(self._path(key), sys.maxsize - 1)
        except OSError as error:
            raise self._error(error, key) from error

    def read(self, key: str, offset: int, nbytes: int, total: int | None = None) -> memoryview:
        """See `Storage`."""
        data, where = fresh(nbytes), f"{self.url}/{key}"
        try:
            # a pipe is not waited for: its size, 0, is the wrong one
            file = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                found = os.fstat(file).st_size
                if found != total and (total is not None or found < offset + nbytes):
                    raise wrong_size(where, found, offset + nbytes if total is None else total)
                done = 0
                while done < nbytes:
                    done += (count := os.preadv(file, [data[done:]], offset + done))
                    if not count:
                        raise wrong_size(where, offset + done, found)
            finally:
                os.close(file)
        except OSError as error:
            raise self._error(error, key) from error
        return data

    def put_if_absent(self, key: str, data: bytes | bytearray) -> bool:
        """See `Storage`."""
        return self._put(key, lambda file: file.write(data), _sync)

    def put_file(self, key: str, path: Path) -> bool:
        """See `Storage`."""

        def copy(file: IO[bytes]) -> None:
            with path.open("rb") as source:
                shutil.copyfileobj(source, file, _PIECE)

        return self._put(key, copy, _sync)

    def put_unsynced(self, key: str, data: bytes | bytearray) -> bool:
        """See `Storage`."""
        return self._put(key, lambda file: file.write(data), lambda handle: None)

    def _put(self, key: str, write: Callable[[IO[bytes]], object], sync: Callable[[int], None]) -> bool:
        path = self._path(key)
        temporary = self.root / _TEMPORARY / uuid.uuid4().hex
        try:
            self._make_folder(path.parent)
            self._make_folder(temporary.parent)
            with temporary.open("xb") as file:
                write(file)
                file.flush()
                sync(file.fileno())
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            _sync_folder(path.parent, sync)
        except OSError as error:
            raise self._error(error, key) from error
        finally:
            with suppress(OSError):
                temporary.unlink()
        return True

    def head(self, key: str) -> Head | None:
        """See `Storage`. The sha256 is computed from the file, which is therefore read."""
        digest, nbytes = hashlib.sha256(), 0
        try:
            with foreign.opened(self._path(key)) as file:
                while block := file.read(1 << 20):
                    digest.update(block)
                    nbytes += len(block)
        except (FileNotFoundError, IsADirectoryError):
            return None
        except OSError as error:
            raise self._error(error, key) from error
        return Head(nbytes, digest.hexdigest())

    def size(self, key: str) -> int:
        """See `Storage`."""
        try:
            return self._path(key).stat().st_size
        except OSError as error:
            raise self._error(error, key) from error

    def list(self, prefix: str) -> Iterator[Entry]:
        """See `Storage`."""
        start = self._path(prefix.rpartition("/")[0]) if "/" in prefix else self.root
        for folder, names, files in os.walk(start, onerror=partial(_listed, prefix=prefix, raised=self._error)):
            if Path(folder) == self.root and _TEMPORARY in names:
                names.remove(_TEMPORARY)
            for name in files:
                path = Path(folder, name)
                key = path.relative_to(self.root).as_posix()
                if key.startswith(prefix):
                    try:
                        nbytes = path.stat().st_size
                    except FileNotFoundError:  # deleted meanwhile
                        continue
                    except OSError as error:
                        raise self._error(error, key) from error
                    yield Entry(key, nbytes)

    def folders(self, prefix: str) -> Iterator[str]:
        """See `Storage`."""
        parent, _, begin = prefix.rpartition("/")
        try:
            with os.scandir(self._path(parent) if parent else self.root) as entries:
                for entry in entries:
                    if entry.is_dir() and entry.name.startswith(begin) and (parent or entry.name != _TEMPORARY):
                        yield entry.name.removeprefix(begin)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise self._error(error, prefix) from error

    def delete(self, key: str) -> None:
        """See `Storage`."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise self._error(error, key) from error

    def remove_abandoned(self, older_s: float) -> None:
        """See `Storage`: temporary files that were never linked."""
        for path in (self.root / _TEMPORARY).glob("*"):
            try:
                if time.time() - path.stat().st_mtime >= older_s:
                    path.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._error(error, f"{_TEMPORARY}/{path.name}") from error

    def _path(self, key: str) -> Path:
        if key.startswith("/") or ".." in key.split("/"):
            raise ValueError(f"key {key!r} leaves {self.root}")
        return self.root / key

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)

    def _error(self, error: OSError, key: str) -> NotFound | StoreError:
        where = f"{self.url}/{key}"
        if isinstance(error, FileNotFoundError):
            return NotFound(f"{where}: no such {'file' if self.root.is_dir() else 'folder'}")
        if error.errno in FULL:
            return StoreRefused(f"{where}: {describe(error)}; {mend_of(error)}")
        if isinstance(error, _HOPELESS) or error.errno == errno.EROFS:
            return StoreRefused(f"{where}: {describe(error)}; choose an output that can be written to and read")
        return StoreError(f"{where}: {describe(error)}")


def _listed(error: OSError, *, prefix: str, raised: Callable[[OSError, str], Exception]) -> None:
    """Let a listing go on where a folder does not exist, or no longer; else it would seem shorter than it is."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise raised(error, prefix) from error


def _sync(handle: int) -> None:
    os.fsync(handle)


def _sync_folder(folder: Path, sync: Callable[[int], None] = _sync) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(handle)
    finally:
        os.close(handle)
