"""`Folder`: the folder of a page, which holds the page and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from gaussianverse.manifests.files import write_whole
from gaussianverse.pipeline.errors import UsageError

INDEX, FILES = "index.html", "files"
_OWN = {INDEX, FILES}


class Folder:
    """Writes a page: its files first, index.html last, so that what is there opens as a whole."""

    def __init__(self, path: Path) -> None:
        """Make the folder empty.

        Raises:
            UsageError: the folder holds anything but a page, or cannot be made.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            others = sorted(entry.name for entry in path.iterdir() if entry.name not in _OWN)
            if others:
                raise UsageError(f"{path} holds {others[0]}, which is no part of a page; name an empty or new folder")
            (path / INDEX).unlink(missing_ok=True)
            shutil.rmtree(path / FILES, ignore_errors=True)
            (path / FILES / "objects").mkdir(parents=True)
        except OSError as error:
            raise UsageError(
                f"{path}: no page can be written there: {error.strerror}; name another folder with --dest"
            ) from error
        self.path = path

    def write(self, name: str, data: bytes) -> None:
        """Write a file beside the page."""
        (self.path / FILES / name).write_bytes(data)

    def finish(self, page: bytes) -> Path:
        """Write index.html; returns its path."""
        write_whole(self.path / INDEX, page)
        return self.path / INDEX
