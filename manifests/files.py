"""Atomic writes, locks between processes, and strict JSON."""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gaussianverse import foreign
from gaussianverse.manifests.errors import ManifestError


def read_bytes(path: Path) -> bytes:
    """Read a file; raises ManifestError if it cannot be read."""
    try:
        return foreign.read_bytes(path)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error


def parse_json(text: bytes) -> Any:
    """Parse JSON; raises ManifestError if it is invalid or an object has a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"invalid JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for key, value in pairs:
        if key in entries:
            raise ManifestError(f"the key {key!r} occurs twice in one object; remove one")
        entries[key] = value
    return entries


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on `path`, which need not exist, against other processes that call this.

    The lock is on an empty file beside it, `.<name>.lock`, because each write replaces `path` itself. The
    lock file stays: if it were removed, two processes could hold the lock.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released on close, also when the process dies
        yield


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a temporary file in the same folder that becomes `path` at the end, and nothing after an error.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically, by renaming a temporary file in the same folder.

    Raises:
        OSError: the folder cannot be written.
    """
    with whole_file(path) as file:
        file.write(data)
