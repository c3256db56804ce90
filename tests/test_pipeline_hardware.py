"""The facts of a node, from files and programs that stand in for a driver and a toolkit."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils import cpp_extension

from gaussianverse.fitter.rasterize import gsplat_build
from gaussianverse.pipeline.node import hardware
from gaussianverse.pipeline.node.hardware import Architectures, Device

OPEN_MODULE = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U22)
GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)
"""
CLOSED_MODULE = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun  6 22:20:39 UTC 2023
GCC version:
"""
NVCC = """#!/bin/sh
case $1 in
--version) echo 'Cuda compilation tools, release 13.0, V13.0.88' ;;
--list-gpu-arch) printf 'compute_80\\ncompute_90\\n' ;;
esac
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(("text", "version"), [(OPEN_MODULE, "580.95.05"), (CLOSED_MODULE, "535.54.03")])
def test_the_driver_as_the_kernel_tells_it(text: str, version: str, tmp_path: Path) -> None:
    (tmp_path / "version").write_text(text)
    assert hardware.driver_version(tmp_path / "version") == version


def test_the_driver_as_its_tool_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert hardware.driver_version(tmp_path / "none") == ""
    program(tmp_path / "bin" / "nvidia-smi", "#!/bin/sh\necho 580.159.04\necho 580.159.04\n")
    assert hardware.driver_version(tmp_path / "none") == "580.159.04"
    broken = "#!/bin/sh\necho 'Driver/library version mismatch: NVML library version: 580.159'\nexit 18\n"
    program(tmp_path / "bin" / "nvidia-smi", broken)
    assert hardware.driver_version(tmp_path / "none") == ""


def test_devices_are_those_that_torch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert hardware.devices() == []
    properties = [SimpleNamespace(name=f"GPU {k}", major=9, minor=k, total_memory=k << 30) for k in range(2)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties.__getitem__)
    assert hardware.devices() == [Device("GPU 0", (9, 0), 0), Device("GPU 1", (9, 1), 1 << 30)]


def test_torch_s_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise RuntimeError("Found no NVIDIA driver on your system. Please check\nmore")

    monkeypatch.setattr(torch.cuda, "init", refused)
    assert hardware.torch_error() == "Found no NVIDIA driver on your system. Please check"


def test_a_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapper of nvcc in a `bin` whose parent folder holds no toolkit was seen on a real machine."""
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    assert hardware.toolkit() == hardware.Toolkit("")
    home = tmp_path / "cuda"
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(home))
    assert hardware.toolkit().release == ""
    program(home / "bin" / "nvcc", NVCC)
    tools = hardware.toolkit()
    assert (tools.home, tools.release, tools.architectures) == (str(home), "13.0", ("compute_80", "compute_90"))
    assert tools.missing == ("include/cuda_runtime.h", "lib/libcudart.so")
    (home / "include").mkdir()
    (home / "include" / "cuda_runtime.h").touch()
    (home / "lib").mkdir()
    (home / "lib" / "libcudart.so.13").touch()
    assert hardware.toolkit().missing == ("lib/libcudart.so",)
    (home / "lib" / "libcudart.so").symlink_to("libcudart.so.13")
    assert hardware.toolkit().missing == ()
    (home / "lib64").mkdir()
    assert hardware.toolkit().missing == ("lib64/libcudart.so",), "torch links from lib64 where there is one"


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_a_library_that_the_compiler_finds_on_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "cuda"
    program(home / "bin" / "nvcc", NVCC)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(home))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "libcudart.so").touch()
    monkeypatch.setenv("LIBRARY_PATH", str(tmp_path / "elsewhere"))
    assert hardware.toolkit().missing == ("include/cuda_runtime.h",)


def test_compilers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gcc = (
        "#!/bin/sh\n"
        'case $1 in -v) echo COLLECT_GCC=$0 >&2; echo "gcc version 13.3.0" >&2 ;; -dump*) echo 13.3.0 ;; esac\n'
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("CXX", str(program(tmp_path / "g++-13", gcc)))
    found = hardware.compilers("13.0")
    assert (found.cxx, found.version) == (str(tmp_path / "g++-13"), "13.3.0")
    assert found.bounds == cpp_extension.CUDA_GCC_VERSIONS["13.0"]
    assert hardware.compilers("99.0").bounds is None
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    assert hardware.compilers("13.0").version == ""


def test_ninja_is_found_beside_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.venv/bin/gaussianverse` is called by its path, without activating the environment."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    monkeypatch.setattr(gsplat_build.sysconfig, "get_path", lambda name: str(tmp_path / name))
    assert hardware.compilers("13.0").ninja == ""
    ninja = program(tmp_path / "scripts" / "ninja", "#!/bin/sh\n")
    assert hardware.compilers("13.0").ninja == str(ninja)


def test_scripts_of_this_python_lie_on_the_search_path() -> None:
    assert gsplat_build.search_path().endswith(sysconfig.get_path("scripts"))


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("8.0;8.9;9.0+PTX", ("compute_90", "sm_80", "sm_89", "sm_90")),
        ("8.0 9.0", ("sm_80", "sm_90")),
        ("Hopper", ("compute_90", "sm_90")),
        ("Ampere;9.0a", ("compute_86", "sm_80", "sm_86", "sm_90a")),
    ],
)
def test_the_list_as_torch_reads_it(asked: str, code: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", asked)
    assert hardware.architectures() == Architectures(asked, code)


def test_a_list_that_torch_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0;H100")
    assert "H100" in hardware.architectures().error
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "no device" in hardware.architectures().error
    monkeypatch.delattr(cpp_extension, "_get_cuda_arch_flags")
    assert hardware.architectures() == Architectures("")


def test_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "builds"))
    monkeypatch.setattr(gsplat_build, "packaged_library", lambda: None)
    directory = tmp_path / "builds" / "gsplat_cuda"
    assert hardware.build() == hardware.Build(True, directory=str(directory))
    (directory / "lock").touch()
    assert hardware.build().interrupted
    (directory / "lock").unlink()
    (directory / "gsplat_cuda.so").touch()
    (directory / "build.ninja").write_text(
        "cuda_cflags = -O3 -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90,code=compute_90\n"
    )
    found = hardware.build()
    assert (found.compiled, found.code, found.interrupted) == (True, ("compute_90", "sm_80"), False)
    monkeypatch.setattr(gsplat_build, "is_being_built", lambda directory: True)
    assert hardware.build().under_way
    monkeypatch.setattr(gsplat_build, "packaged_library", lambda: Path("/site/gsplat/csrc.so"))
    assert hardware.build() == hardware.Build(True, packaged="/site/gsplat/csrc.so")


def test_a_build_folder_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(gsplat_build, "packaged_library", lambda: None)
    assert str(tmp_path / "file") in hardware.build().error


def test_gsplat_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda name: None)
    assert hardware.build() == hardware.Build(False)
