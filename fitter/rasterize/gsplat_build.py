"""gsplat's CUDA extension: where its build lies, and its first import, by one process of a machine at a time.

gsplat 1.5 comes as CUDA sources and compiles them when its kernels are first asked for, into a folder that torch
names. It has no regard for another process that is compiling there: it removes that one's lock and then the folder.
So its import waits for a lock of ours that lies beside the folder, and that the kernel takes back from whoever dies.
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
"""What gsplat calls its extension."""
_MEND = "`gaussianverse doctor --profile paper` looks for the reason, docs/gpu.md lists the known ones"
# lines of a failed build that say why; ninja begins those that repeat a command with [n/m] or FAILED
_REASON = re.compile(r"^(?!\[|FAILED).*(?:\b(?:fatal|error)\b\s*:|: not found|cannot find).*$", re.M)


def build_directory() -> Path:
    """The folder that gsplat compiles in; torch makes it if it is not there.

    Raises:
        OSError: it cannot be made.
    """
    from torch.utils import cpp_extension

    return Path(cpp_extension._get_build_directory(NAME, verbose=False))


def built_library(directory: Path) -> Path | None:
    """The extension that was compiled in the folder, if it was."""
    library = directory / f"{NAME}.so"
    return library if library.is_file() else None


def packaged_library() -> Path | None:
    """The extension within the installed package, where somebody built it with the package; gsplat prefers it."""
    package = importlib.util.find_spec("gsplat")
    folders = package.submodule_search_locations if package else None
    return next((path for folder in folders or () for path in Path(folder).glob("csrc*.so")), None)


def lock_file(directory: Path) -> Path:
    """The lock of a build folder: beside it, because gsplat removes the folder."""
    return directory.with_name(f"{directory.name}.flock")


def search_path() -> str:
    """PATH, and after it the folder of this Python's scripts: ninja lies there, also where nobody activated it."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), sysconfig.get_path("scripts")])


def is_being_built(directory: Path) -> bool:
    """Whether another process loads or builds the extension at this moment."""
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
    """gsplat's compiled functions; the first call on a machine compiles them, which takes minutes.

    Raises:
        BackendUnavailable: they cannot be compiled or loaded here.
    """
    with _one_at_a_time(), _ninja_within_reach():
        try:
            from gsplat.cuda._backend import _C
        except Exception as fault:
            raise BackendUnavailable(
                f"gsplat's CUDA kernels cannot be built or loaded here: {_gist(fault)}; {_MEND}"
            ) from fault
    if _C is None:
        raise BackendUnavailable(
            "gsplat's CUDA kernels cannot be built here: it finds no nvcc; install the CUDA toolkit of torch's own "
            f"CUDA version, or set CUDA_HOME to it; {_MEND}"
        )
    return _C


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Hold the lock of the build folder, once whoever has it is done."""
    descriptor = _opened_lock()
    if descriptor is None:
        yield
        return
    try:
        _wait_for(descriptor)
        yield
    finally:
        os.close(descriptor)


def _opened_lock() -> int | None:
    """None where this process may not write: it cannot build there either, so there is nothing to guard."""
    try:
        return os.open(lock_file(build_directory()), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return None


def _wait_for(descriptor: int) -> None:
    directory = build_directory()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if built_library(directory) is None:
            log.warning("another process is building gsplat's kernels in %s; waiting for it", directory)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as fault:
        raise BackendUnavailable(
            f"{lock_file(directory)} cannot be locked: {fault}; set TORCH_EXTENSIONS_DIR to a folder on a disk of "
            "this machine"
        ) from fault


@contextmanager
def _ninja_within_reach() -> Iterator[None]:
    """torch calls ninja by its name alone."""
    before = os.environ.get("PATH")
    os.environ["PATH"] = search_path()
    try:
        yield
    finally:
        if before is None:
            del os.environ["PATH"]
        else:
            os.environ["PATH"] = before


def _gist(fault: Exception) -> str:
    """The line of a build's output that says why it failed, or else the last one."""
    text = str(fault).strip()
    reason = _REASON.search(text)
    return reason[0].strip() if reason else f"{type(fault).__name__}: {(text.splitlines() or [''])[-1]}"
