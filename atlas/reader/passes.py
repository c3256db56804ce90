"""`Passes`: which pass over a dataset begins where, agreed among all processes that read it.

A `DataLoader` copies its dataset into each worker process and tells the original nothing. So the record of the passes
is an unnamed file, which the original and all copies hold open and lock. The reader of a pass's first sample begins
the pass at the next position, and the next position becomes the start of the following epoch.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any, NamedTuple, TypedDict

from gaussianverse.atlas.reader.order import Cursor
from gaussianverse.atlas.reader.unnamed_file import unnamed_file

_KEPT = 64
"""Passes that the record keeps: more than are ever read side by side."""
_threads = threading.Lock()
"""Held while a record is locked, since a file's lock keeps out other processes and not other threads."""
os.register_at_fork(before=_threads.acquire, after_in_parent=_threads.release, after_in_child=_threads.release)


class Pass(NamedTuple):
    """One pass over a dataset: its number, counted from 1, and the position where it starts."""

    number: int
    start: Cursor


class _Entry(TypedDict):
    number: int
    start: dict[str, Any]
    members: list[int]


class _Record(TypedDict):
    number: int
    next: dict[str, Any]
    begun: bool
    passes: dict[str, _Entry]


class Passes:
    """The record of a dataset's passes, shared by the dataset and its copies in worker processes.

    A pass has a key, which its readers have in common, and each reader is a member of it. Copies that are made
    otherwise (`copy.deepcopy`, `pickle`) have a record of their own.
    """

    def __init__(self, start: Cursor = Cursor()) -> None:  # noqa: B008
        self._file: Any = unnamed_file()
        self._write({"number": 0, "next": start.to_json(), "begun": False, "passes": {}})

    def begin(self, key: str, member: int) -> Pass:
        """The pass with this key, which starts at the next position if no other member has begun it.

        A member that has read a pass with this key already, as a persistent worker has, begins another one.
        """
        with self._changed() as record:
            entry = record["passes"].get(key)
            if entry is None or member in entry["members"]:
                entry = self._started(record, key, Cursor.from_json(record["next"]))
            entry["members"].append(member)
            return Pass(entry["number"], Cursor.from_json(entry["start"]))

    def resume(self, key: str, member: int, start: Cursor) -> None:
        """Let this member's next pass with this key be one that started here."""
        with self._changed() as record:
            entry = record["passes"].get(key)
            if entry is None or member in entry["members"]:
                self._started(record, key, start)

    def peek(self, key: str, member: int) -> Cursor:
        """The start of the pass that `begin` would begin or join."""
        with self._locked(fcntl.LOCK_SH):
            record = self._read()
        entry = record["passes"].get(key)
        return Cursor.from_json(record["next"] if entry is None or member in entry["members"] else entry["start"])

    def restart(self, cursor: Cursor) -> None:
        """Let the next pass start here."""
        with self._changed() as record:
            record.update({"number": record["number"] + 1, "next": cursor.to_json(), "begun": False})

    def newest(self) -> Pass | None:
        """The pass that was begun last; None if there is none since `restart`."""
        with self._locked(fcntl.LOCK_SH):
            record = self._read()
        if not record["begun"]:
            return None
        entry = next(e for e in record["passes"].values() if e["number"] == record["number"])
        return Pass(entry["number"], Cursor.from_json(entry["start"]))

    @property
    def used(self) -> bool:
        """Whether there was a pass or a `restart`."""
        with self._locked(fcntl.LOCK_SH):
            return self._read()["number"] > 0

    @property
    def next(self) -> Cursor:
        """The start of the next pass."""
        with self._locked(fcntl.LOCK_SH):
            return Cursor.from_json(self._read()["next"])

    @staticmethod
    def _started(record: _Record, key: str, start: Cursor) -> _Entry:
        record.update({"number": record["number"] + 1, "next": start.next_epoch().to_json(), "begun": True})
        record["passes"].pop(key, None)
        record["passes"][key] = {"number": record["number"], "start": start.to_json(), "members": []}
        for old in list(record["passes"])[:-_KEPT]:
            del record["passes"][old]
        return record["passes"][key]

    @contextmanager
    def _changed(self) -> Iterator[_Record]:
        """The record, to be changed by no other process meanwhile."""
        with self._locked(fcntl.LOCK_EX):
            record = self._read()
            yield record
            self._write(record)

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        # lockf and not flock: a forked process shares the file's description, and so its flock
        with _threads:
            fcntl.lockf(self._file, kind)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _read(self) -> _Record:
        number = self._file.fileno()
        # at an offset: processes share the file's position
        record: _Record = json.loads(os.pread(number, os.fstat(number).st_size, 0))
        return record

    def _write(self, record: _Record) -> None:
        data = json.dumps(record).encode()
        os.pwrite(self._file.fileno(), data.ljust(os.fstat(self._file.fileno()).st_size), 0)

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is None:
            return Passes, (self.next,)
        return _received, (DupFd(self._file.fileno()),)


def _received(sent: Any) -> Passes:
    """The record in a spawned process."""
    passes = Passes.__new__(Passes)
    passes._file = os.fdopen(sent.detach(), "r+b", buffering=0)
    return passes
