"""gsplat's build: one process at a time, and errors with a reason. The package is a fake; no GPU is needed."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from gaussianverse.fitter.rasterize import BackendUnavailable, gsplat_build

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60.0

# Stays inside its import until a second process is inside too, or has waited at the door for a second.
BACKEND = """
import os, time
from pathlib import Path

trace, own = Path(os.environ["TRACE"]), str(os.getpid())
(trace / f"inside-{own}").touch()
while os.environ.get("STUCK"):
    time.sleep(0.01)
while len(list(trace.glob("door-*"))) < 2:
    time.sleep(0.01)
until = time.monotonic() + 1
while time.monotonic() < until:
    if len(list(trace.glob("inside-*"))) > 1:
        (trace / "overlap").touch()
        break
    time.sleep(0.01)
(trace / f"inside-{own}").rename(trace / f"done-{own}")
_C = own
"""
LOCKED = "gsplat_build.extension()"
UNLOCKED = "import gsplat.cuda._backend"
PROGRAM = """
import os, sys
from pathlib import Path
import torch.utils.cpp_extension
from gaussianverse.fitter.rasterize import gsplat_build

(Path(os.environ["TRACE"]) / f"door-{os.getpid()}").touch()
%s
assert "gsplat.cuda._backend" in sys.modules
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A folder with a package `gsplat` whose kernels are slow to import, and a folder for traces."""
    (tmp_path / "gsplat" / "cuda").mkdir(parents=True)
    (tmp_path / "trace").mkdir()
    for name in ("gsplat/__init__.py", "gsplat/cuda/__init__.py"):
        (tmp_path / name).touch()
    (tmp_path / "gsplat" / "cuda" / "_backend.py").write_text(BACKEND)
    return tmp_path


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    gsplat_build.extension.cache_clear()
    yield
    gsplat_build.extension.cache_clear()


def started(fake: Path, first_use: str, **more: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{fake}:{ROOT}",
        "TORCH_EXTENSIONS_DIR": str(fake / "builds"),
        "TRACE": str(fake / "trace"),
        **more,
    }
    return subprocess.Popen([sys.executable, "-c", PROGRAM % first_use], env=environment)


def seen(fake: Path, pattern: str) -> list[Path]:
    return sorted((fake / "trace").glob(pattern))


def wait_until_seen(fake: Path, pattern: str) -> None:
    until = time.monotonic() + PATIENCE
    while not seen(fake, pattern):
        assert time.monotonic() < until, f"no {pattern} within {PATIENCE} s"
        time.sleep(0.02)


@pytest.mark.parametrize(("first_use", "overlap"), [(LOCKED, False), (UNLOCKED, True)])
def test_two_processes_build_one_after_the_other(fake: Path, first_use: str, overlap: bool) -> None:
    """Without the lock the builds overlap, which shows that the fake detects it."""
    both = [started(fake, first_use), started(fake, first_use)]
    assert [process.wait(PATIENCE) for process in both] == [0, 0]
    assert len(seen(fake, "done-*")) == 2
    assert bool(seen(fake, "overlap")) == overlap


def test_a_killed_builder_leaves_no_lock(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(fake / "builds"))
    assert not gsplat_build.is_being_built(gsplat_build.build_directory())
    first = started(fake, LOCKED, STUCK="1")
    wait_until_seen(fake, "inside-*")
    assert gsplat_build.is_being_built(gsplat_build.build_directory())
    second = started(fake, LOCKED)
    wait_until_seen(fake, f"door-{second.pid}")
    assert len(seen(fake, "inside-*")) == 1
    first.send_signal(signal.SIGKILL)
    first.wait(PATIENCE)
    assert second.wait(PATIENCE) == 0
    assert seen(fake, f"done-{second.pid}")
    assert not gsplat_build.is_being_built(gsplat_build.build_directory())


def test_the_lock_lies_beside_the_folder_that_gsplat_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "builds"))
    directory = gsplat_build.build_directory()
    assert directory == tmp_path / "builds" / "gsplat_cuda"
    assert gsplat_build.lock_file(directory).parent == directory.parent
    assert gsplat_build.built_library(directory) is None
    (directory / "gsplat_cuda.so").touch()
    assert gsplat_build.built_library(directory) == directory / "gsplat_cuda.so"


def test_an_extension_within_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModuleSpec("gsplat", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(gsplat_build.importlib.util, "find_spec", lambda name: spec)
    assert gsplat_build.packaged_library() is None
    (tmp_path / "csrc.cpython-312-x86_64-linux-gnu.so").touch()
    assert gsplat_build.packaged_library() == tmp_path / "csrc.cpython-312-x86_64-linux-gnu.so"


class Broken(ModuleType):
    """Module whose attributes raise, as `from .. import _C` does after a failed build."""

    def __init__(self, error: Exception) -> None:
        super().__init__("gsplat.cuda._backend")
        self.error = error

    def __getattr__(self, name: str) -> object:
        raise self.error


COMMAND = "/usr/local/cuda/bin/nvcc -DTORCH_EXTENSION_NAME=gsplat_cuda -c /site/error: fatal.cu -o AdamCUDA.cuda.o"
FAILED = f"Error building extension 'gsplat_cuda': [1/30] {COMMAND}\nFAILED: [code=1] AdamCUDA.cuda.o\n{COMMAND}\n"


# real outputs with CUDA 13.0 and torch 2.13.0+cu130, on machines that were broken in different ways
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError(
                FAILED.replace("error: fatal.cu", "Adam.cu")
                + "/torch/include/c10/cuda/CUDAMiscFunctions.h:7:10: fatal error: cuda_runtime.h: No such file or "
                "directory\n    7 | #include <cuda_runtime.h>\ncompilation terminated.\n"
                "ninja: build stopped: subcommand failed.\n"
            ),
            "fatal error: cuda_runtime.h: No such file or directory",
        ),
        (
            RuntimeError(
                "Error building extension 'gsplat_cuda': [1/30] nvcc\nFAILED: [code=1] AdamCUDA.cuda.o\n"
                "nvcc fatal   : Unsupported gpu architecture 'compute_70'\nninja: build stopped\n"
            ),
            "Unsupported gpu architecture 'compute_70'",
        ),
        (
            RuntimeError(
                "Error building extension 'gsplat_cuda': [30/30] c++\nFAILED: [code=1] gsplat_cuda.so\n"
                "/usr/bin/ld: cannot find -lcudart: No such file or directory\n"
                "collect2: error: ld returned 1 exit status\nninja: build stopped: subcommand failed.\n"
            ),
            "cannot find -lcudart",
        ),
        (
            RuntimeError("Error building extension 'gsplat_cuda': /bin/sh: 1: /cuda/bin/nvcc: not found\n"),
            "nvcc: not found",
        ),
        (RuntimeError("Ninja is required to load C++ extensions (pip install ninja to get it)"), "Ninja is req"),
        (IndexError("list index out of range"), "IndexError: list index out of range"),
        (ImportError("gsplat_cuda.so: undefined symbol: _ZN3c10"), "undefined symbol: _ZN3c10"),
    ],
)
def test_a_failed_build_says_why(
    error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", Broken(error))
    with pytest.raises(BackendUnavailable) as raised:
        gsplat_build.extension()
    text = str(raised.value)
    assert reason in text
    assert "doctor" in text
    assert "[1/30]" not in text
    assert raised.value.__cause__ is error


def test_without_nvcc_gsplat_has_no_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nvcc, gsplat prints a line and sets _C to None, with which every object would fail."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", SimpleNamespace(_C=None))  # type: ignore[misc]
    with pytest.raises(BackendUnavailable, match=r"nvcc was not found.*CUDA_HOME"):
        gsplat_build.extension()


def test_a_build_folder_that_cannot_be_written_needs_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "file"))
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", SimpleNamespace(_C="kernels"))  # type: ignore[misc]
    assert gsplat_build.extension() == "kernels"


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(descriptor: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(BackendUnavailable, match=r"cannot be locked.*TORCH_EXTENSIONS_DIR"):
        gsplat_build.extension()


class Onlooker(ModuleType):
    """Module whose attributes are the PATH that a build would have."""

    def __getattr__(self, name: str) -> str:
        return os.environ["PATH"]


@pytest.mark.parametrize("path", ["/usr/bin", None])
def test_a_build_finds_the_ninja_of_this_python(
    path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`.venv/bin/gaussianverse` may be called without activating the environment, and torch searches PATH."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", Onlooker("gsplat.cuda._backend"))
    if path is None:
        monkeypatch.delenv("PATH")
    else:
        monkeypatch.setenv("PATH", path)
    assert gsplat_build.extension().split(":")[-1] == sysconfig.get_path("scripts")
    assert os.environ.get("PATH") == path
