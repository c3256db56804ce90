"""Compiled kernels are cached across processes, until one of their sources changes."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

NEIGHBOUR = """
from numba import njit

FACTOR = {factor}

@njit(inline="always")
def plus(x):
    return x + {term}
"""
KERNEL = """
from gaussianverse.atlas.compiled import kernel
from kernels.neighbour import FACTOR, plus

@kernel(nogil=True, fastmath={"nsz", "contract", "arcp"})
def triple(x):
    return FACTOR * plus(x)
"""
PROGRAM = """
from kernels.triple import triple
value = triple(2)
print(value, sum(triple.stats.cache_hits.values()), sum(triple.stats.cache_misses.values()))
"""


def ran(folder: Path) -> tuple[int, int, int]:
    """The kernel's value, and its numbers of cache hits and misses."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(folder)])
    # a random hash seed: the order of sets of strings must not matter
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "random"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    value, hits, misses = map(int, done.stdout.split())
    return value, hits, misses


def test_code_is_kept_until_a_neighbour_changes(tmp_path: Path) -> None:
    package = tmp_path / "kernels"
    package.mkdir()
    neighbour = package / "neighbour.py"
    (package / "triple.py").write_text(KERNEL)
    neighbour.write_text(NEIGHBOUR.format(factor=3, term=0))
    assert [ran(tmp_path) for _ in range(2)] == [(6, 0, 1), (6, 1, 0)]
    neighbour.write_text(NEIGHBOUR.format(factor=5, term=0))
    assert ran(tmp_path) == (10, 0, 1)
    neighbour.write_text(NEIGHBOUR.format(factor=5, term=1))
    assert ran(tmp_path) == (15, 0, 1)


def test_without_sources_nothing_is_kept(tmp_path: Path) -> None:
    archive = tmp_path / "kernels.zip"
    for term in (0, 1):
        with zipfile.ZipFile(archive, "w") as members:
            members.writestr("kernels/__init__.py", "")
            members.writestr("kernels/triple.py", KERNEL)
            members.writestr("kernels/neighbour.py", NEIGHBOUR.format(factor=3, term=term))
        assert ran(archive)[:2] == (3 * (2 + term), 0)
