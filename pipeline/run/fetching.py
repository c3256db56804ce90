"""Fetches the views of one object from a store into a folder, with as few requests as it takes.

An archive is one request. Of a folder, only the files that are read are fetched, several at a time over connections
that the process keeps; it is listed where its camera file does not name them.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

from gaussianverse.atlas.os_errors import NAMES, describe, mend_of
from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.errors import Altered, NotFound
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Entry, Storage
from gaussianverse.fitter.sources.selection import Selection
from gaussianverse.pipeline.errors import PipelineError

T = TypeVar("T")

MAX_BYTES = 8 << 30
MAX_FILES = 100_000


class InputTooLarge(PipelineError):
    """An object's views exceed the limits, or one of their keys would be written outside its folder."""


class NoViews(PipelineError):
    """There are no views at the address that the manifest gives."""


class NoRoom(PipelineError):
    """The folder for temporary files cannot be written to."""


def place_of(address: str, store: StoreOptions) -> tuple[Storage, str]:
    """The store that holds the views at an s3:// address, and their prefix in it."""
    parent, _, name = address.rstrip("/").rpartition("/")
    return open_storage(parent, store), name


def fetch(
    storage: Storage, name: str, folder: Path, selection: Selection | None, *, at_once: int, most_bytes: int
) -> None:
    """Fetch the object `name`, or the objects below `name`/, to the same names in `folder`.

    Args:
        storage: the store.
        name: of a file or a folder in it, without a "/".
        folder: exists, and is empty.
        selection: what is read of a folder; None = everything.
        at_once: most requests at a time.
        most_bytes: limit of all of its files in the store.

    Raises:
        NoViews: there is nothing at this address.
        InputTooLarge: more than `MAX_FILES` files or `most_bytes` bytes, or keys that cannot be files in `folder`.
        NoRoom: `folder` is full, or cannot be written to.
        StoreError, NotFound: the store failed.
    """
    place = _Place(storage, name, folder, at_once, most_bytes)
    if "." in name and _if_there(place.single):
        return
    if selection is not None and _if_there(lambda: place.known(selection)):
        return
    place.listed(selection)


def _if_there(fetched: Callable[[], T]) -> T | None:
    """The result of a fetch, None if there is nothing of that name."""
    try:
        return fetched()
    except Altered:
        raise
    except NotFound:
        return None


class _Place:
    """An object's files in the store, and the folder for them."""

    def __init__(self, storage: Storage, name: str, folder: Path, at_once: int, most_bytes: int) -> None:
        self._storage, self._name, self._folder = storage, name, folder
        self._at_once, self._most_bytes = at_once, most_bytes
        self._where = f"{storage.url}/{name}"
        self._got: dict[str, bytes] = {}
        """Files that were read to know which others are; by name below `name`/."""

    def single(self) -> bool:
        """Fetch the object `name` itself, as one stream; raises NotFound if it is none."""
        self._storage.get_into(self._name, self._room)
        return True

    def known(self, selection: Selection) -> bool:
        """Fetch the files that are read, if they are known without a list; NotFound if one of them is missing."""
        names = selection.known(lambda name: _if_there(lambda: self._read(name)))
        if names is None or len(names) > MAX_FILES:
            return False
        self._get_all(names)
        return True

    def listed(self, selection: Selection | None) -> None:
        """List the object's files, and fetch those that are read."""
        entries = list(files(self._storage, self._name, self._most_bytes))
        if not entries:
            raise NoViews(f"{self._where}: no views at this address")
        if entries[0].key == self._name:
            self.single()
            entries = entries[1:]
            if not entries:
                return
        names = [entry.key.removeprefix(f"{self._name}/") for entry in entries]
        self._get_all(names if selection is None else selection.among(names, self._read))

    def _read(self, name: str) -> bytes:
        if name not in self._got:
            self._got[name] = self._received(name)
        return self._got[name]

    def _get_all(self, names: Sequence[str]) -> None:
        """Fetch files below `name`/; of several errors, that of the first of them is raised."""
        self._made(self._folder / self._name)
        for name, data in self._got.items():
            if name in names:
                self._write(f"{self._name}/{name}", data)
        left = [name for name in names if name not in self._got]
        if not left:
            return
        nbytes = sum(map(len, self._got.values()))
        nbytes += self._get(left[0])  # the first of a process shows the store's client the way for all others
        with ThreadPoolExecutor(min(self._at_once, len(left))) as pool:
            try:
                for size in pool.map(self._get, left[1:]):
                    nbytes += size
                    if nbytes > self._most_bytes:
                        raise too_large(self._where, self._most_bytes)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _get(self, name: str) -> int:
        data = self._received(name)
        self._write(f"{self._name}/{name}", data)
        return len(data)

    def _received(self, name: str) -> bytes:
        """The bytes of a file below `name`/; one that alone exceeds the limit is refused before it takes memory."""
        room = bytearray()

        def made(nbytes: int) -> memoryview:
            nonlocal room
            if nbytes > self._most_bytes:
                raise too_large(self._where, self._most_bytes)
            room = bytearray(nbytes)
            return memoryview(room)

        self._storage.get_into(f"{self._name}/{name}", made)
        return bytes(room)

    def _write(self, key: str, data: bytes) -> None:
        path = self._folder / key
        self._made(path.parent)
        try:
            path.write_bytes(data)
        except OSError as error:
            raise self._fault(error) from error

    def _made(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._fault(error) from error

    def _room(self, nbytes: int) -> memoryview:
        """The memory of a file for the object `name`: what is written there takes no memory of the process's own."""
        if nbytes > self._most_bytes:
            raise too_large(self._where, self._most_bytes)
        try:
            with (self._folder / self._name).open("w+b") as file:
                if not nbytes:
                    return memoryview(bytearray())
                os.posix_fallocate(file.fileno(), 0, nbytes)  # a full disk says so here, and not by a signal
                return memoryview(mmap.mmap(file.fileno(), nbytes))
        except OSError as error:
            raise self._fault(error) from error

    def _fault(self, error: OSError) -> PipelineError:
        if error.errno in NAMES:
            return InputTooLarge(
                f"{self._where}: its keys cannot be file names beside each other ({describe(error)})"
            )
        return no_room(error)


def no_room(error: OSError) -> NoRoom:
    """The error of a folder for temporary files that cannot be written to."""
    place = os.environ.get("TMPDIR") or tempfile.gettempdir()
    return NoRoom(
        f"temporary files ({place}): {describe(error)}; {mend_of(error)}, or set TMPDIR to a folder that has room"
    )


def too_large(where: str, most_bytes: int) -> InputTooLarge:
    """The error of an object whose views are more than the limits."""
    return InputTooLarge(f"{where}: more than {MAX_FILES} files or {most_bytes} bytes")


def files(storage: Storage, name: str, most_bytes: int) -> Iterator[Entry]:
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
        if count >= MAX_FILES or total > most_bytes:
            raise too_large(f"{storage.url}/{name}", most_bytes)
        yield entry
