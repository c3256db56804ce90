"""Facts about a node for gsplat: GPUs, their driver, the CUDA toolkit, compilers, and the extension once it is built.

`gpu` judges them. The facts come from torch where it knows them, since a build relies on torch's answer.
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
    """Bytes."""

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name} (compute capability {major}.{minor}, {self.memory / 2**30:.0f} GiB)"


@dataclass(frozen=True)
class Toolkit:
    """The CUDA toolkit that torch would compile with."""

    home: str
    """CUDA_HOME as torch finds it; "" if there is none."""
    release: str = ""
    """Release of its nvcc, such as "13.0"; "" if no nvcc runs."""
    missing: tuple[str, ...] = ()
    """Other files that a build needs and that are missing."""
    architectures: tuple[str, ...] = ()
    """Targets of its nvcc, such as "compute_90"."""


@dataclass(frozen=True)
class Compilers:
    """Ninja and the host compiler."""

    ninja: str
    """Path; "" if there is none."""
    cxx: str
    """Name of the host compiler."""
    version: str
    """Version of the host compiler; "" if it does not run."""
    bounds: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    """Versions of g++ that nvcc accepts: the first and the end, exclusive; None if torch does not know."""


@dataclass(frozen=True)
class Architectures:
    """Architectures that the kernels are compiled for."""

    requested: str
    """TORCH_CUDA_ARCH_LIST; "" if it is not set."""
    code: tuple[str, ...] | None = None
    """Names that nvcc is given: "sm_90" for machine code, "compute_90" for PTX; None if torch does not say."""
    error: str = ""
    """Why torch rejects the list; "" if it accepts it."""


@dataclass(frozen=True)
class Build:
    """gsplat's extension."""

    installed: bool
    packaged: str = ""
    """The library inside the package; "" if it is compiled at first use."""
    directory: str = ""
    """Folder that it is compiled in."""
    error: str = ""
    """Why that folder cannot be created; "" if it can."""
    compiled: bool = False
    code: tuple[str, ...] = ()
    """Architectures that it was compiled for, as `Architectures.code`."""
    under_way: bool = False
    interrupted: bool = False


def torch_version() -> tuple[str, str | None]:
    """Versions of torch and of the CUDA that it was built for."""
    return str(torch.__version__), torch.version.cuda


def devices() -> list[Device]:
    """The GPUs that torch sees."""
    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(k) for k in range(torch.cuda.device_count())]
    return [Device(d.name, (d.major, d.minor), d.total_memory) for d in found]


def torch_code() -> list[str]:
    """Architectures that torch itself was compiled for, as `Architectures.code`; empty if it does not say."""
    return list(torch.cuda.get_arch_list())


def driver_version(loaded: Path = Path("/proc/driver/nvidia/version")) -> str:
    """Version of NVIDIA's kernel module, such as "580.159.04"; "" if none is loaded."""
    try:
        text = loaded.read_text()
    except OSError:
        text = _output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    found = re.search(r"\b\d{3,}\.\d+(?:\.\d+)?\b", text)
    return found[0] if found else ""


def torch_error() -> str:
    """First line of torch's own message on why it cannot use CUDA; "" if it can."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0]
    return ""


def toolkit() -> Toolkit:
    """The CUDA toolkit as torch finds it: CUDA_HOME, the folder of the nvcc on PATH, or /usr/local/cuda."""
    from torch.utils import cpp_extension

    if not cpp_extension.CUDA_HOME:
        return Toolkit("")
    home = Path(cpp_extension.CUDA_HOME)
    nvcc = str(home / "bin" / "nvcc")
    release = re.search(r"release (\d+\.\d+)", _output_of(nvcc, "--version"))
    missing = []
    if not any(any(home.glob(f"{above}include/cuda_runtime.h")) for above in ("", "targets/*/")):
        missing.append("include/cuda_runtime.h")
    folder = "lib64" if (home / "lib64").exists() else "lib"
    if not (home / folder / "libcudart.so").exists() and not _compiler_finds("libcudart.so"):
        missing.append(f"{folder}/libcudart.so")
    known = tuple(_output_of(nvcc, "--list-gpu-arch").split())
    return Toolkit(str(home), release[1] if release else "", tuple(missing), known)


def compilers(release: str) -> Compilers:
    """Ninja, and the host compiler with the versions of it that nvcc of this release accepts."""
    from torch.utils import cpp_extension

    cxx = str(cpp_extension.get_cxx_compiler())  # type: ignore[no-untyped-call]
    version = _output_of(cxx, "-dumpfullversion", "-dumpversion").strip()
    bounds = None
    if version and cpp_extension.check_compiler_is_gcc(cxx):
        bounds = getattr(cpp_extension, "CUDA_GCC_VERSIONS", {}).get(release)
    return Compilers(shutil.which("ninja", path=gsplat_build.search_path()) or "", cxx, version, bounds)


def architectures() -> Architectures:
    """TORCH_CUDA_ARCH_LIST as torch reads it, or what torch chooses for the devices that it sees."""
    from torch.utils import cpp_extension

    requested = os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    read = getattr(cpp_extension, "_get_cuda_arch_flags", None)
    if read is None:
        return Architectures(requested)
    try:
        flags = read()
    except ValueError as error:
        return Architectures(requested, error=str(error))
    except IndexError:  # torch takes the last device of an empty list
        return Architectures(requested, error="no device is seen to compile for")
    return Architectures(requested, _code_in(" ".join(flags)))


def build() -> Build:
    """State of gsplat's extension: packaged, compiled, or to be compiled."""
    if importlib.util.find_spec("gsplat") is None:
        return Build(installed=False)
    if packaged := gsplat_build.packaged_library():
        return Build(installed=True, packaged=str(packaged))
    try:
        directory = gsplat_build.build_directory()
    except OSError as error:
        return Build(installed=True, error=str(error))
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


def _compiler_finds(library: str) -> bool:
    """True if the host compiler finds a library on its own: in the system's folders or in LIBRARY_PATH."""
    from torch.utils import cpp_extension

    cxx = str(cpp_extension.get_cxx_compiler())  # type: ignore[no-untyped-call]
    return os.path.isabs(_output_of(cxx, f"-print-file-name={library}").strip())


def _output_of(*command: str) -> str:
    """Standard output of a program; "" if it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
