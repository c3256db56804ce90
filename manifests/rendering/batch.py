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
from gaussianverse.manifests.errors import LayoutError, RenderError
from gaussianverse.manifests.files import locked
from gaussianverse.manifests.rendering.drawing import DriverError
from gaussianverse.manifests.rendering.fresh import render_into
from gaussianverse.manifests.rendering.layouts.root import Root
from gaussianverse.manifests.rendering.lists import Listed
from gaussianverse.manifests.rendering.views import RenderConfig, Rendered, render_or_find
from gaussianverse.manifests.schema import Row
from gaussianverse.terminal import is_terminal, notes_wanted, padded

_DYING = 10.0  # seconds until a worker that closed its pipe has an exit code
_WORK = ".render-work"  # of this run; removed at its end, and by the next run where this one was killed
_LOCK = ".render-lock"
# Errors of the machine, which every further mesh would meet too.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENFILE, errno.EMFILE, errno.ESTALE}


class _Result(NamedTuple):
    """What became of a mesh: "drawn", "there", "failed", or "stop" where the machine failed; and why."""

    outcome: str
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """Numbers of meshes that were drawn, were there already, and failed."""

    drawn: int
    there: int
    failed: int


def render_all(
    listed: Sequence[Listed],
    out: Path,
    manifest: Path | None,
    config: RenderConfig,
    jobs: int,
    root: Root | None = None,
) -> Summary:
    """Render meshes to `out/UID` and write their manifest; finished ones are left as they are.

    With `root`, whose folder is `out`, they are rendered into its layout; without `manifest` none is written.
    Failures and warnings are lines on stderr. The manifest has the rows of all finished objects in the order of
    the list, after rows that it had of other objects.

    Raises:
        RenderError: the machine cannot draw or write, another run renders to `out`, or `config` is wrong.
        ManifestError: the manifest that exists cannot be read.
        OSError: `out` cannot be written.
    """
    config.plan("")  # refuse wrong settings before anything is drawn
    kept = jsonl.read(manifest) if manifest and manifest.exists() else []
    said = set[str]()
    results: dict[int, _Result] = {}
    out.mkdir(parents=True, exist_ok=True)
    progress = _Progress(len(listed))
    with _alone(out) as work:
        for index, result in _drawn(listed, _Job(work, out, config, root), jobs):
            results[index] = result
            kind = "warning" if result.outcome in ("drawn", "there") else result.outcome
            for message in result.messages:
                if root is None or kind != "warning" or message not in said:  # a loader's wishes are one for all
                    progress.say(f"{kind}: {listed[index].mesh}: {message}")
                said.add(message)
            progress.count(result.outcome)
    progress.clear()
    if manifest:
        ours = {item.row.uid for item in listed}
        finished = [item for index, item in enumerate(listed) if results[index].outcome != "failed"]
        format = root.layout.format if root else "gobjaverse"
        _write(manifest, [row for row in kept if row.uid not in ours], finished, out, format)
    outcomes = [result.outcome for result in results.values()]
    return Summary(*(outcomes.count(kind) for kind in ("drawn", "there", "failed")))


def _write(manifest: Path, rows: list[Row], finished: Sequence[Listed], out: Path, format: str) -> None:
    """Write a manifest of other objects' rows and those of finished objects."""
    for item in finished:
        views = os.path.relpath((out / item.row.uid).resolve(), manifest.resolve().parent)
        rows.append(replace(item.row, views=Path(views).as_posix(), format=format))
    if rows:
        with locked(manifest):
            jsonl.write(manifest, rows)


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


class _Job(NamedTuple):
    """What all meshes of a run have in common."""

    work: Path
    out: Path
    config: RenderConfig
    root: Root | None

    def render(self, item: Listed) -> Rendered:
        if self.root is None:
            return render_or_find(item.mesh, self.out / item.row.uid, self.config, self.work)
        return render_into(self.root, item.mesh, item.row, self.config)


class _Worker:
    """A process that renders one mesh after another, each in answer to a message."""

    def __init__(self, job: _Job) -> None:
        context = get_context("spawn")  # OpenGL does not survive a fork
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, job), daemon=True)
        self.process.start()
        theirs.close()
        self.task = -1

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _drawn(listed: Sequence[Listed], job: _Job, jobs: int) -> Iterator[tuple[int, _Result]]:
    """Yield the index and result of each mesh as it ends; a worker that dies fails its task and is replaced."""
    waiting, idle, busy = deque(range(len(listed))), list[_Worker](), list[_Worker]()
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                worker = idle.pop() if idle else _Worker(job)
                worker.task = waiting.popleft()
                try:
                    worker.connection.send(listed[worker.task])
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
                    worker.process.join(_DYING)
                    worker.stop()
                    code = worker.process.exitcode
                    result = _Result("failed", (f"its process ended with code {code}, perhaps for lack of memory",))
                if result.outcome == "stop":
                    raise RenderError(f"{listed[worker.task].mesh}: {'; '.join(result.messages)}")
                yield worker.task, result
    finally:
        for worker in (*idle, *busy):
            worker.stop()


def _serve(pipe: connection.Connection, job: _Job) -> None:
    """Body of a worker: renders until the other end of the pipe is closed."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ.setdefault("LP_NUM_THREADS", "1")  # Mesa's; the processes share the cores
    while True:
        try:
            item: Listed = pipe.recv()
        except EOFError:
            return
        try:
            rendered = job.render(item)
            result = _Result("drawn" if rendered.drawn else "there", rendered.warnings)
        except DriverError as error:
            result = _Result("stop", (str(error),))
        except (RenderError, LayoutError) as error:
            result = _Result("failed", (str(error).removeprefix(f"{item.mesh}: "),))
        except OSError as error:
            result = _Result("stop" if error.errno in _MACHINE else "failed", (str(error),))
        except MemoryError:
            result = _Result("failed", ("is larger than the memory",))
        except Exception as error:  # of a library or the driver, on a mesh that nobody foresaw: the others go on
            result = _Result("failed", (repr(error),))
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
        self._terminal, self._wanted = is_terminal(sys.stderr), notes_wanted()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.clear()
        print(line, file=sys.stderr)

    def count(self, outcome: str) -> None:
        """Count one more mesh, and print how far they are."""
        self._counts[outcome] += 1
        now, done, drawn = time.monotonic(), sum(self._counts.values()), self._counts["drawn"]
        if not self._wanted or (not self._terminal and now - self._printed < 60):
            return
        self._printed = now
        left = f", about {(now - self._began) / drawn * (self._total - done) / 60:.0f} min left" if drawn else ""
        self._print(f"{done} of {self._total} meshes, {self._counts['failed']} failed{left}")

    def clear(self) -> None:
        """Leave an empty line on a terminal."""
        if self._terminal and self._wanted:
            self._print("")
            print("\r", end="", file=sys.stderr, flush=True)

    def _print(self, line: str) -> None:
        width = min(70, shutil.get_terminal_size().columns - 1)  # a line that is full moves on to the next
        text, end = (f"\r{padded(line, width)}", "") if self._terminal else (line, "\n")
        print(text, end=end, file=sys.stderr, flush=True)
