"""A lock in a folder that tells whether the process that made it lives: it ends with the process, however that ends.

It holds in every container that sees the folder, and no later process inherits it, as it may inherit a number.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

OWNER = "owner"
"""Name of the locked file."""


def new_lock(folder: Path) -> IO[str]:
    """Open the file that `claim` locks, in a folder that has none."""
    return (folder / f"{OWNER}.new").open("x")


def claim(lock: IO[str]) -> None:
    """Lock a `new_lock` for as long as it is open. It gets its name only then, so that no new folder looks left.

    Raises:
        OSError: a file system without locks.
    """
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    unnamed = Path(lock.name)
    unnamed.rename(unnamed.with_name(OWNER))


@contextmanager
def unowned(folder: Path) -> Iterator[bool]:
    """Take the lock of a folder if its process has died; yields whether it was taken.

    Raises:
        OSError: it has none, or it cannot be opened.
    """
    with (folder / OWNER).open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
