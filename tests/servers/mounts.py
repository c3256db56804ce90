"""File systems of a test's own, on Linux as root: small, full, read-only, and lost in the middle of a run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


class Mount:
    """Something that is mounted at a folder."""

    def __init__(self, at: Path, *arguments: str) -> None:
        at.mkdir(parents=True, exist_ok=True)
        self.at, self._arguments = at, arguments
        self.back()

    def back(self) -> None:
        """Mount it."""
        subprocess.run(["mount", *self._arguments, str(self.at)], check=True, capture_output=True)

    def lost(self) -> None:
        """Unmount it, as a server that is gone does: also if files of it are open."""
        subprocess.run(["umount", "--lazy", str(self.at)], check=True, capture_output=True)

    def remount(self, options: str) -> bool:
        """Mount it with other options; False where that is not possible now, as read-only while files are written."""
        done = subprocess.run(["mount", "-o", f"remount,{options}", str(self.at)], capture_output=True)
        return done.returncode == 0

    def fill(self) -> Callable[[], None]:
        """Write until it is full; returns what frees the space again."""
        filler = self.at / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        return filler.unlink


@contextmanager
def mounted(at: Path, *arguments: str) -> Iterator[Mount]:
    """A mount for as long as the context lasts; skips the test where it is not allowed."""
    try:
        made = Mount(at, *arguments)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs the right to mount file systems (root): {error}")
    try:
        yield made
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=False, capture_output=True)


def small(at: Path, *options: str) -> tuple[Path, ...]:
    """The arguments of `mounted` for a file system in memory of 2 MiB."""
    return (at, "-t", "tmpfs", "-o", ",".join(("size=2m", *options)), "tmpfs")  # type: ignore[return-value]
