"""setuptools, which is asked for `ziglang` beside it where there is no C++ compiler (PEP 517)."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  # the hooks that stay as they are

ZIG = "ziglang>=0.13"


def compiler() -> list[str]:
    """Command of the C++ compiler: $CXX, or the system's, or Zig's from PyPI."""
    if chosen := os.environ.get("CXX"):
        return shlex.split(chosen)
    if found := next(filter(shutil.which, ("g++", "clang++", "c++")), None):
        return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise SystemExit("no C++ compiler: install g++ or clang++, or set CXX, or `pip install ziglang`")


def _zig() -> list[str]:
    try:
        compiler()
    except SystemExit:
        return [ZIG]
    return []


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Requirements of a build of a wheel, beside setuptools."""
    return build_meta.get_requires_for_build_wheel(config_settings) + _zig()


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """Requirements of a build for a checkout, beside setuptools."""
    return build_meta.get_requires_for_build_editable(config_settings) + _zig()
