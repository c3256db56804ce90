"""Provenance: the digest of the product's own sources, and versions of the packages that can change a byte."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable

_PACKAGES = ("gaussianverse", "gsplat", "numba", "numpy", "pyarrow", "scipy", "torch")
_ROOMS = ("atlas", "fitter", "manifests", "pipeline")
_SUFFIXES = (".py", ".toml", ".npy", ".cpp", ".h")


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of the packages that can change the result; "" for a package that is not installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def made_with() -> str:
    """`versions` as one line."""
    return line_of(versions())


def line_of(versions: Mapping[str, str]) -> str:
    """Versions of packages as one line, such as "gaussianverse 0.2.0, numba 0.68.1, .."; "" is left out."""
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()) if version)


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Hex sha256 over the names and bytes of all sources, profiles and tables of this installation."""
    digest = hashlib.sha256()
    for room in _ROOMS:
        for name, data in _sources(files(f"gaussianverse.{room}"), room):
            digest.update(f"{len(name)} {name} {len(data)} ".encode() + data)
    return digest.hexdigest()


def _sources(folder: Traversable, path: str) -> list[tuple[str, bytes]]:
    found = []
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        name = f"{path}/{entry.name}"
        if entry.is_dir():
            found += _sources(entry, name)
        elif entry.name.endswith(_SUFFIXES):
            found.append((name, entry.read_bytes()))
    return found
