"""Files written whole or not at all, and by one process at a time."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock on `path`, which need not exist, against other processes that take the same.

    The lock is on an empty file beside it, `.<name>.lock`, which stays: the file itself is replaced by each
    write, and a removed lock file could be held by two.

    Raises:
        OSError: the place cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released on close, also by a process that dies
        yield


def write_whole(path: Path, data: bytes) -> None:
    """Writes by a temporary file in the same folder, so that no reader sees half of it.

    Raises:
        OSError: the place cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
