"""Checkpoints: folders `step-000500` that are written whole or not at all, with the sums of their files."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from gaussianverse.atlas.store.storage import sha256_of_file
from gaussianverse.examples.errors import TrainingError

SUMS = "sums.json"
LATEST = "latest"
_STEP = re.compile(r"step-\d{6,}")
_TEMPORARY = ".step-"
log = logging.getLogger(__name__)


class Torn(Exception):
    """A checkpoint lacks bytes, or has others than were written."""


def write(out: Path, step: int, fill: Callable[[Path], None], *, keep: int = 0) -> Path:
    """Write the checkpoint of a step.

    `fill` writes its files into a temporary folder. They are flushed to the disk and summed, and then the folder gets
    its name, so that whatever kills the process leaves this checkpoint whole or absent, and all others as they are.

    Args:
        out: folder of the run.
        step: number of the step.
        fill: writes the files of a checkpoint into a folder.
        keep: checkpoints up to this one that stay; older ones are deleted; 0 = all stay.

    Returns:
        The folder `out/step-000500`.
    """
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f"{_TEMPORARY}*"):  # of processes that were killed
        shutil.rmtree(left)
    made = out / f"{_TEMPORARY}{uuid4().hex}"
    made.mkdir()
    fill(made)
    sums = {str(path.relative_to(made)): [path.stat().st_size, sha256_of_file(path)] for path in _files(made)}
    (made / SUMS).write_text(json.dumps(sums, indent=1, sort_keys=True))
    for path in _files(made):
        _flush(path)
    for folder in [*(path for path in made.rglob("*") if path.is_dir()), made]:
        _flush(folder)
    final = out / f"step-{step:06d}"
    if final.exists():  # a step that is done again, after a resume from an earlier one
        os.rename(final, out / f"{_TEMPORARY}{uuid4().hex}")
    os.rename(made, final)
    _flush(out)
    # later ones, torn or from before a resume, do not count: this one would be older than they
    until = [path for path in _steps(out) if _number(path) <= step]
    for left in [*out.glob(f"{_TEMPORARY}*"), *(until[keep:] if keep else [])]:
        shutil.rmtree(left)
    return final


def check(folder: Path) -> None:
    """Raise Torn if a checkpoint is not as it was written."""
    try:
        sums = json.loads((folder / SUMS).read_text())
    except (OSError, ValueError) as error:
        raise Torn(f"{folder}: no readable {SUMS}") from error
    for name, (nbytes, digest) in sums.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != nbytes or sha256_of_file(path) != digest:
            raise Torn(f"{folder}: {name} is not as it was written")


def find(out: Path, asked: str) -> Path:
    """The checkpoint to resume from: the newest whole one of `out` for "latest", else the folder `asked`.

    Torn ones are skipped with a warning.

    Raises:
        TrainingError: there is none, or the one that is asked for is torn.
    """
    if asked != LATEST:
        folder = Path(asked)
        try:
            check(folder)
        except Torn as torn:
            raise TrainingError(f"{torn}: pass another step-* folder, or --resume {LATEST}") from torn
        return folder
    for folder in _steps(out):
        try:
            check(folder)
        except Torn as torn:
            log.warning("skipped: %s", torn)
        else:
            return folder
    raise TrainingError(
        f"{out}: no whole step-* folder to resume from: leave --resume out to start from the beginning"
    )


def _steps(out: Path) -> list[Path]:
    """Checkpoints of a run, newest first."""
    return sorted((path for path in out.glob("step-*") if _STEP.fullmatch(path.name)), key=_number, reverse=True)


def _number(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _flush(path: Path) -> None:
    """Flush a file, or the names of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
