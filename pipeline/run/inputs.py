"""Where an object's renders lie, and how they get to the machine that fits it."""

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
    """A views folder beyond what one object can sensibly be."""


def resolve(views: str, base: str) -> str:
    """Absolute address of `views`, which may be relative to `base`, the manifest's folder or s3 prefix."""
    if is_s3(views) or views.startswith("/"):
        return views
    return f"{base.rstrip('/')}/{views}"


class NoViews(PipelineError):
    """Nothing lies where the manifest says that the views are."""


@contextmanager
def local(address: str, store: StoreOptions) -> Iterator[Path]:
    """`address` as a local path; what lies on S3 is downloaded for as long as the context lasts.

    Raises:
        NoViews: nothing there (S3 only; a local path is the reader's to check).
        InputTooLarge: more than any object's views.
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
            raise NoViews(f"{address}: nothing there")
        for entry in entries:
            path = Path(folder) / entry.key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(storage.get(entry.key))
        yield root


def _files(storage: Storage, name: str) -> Iterator[Entry]:
    """The object called `name`, or everything below name/."""
    total = 0
    for count, entry in enumerate(storage.list(name)):
        if entry.key != name and not entry.key.startswith(f"{name}/"):
            continue
        if entry.key.endswith("/"):
            continue  # a console's marker of a folder
        parts = PurePosixPath(entry.key)
        if parts.is_absolute() or ".." in parts.parts:
            raise InputTooLarge(f"{storage.url}/{entry.key}: a key that would leave its folder")
        total += entry.nbytes
        if count >= MAX_FILES or total > MAX_BYTES:
            raise InputTooLarge(f"{storage.url}/{name}: more than {MAX_FILES} files or {MAX_BYTES} bytes")
        yield entry
