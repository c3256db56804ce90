"""Whose fault an error of the operating system is: the object's, or the machine's.

An error with a number comes from the system, and is the machine's (its disk, its share, its limits), unless the
number says that there is nothing of the kind under the name. An error without a number says something about the bytes
that were read (Pillow, gzip and tarfile raise such): it is the object's, unless it is about a connection or a right.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

OBJECTS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""Numbers of errors that are about the object; and only if something beside it can be read at that moment, since a
share that is gone looks the same."""
LASTING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM})
"""Numbers of errors that stay until somebody mends their cause."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Numbers that mean that a disk, a quota or a limit of file sizes is full."""
NAMES = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL})
"""Numbers of errors of keys that are no file names, or that are both a file and a folder."""
_MENDS = {
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "raise the quota or free space there",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EROFS: "mount it so that it can be written to",
    errno.EACCES: "give this user the right to use it",
    errno.EPERM: "give this user the right to use it",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files",
    errno.ENOMEM: "free memory, or use fewer workers",
}
_OF_THE_SYSTEM = (
    ConnectionError,
    TimeoutError,
    BlockingIOError,
    InterruptedError,
    PermissionError,
    ChildProcessError,
)


def is_machines(error: BaseException) -> bool:
    """Whether this is an OSError for which no object can be blamed."""
    if not isinstance(error, OSError):
        return False
    if error.errno is None:
        return isinstance(error, _OF_THE_SYSTEM)
    return error.errno not in OBJECTS


def is_absence(error: BaseException) -> bool:
    """Whether this is an OSError that says that there is nothing under a name, as also on a share that is lost."""
    return isinstance(error, OSError) and error.errno in OBJECTS


def status_of(path: str | os.PathLike[str]) -> os.stat_result | None:
    """Status of what `path` leads to, or None if there is nothing.

    `Path.exists`, `is_file` and `is_dir` are false as well where the system could not tell.

    Raises:
        OSError: the system could not tell, see `is_machines`.
    """
    try:
        return Path(path).stat()
    except (OSError, ValueError) as error:
        if is_machines(error):
            raise
        return None


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether `path` leads to a regular file; raises as `status_of`."""
    found = status_of(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether `path` leads to a folder; raises as `status_of`."""
    found = status_of(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether `path` leads to anything; raises as `status_of`."""
    return status_of(path) is not None


def mend_of(error: OSError) -> str:
    """The mend of an error of the machine."""
    return _MENDS.get(error.errno or 0, "check its disk or share")


def describe(error: OSError) -> str:
    """The system's text, without a path: published texts and those that are counted have none."""
    return error.strerror or str(error) or type(error).__name__
