"""Input views: their address, and their download to the machine that fits them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gaussianverse.atlas.os_errors import is_file, is_folder
from gaussianverse.atlas.store import is_s3
from gaussianverse.atlas.store.errors import NotFound, StoreError
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.fitter.sources.selection import Selection
from gaussianverse.pipeline.run import ahead, fetching, scratch
from gaussianverse.pipeline.run.fetching import InputTooLarge, NoRoom, NoViews

__all__ = ["InputTooLarge", "NoRoom", "NoViews", "local", "readable", "resolve"]

AT_ONCE = 16
"""Requests at a time while somebody waits for the views."""
_FIRST = 4


def resolve(views: str, base: str) -> str:
    """Absolute address of `views`, which may be relative to `base`, the manifest's folder or s3 prefix."""
    if is_s3(views) or views.startswith("/"):
        return views
    return f"{base.rstrip('/')}/{views}"


@contextmanager
def local(
    address: str, store: StoreOptions, selection: Selection | None = None, place: str | None = None
) -> Iterator[Path]:
    """Yield `address` as a local path; S3 objects are downloaded to a folder that exists within the context.

    Args:
        address: of the views.
        store: how S3 is reached.
        selection: the files of a folder that are read; None = all.
        place: the run's folder on this machine, as in `scratch.base_of`, where the views may lie already; None =
            fetch them now.

    Raises:
        NoViews: the address is empty (S3 only; the reader of the views checks local paths).
        InputTooLarge: more than `fetching.MAX_FILES` files or `fetching.MAX_BYTES` bytes.
        NoRoom: the folder for temporary files is full, or cannot be written to.
        StoreError: the store failed.
    """
    if not is_s3(address):
        yield Path(address)
        return
    storage, name = fetching.place_of(address, store)
    with scratch.temporary(place) as folder:
        if place is None or not ahead.take(address, store, selection, place, folder):
            fetching.fetch(storage, name, folder, selection, at_once=AT_ONCE, most_bytes=fetching.MAX_BYTES)
        yield folder / name


def readable(address: str, store: StoreOptions) -> bool:
    """Whether anything of the views at `address` can be read now, by reading a byte of it."""
    try:
        if not is_s3(address):
            return _has_byte(Path(address), depth=4)
        storage, name = fetching.place_of(address, replace(store, max_attempts=1))
        entry = next((entry for entry in fetching.files(storage, name, fetching.MAX_BYTES) if entry.nbytes), None)
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
