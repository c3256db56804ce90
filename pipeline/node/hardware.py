"""What a node has for gsplat: its GPUs, their driver, a CUDA toolkit, compilers, and the extension once it is built.

Facts only; `gpu` judges them. Torch is asked wherever it knows, since its answer is what a build goes by.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

from gaussianverse.fitter.rasterize import gsplat_build


@dataclass(frozen=True)
class Device:
    """A GPU that torch sees."""

    name: str
    capability: tuple[int, int]
    memory: int
    """In bytes."""

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name} (compute capability {major}.{minor}, {self.memory / 2**30:.0f} GiB)"


@dataclass(frozen=True)
class Toolkit:
    """The CUDA toolkit that torch would compile with."""

    home: str
    """CUDA_HOME as torch finds it, "" if it finds none."""
    release: str = ""
    """Of its nvcc, such as "13.0"; "" if it has none that runs."""
    lacks: tuple[str, ...] = ()
    """Other files that a build needs and that are not there."""
    architectures: tuple[str, ...] = ()
    """That its nvcc compiles for, such as "compute_90"."""


@dataclass(frozen=True)
class Compilers:
    """What else a build calls."""

    ninja: str
    """Path, or "" if there is none."""
    cxx: str
    """The host compiler's name."""
    version: str
    """Of the host compiler, "" if there is none."""
    bounds: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    """Versions of g++ that nvcc takes: from the first to before the second; None if torch does not know."""


@dataclass(frozen=True)
class Architectures:
    """What the kernels are compiled for."""

    asked: str
    """TORCH_CUDA_ARCH_LIST, "" if it is not set."""
    code: tuple[str, ...] | None = None
    """As nvcc is told: "sm_90" for machine code, "compute_90" for PTX; None if torch does not tell."""
    refused: str = ""
    """Why torch does not accept the list, "" if it does."""


@dataclass(frozen=True)
class Build:
    """gsplat's extension."""

    installed: bool
    packaged: str = ""
    """The library within the package, "" if it is to be compiled at first use."""
    directory: str = ""
    """Where it is compiled."""
    refused: str = ""
    """Why that folder cannot be made, "" if it can."""
    compiled: bool = False
    code: tuple[str, ...] = ()
    """What it was compiled for, as `Architectures.code`."""
    under_way: bool = False
    interrupted: bool = False


def torch_version() -> tuple[str, str | None]:
    """Of torch, and of the CUDA that it was built for."""
    return str(torch.__version__), torch.version.cuda


def devices() -> list[Device]:
    """The GPUs that torch sees."""
    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(k) for k in range(torch.cuda.device_count())]
    return [Device(d.name, (d.major, d.minor), d.total_memory) for d in found]


def torch_code() -> list[str]:
    """What torch itself was compiled for, as `Architectures.code`; empty where it does not tell."""
    return list(torch.cuda.get_arch_list())


def driver_version(loaded: Path = Path("/proc/driver/nvidia/version")) -> str:
    """Of NVIDIA's kernel module, such as "580.159.04"; "" if none is loaded."""
    try:
        text = loaded.read_text()
    except OSError:
        text = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    found = re.search(r"\b\d{3,}\.\d+(?:\.\d+)?\b", text)
    return found[0] if found else ""


def said_by_torch() -> str:
    """Why torch cannot use CUDA, in its own words."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as fault:
        return str(fault).strip().splitlines()[0]
    return ""


def toolkit() -> Toolkit:
    """The CUDA toolkit as torch finds it: CUDA_HOME, the folder of the nvcc on PATH, or /usr/local/cuda."""
    from torch.utils import cpp_extension

    if not cpp_extension.CUDA_HOME:
        return Toolkit("")
    home = Path(cpp_extension.CUDA_HOME)
    nvcc = str(home / "bin" / "nvcc")
    release = re.search(r"release (\d+\.\d+)", _said(nvcc, "--version"))
    lacks = []
    if not any(home.glob("include/cuda_runtime.h")) and not any(
        home.glob("targets/*/include/cuda_runtime.h")
    ):
        lacks.append("include/cuda_runtime.h")
    folder = "lib64" if (home / "lib64").exists() else "lib"
    if not (home / folder / "libcudart.so").exists() and not _linked_anyway("libcudart.so"):
        lacks.append(f"{folder}/libcudart.so")
    known = tuple(_said(nvcc, "--list-gpu-arch").split())
    return Toolkit(str(home), release[1] if release else "", tuple(lacks), known)


def compilers(release: str) -> Compilers:
    """Ninja, and the host compiler with the versions of it that nvcc of this release takes."""
    from torch.utils import cpp_extension

    cxx = str(cpp_extension.get_cxx_compiler())  # type: ignore[no-untyped-call]
    version = _said(cxx, "-dumpfullversion", "-dumpversion").strip()
    bounds = None
    if version and cpp_extension.check_compiler_is_gcc(cxx):
        bounds = getattr(cpp_extension, "CUDA_GCC_VERSIONS", {}).get(release)
    return Compilers(shutil.which("ninja", path=gsplat_build.search_path()) or "", cxx, version, bounds)


def architectures() -> Architectures:
    """TORCH_CUDA_ARCH_LIST as torch reads it, or what torch chooses for the devices that it sees."""
    from torch.utils import cpp_extension

    asked = os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    read = getattr(cpp_extension, "_get_cuda_arch_flags", None)
    if read is None:
        return Architectures(asked)
    try:
        flags = read()
    except ValueError as fault:
        return Architectures(asked, refused=str(fault))
    except IndexError:  # torch wants the last of no devices
        return Architectures(asked, refused="no device is seen to compile for")
    return Architectures(asked, _code_in(" ".join(flags)))


def build() -> Build:
    """Whether gsplat's extension is there, or where it is to be compiled."""
    if importlib.util.find_spec("gsplat") is None:
        return Build(installed=False)
    if packaged := gsplat_build.packaged_library():
        return Build(installed=True, packaged=str(packaged))
    try:
        directory = gsplat_build.build_directory()
    except OSError as fault:
        return Build(installed=True, refused=str(fault))
    rules = directory / "build.ninja"
    under_way = gsplat_build.is_being_built(directory)
    return Build(
        installed=True,
        directory=str(directory),
        compiled=gsplat_build.built_library(directory) is not None,
        code=_code_in(rules.read_text()) if rules.is_file() else (),
        under_way=under_way,
        interrupted=not under_way and (directory / "lock").exists(),
    )


def _code_in(flags: str) -> tuple[str, ...]:
    return tuple(sorted(set(re.findall(r"-gencode=arch=\w+,code=(\w+)", flags))))


def _linked_anyway(library: str) -> bool:
    """Whether the host compiler finds a library on its own: in the system's folders or in LIBRARY_PATH."""
    from torch.utils import cpp_extension

    cxx = str(cpp_extension.get_cxx_compiler())  # type: ignore[no-untyped-call]
    return os.path.isabs(_said(cxx, f"-print-file-name={library}").strip())


def _said(*command: str) -> str:
    """What a program prints; "" if it is not there or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
