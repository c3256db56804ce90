"""Input views: their address, and their download to the machine that fits them."""

from __future__ import annotations

import errno
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from gaussianverse.atlas.os_errors import describe, is_file, is_folder, mend_of
from gaussianverse.atlas.store import is_s3, open_storage
from gaussianverse.atlas.store.errors import NotFound, StoreError
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Entry, Storage
from gaussianverse.pipeline.errors import PipelineError

MAX_BYTES = 8 << 30
MAX_FILES = 100_000
_FIRST = 4
_NAMES = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL})
"""Numbers of errors of keys that are no file names, or that are both a file and a folder."""


class InputTooLarge(PipelineError):
    """An object's views exceed the limits, or one of their keys would be written outside its folder."""


def resolve(views: str, base: str) -> str:
    """Absolute address of `views`, which may be relative to `base`, the manifest's folder or s3 prefix."""
    if is_s3(views) or views.startswith("/"):
        return views
    return f"{base.rstrip('/')}/{views}"


class NoViews(PipelineError):
    """There are no views at the address that the manifest gives."""


class NoRoom(PipelineError):
    """The folder for temporary files cannot be written to."""


@contextmanager
def local(address: str, store: StoreOptions) -> Iterator[Path]:
    """Yield `address` as a local path; S3 objects are downloaded to a folder that exists within the context.

    Raises:
        NoViews: the address is empty (S3 only; the reader of the views checks local paths).
        InputTooLarge: more than `MAX_FILES` files or `MAX_BYTES` bytes.
        NoRoom: the folder for temporary files is full, or cannot be written to.
        StoreError: the store failed.
    """
    if not is_s3(address):
        yield Path(address)
        return
    storage, name = _place(address, store)
    with _temporary_folder() as folder:
        entries = list(_files(storage, name))
        if not entries:
            raise NoViews(f"{address}: no views at this address")
        for entry in entries:
            _write(folder, entry.key, storage.get(entry.key), address)
        yield folder / name


def readable(address: str, store: StoreOptions) -> bool:
    """Whether anything of the views at `address` can be read now, by reading a byte of it."""
    try:
        if not is_s3(address):
            return _has_byte(Path(address), depth=4)
        storage, name = _place(address, replace(store, max_attempts=1))
        entry = next((entry for entry in _files(storage, name) if entry.nbytes), None)
        return entry is not None and len(storage.read(entry.key, 0, 1)) == 1
    except (OSError, ValueError, StoreError, NotFound, InputTooLarge):
        return False


def _has_byte(path: Path, depth: int) -> bool:
    """Whether `path` is a file with a byte, or a folder with such a file among its first, so many levels below."""
    if not is_folder(path):
        if not is_file(path):
            return False
        with path.open("rb") as file:
            return len(file.read(1)) == 1
    with os.scandir(path) as entries:
        first = [Path(entry.path) for entry in itertools.islice(entries, _FIRST)]
    return depth > 0 and any(_has_byte(entry, depth - 1) for entry in first)


def _place(address: str, store: StoreOptions) -> tuple[Storage, str]:
    """The store that holds the views at an s3:// address, and their prefix in it."""
    parent, _, name = address.rstrip("/").rpartition("/")
    return open_storage(parent, store), name


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="gaussianverse-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_room(error) from error
    with folder:
        yield Path(folder.name)


def _write(folder: Path, key: str, data: bytes, address: str) -> None:
    path = folder / key
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        if error.errno in _NAMES:
            raise InputTooLarge(
                f"{address}: its keys cannot be file names beside each other ({describe(error)})"
            ) from error
        raise _no_room(error) from error


def _no_room(error: OSError) -> NoRoom:
    place = os.environ.get("TMPDIR") or tempfile.gettempdir()
    return NoRoom(
        f"temporary files ({place}): {describe(error)}; {mend_of(error)}, or set TMPDIR to a folder that has room"
    )


def _files(storage: Storage, name: str) -> Iterator[Entry]:
    """List the object `name`, or all objects below `name`/."""
    total = 0
    for count, entry in enumerate(storage.list(name)):
        if entry.key != name and not entry.key.startswith(f"{name}/"):
            continue
        if entry.key.endswith("/"):
            continue  # such a key marks a folder in S3 consoles
        parts = PurePosixPath(entry.key)
        if parts.is_absolute() or ".." in parts.parts:
            raise InputTooLarge(f"{storage.url}/{entry.key}: this key would be written outside its folder")
        total += entry.nbytes
        if count >= MAX_FILES or total > MAX_BYTES:
            raise InputTooLarge(f"{storage.url}/{name}: more than {MAX_FILES} files or {MAX_BYTES} bytes")
        yield entry
