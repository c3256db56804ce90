"""Processes that together make a server: started one after the other, waited for, killed at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PAUSE_S = 0.1
_TAIL = 2000


class Processes:
    """Daemons, the output of each in a file of its own."""

    def __init__(self, logs: Path) -> None:
        self._logs, self._started = logs, list[tuple[subprocess.Popen[bytes], Path]]()

    def start(self, name: str, *command: str) -> None:
        """Start a daemon in a session of its own, which does not outlive the context."""
        log = self._logs / f"{name}.out"
        with log.open("wb") as out:
            daemon = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self._started.append((daemon, log))

    def until(self, ready: Callable[[], bool], what: str, seconds: float = 90) -> None:
        """Wait until `ready()`.

        Raises:
            RuntimeError: a daemon has ended; with the end of its output.
            TimeoutError: it takes longer than `seconds`.
        """
        until = time.monotonic() + seconds
        while not ready():
            for daemon, log in self._started:
                if daemon.poll() is not None:
                    said = log.read_text(errors="replace")[-_TAIL:]
                    raise RuntimeError(f"{log.stem} ended with {daemon.returncode}: {said}")
            if time.monotonic() > until:
                raise TimeoutError(f"{what} did not come up in {seconds:.0f} s")
            time.sleep(_PAUSE_S)

    def kill(self) -> None:
        """End all, the last that was started first, with whatever each has started."""
        for daemon, _ in reversed(self._started):
            with suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()


@contextmanager
def processes(logs: Path) -> Iterator[Processes]:
    """Daemons that are killed at the end of the context."""
    started = Processes(logs)
    try:
        yield started
    finally:
        started.kill()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, each another."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(one.getsockname()[1]) for one in taken]
    finally:
        for one in taken:
            one.close()


def answers(port: int) -> bool:
    """Whether something speaks HTTP there, on 127.0.0.1."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def run(*command: str, seconds: float = 90) -> str:
    """Run a command; returns what it prints, CalledProcessError if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
    return done.stdout
