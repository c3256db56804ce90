"""Files without a name, which processes share through their descriptors and nobody need remove."""

from __future__ import annotations

import os
import tempfile
from typing import IO, cast


def unnamed_file() -> IO[bytes]:
    """A new unnamed file, unbuffered; in memory on Linux, where then no folder need be writable."""
    if hasattr(os, "memfd_create"):
        return cast(IO[bytes], os.fdopen(os.memfd_create("gaussianverse"), "r+b", buffering=0))
    return cast(IO[bytes], tempfile.TemporaryFile(buffering=0))
