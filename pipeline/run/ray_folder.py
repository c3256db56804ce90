"""The folder of a run's Ray, with its token: entered by nobody else, gone with the run or, after a kill, the next.

gv-ray-XXXXXXXX/     0700
    owner            locked by the run for as long as it lives
    token            0600
    r/               Ray's own: sessions with sockets, logs, spilled objects
    views/           views that are fetched, see `scratch`
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

from gaussianverse.pipeline.errors import PipelineError, message
from gaussianverse.pipeline.run import owner_lock

_PREFIX, _TOKEN, _RAY = "gv-ray-", "token", "r"
_LONGEST_FOLDER = (107 if sys.platform == "linux" else 103) - 72
"""Characters of Ray's folder: what a socket's path has room for, less what Ray adds to it."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for Ray's sockets and logs that only this user can enter, and in it the token of this run.

    Ray makes everything below its folder writable for all, and keeps one token for all runs, readable for all.
    A token that the environment names is left in use. Folders that killed runs of this user left in the same place
    are removed first.

    Raises:
        PipelineError: the folder cannot be made.
    """
    parent = ""
    try:
        parent = tempfile.gettempdir()
        if len(parent) > _LONGEST_FOLDER - len(f"/{_PREFIX}12345678/{_RAY}"):
            parent = "/tmp"
        remove_left(Path(parent))
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))  # 0700
    except OSError as error:
        raise PipelineError(
            f"no folder for Ray can be made{parent and f' in {parent}'} ({message(error)}); make room, or set TMPDIR"
        ) from error
    try:
        with _owned(folder), _token(folder / _TOKEN):
            yield folder / _RAY
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_left(parent: Path) -> None:
    """Remove the folders of this user in `parent` whose run has died and whose Ray does not answer any more."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and _is_own(entry):
                with suppress(OSError), owner_lock.unowned(Path(entry.path)) as left:
                    if left and not any(map(_answers, Path(entry.path, _RAY).glob("session_*/sockets/*"))):
                        shutil.rmtree(entry.path, ignore_errors=True)


def _is_own(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, no link, of this user, that nobody else can write to."""
    found = entry.stat(follow_symlinks=False)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder."""
    with owner_lock.new_lock(folder) as lock:
        with suppress(OSError):  # a file system without locks: this folder stays after a kill
            owner_lock.claim(lock)
        yield


def _answers(path: Path) -> bool:
    """Whether a process listens at this socket; also if that cannot be told."""
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        try:
            client.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


@contextmanager
def _token(path: Path) -> Iterator[None]:
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        yield
        return
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)  # Ray's processes inherit it
    _forget_token()
    try:
        yield
    finally:
        del os.environ["RAY_AUTH_TOKEN_PATH"]
        _forget_token()


def _forget_token() -> None:
    """Make a Ray that is loaded read its token again; it keeps that of an earlier run of this process."""
    if "ray" in sys.modules:
        with suppress(AttributeError):  # older than tokens
            import_module("ray._raylet").AuthenticationTokenLoader.instance().reset_cache()
