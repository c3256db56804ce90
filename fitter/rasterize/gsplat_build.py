"""gsplat's CUDA extension: location of its build, and a first import by one process of a machine at a time.

gsplat 1.5 ships CUDA sources and compiles them on first use, in a folder chosen by torch. If another process is
compiling there, it removes that process's lock and then the folder. So the import waits for a lock beside the folder,
which the operating system releases when its holder dies.
"""

from __future__ import annotations

import fcntl
import importlib.util
import logging
import os
import re
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from gaussianverse.fitter.rasterize import BackendUnavailable

log = logging.getLogger(__name__)

NAME = "gsplat_cuda"
"""Name of gsplat's extension."""
_REMEDY = "run `gaussianverse doctor --profile paper`, or see docs/gpu.md for known reasons"
# lines of a failed build that give the reason; lines that repeat a command start with [n/m] or FAILED
_REASON = re.compile(r"^(?!\[|FAILED).*(?:\b(?:fatal|error)\b\s*:|: not found|cannot find).*$", re.M)


def build_directory() -> Path:
    """Folder in which gsplat compiles; torch creates it.

    Raises:
        OSError: it cannot be created.
    """
    from torch.utils import cpp_extension

    return Path(cpp_extension._get_build_directory(NAME, verbose=False))


def built_library(directory: Path) -> Path | None:
    """Path of the compiled extension in the folder, or None."""
    library = directory / f"{NAME}.so"
    return library if library.is_file() else None


def packaged_library() -> Path | None:
    """Path of an extension that was built with the installed package, or None; gsplat prefers it."""
    package = importlib.util.find_spec("gsplat")
    folders = package.submodule_search_locations if package else None
    return next((path for folder in folders or () for path in Path(folder).glob("csrc*.so")), None)


def lock_file(directory: Path) -> Path:
    """Lock file of a build folder; it is beside the folder, which gsplat may remove."""
    return directory.with_name(f"{directory.name}.flock")


def search_path() -> str:
    """PATH with this Python's scripts appended, since ninja is there even if the environment is not activated."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), sysconfig.get_path("scripts")])


def is_being_built(directory: Path) -> bool:
    """Whether another process is loading or building the extension."""
    try:
        descriptor = os.open(lock_file(directory), os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


@cache
def extension() -> Any:
    """Load gsplat's compiled functions; the first call on a machine compiles them, which takes minutes.

    Raises:
        BackendUnavailable: they cannot be compiled or loaded here.
    """
    with _build_lock(), _ninja_on_path():
        try:
            from gsplat.cuda._backend import _C
        except Exception as error:
            raise BackendUnavailable(
                f"gsplat's CUDA kernels cannot be built or loaded here: {_reason(error)}; {_REMEDY}"
            ) from error
    if _C is None:
        raise BackendUnavailable(
            "gsplat's CUDA kernels cannot be built here: nvcc was not found; install the CUDA toolkit of torch's "
            f"CUDA version, or set CUDA_HOME to it; {_REMEDY}"
        )
    return _C


@contextmanager
def _build_lock() -> Iterator[None]:
    """Wait for the lock of the build folder and hold it."""
    descriptor = _open_lock()
    if descriptor is None:
        yield
        return
    try:
        _acquire(descriptor)
        yield
    finally:
        os.close(descriptor)


def _open_lock() -> int | None:
    """Open the lock file; None if this process cannot write there, since then it cannot build there either."""
    try:
        return os.open(lock_file(build_directory()), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return None


def _acquire(descriptor: int) -> None:
    directory = build_directory()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if built_library(directory) is None:
            log.warning("another process is building gsplat's kernels in %s; waiting for it", directory)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        raise BackendUnavailable(
            f"{lock_file(directory)} cannot be locked: {error}; set TORCH_EXTENSIONS_DIR to a folder on a disk of "
            "this machine"
        ) from error


@contextmanager
def _ninja_on_path() -> Iterator[None]:
    """Extend PATH so that torch finds ninja."""
    before = os.environ.get("PATH")
    os.environ["PATH"] = search_path()
    try:
        yield
    finally:
        if before is None:
            del os.environ["PATH"]
        else:
            os.environ["PATH"] = before


def _reason(error: Exception) -> str:
    """Line of a failed build's output that gives the reason, or else the last line."""
    text = str(error).strip()
    reason = _REASON.search(text)
    return reason[0].strip() if reason else f"{type(error).__name__}: {(text.splitlines() or [''])[-1]}"
