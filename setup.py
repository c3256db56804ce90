"""Compiles the native kernels (`fitter/native/src`) when the package is installed: a library per instruction set.

The libraries are plain C to the outside, so one wheel serves all Pythons of a platform. The compiler is $CXX, or g++,
clang++ or c++ where one is found, or else the one in the package `ziglang` (see `build_backend.py`).
"""

from __future__ import annotations

import platform
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

from build_backend import compiler

FOLDER = "gaussianverse/fitter/native"  # a link in a checkout, a folder in a source distribution
NATIVE = runpy.run_path(str(Path(__file__).parent / FOLDER / "sources.py"))
# No fast mathematics and no contraction: all instruction sets give the same bits. No runtime library of C++.
FLAGS = (
    "-std=c++17 -O2 -ffp-contract=off -fno-math-errno -fno-trapping-math -fno-exceptions -fno-rtti -fPIC -shared "
    "-fvisibility=hidden -Wno-psabi"
)
INSTRUCTIONS = {
    "portable": "",
    "avx2": "-mavx2 -mfma",
    "avx512": "-mavx2 -mfma -mavx512f -mavx512dq -mavx512bw -mavx512vl -mprefer-vector-width=512",
}


class Kernels(build_ext):
    """Compiles each library beside its module, in the build folder or in the checkout."""

    def get_ext_filename(self, fullname: str) -> str:
        """No tag of a Python: the libraries know of none."""
        return f"{fullname.replace('.', '/')}.so"

    def build_extension(self, ext: Extension) -> None:
        """Compile the sources for the instruction set that the library's name ends with."""
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        name = ext.name.rsplit("_", 1)[1]
        command = [
            *compiler(), *FLAGS.split(), *INSTRUCTIONS[name].split(), f'-DGV_INSTRUCTION_SET="{name}"',
            f'-DGV_SOURCES="{NATIVE["digest"]()}"', *ext.sources, "-o", str(target),
        ]  # fmt: skip
        print(shlex.join(command), file=sys.stderr)
        try:
            subprocess.run(command, check=True)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"the native kernels do not compile: {error}; set CXX to a compiler of C++17") from error


class Wheel(bdist_wheel):
    """A wheel for all Pythons 3 of one platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """py3-none-<platform>."""
        return "py3", "none", super().get_tag()[2]


def extensions() -> list[Extension]:
    """One library per instruction set that the processor's family knows."""
    names = NATIVE["INSTRUCTION_SETS"] if platform.machine().lower() in ("x86_64", "amd64") else ("portable",)
    sources = sorted(f"{FOLDER}/src/{path.name}" for path in NATIVE["SOURCES"].glob("*.cpp"))
    headers = sorted(f"{FOLDER}/src/{path.name}" for path in NATIVE["SOURCES"].glob("*.h"))
    return [Extension(f"gaussianverse.fitter.native.kernels_{n}", sources, depends=headers) for n in names]


setup(ext_modules=extensions(), cmdclass={"build_ext": Kernels, "bdist_wheel": Wheel})
