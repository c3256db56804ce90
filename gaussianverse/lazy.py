"""Lazy imports: a name of a package is imported at its first use, since torch and Numba take seconds."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Make a package's `__getattr__`.

    Args:
        package: the package's `__name__`.
        modules: {public name: module that defines it, relative to `gaussianverse`}.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"gaussianverse.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)  # pdoc looks into the package's __dict__
        return value

    return get
