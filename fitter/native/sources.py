"""The C++ sources of the kernels, and the libraries that they become; `setup.py` runs this file by its path."""

from __future__ import annotations

import hashlib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SOURCES = FOLDER / "src"
INSTRUCTION_SETS = ("portable", "avx2", "avx512")
"""From the least to the most that a processor must have; the last two are compiled for x86-64 only."""


def digest() -> str:
    """Hash of all sources; "" where they are not installed."""
    files = sorted(SOURCES.glob("*.[ch]*")) if SOURCES.is_dir() else []
    joined = b"\0".join(path.name.encode() + b"\0" + path.read_bytes() for path in files)
    return hashlib.sha256(joined).hexdigest() if files else ""


def library_path(instruction_set: str) -> Path:
    """File of the library that was compiled for an instruction set."""
    return FOLDER / f"kernels_{instruction_set}.so"
