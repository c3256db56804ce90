"""The command line as users start it, in a process of its own, and what becomes of that process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline_runs import PATIENCE_S, tiny_arguments

from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset import layout

ROOT = Path(__file__).resolve().parents[1]


def build_arguments(inputs: Path, out: Path | str, *more: str) -> list[str]:
    given = ("--manifest", str(inputs / "objects.jsonl"), "--out", str(out), "--workers", "2")
    return ["build", *given, *tiny_arguments(), *more]


def build_command(inputs: Path, out: Path | str, *more: str) -> list[str]:
    return [sys.executable, "-m", "gaussianverse.pipeline.cli", *build_arguments(inputs, out, *more)]


def run(arguments: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, env=environment)


@contextmanager
def running(
    arguments: list[str], errors: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A command that is at work; it ends with the context, with all of its processes. Its stderr goes to a file."""
    with errors.open("wb") as sink:
        driver = subprocess.Popen(
            arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=sink, env=environment, start_new_session=True
        )
    try:
        yield driver
    finally:
        kill_all(driver)


def last_line(errors: Path) -> str:
    """The last line of a terminal on which a progress bar was drawn."""
    return errors.read_text().replace("\r", "\n").rstrip().rpartition("\n")[2]


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, from /proc."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it has ended
            for child in map(int, children.read_text().split()):
                found += [child, *descendants(child)]
    return found


def command_line(pid: int) -> bytes:
    """The command line of a process; b"" of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_all(driver: subprocess.Popen[bytes]) -> list[int]:
    """SIGKILL to a driver that is at work and to everything below it; returns the processes below."""
    if driver.poll() is not None:
        return []
    below = descendants(driver.pid)
    for pid in (driver.pid, *below):
        kill(pid)
    driver.wait()
    return below


def fits_in(out: Path, shard: int = 0) -> list[str]:
    """Keys of the fits that are published in a shard's scratch."""
    return [entry.key for entry in LocalStorage(out).list(layout.fragments(SPLATS, shard))]


@contextmanager
def temporary_folder() -> Iterator[tuple[Path, dict[str, str]]]:
    """A TMPDIR whose name is short enough for Ray's sockets, and an environment that names it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder), {**os.environ, "TMPDIR": folder}
