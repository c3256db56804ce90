"""Input views: their address, and their download to the machine that fits them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from gaussianverse.atlas.store import is_s3, open_storage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Entry, Storage
from gaussianverse.pipeline.errors import PipelineError

MAX_BYTES = 8 << 30
MAX_FILES = 100_000


class InputTooLarge(PipelineError):
    """An object's views exceed the limits, or one of their keys would be written outside its folder."""


def resolve(views: str, base: str) -> str:
    """Absolute address of `views`, which may be relative to `base`, the manifest's folder or s3 prefix."""
    if is_s3(views) or views.startswith("/"):
        return views
    return f"{base.rstrip('/')}/{views}"


class NoViews(PipelineError):
    """There are no views at the address that the manifest gives."""


@contextmanager
def local(address: str, store: StoreOptions) -> Iterator[Path]:
    """Yield `address` as a local path; S3 objects are downloaded to a folder that exists within the context.

    Raises:
        NoViews: the address is empty (S3 only; the reader of the views checks local paths).
        InputTooLarge: more than `MAX_FILES` files or `MAX_BYTES` bytes.
        StoreError: the store failed.
    """
    if not is_s3(address):
        yield Path(address)
        return
    parent, _, name = address.rstrip("/").rpartition("/")
    storage = open_storage(parent, store)
    with tempfile.TemporaryDirectory(prefix="gaussianverse-") as folder:
        root = Path(folder) / name
        entries = list(_files(storage, name))
        if not entries:
            raise NoViews(f"{address}: no views at this address")
        for entry in entries:
            path = Path(folder) / entry.key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(storage.get(entry.key))
        yield root


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
