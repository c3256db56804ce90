"""`Folder`: the folder of a page, which holds the page and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from gaussianverse.atlas.os_errors import describe
from gaussianverse.manifests.files import write_whole
from gaussianverse.pipeline.errors import PipelineError, UsageError

INDEX, FILES = "index.html", "files"
MARK = ".gaussianverse-page"
"""Empty file that makes the folder a page's: it is there before anything else, and only such a folder is emptied."""


class Folder:
    """Writes a page: its files first, index.html last, so that what is there opens as a whole."""

    def __init__(self, path: Path) -> None:
        """Make the folder empty, of the page that it holds, whole or interrupted.

        Raises:
            UsageError: the folder holds anything but a page, or cannot be made.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            there = {entry.name for entry in path.iterdir()}
            others = sorted(there - {MARK, INDEX, FILES} if MARK in there else there)
            if others:
                raise UsageError(f"{path} holds {others[0]}, which is no part of a page; name an empty or new folder")
            (path / MARK).touch()
            (path / INDEX).unlink(missing_ok=True)
            if FILES in there:
                shutil.rmtree(path / FILES)
            (path / FILES / "objects").mkdir(parents=True)
        except OSError as error:
            raise UsageError(
                f"{path}: no page can be written there: {describe(error)}; name another folder with --dest"
            ) from error
        self.path = path

    def write(self, name: str, data: bytes) -> None:
        """Write a file beside the page.

        Raises:
            PipelineError: the name leads out of the page's folder.
        """
        files = (self.path / FILES).resolve()
        target = (files / name).resolve()
        if files not in target.parents:
            raise PipelineError(f"{name!r}: a file of this name would be outside the page's folder, {self.path}")
        target.write_bytes(data)

    def finish(self, page: bytes) -> Path:
        """Write index.html; returns its path."""
        pending = self.path / FILES / INDEX
        write_whole(pending, page)  # within files/, so that a kill leaves nothing beside the page
        return pending.replace(self.path / INDEX)
