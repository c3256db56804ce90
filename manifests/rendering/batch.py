"""Rendering of many meshes by several processes: resumable, and a mesh that fails costs one line."""

import errno
import fcntl
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from gaussianverse.manifests import jsonl
from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.files import locked
from gaussianverse.manifests.rendering.drawing import DriverError
from gaussianverse.manifests.rendering.lists import Listed
from gaussianverse.manifests.rendering.views import RenderConfig, render_or_find

_WORK = ".render-work"  # of this run; removed at its end, and by the next run where this one was killed
_LOCK = ".render-lock"
# Errors of the machine, which every further mesh would meet too.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENFILE, errno.EMFILE, errno.ESTALE}


class _Result(NamedTuple):
    """What became of one mesh: "drawn", "there", "failed", or "stop" where the machine failed; and a message."""

    outcome: str
    message: str | None = None


@dataclass(frozen=True)
class Summary:
    """Numbers of meshes that were drawn, were there already, and failed."""

    drawn: int
    there: int
    failed: int


def render_all(listed: Sequence[Listed], out: Path, manifest: Path, config: RenderConfig, jobs: int) -> Summary:
    """Render meshes to `out/UID` and write their manifest; finished ones are left as they are.

    Failures and warnings are lines on stderr. The manifest has the rows of all finished objects in the order of the
    list, after rows that it had of other objects.

    Raises:
        RenderError: the machine cannot draw or write, another run renders to `out`, or `config` is wrong.
        ManifestError: the manifest that exists cannot be read.
        OSError: `out` cannot be written.
    """
    config.plan("")  # refuse wrong settings before anything is drawn
    kept = jsonl.read(manifest) if manifest.exists() else []
    results: dict[int, _Result] = {}
    out.mkdir(parents=True, exist_ok=True)
    progress = _Progress(len(listed))
    with _alone(out) as work:
        for index, result in _drawn([(item.mesh, out / item.row.uid) for item in listed], work, config, jobs):
            results[index] = result
            if result.message:
                kind = "warning" if result.outcome in ("drawn", "there") else result.outcome
                progress.say(f"{kind}: {listed[index].mesh}: {result.message}")
            progress.count(result.outcome)
    progress.clear()
    ours = {item.row.uid for item in listed}
    rows = [row for row in kept if row.uid not in ours]
    for index, item in enumerate(listed):
        if results[index].outcome != "failed":
            views = os.path.relpath((out / item.row.uid).resolve(), manifest.resolve().parent)
            rows.append(replace(item.row, views=Path(views).as_posix()))
    if rows:
        with locked(manifest):
            jsonl.write(manifest, rows)
    outcomes = [result.outcome for result in results.values()]
    return Summary(*(outcomes.count(kind) for kind in ("drawn", "there", "failed")))


@contextmanager
def _alone(out: Path) -> Iterator[Path]:
    """Hold the lock of `out`, and make and remove the folder for work."""
    with (out / _LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process dies
        except BlockingIOError as error:
            raise RenderError(f"{out}: another `render --list` writes there; wait for its end") from error
        work = out / _WORK
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


class _Worker:
    """A process that renders one mesh after another, each in answer to a message."""

    def __init__(self, work: Path, config: RenderConfig) -> None:
        context = get_context("spawn")  # OpenGL does not survive a fork
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, work, config), daemon=True)
        self.process.start()
        theirs.close()
        self.task = -1

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _drawn(
    tasks: list[tuple[Path, Path]], work: Path, config: RenderConfig, jobs: int
) -> Iterator[tuple[int, _Result]]:
    """Yield the index and result of each task as it ends; a worker that dies fails its task and is replaced."""
    waiting, idle, busy = deque(range(len(tasks))), list[_Worker](), list[_Worker]()
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                worker = idle.pop() if idle else _Worker(work, config)
                worker.task = waiting.popleft()
                try:
                    worker.connection.send(tasks[worker.task])
                except OSError:  # it died while it was idle
                    worker.stop()
                    waiting.appendleft(worker.task)
                else:
                    busy.append(worker)
            for ready in connection.wait([worker.connection for worker in busy]):
                worker = next(worker for worker in busy if worker.connection is ready)
                busy.remove(worker)
                try:
                    result: _Result = worker.connection.recv()
                    idle.append(worker)
                except EOFError:
                    worker.stop()
                    code = worker.process.exitcode
                    result = _Result("failed", f"its process ended with code {code}, perhaps for lack of memory")
                if result.outcome == "stop":
                    raise RenderError(f"{tasks[worker.task][0]}: {result.message}")
                yield worker.task, result
    finally:
        for worker in (*idle, *busy):
            worker.stop()


def _serve(pipe: connection.Connection, work: Path, config: RenderConfig) -> None:
    """Body of a worker: renders until the other end of the pipe is closed."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ.setdefault("LP_NUM_THREADS", "1")  # Mesa's; the processes share the cores
    while True:
        try:
            mesh, out = pipe.recv()
        except EOFError:
            return
        try:
            rendered = render_or_find(mesh, out, config, work)
            result = _Result("drawn" if rendered.drawn else "there", rendered.warning)
        except DriverError as error:
            result = _Result("stop", str(error))
        except RenderError as error:
            result = _Result("failed", str(error).removeprefix(f"{mesh}: "))
        except OSError as error:
            result = _Result("stop" if error.errno in _MACHINE else "failed", str(error))
        except MemoryError:
            result = _Result("failed", "is larger than the memory")
        pipe.send(result)


def _die_with_parent() -> None:
    """End this process with the one that started it, also where that was killed."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class _Progress:
    """One line on stderr: redrawn on a terminal, and once a minute elsewhere."""

    def __init__(self, total: int) -> None:
        self._total, self._counts = total, {"drawn": 0, "there": 0, "failed": 0}
        self._began = self._printed = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.clear()
        print(line, file=sys.stderr)

    def count(self, outcome: str) -> None:
        """Count one more mesh, and print how far they are."""
        self._counts[outcome] += 1
        now, done, drawn = time.monotonic(), sum(self._counts.values()), self._counts["drawn"]
        if not self._terminal and now - self._printed < 60:
            return
        self._printed = now
        left = f", about {(now - self._began) / drawn * (self._total - done) / 60:.0f} min left" if drawn else ""
        self._print(f"{done} of {self._total} meshes, {self._counts['failed']} failed{left}")

    def clear(self) -> None:
        """Leave an empty line on a terminal."""
        if self._terminal:
            self._print("")
            print("\r", end="", file=sys.stderr, flush=True)

    def _print(self, line: str) -> None:
        text, end = (f"\r{line:<70}", "") if self._terminal else (line, "\n")
        print(text, end=end, file=sys.stderr, flush=True)
