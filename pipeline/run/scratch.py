"""Folders for views that are fetched: one of each process, which goes with it, or with the next one after a kill.

BASE/                    of this user on this machine, 0700
    w-XXXXXXXX/          of one process
        owner            locked by the process for as long as it lives
        ..               what it fetches
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

from gaussianverse.pipeline.run import owner_lock
from gaussianverse.pipeline.run.fetching import NoRoom, no_room

_OF_A_PROCESS = "w-"
_making = threading.Lock()
_locks: list[IO[str]] = []
"""Open as long as the process lives."""


def base_of(scratch: str) -> Path:
    """The folder that all processes of a run have in common on this machine.

    Args:
        scratch: folder of the run; "" = one in the folder for temporary files, which all runs of this user share.
    """
    return Path(scratch or f"{tempfile.gettempdir()}/gaussianverse-{os.getuid()}")


def own_folder(scratch: str) -> Path:
    """This process's own folder; what processes that were killed left beside it is removed first.

    Raises:
        NoRoom: it cannot be made, or another user made the one above it.
    """
    with _making:
        return _own_folder(base_of(scratch), os.getpid())


@contextmanager
def temporary(scratch: str | None) -> Iterator[Path]:
    """A folder that is removed at the end of the context, within `own_folder`, or of None outside; raises NoRoom."""
    own = None if scratch is None else own_folder(scratch)
    try:
        folder = tempfile.TemporaryDirectory(prefix="gaussianverse-", dir=own, ignore_cleanup_errors=True)
    except OSError as error:
        raise no_room(error) from error
    with folder:
        yield Path(folder.name)


@lru_cache(maxsize=8)
def _own_folder(base: Path, process: int) -> Path:
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        found = base.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise NoRoom(f"{base}: not a folder of this user alone; remove it, or set TMPDIR to another folder")
        _remove_left(base)
        folder = Path(tempfile.mkdtemp(prefix=_OF_A_PROCESS, dir=base))
        lock = owner_lock.new_lock(folder)
        _locks.append(lock)
        owner_lock.claim(lock)
    except OSError as error:
        raise no_room(error) from error
    atexit.register(_remove, folder, process)
    return folder


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():  # a thread that fetches wrote to it meanwhile; the next process removes the rest
            with suppress(OSError):
                (folder / owner_lock.OWNER).touch()
        with suppress(OSError):  # others use it still
            folder.parent.rmdir()


def _remove_left(base: Path) -> None:
    """Remove the folders whose processes have died."""
    for folder in base.glob(f"{_OF_A_PROCESS}*"):
        with suppress(OSError), owner_lock.unowned(folder) as left:
            if left:
                shutil.rmtree(folder, ignore_errors=True)
