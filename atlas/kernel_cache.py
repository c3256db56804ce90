"""The cache of compiled kernels on disk, which a machine's faults may slow down and never break.

Numba's own raises where an entry is damaged or cut short, where no folder can be written to, and where a disk is
full. Here such an entry is compiled again, and where the usual folders cannot be written to, a private one is used.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from numba.core import caching

log = logging.getLogger(__name__)

_NAME = "gaussianverse-kernels"
_SUM = ".sha256"


@lru_cache(maxsize=1)
def private_folder() -> str:
    """A folder that only this user can use, below the one for temporary files; "" if there is none.

    The one that earlier processes made is used again if it is this user's and nobody else can enter it; else this
    process makes one and removes it at its end.
    """
    try:
        path = os.path.join(tempfile.gettempdir(), f"{_NAME}-{os.geteuid()}")
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        found = os.lstat(path)
        ours = (
            stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077
        )
        if not ours or not os.access(path, os.W_OK | os.X_OK):
            path = tempfile.mkdtemp(prefix=f"{_NAME}-")
            atexit.register(shutil.rmtree, path, ignore_errors=True)
    except OSError:
        return ""
    return path


@lru_cache(maxsize=1)
def _warn_of_private(path: str) -> None:
    log.warning(
        "compiled kernels cannot be kept beside their sources or in ~/.cache; they are kept in %s. To keep them "
        "elsewhere, set NUMBA_CACHE_DIR to a folder that can be written to",
        path,
    )


@lru_cache(maxsize=1)
def _warn_of_none() -> None:
    log.warning(
        "compiled kernels cannot be kept anywhere, so each process compiles them again, which takes a minute; set "
        "NUMBA_CACHE_DIR to a folder that can be written to"
    )


@lru_cache(maxsize=1)
def _warn_of_damage(path: str) -> None:
    log.warning("%s: damaged; kernels whose entries are damaged are compiled again", path)


class _UserWide(caching.UserWideCacheLocator):  # type: ignore[misc]
    """~/.cache; without a home, numba would make a folder called "~"."""

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Any:
        if not os.path.isabs(cls(py_func, py_file).get_cache_path()):
            return None
        return super().from_function(py_func, py_file)


class _Private(caching.InTreeCacheLocator):  # type: ignore[misc]
    """The private folder."""

    def __init__(self, py_func: Any, py_file: str) -> None:
        super().__init__(py_func, py_file)
        self._cache_path = os.path.join(private_folder(), self.get_suitable_cache_subpath(py_file))

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Any:
        found = super().from_function(py_func, py_file) if private_folder() else None
        if found is not None:
            _warn_of_private(private_folder())
        return found


class _Results(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (caching.UserProvidedCacheLocator, caching.InTreeCacheLocator, _UserWide, _Private)


class _Files(caching.IndexDataCacheFile):  # type: ignore[misc]
    """Index and entries, each with its sha256 beside it; one without (of an older version) is believed."""

    def _load_index(self) -> Any:
        try:
            if _is_intact(self._index_path):
                return super()._load_index()
        except Exception as error:
            log.debug("%s: %s", self._index_path, error)
        if os.path.lexists(self._index_path):
            _warn_of_damage(self._cache_path)
        return {}

    def _load_data(self, name: str) -> Any:
        path = self._data_path(name)
        if not _is_intact(path):
            raise OSError(f"{path}: damaged")  # numba takes this for an entry that is not there
        return super()._load_data(name)

    @contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[Any]:
        with suppress(FileNotFoundError):
            os.unlink(filepath + _SUM)
        with super()._open_for_write(filepath) as file:
            yield file
        data = Path(filepath).read_bytes()
        with super()._open_for_write(filepath + _SUM) as file:
            file.write(hashlib.sha256(data).hexdigest().encode())


def _is_intact(path: str) -> bool:
    try:
        expected = Path(path + _SUM).read_text()
    except FileNotFoundError:
        return True
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() == expected


class KernelCache(caching.FunctionCache):  # type: ignore[misc]
    """Numba's cache of one function that raises nothing.

    Raises:
        RuntimeError: when it is made, and no folder can be written to.
    """

    _impl_class = _Results

    def __init__(self, py_func: Any) -> None:
        super().__init__(py_func)
        self._use(self._impl.locator)

    def _use(self, locator: Any) -> None:
        self._impl._locator = locator
        self._cache_path = locator.get_cache_path()
        stamp = locator.get_source_stamp()
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled function, or None if it must be compiled."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:
            log.debug("%s: %s", self._cache_path, error)
            _warn_of_damage(self._cache_path)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function, if possible."""
        try:
            super().save_overload(sig, data)
        except Exception as error:
            log.debug("%s: %s", self._cache_path, error)
            locator = _Private.from_function(self._py_func, self._impl.locator._py_file)
            if locator is None or locator.get_cache_path() == self._cache_path:
                self.disable()
                _warn_of_none()
                return
            self._use(locator)
            self.save_overload(sig, data)


def keep(dispatcher: Any) -> Any:
    """Give a function that numba compiles its cache; returns it."""
    try:
        dispatcher._cache = KernelCache(dispatcher.py_func)
    except (RuntimeError, OSError):
        _warn_of_none()
    return dispatcher
